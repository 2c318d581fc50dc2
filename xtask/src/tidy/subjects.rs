//! The subjects of the newest commits are short.

use std::path::Path;
use std::process::Command;

/// As wide as `git log --oneline` shows a subject on a terminal of 80 columns.
const CHARACTERS_MAX: usize = 72;
/// How many commits are looked at: older ones are not written anew.
const COMMITS: &str = "20";

/// What is wrong with the newest commits, a line each; nothing where git cannot say.
pub(super) fn check(root: &Path) -> Vec<String> {
    let log = ["log", "--no-merges", "--format=%h %s", "-n", COMMITS];
    match Command::new("git").arg("-C").arg(root).args(log).output() {
        Ok(output) => too_long(&String::from_utf8_lossy(&output.stdout)),
        Err(_) => vec![],
    }
}

fn too_long(log: &str) -> Vec<String> {
    let subjects = log.lines().filter_map(|line| line.split_once(' '));
    subjects
        .map(|(commit, subject)| (commit, subject.chars().count()))
        .filter(|(_, length)| *length > CHARACTERS_MAX)
        .map(|(commit, length)| {
            format!(
                "{commit}: a subject of {length} characters; hint: at most {CHARACTERS_MAX}, the \
                 reasons go into the body (git commit --amend, or git rebase)"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_may_have_72_characters() {
        let log = format!("aaa1 {}\nbbb2 {}\n", "x".repeat(72), "ä".repeat(73));
        let found = too_long(&log);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("bbb2: a subject of 73 characters"));
        assert_eq!(too_long(""), Vec::<String>::new());
    }
}
