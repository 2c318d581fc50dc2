//! Rule: no `unsafe` outside the crates that were argued for.

use super::{
    Rule,
    source::{Source, words},
};

/// Folders of crates that may use `unsafe`, each with the reason beside it.
const ALLOWED: &[&str] = &[
    // the kernels: vector instructions chosen at run time, a counting allocator in a test
    "crates/tamegrad-stats",
    // the memory of Python's tensors, lent through DLPack's C interface; a handler of signals
    "crates/tamegrad-python",
];

pub(super) const RULE: Rule = Rule {
    hint: "find a safe way, or argue for the crate in xtask/src/tidy/unsafe_code.rs",
    find,
    #[cfg(test)]
    cases: &[
        ("a.rs", "fn f() {\n    unsafe { g() }\n}\n", &[2]),
        ("a.rs", "pub unsafe fn f() {}\nunsafe impl Send for A {}\n", &[1, 2]),
        ("a.rs", "#![forbid(unsafe_code)]\n// unsafe\nlet s = \"unsafe\";\n", &[]),
    ],
};

/// Finds the keyword in code, examples and tests included.
fn find(source: &Source) -> Vec<(usize, String)> {
    if source.is_below(ALLOWED) {
        return Vec::new();
    }
    words(&source.code, "unsafe")
        .map(|offset| {
            (source.line_at(offset), "`unsafe` in a crate that is not on the list".into())
        })
        .collect()
}
