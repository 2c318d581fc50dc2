//! What a file that no reader knows looks like, and whether it is a log all the same.

use std::path::Path;

use crate::files::entries;

/// A file that no reader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    /// What it looks like, and what would help.
    pub(crate) found: String,
    /// Whether it is a log that ought to have been read. Other files of a folder are passed over.
    pub(crate) is_log: bool,
}

/// How files of other kinds begin.
const KINDS: &[(&[u8], &str)] = &[
    (b"\xfd7zXZ\0", "a file compressed by xz; hint: unpack it first"),
    (b"BZh", "a file compressed by bzip2; hint: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; hint: unpack it first"),
    (b"Rar!", "a RAR archive; hint: unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file; hint: write the values to CSV"),
    (b"PAR1", "a Parquet file without a step and a loss that could be found"),
    (b"SQLite format 3\0", "an SQLite database that is neither MLflow's nor trackio's"),
    (b"\x93NUMPY", "a NumPy array, which has no names; hint: write a CSV file with a header"),
    (b"PK\x03\x04", "a zip archive without a training log"),
    (b"\x1f\x8b", "a gzip file without a training log"),
    (b"%PDF", "a PDF file"),
    (b"\x89PNG", "a picture"),
    (b"\x80\x02", PICKLE),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
    (b"\x7fELF", "a program"),
];
const PICKLE: &str = "a pickle, which is never opened, because that would run the code in it; hint: \
                      write the values to JSON or CSV";
/// What [Git LFS](https://git-lfs.com) leaves in the place of a file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Words in the names of logs.
const LOG_NAMES: &[&str] =
    &["log", "events.out", "metric", "history", "progress", "scalars", "console"];
/// Endings of files that may be logs.
const LOG_ENDINGS: &[&str] = &[
    "log", "out", "err", "txt", "csv", "tsv", "json", "jsonl", "ndjson", "wandb", "parquet", "db",
    "gz", "zst",
];

/// What a file looks like that no reader knows.
pub(crate) fn file(path: &Path, bytes: &[u8]) -> Unread {
    if bytes.starts_with(LFS_POINTER) {
        let found =
            "a Git LFS pointer in place of the file itself; hint: `git lfs pull` fetches it";
        return Unread { found: found.to_owned(), is_log: has_name_of_log(path) };
    }
    if bytes.is_empty() {
        return Unread { found: "an empty file".to_owned(), is_log: false };
    }
    if let Some((start, kind)) = KINDS.iter().find(|(start, _)| bytes.starts_with(start)) {
        let is_packed = matches!(start.first(), Some(0xfd | b'B'));
        return Unread { found: (*kind).to_owned(), is_log: is_packed && has_name_of_log(path) };
    }
    if bytes.contains(&0) {
        return Unread { found: "a binary file of an unknown kind".to_owned(), is_log: false };
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let line: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
    Unread { found: format!("text that begins with {line:?}"), is_log: false }
}

/// Whether a file is a log by its name.
fn has_name_of_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ending = name.rsplit('.').next().unwrap_or_default();
    LOG_ENDINGS.contains(&ending) || LOG_NAMES.iter().any(|word| name.contains(word))
}

/// What a folder looks like in which there is no log.
pub(crate) fn folder(path: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name(path) == "files"
        && let Some(run) = path.canonicalize().ok().as_deref().and_then(Path::parent)
        && let Ok(entries) = entries(run)
        && let Some(beside) =
            entries.iter().find(|path| path.extension().is_some_and(|e| e == "wandb"))
    {
        return format!(
            "the `files` folder of a W&B run, whose numbers lie beside it; hint: name {}",
            beside.display()
        );
    }
    "a folder without a training log".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover;
    use std::fs;

    #[test]
    fn files_that_are_not_read_are_named_if_they_are_logs() {
        let pointer = format!("{}v1\noid sha256:00\n", String::from_utf8_lossy(LFS_POINTER));
        for (name, bytes, said, is_log) in [
            ("train.log", pointer.as_bytes(), "a Git LFS pointer", true),
            ("picture.png", pointer.as_bytes(), "a Git LFS pointer", false),
            ("train.log.xz", b"\xfd7zXZ\0...", "a file compressed by xz", true),
            ("model.pkl", b"\x80\x04...", "a pickle", false),
            ("train.log", b"", "an empty file", false),
            ("notes.txt", b"Nothing.\n", "text that begins with", false),
            ("data.bin", b"\0\x01", "a binary file", false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let alone = discover(&path).1.remove(0).to_string();
            assert!(alone.contains(&format!("got {said}")), "{alone}");
            fs::write(folder.path().join("log.jsonl"), "{\"step\": 1, \"loss\": 2}\n").unwrap();
            let (sources, errors) = discover(folder.path());
            assert_eq!((sources.len(), errors.len()), (1, usize::from(is_log)), "{name}");
        }
    }

    #[test]
    fn the_files_of_a_wandb_run_lead_to_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        fs::create_dir(&files).unwrap();
        fs::write(files.join("config.yaml"), "lr: 1\n").unwrap();
        fs::write(folder.path().join("run-x.wandb"), "").unwrap();
        let error = discover(&files).1.remove(0).to_string();
        assert!(error.contains("run-x.wandb"), "{error}");
    }
}
