//! Rule: each Rust file opens with one `//!` sentence that says what it is.

use super::{Rule, source::Source};

pub(super) const RULE: Rule = Rule {
    hint: "begin with one `//!` sentence",
    find,
    #[cfg(test)]
    cases: &[
        ("a.rs", "//! Norms of a slice.\nfn f() {}\n", &[]),
        ("a.rs", "//!\n//! Norms.\n", &[1]),
        ("a.rs", "\n//! Norms.\n", &[1]),
        ("a.rs", "/// Norms.\nfn f() {}\n", &[1]),
        ("a.rs", "", &[1]),
        ("a.toml", "[package]\n", &[]),
    ],
};

/// Asks for a `//!` with words after it on the first line.
fn find(source: &Source) -> Vec<(usize, String)> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|words| !words.trim().is_empty());
    if !source.is_rust() || says {
        return Vec::new();
    }
    vec![(1, "the first line does not say what the file is".to_owned())]
}
