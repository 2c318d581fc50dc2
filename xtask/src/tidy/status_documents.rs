//! Rule: no document about the state of the work; that belongs to issues and commit messages.

use super::{Rule, source::Source};

const WORDS: &[&str] = &["STATUS", "SUMMARY", "NOTES", "TODO", "PROGRESS"];

const EXTENSIONS: &[&str] = &["", "md", "txt", "rst", "adoc"];

pub(super) const RULE: Rule = Rule {
    hint: "put it in an issue, a commit message or CHANGELOG.md",
    find,
    #[cfg(test)]
    cases: &[
        ("STATUS.md", "", &[1]),
        ("docs/todo.txt", "", &[1]),
        ("TODO", "", &[1]),
        ("PHASE_2_SUMMARY.md", "", &[1]),
        ("docs/training-progress.md", "", &[]),
        ("crates/tamegrad/src/status.rs", "", &[]),
        ("README.md", "", &[]),
        ("PROGRESSIVE.md", "", &[]),
    ],
};

/// Finds documents named by such a word, or in capitals with such a word at the end.
fn find(source: &Source) -> Vec<(usize, String)> {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let ends_so = WORDS.iter().any(|word| {
        stem.eq_ignore_ascii_case(word)
            || stem.strip_suffix(word).is_some_and(|rest| rest.ends_with(['_', '-']))
    });
    if !ends_so || !EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)) {
        return Vec::new();
    }
    vec![(1, "a document about the state of the work".to_owned())]
}
