//! Rule: libraries do not print; the command line does.

use super::{
    Rule,
    source::{Source, words},
};

/// The programs whose work it is to print.
const PRINTS: &[&str] = &["crates/tamegrad-cli", "crates/tamegrad-eval", "xtask"];

const MACROS: &[&str] = &["println", "eprintln", "print", "eprint", "dbg"];

#[cfg(test)]
const LIBRARY: &str = "crates/tamegrad-lab/src/lib.rs";

pub(super) const RULE: Rule = Rule {
    hint: "return the text, the command line prints it",
    find,
    #[cfg(test)]
    cases: &[
        (LIBRARY, "fn f() {\n    println!(\"x\");\n}\n", &[2]),
        (LIBRARY, "std::eprint!(\"x\");\n", &[1]),
        (LIBRARY, "let y = dbg!(x);\nprint!(\"x\");\neprintln!();\n", &[3, 2, 1]),
        (LIBRARY, "/// println!(\"an example\");\nlet s = \"print!\";\n", &[]),
        (LIBRARY, "pretty_print!(x);\nprint(x);\n", &[]),
        ("crates/tamegrad-cli/src/main.rs", "println!();\n", &[]),
        ("crates/tamegrad-cli-extra/src/lib.rs", "println!();\n", &[1]),
        ("xtask/src/main.rs", "println!();\n", &[]),
        ("crates/tamegrad-lab/examples/a.rs", "println!();\n", &[]),
        ("crates/tamegrad-stats/build.rs", "println!(\"cargo::x\");\n", &[]),
    ],
};

/// Finds printing macros in code. A `build.rs` is left alone: it can only speak to cargo so. An example
/// shows what its users write.
fn find(source: &Source) -> Vec<(usize, String)> {
    let may_print = source.path.ends_with("/build.rs") || source.path.contains("/examples/");
    if may_print || source.is_below(PRINTS) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for name in MACROS {
        let calls = words(&source.code, name)
            .filter(|offset| source.code[offset + name.len()..].starts_with('!'));
        let message = format!("`{name}!` in a library");
        complaints.extend(calls.map(|offset| (source.line_at(offset), message.clone())));
    }
    complaints
}
