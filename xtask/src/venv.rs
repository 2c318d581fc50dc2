//! Pythons that have what a step needs: one that the caller names, or virtual environments made once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use crate::debian;

/// Names a Python that has torch already.
pub(crate) const VARIABLE: &str = "TAMEGRAD_TORCH_PYTHON";

const FOLDER: &str = "target/python-torch";

/// torch wants numpy for part of its work, and warns without it.
const PACKAGES: &[&str] = &["torch==2.15.0", "numpy"];

/// The file that says that a virtual environment is complete, and with which packages.
const MARK: &str = "tamegrad-packages";

/// A Python to start programs with that import torch. May take minutes the first time.
///
/// # Errors
/// One line: why there is none.
pub(crate) fn python_with_torch(root: &Path) -> Result<PathBuf, String> {
    if let Some(python) = env::var_os(VARIABLE).filter(|python| !python.is_empty()) {
        return Ok(python.into());
    }
    let hint =
        format!("a download of about 3 GB; {VARIABLE} can name a Python that has torch instead");
    python_with(root, FOLDER, PACKAGES, &hint)
}

/// A Python in a virtual environment in `folder`, below `target`, that has these packages. Where it
/// has to be made first, `hint` is said.
///
/// # Errors
/// One line: why there is none.
pub(crate) fn python_with(
    root: &Path,
    folder: &str,
    packages: &[&str],
    hint: &str,
) -> Result<PathBuf, String> {
    let path = root.join(folder);
    if !is_complete(&path, packages) {
        let what = packages.join(", ");
        eprintln!("making a virtual environment with {what} in {folder}: {hint}");
        make(&path, packages, run)?;
    }
    Ok(python_in(&path))
}

/// Whether virtual environments of Python 3.10 or newer can be made. With `install` Debian's package for that is installed
/// where it is not there.
pub(crate) fn is_possible(install: bool) -> bool {
    debian::is_there_or_installed("python3-venv", install, || {
        debian::runs(
            "python3",
            &["-c", "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))"],
        )
    })
}

fn is_complete(folder: &Path, packages: &[&str]) -> bool {
    fs::read_to_string(folder.join(MARK)).is_ok_and(|mark| mark == packages.join("\n"))
}

/// Makes the virtual environment anew, whatever a try that was cut short has left.
fn make(
    folder: &Path,
    packages: &[&str],
    mut run: impl FnMut(&mut Command) -> Result<(), String>,
) -> Result<(), String> {
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    run(Command::new(python_in(folder)).args(["-m", "pip", "install"]).args(packages))?;
    let mark = folder.join(MARK);
    fs::write(&mark, packages.join("\n"))
        .map_err(|error| format!("{} could not be written: {error}", mark.display()))
}

fn python_in(folder: &Path) -> PathBuf {
    folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

/// Runs a command that shows on standard error how far it is; its last complaint is the error.
fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdout(io::stderr())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|process| process.wait_with_output())
        .map_err(|error| format!("`{program}` could not be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaints = String::from_utf8_lossy(&output.stderr);
    let last = complaints.lines().rfind(|line| !line.trim().is_empty());
    Err(last
        .map_or_else(|| format!("`{program}`: {}", output.status), |line| line.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_complete_only_after_all_its_steps() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        let make_failing_at = |failing: usize| {
            let mut lines = Vec::new();
            let result = make(folder, &["torch==1", "numpy"], |command| {
                let words = command.get_args().map(|word| word.to_string_lossy());
                let words: Vec<_> =
                    words.filter(|word| *word != folder.to_string_lossy()).collect();
                lines.push(words.join(" "));
                if lines.len() == failing { Err("no network".to_owned()) } else { Ok(()) }
            });
            (result, lines, is_complete(folder, &["torch==1", "numpy"]))
        };
        let steps = ["-m venv --clear", "-m pip install torch==1 numpy"].map(str::to_owned);
        let failed = Err("no network".to_owned());
        assert_eq!(make_failing_at(1), (failed.clone(), steps[..1].to_vec(), false));
        assert_eq!(make_failing_at(2), (failed, steps.to_vec(), false));
        assert_eq!(make_failing_at(0), (Ok(()), steps.to_vec(), true));
        assert!(!is_complete(folder, &["torch==2", "numpy"]), "other packages are wanted");
    }
}
