//! The wheel, built twice: the same bytes wherever its sources are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::mutants::copy_project;
use crate::{python, run};

/// Builds it in two folders, and compares.
///
/// # Errors
/// That the two differ, or why one could not be built.
pub(super) fn is_reproducible(root: &Path) -> Result<(), String> {
    let python = python::installed(root, "ci")?;
    let [one, other] = ["wheel", "wheel-elsewhere"].map(|name| built(root, name, &python));
    let (one, other) = (one?, other?);
    if one.1 != other.1 {
        return Err(format!("{} and {} differ", one.0.display(), other.0.display()));
    }
    println!("the same {} bytes from two folders", one.1.len());
    Ok(())
}

/// The wheel of a copy of the project, and its bytes.
fn built(root: &Path, name: &str, python: &Path) -> Result<(PathBuf, Vec<u8>), String> {
    let copy = root.join("target").join(name);
    copy_project(root, &copy)?;
    let wheels = copy.join("wheels");
    let fail = |error: io::Error| format!("{}: {error}", wheels.display());
    if wheels.exists() {
        fs::remove_dir_all(&wheels).map_err(fail)?;
    }
    let mut build = Command::new(python);
    build.args(["-m", "maturin", "build", "--quiet", "--manifest-path"]);
    build.arg(copy.join("crates/tamegrad-python/Cargo.toml")).arg("--out").arg(&wheels);
    // The files of a wheel carry a time.
    build.env("SOURCE_DATE_EPOCH", "1700000000").env("CARGO_TARGET_DIR", copy.join("target"));
    run(&mut build, "maturin build")?;
    let entry = fs::read_dir(&wheels).map_err(fail)?.flatten().next();
    let path = entry.map(|entry| entry.path()).ok_or("maturin has built no wheel")?;
    let bytes = fs::read(&path).map_err(fail)?;
    Ok((path, bytes))
}
