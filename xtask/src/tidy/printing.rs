//! Rule: libraries do not print; the command line does.

use super::{
    Complaint,
    source::{Source, words},
};

/// The programs whose work it is to print.
const PRINTS: &[&str] = &["crates/tamegrad-cli", "crates/tamegrad-eval", "xtask"];

const MACROS: &[&str] = &["println", "eprintln", "print", "eprint", "dbg"];

/// Finds printing macros in code. A `build.rs` is left alone: it can only speak to cargo so.
pub(super) fn check(source: &Source) -> Vec<Complaint> {
    if source.is_below(PRINTS) || source.path.ends_with("/build.rs") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for name in MACROS {
        let calls = words(&source.code, name)
            .filter(|offset| source.code[offset + name.len()..].starts_with('!'));
        complaints.extend(calls.map(|offset| Complaint {
            line: source.line_at(offset),
            message: format!("`{name}!` in a library"),
            hint: "return the text, the command line prints it",
        }));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_lines;

    #[test]
    fn only_programs_print() {
        let library = "crates/tamegrad-lab/src/lib.rs";
        assert_lines(
            super::check,
            &[
                (library, "fn f() {\n    println!(\"x\");\n}\n", &[2]),
                (library, "std::eprint!(\"x\");\n", &[1]),
                (library, "let y = dbg!(x);\nprint!(\"x\");\neprintln!();\n", &[3, 2, 1]),
                (library, "/// println!(\"an example\");\nlet s = \"print!\";\n", &[]),
                (library, "pretty_print!(x);\nprint(x);\n", &[]),
                ("crates/tamegrad-cli/src/main.rs", "println!();\n", &[]),
                ("crates/tamegrad-cli-extra/src/lib.rs", "println!();\n", &[1]),
                ("xtask/src/main.rs", "println!();\n", &[]),
                ("crates/tamegrad-stats/build.rs", "println!(\"cargo::x\");\n", &[]),
            ],
        );
    }
}
