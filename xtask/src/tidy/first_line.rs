//! Rule: each Rust file opens with one `//!` sentence that says what it is.

use super::{Complaint, source::Source};

/// Asks for a `//!` with words after it on the first line.
pub(super) fn check(source: &Source) -> Vec<Complaint> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
    if !source.is_rust() || says {
        return Vec::new();
    }
    vec![Complaint {
        line: 1,
        message: "the first line does not say what the file is".to_owned(),
        hint: "begin with one `//!` sentence",
    }]
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_lines;

    #[test]
    fn the_first_line_says_what_the_file_is() {
        assert_lines(
            super::check,
            &[
                ("a.rs", "//! Norms of a slice.\nfn f() {}\n", &[]),
                ("a.rs", "//!\n//! Norms.\n", &[1]),
                ("a.rs", "\n//! Norms.\n", &[1]),
                ("a.rs", "/// Norms.\nfn f() {}\n", &[1]),
                ("a.rs", "", &[1]),
                ("a.toml", "[package]\n", &[]),
            ],
        );
    }
}
