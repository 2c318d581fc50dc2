//! `cargo xtask format`: rustfmt over every Rust file. `cargo fmt` alone passes over the files that a
//! macro declares (signs, causes, remedies) and over the fuzz targets.

use std::path::Path;
use std::process::Command;

use crate::{run, tidy};

/// Formats the files, or with `check` fails where one is not formatted and shows the difference.
pub(crate) fn format(root: &Path, check: bool) -> Result<(), String> {
    let files = tidy::files::list(root)?;
    let files = files.iter().filter(|path| path.ends_with(".rs") && root.join(path).is_file());
    let options = check.then_some("--check");
    run(Command::new("rustfmt").args(options).args(files).current_dir(root), "rustfmt")
}
