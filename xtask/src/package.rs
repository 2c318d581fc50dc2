//! `cargo xtask package`: each crate packaged, and what is in the packages compiled.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

use crate::{cargo, run, run_cargo};

/// Where the packages are unpacked, anew each time.
const FOLDER: &str = "target/package/unpacked";

/// Packages every crate and checks the unpacked packages as one workspace.
///
/// `cargo package` would build each crate in the `dev` profile, burn included. A workspace with our
/// profiles and target directory finds burn as clippy left it.
///
/// # Errors
/// Which step failed.
pub(crate) fn package(root: &Path) -> Result<(), String> {
    run_cargo(root, "package --workspace --no-verify --allow-dirty --quiet")?;
    let target = crate::target()?;
    let folder = root.join(FOLDER);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("{FOLDER}: {error}"))?;
    }
    fs::create_dir_all(&folder).map_err(|error| format!("{FOLDER}: {error}"))?;
    let packages = packages(&target.join("package"))?;
    // With the time of now (`-m`): the times in a package never change, and cargo would go by them.
    for package in &packages {
        run(Command::new("tar").arg("-xzmf").arg(package).arg("-C").arg(&folder), "`tar`")?;
    }
    let manifest = read(&root.join("Cargo.toml"))?;
    write(&folder.join("Cargo.toml"), &workspace(&manifest, &packages)?)?;
    write(&folder.join("Cargo.lock"), &read(&root.join("Cargo.lock"))?)?;
    let mut check = cargo(&folder, "check --workspace --all-targets --profile ci --target-dir");
    run(check.arg(target), "`cargo check`")
}

/// The packages that cargo made, by name.
fn packages(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let complaint = |error| format!("{}: {error}", folder.display());
    let entries = fs::read_dir(folder).map_err(complaint)?;
    let paths: Result<Vec<PathBuf>, _> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut packages = paths.map_err(complaint)?;
    packages.retain(|path| path.extension() == Some(OsStr::new("crate")));
    packages.sort();
    Ok(packages)
}

/// The root's manifest with the unpacked packages as members, which take each other's place on
/// crates.io.
fn workspace(manifest: &str, packages: &[PathBuf]) -> Result<String, String> {
    let mut manifest: Table = manifest.parse().map_err(|error| format!("Cargo.toml: {error}"))?;
    let workspace = manifest.get_mut("workspace").and_then(Value::as_table_mut);
    let workspace = workspace.ok_or("Cargo.toml: got no [workspace]")?;
    let stems = || packages.iter().filter_map(|package| package.file_stem()?.to_str());
    workspace.remove("default-members");
    workspace.insert("members".to_owned(), stems().map(Value::from).collect::<Vec<_>>().into());
    let ours = stems().filter_map(|stem| {
        let (name, _) = stem.rsplit_once('-')?;
        let place = Table::from_iter([("path".to_owned(), Value::from(stem))]);
        Some((name.to_owned(), Value::from(place)))
    });
    let patch = Table::from_iter([("crates-io".to_owned(), Value::from(Table::from_iter(ours)))]);
    manifest.insert("patch".to_owned(), patch.into());
    Ok(manifest.to_string())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_are_the_members_and_patch_the_registry() {
        let root = "[workspace]\nmembers = [\"crates/*\"]\ndefault-members = [\"crates/a\"]\n\
                    [profile.ci]\ninherits = \"dev\"\n";
        let packages = ["p/a-b-0.1.0.crate".into()];
        let got = workspace(root, &packages).expect("a manifest");
        let expected = "[workspace]\nmembers = [\"a-b-0.1.0\"]\n\
                        [profile.ci]\ninherits = \"dev\"\n\
                        [patch.crates-io]\na-b = { path = \"a-b-0.1.0\" }\n";
        assert_eq!(got.parse::<Table>(), expected.parse());
        assert_eq!(workspace("", &packages), Err("Cargo.toml: got no [workspace]".to_owned()));
    }
}
