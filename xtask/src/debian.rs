//! What is no part of Rust and comes from Debian's packages.

use std::process::{Command, Stdio};

/// Whether a program starts and ends well.
pub(crate) fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether something is there. With `install` its package is installed first where Debian's packages
/// and the right to do so are.
pub(crate) fn is_there_or_installed(
    package: &str,
    install: bool,
    is_there: impl Fn() -> bool,
) -> bool {
    if is_there() || !install {
        return is_there();
    }
    runs("apt-get", &["update"]) && runs("apt-get", &["install", "--yes", package]) && is_there()
}
