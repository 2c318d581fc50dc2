//! Rule: functions, not doers: no struct is a manager, an engine or a handler.

use super::{
    Rule,
    source::{Source, leading_word, words},
};

const DOERS: &[&str] = &["Manager", "Engine", "Handler"];

pub(super) const RULE: Rule = Rule {
    hint: "name the data, and make the deed a function: `diagnose(record)`",
    find,
    #[cfg(test)]
    cases: &[
        ("a.rs", "pub struct RunManager {\n}\nstruct Engine;\n", &[1, 3]),
        ("a.rs", "pub(crate) struct SpikeHandler<'a>(&'a str);\n", &[1]),
        ("a.rs", "struct Run(Manager);\nstruct EngineSize;\nstruct Managers;\n", &[]),
        ("a.rs", "// struct RunManager\nlet s = \"struct Engine\";\n", &[]),
    ],
};

/// Finds structs whose name ends in a doer.
fn find(source: &Source) -> Vec<(usize, String)> {
    words(&source.code, "struct")
        .map(|offset| (offset, leading_word(source.code[offset + "struct".len()..].trim_start())))
        .filter(|(_, name)| DOERS.iter().any(|doer| name.ends_with(doer)))
        .map(|(offset, name)| (source.line_at(offset), format!("`{name}` is named for doing")))
        .collect()
}
