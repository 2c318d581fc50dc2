//! `cargo xtask eval`: the program of `crates/tamegrad-eval`, built when it is asked for.

use std::path::Path;
use std::process::{Command, ExitCode};

/// What trains networks, and so needs burn; the rest is built without it, in a tenth of the time.
const TRAINING: [&str; 3] = ["cases", "loops", "help"];

/// Builds the program and runs it where the user is, with these words; its exit code is ours.
pub(crate) fn eval(root: &Path, words: &[String]) -> ExitCode {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(["run", "--quiet", "--release", "-p", "tamegrad-eval"]);
    if !TRAINING.iter().any(|what| words.iter().any(|word| word == what)) {
        command.arg("--no-default-features");
    }
    command.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--").args(words);
    match command.status() {
        // An end without a code is one by a signal.
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("cargo could not be started: {error}");
            ExitCode::FAILURE
        }
    }
}
