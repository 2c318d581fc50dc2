//! Rule: no `unsafe` outside the crates that were argued for.

use super::{
    Complaint,
    source::{Source, words},
};

/// Folders of crates that may use `unsafe`, each with the reason beside it.
const ALLOWED: &[&str] = &[
    // the kernels: vector instructions chosen at run time, a counting allocator in a test
    "crates/tamegrad-stats",
    // the memory of Python's tensors, lent through DLPack's C interface
    "crates/tamegrad-python",
];

/// Finds the keyword in code, examples and tests included.
pub(super) fn check(source: &Source) -> Vec<Complaint> {
    if source.is_below(ALLOWED) {
        return Vec::new();
    }
    words(&source.code, "unsafe")
        .map(|offset| Complaint {
            line: source.line_at(offset),
            message: "`unsafe` in a crate that is not on the list".to_owned(),
            hint: "find a safe way, or argue for the crate in xtask/src/tidy/unsafe_code.rs",
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_lines;

    #[test]
    fn the_keyword_is_found_in_code_only() {
        assert_lines(
            super::check,
            &[
                ("a.rs", "fn f() {\n    unsafe { g() }\n}\n", &[2]),
                ("a.rs", "pub unsafe fn f() {}\nunsafe impl Send for A {}\n", &[1, 2]),
                ("a.rs", "#![forbid(unsafe_code)]\n// unsafe\nlet s = \"unsafe\";\n", &[]),
            ],
        );
    }
}
