//! Rule: no document about the state of the work; that belongs to issues and commit messages.

use super::{Complaint, source::Source};

const WORDS: &[&str] = &["STATUS", "SUMMARY", "NOTES", "TODO", "PROGRESS"];

const EXTENSIONS: &[&str] = &["", "md", "txt", "rst", "adoc"];

/// Finds documents named by such a word, or in capitals with such a word at the end.
pub(super) fn check(source: &Source) -> Vec<Complaint> {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let ends_so = WORDS.iter().any(|word| {
        stem.eq_ignore_ascii_case(word)
            || stem.strip_suffix(word).is_some_and(|rest| rest.ends_with(['_', '-']))
    });
    if !ends_so || !EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)) {
        return Vec::new();
    }
    vec![Complaint {
        line: 1,
        message: "a document about the state of the work".to_owned(),
        hint: "put it in an issue, a commit message or CHANGELOG.md",
    }]
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_lines;

    #[test]
    fn documents_about_the_work_are_found_by_name() {
        assert_lines(
            super::check,
            &[
                ("STATUS.md", "", &[1]),
                ("docs/todo.txt", "", &[1]),
                ("TODO", "", &[1]),
                ("PHASE_2_SUMMARY.md", "", &[1]),
                ("docs/training-progress.md", "", &[]),
                ("crates/tamegrad/src/status.rs", "", &[]),
                ("README.md", "", &[]),
                ("PROGRESSIVE.md", "", &[]),
            ],
        );
    }
}
