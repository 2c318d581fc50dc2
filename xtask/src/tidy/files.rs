//! Which files tidy reads: what git tracks or would track, or every file where git cannot say.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// Folders that hold products or git's own data; only looked at where git cannot list the files.
const NOT_OURS: &[&str] = &[".git", "target", "runs"];

/// Paths relative to `root`, with `/` between the parts, sorted.
pub(crate) fn list(root: &Path) -> Result<Vec<String>, String> {
    let mut paths = match listed_by_git(root) {
        Some(paths) => paths,
        None => {
            let mut found = Vec::new();
            walk(root, "", &mut found)?;
            found
        }
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// The text of a file; `None` for what has no text: a binary file, a link, or a file that git
/// still tracks but that is gone.
pub(super) fn read(root: &Path, path: &str) -> Result<Option<String>, String> {
    let full = root.join(path);
    let bytes = match fs::symlink_metadata(&full) {
        Ok(meta) if !meta.is_file() => return Ok(None),
        Ok(_) => fs::read(&full),
        Err(error) => Err(error),
    };
    match bytes {
        Ok(bytes) if bytes.contains(&0) => Ok(None),
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{path} could not be read: {error}")),
    }
}

/// `None` where there is no git, no repository, or a repository that ignores this whole folder.
fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let paths: Vec<String> = output
        .stdout
        .split(|&byte| byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

fn walk(root: &Path, folder: &str, found: &mut Vec<String>) -> Result<(), String> {
    let fail = |error| format!("{} could not be listed: {error}", root.join(folder).display());
    for entry in fs::read_dir(root.join(folder)).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        // A link is not followed: it could lead in a circle.
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
            walk(root, &path, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_lists_every_file_but_products() {
        let root = std::env::temp_dir().join(format!("xtask-files-{}", std::process::id()));
        for path in ["b.rs", ".ci/run", "a/deep/c.toml", "target/x.rs", ".git/HEAD", "runs/r/s"] {
            let full = root.join(path);
            fs::create_dir_all(full.parent().expect("each path has a folder")).expect("writable");
            fs::write(full, "text\0").expect("writable");
        }
        fs::write(root.join("b.rs"), b"caf\xe9").expect("writable");

        let mut found = Vec::new();
        let walked = walk(&root, "", &mut found);
        found.sort();
        let texts = ["b.rs", ".ci/run", "a", "gone"].map(|path| read(&root, path));
        fs::remove_dir_all(&root).expect("ours to remove");

        assert_eq!(walked, Ok(()));
        assert_eq!(found, [".ci/run", "a/deep/c.toml", "b.rs"]);
        assert_eq!(texts, [Ok(Some("caf\u{fffd}".to_owned())), Ok(None), Ok(None), Ok(None)]);
    }
}
