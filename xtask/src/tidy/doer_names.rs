//! Rule: functions, not doers: no struct is a manager, an engine or a handler.

use super::{
    Complaint,
    source::{Source, leading_word, words},
};

const DOERS: &[&str] = &["Manager", "Engine", "Handler"];

/// Finds structs whose name ends in a doer.
pub(super) fn check(source: &Source) -> Vec<Complaint> {
    words(&source.code, "struct")
        .map(|offset| (offset, leading_word(source.code[offset + "struct".len()..].trim_start())))
        .filter(|(_, name)| DOERS.iter().any(|doer| name.ends_with(doer)))
        .map(|(offset, name)| Complaint {
            line: source.line_at(offset),
            message: format!("`{name}` is named for doing"),
            hint: "name the data, and make the deed a function: `diagnose(record)`",
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_lines;

    #[test]
    fn no_struct_is_a_doer() {
        assert_lines(
            super::check,
            &[
                ("a.rs", "pub struct RunManager {\n}\nstruct Engine;\n", &[1, 3]),
                ("a.rs", "pub(crate) struct SpikeHandler<'a>(&'a str);\n", &[1]),
                ("a.rs", "struct Run(Manager);\nstruct EngineSize;\nstruct Managers;\n", &[]),
                ("a.rs", "// struct RunManager\nlet s = \"struct Engine\";\n", &[]),
            ],
        );
    }
}
