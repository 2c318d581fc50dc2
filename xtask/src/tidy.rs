//! `cargo xtask tidy`: the style rules that a machine can check, one file a rule. Most look at one file;
//! `modules.rs` looks at all together, `subjects.rs` at commits.

mod banned_phrases;
mod core_dependencies;
mod core_mentions;
mod doer_names;
mod files;
mod first_line;
mod machine_paths;
mod modules;
mod printing;
mod silenced_warnings;
mod source;
mod status_documents;
mod subjects;
mod unsafe_code;
mod weak_assertions;

use std::fmt;
use std::path::Path;

use source::Source;

/// What a rule looks at and says: one file in, its complaints out.
type Rule = fn(&Source) -> Vec<Complaint>;

const RULES: &[Rule] = &[
    first_line::check,
    banned_phrases::check,
    printing::check,
    core_dependencies::check,
    core_mentions::check,
    silenced_warnings::check,
    doer_names::check,
    machine_paths::check,
    status_documents::check,
    weak_assertions::check,
    unsafe_code::check,
];

/// Checks every file below `root` and the newest commits' subjects, and prints what it finds, one line each.
///
/// # Errors
/// A sentence with the count of findings, or the file that could not be read.
pub(crate) fn tidy_and_print(root: &Path) -> Result<(), String> {
    let paths = files::list(root)?;
    let mut sources = Vec::new();
    for path in &paths {
        if let Some(text) = files::read(root, path)? {
            sources.push(Source::new(path, text));
        }
    }
    let findings = sources.iter().flat_map(findings_in);
    let mut said: Vec<String> = findings.map(|finding| finding.to_string()).collect();
    said.extend(modules::check(&sources));
    said.extend(subjects::check(root));
    for line in &said {
        println!("{line}");
    }
    match said.len() {
        0 => {
            println!("tidy: {} files, nothing found", paths.len());
            Ok(())
        }
        count => Err(format!("tidy: {count} found in {} files", paths.len())),
    }
}

/// One breach of a rule in one file.
#[derive(Debug, PartialEq)]
struct Complaint {
    /// Counted from 1.
    line: usize,
    message: String,
    hint: &'static str,
}

struct Finding {
    path: String,
    complaint: Complaint,
}

fn findings_in(source: &Source) -> Vec<Finding> {
    let mut complaints: Vec<Complaint> = RULES.iter().flat_map(|check| check(source)).collect();
    complaints.sort_by_key(|complaint| complaint.line);
    complaints
        .into_iter()
        .map(|complaint| Finding { path: source.path.clone(), complaint })
        .collect()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Complaint { line, message, hint } = &self.complaint;
        write!(f, "{}:{line}: {message}; hint: {hint}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, text and the lines that the rule must name, in order.
    pub(super) type Case<'a> = (&'a str, &'a str, &'a [usize]);

    pub(super) fn assert_lines(rule: Rule, cases: &[Case<'_>]) {
        for &(path, text, expected) in cases {
            let complaints = rule(&Source::new(path, text.to_owned()));
            let lines: Vec<usize> = complaints.iter().map(|complaint| complaint.line).collect();
            assert_eq!(lines, expected, "{path}:\n{text}\n{complaints:?}");
        }
    }

    #[test]
    fn findings_of_all_rules_come_in_the_order_of_lines() {
        let text = "fn f() {\n    unsafe { g() }\n    println!();\n}\n";
        let source = Source::new("crates/tamegrad/src/f.rs", text.to_owned());
        let printed: Vec<String> =
            findings_in(&source).iter().map(|finding| finding.to_string()).collect();
        assert_eq!(
            printed,
            [
                "crates/tamegrad/src/f.rs:1: the first line does not say what the file is; \
                 hint: begin with one `//!` sentence",
                "crates/tamegrad/src/f.rs:2: `unsafe` in a crate that is not on the list; \
                 hint: find a safe way, or argue for the crate in xtask/src/tidy/unsafe_code.rs",
                "crates/tamegrad/src/f.rs:3: `println!` in a library; \
                 hint: return the text, the command line prints it",
            ]
        );
    }
}
