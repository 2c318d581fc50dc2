//! `cargo xtask open-run`: a run folder and its Parquet files, opened by pyarrow and polars.

use std::path::Path;
use std::process::Command;

use crate::{cargo, venv};

const SCRIPT: &str = "crates/tamegrad-runs/tests/python/open_run.py";

/// Where the run is written, anew each time.
const FOLDER: &str = "target/open-run";

const VENV: &str = "target/python-tables";

const PACKAGES: &[&str] = &["pyarrow==25.0.1", "polars==2.1.0"];

/// Writes a run folder by the example `write_run` and has it checked by `open_run.py`.
///
/// # Errors
/// Which of the two failed, or that there is no Python with pyarrow and polars.
pub(crate) fn open_run(root: &Path) -> Result<(), String> {
    let folder = root.join(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{FOLDER}: {error}"))?;
    }
    // With the features of the whole workspace, so that what `test` has built is not built again.
    run(&mut cargo(root, "build --workspace --example write_run --profile ci"))?;
    run(Command::new(crate::target()?.join("ci/examples/write_run")).arg(&folder))?;
    let python = venv::python_with(root, VENV, PACKAGES, "a download of about 100 MB")?;
    run(Command::new(python).arg(root.join(SCRIPT)).arg(&folder))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = format!("`{}`", command.get_program().display());
    crate::run(command, &program)
}
