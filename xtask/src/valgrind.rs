//! `cargo xtask valgrind`: the tests of the kernels with every access to memory checked.

use std::path::Path;

use crate::debian::{self, runs};
use crate::run_cargo;

/// What runs each test binary; an access that is not allowed ends it with this code.
const RUNNER: &str = r#"target."cfg(all())".runner=["valgrind","-q","--error-exitcode=9"]"#;

/// Each property with few cases: a processor in software is some fifty times slower.
const CASES: &str = r#"env.PROPTEST_CASES="4""#;

/// Runs the tests of `tamegrad-stats` under valgrind, one after the other.
///
/// Valgrind's processor has AVX2 but no AVX-512, so the tests take that path and the portable one.
///
/// # Errors
/// How the tests ended, or that cargo could not be started.
pub(crate) fn valgrind(root: &Path) -> Result<(), String> {
    let arguments = format!(
        "--config {RUNNER} --config {CASES} test --package tamegrad-stats --lib --profile ci \
         -- --test-threads=1"
    );
    run_cargo(root, &arguments)
}

/// Whether valgrind is there. With `install` it is installed first where Debian's packages and the
/// right to do so are.
pub(crate) fn is_installed(install: bool) -> bool {
    debian::is_there_or_installed("valgrind", install, || runs("valgrind", &["--version"]))
}
