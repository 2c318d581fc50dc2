//! `cargo xtask tidy`: the style rules that a machine can check, one file a rule. Most look at one file;
//! `modules.rs` looks at all together, `subjects.rs` at commits.

mod banned_phrases;
mod core_dependencies;
mod core_mentions;
mod doer_names;
pub(crate) mod files;
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

use std::path::Path;

use source::Source;

/// One rule.
struct Rule {
    /// What to do about a breach.
    hint: &'static str,
    /// The line, counted from 1, and the message of each breach in a file.
    find: fn(&Source) -> Vec<(usize, String)>,
    /// Path, text and the lines that the rule must name, in order.
    #[cfg(test)]
    cases: &'static [(&'static str, &'static str, &'static [usize])],
}

const RULES: &[Rule] = &[
    first_line::RULE,
    banned_phrases::RULE,
    printing::RULE,
    core_dependencies::RULE,
    core_mentions::RULE,
    silenced_warnings::RULE,
    doer_names::RULE,
    machine_paths::RULE,
    status_documents::RULE,
    weak_assertions::RULE,
    unsafe_code::RULE,
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
    let mut said: Vec<String> = sources.iter().flat_map(findings_in).collect();
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

/// What all rules find in a file, in the order of its lines.
fn findings_in(source: &Source) -> Vec<String> {
    let found = RULES.iter().flat_map(|rule| {
        (rule.find)(source).into_iter().map(|(line, message)| (line, message, rule.hint))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(line, ..)| *line);
    let path = &source.path;
    found
        .iter()
        .map(|(line, message, hint)| format!("{path}:{line}: {message}; hint: {hint}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_names_the_lines_of_its_cases() {
        for Rule { find, cases, .. } in RULES {
            for &(path, text, expected) in *cases {
                let found = find(&Source::new(path, text.to_owned()));
                let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
                assert_eq!(lines, expected, "{path}:\n{text}\n{found:?}");
            }
        }
    }

    #[test]
    fn findings_of_all_rules_come_in_the_order_of_lines() {
        let text = "fn f() {\n    unsafe { g() }\n    println!();\n}\n";
        let source = Source::new("crates/tamegrad/src/f.rs", text.to_owned());
        assert_eq!(
            findings_in(&source),
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
