//! Rule: an assertion says which value is right, not only that there is one.

use super::{
    Rule,
    source::{Source, bracketed, items, words},
};

const MACROS: &[&str] = &["assert", "prop_assert"];

/// `is_none` is not here: it says all there is to say.
const VAGUE: &[&str] = &[".is_ok()", ".is_err()", ".is_some()"];

pub(super) const RULE: Rule = Rule {
    hint: "compare the value or the error with what it must be",
    find,
    #[cfg(test)]
    cases: &[
        ("a.rs", "assert!(x.is_ok());\nassert!(f(a, b).is_some());\n", &[1, 2]),
        ("a.rs", "assert!(\n    parse(\"x, y\")\n        .is_err(),\n    \"m\"\n);\n", &[1]),
        ("a.rs", "assert!(true);\nassert!(true, \"m\");\n", &[1, 2]),
        ("a.rs", "prop_assert!(!x.is_ok());\n", &[1]),
        ("a.rs", "assert_eq!(x, Ok(3));\nassert!(x.is_none());\n", &[]),
        ("a.rs", "assert!(x.is_ok_and(|x| x > 1));\nassert!(true_positive > 1);\n", &[]),
        ("a.rs", "assert!(all.iter().all(|x| x.is_some()));\n", &[]),
        ("a.rs", "// assert!(x.is_ok());\n", &[]),
    ],
};

/// Finds assertions of `true` and of a bare `is_ok()`, `is_err()` or `is_some()`.
fn find(source: &Source) -> Vec<(usize, String)> {
    let mut complaints = Vec::new();
    for name in MACROS {
        for offset in words(&source.code, name) {
            let arguments = source.code[offset + name.len()..].strip_prefix('!');
            let Some(list) = arguments.and_then(bracketed) else { continue };
            let claim = items(list)[0];
            if claim == "true" || VAGUE.iter().any(|vague| claim.ends_with(vague)) {
                let message = format!("`{name}!({claim})` says little");
                complaints.push((source.line_at(offset), message));
            }
        }
    }
    complaints
}
