//! `cargo xtask burn-next VERSION`: whether the burn integration builds and passes with a version of burn
//! that it does not ask for, such as the next pre-release. It works on a copy.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::run_cargo;

/// Stands for the newest version that the manifest allows.
const NEWEST_PATCH: &str = "patch";

/// Copies the files that git tracks, asks for that version, and runs the tests of the integration.
///
/// # Errors
/// A sentence about what could not be copied, or did not build or pass.
pub(crate) fn burn_next(root: &Path, version: &str) -> Result<(), String> {
    let copy = root.join("target/burn-next");
    // The manifest of an earlier copy would stay, and files that are gone.
    if copy.exists() {
        fs::remove_dir_all(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    }
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output();
    let listed = listed.map_err(|error| format!("git could not list the files: {error}"))?;
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty())
    {
        let (from, to) = (root.join(name), copy.join(name));
        let parent = to.parent().unwrap_or(&copy);
        let copied = fs::create_dir_all(parent).and_then(|()| fs::copy(&from, &to).map(|_| ()));
        copied.map_err(|error| format!("could not copy {name}: {error}"))?;
    }
    if version == NEWEST_PATCH {
        run_cargo(&copy, "update -p burn")?;
    } else {
        let manifest = copy.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).map_err(|error| format!("Cargo.toml: {error}"))?;
        fs::write(&manifest, asking_for(version, &text)?)
            .map_err(|error| format!("Cargo.toml: {error}"))?;
        run_cargo(&copy, "update --workspace")?;
    }
    run_cargo(&copy, "test -p tamegrad-burn --features learner --profile ci")
}

/// The manifest with that version of burn and no other.
fn asking_for(version: &str, manifest: &str) -> Result<String, String> {
    let start = "burn = { version = \"";
    let (before, rest) = manifest.split_once(start).ok_or("Cargo.toml asks for no burn")?;
    let (_, after) = rest.split_once('"').ok_or("Cargo.toml has no version of burn")?;
    Ok(format!("{before}{start}={version}\"{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_of_burn_changes() {
        let manifest =
            "csv = \"1\"\nburn = { version = \"0.22.1\", features = [] }\nhalf = \"2\"\n";
        let want =
            "csv = \"1\"\nburn = { version = \"=0.23.0-pre.1\", features = [] }\nhalf = \"2\"\n";
        assert_eq!(asking_for("0.23.0-pre.1", manifest).as_deref(), Ok(want));
        let complaint = "Cargo.toml asks for no burn";
        assert_eq!(asking_for("1", "csv = \"1\"\n").as_deref(), Err(&complaint.to_owned()));
    }
}
