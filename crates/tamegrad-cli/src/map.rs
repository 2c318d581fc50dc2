//! Roles that users gave to series, kept in `tamegrad.toml` beside their logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tamegrad_logs::Role;

use crate::failure::Failure;

/// The file's name.
const FILE: &str = "tamegrad.toml";

/// What the file holds; other tables are not looked at.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    /// Names of series by role.
    #[serde(default)]
    map: BTreeMap<String, Names>,
}

/// One name, or several.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Several(Vec<String>),
}

/// The file for the logs at a path: in the folder, or beside the file.
fn file_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(FILE) } else { path.with_file_name(FILE) }
}

/// The roles given on the command line, and for all others those that were saved beside the logs.
pub(crate) fn with_saved(
    path: &Path,
    given: &[(Role, String)],
) -> Result<Vec<(Role, String)>, Failure> {
    let file = file_of(path);
    let Ok(text) = fs::read_to_string(&file) else { return Ok(given.to_vec()) };
    let fail = |error: String| Failure::Map { path: file.clone(), error };
    let saved: Saved = toml::from_str(&text).map_err(|error| fail(error.message().to_owned()))?;
    let mut map = given.to_vec();
    for (role, names) in saved.map {
        let role: Role = role.parse().map_err(fail)?;
        if given.iter().any(|(known, _)| *known == role) {
            continue;
        }
        let names = match names {
            Names::One(name) => vec![name],
            Names::Several(names) => names,
        };
        map.extend(names.into_iter().map(|name| (role, name)));
    }
    Ok(map)
}

/// Saves roles beside the logs at a path. The file must not be there, or be one of these.
pub(crate) fn save(path: &Path, map: &[(Role, String)]) -> Result<PathBuf, Failure> {
    let file = file_of(path);
    let mut saved = Saved::default();
    for (role, name) in with_saved(path, map)? {
        match saved.map.entry(role.as_str().to_owned()).or_insert(Names::Several(Vec::new())) {
            Names::Several(names) => names.push(name),
            Names::One(_) => {}
        }
    }
    let fail = |error: String| Failure::Map { path: file.clone(), error };
    let is_ours = |table: &toml::Table| table.keys().all(|key| key == "map");
    if let Ok(text) = fs::read_to_string(&file)
        && !text.parse::<toml::Table>().is_ok_and(|table| is_ours(&table))
    {
        return Err(fail(
            "it holds more than roles; hint: add them by hand under [map]".to_owned(),
        ));
    }
    let text = toml::to_string(&saved).map_err(|error| fail(error.to_string()))?;
    fs::write(&file, text).map_err(|error| fail(error.to_string()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_found_again_and_the_command_line_goes_before() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log.csv");
        let loss = |name: &str| (Role::Loss, name.to_owned());
        let norm = (Role::GradNorm, "gn*".to_owned());
        let saved = save(&log, &[loss("A"), loss("b/*"), norm.clone()]).unwrap();
        assert_eq!(saved, folder.path().join(FILE));
        let found = with_saved(folder.path(), &[]).unwrap();
        assert_eq!(found, [norm.clone(), loss("A"), loss("b/*")]);
        assert_eq!(with_saved(&log, &[loss("c")]).unwrap(), [loss("c"), norm]);
        fs::write(&saved, "[other]\nx = 1\n").unwrap();
        let error = save(&log, &[loss("A")]).unwrap_err().to_string();
        assert!(error.contains("it holds more than roles"), "{error}");
        fs::write(&saved, "[map]\nlosses = 1\n").unwrap();
        let error = with_saved(&log, &[]).unwrap_err().to_string();
        assert!(error.contains("invalid type") || error.contains("did not match"), "{error}");
    }
}
