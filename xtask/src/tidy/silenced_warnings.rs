//! Rule: a warning about dead or unused code is silenced only with a reason.

use super::{
    Rule,
    source::{Source, bracketed, items, words},
};

pub(super) const RULE: Rule = Rule {
    hint: "delete the code, or add `reason = \"...\"`",
    find,
    #[cfg(test)]
    cases: &[
        ("a.rs", "#[allow(dead_code)]\nfn f() {}\n", &[1]),
        ("a.rs", "#![allow(unused)]\n#![allow(clippy::all)]\n", &[1, 2]),
        ("a.rs", "\n#[allow(unused_variables, unused_mut)]\nfn f() {}\n", &[2]),
        ("a.rs", "#[allow(\n    clippy::cast_lossless,\n    dead_code,\n)]\n", &[1]),
        ("a.rs", "#[cfg_attr(test, allow(dead_code))]\n", &[1]),
        ("a.rs", "#[allow(dead_code, reason = \"read by the linker\")]\n", &[]),
        ("a.rs", "#[allow(dead_code, reason = \"\")]\n", &[1]),
        ("a.rs", "#[allow(clippy::cast_possible_truncation)]\n", &[]),
        ("a.rs", "// #[allow(dead_code)]\nlet s = \"#[allow(unused)]\";\n", &[]),
        ("a.rs", "self.allow(unused);\n", &[]),
    ],
};

/// Finds `allow` of `dead_code`, `unused...` and `clippy::all`, within `cfg_attr` too.
fn find(source: &Source) -> Vec<(usize, String)> {
    let mut complaints = Vec::new();
    for offset in words(&source.code, "allow") {
        // In an attribute the word follows `[` or, in `cfg_attr`, a comma.
        let in_attribute = source.code[..offset].trim_end().ends_with(['[', ',']);
        let start = offset + "allow".len();
        let Some(list) = bracketed(&source.code[start..]).filter(|_| in_attribute) else {
            continue;
        };
        let written = &source.text[start + 1..start + 1 + list.len()];
        let silenced = items(list).into_iter().find(|item| is_covered(item));
        if let Some(lint) = silenced.filter(|_| !gives_reason(list, written)) {
            let message = format!("`{lint}` is allowed without a reason");
            complaints.push((source.line_at(offset), message));
        }
    }
    complaints
}

fn is_covered(lint: &str) -> bool {
    lint == "dead_code" || lint.starts_with("unused") || lint == "clippy::all"
}

/// `list` has its strings blanked, `written` is the same stretch with them.
fn gives_reason(list: &str, written: &str) -> bool {
    words(list, "reason").any(|offset| {
        let value = written[offset + "reason".len()..].trim_start().trim_start_matches('=');
        value.contains(char::is_alphanumeric)
    })
}
