//! One file a format. A reader says by content whether a file is its own, and turns its records
//! into points.

mod mlflow;
mod run_folder;
mod sqlite;
mod trackio;

use std::path::{Path, PathBuf};

use crate::error::ReadError;
use crate::log::LogBuilder;

/// The start of a file, by which its format is recognised.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Where the file is; a hint where content says too little.
    pub path: &'a Path,
    /// Its first bytes, at most [`HEAD_BYTES`].
    pub bytes: &'a [u8],
    /// Whether these are all of them.
    pub is_whole: bool,
}

/// Bytes of a file that are looked at to recognise its format.
pub const HEAD_BYTES: usize = 64 * 1024;

/// A format of logs.
pub struct Reader {
    /// The format's name, as reports give it.
    pub format: &'static str,
    /// Whether a file is of this format.
    pub recognises: fn(&Head<'_>) -> bool,
    /// Whether a folder as a whole is one run of this format; its files are then not looked at one
    /// by one. `names` are the names in it, sorted.
    pub recognises_folder: fn(folder: &Path, names: &[String]) -> bool,
    /// Files of one folder that give the same key are one run; `None`: each file is its own run.
    pub run_key: fn(path: &Path) -> Option<String>,
    /// Reads the files of one run, in the order of their names, or the one folder.
    pub read: fn(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError>,
}

/// All formats, those that are surest of their content first.
pub const READERS: &[Reader] =
    &[run_folder::READER, mlflow::READER, mlflow::FILE_STORE, trackio::READER];

/// For formats that no folder is.
pub(crate) fn no_folder(_: &Path, _: &[String]) -> bool {
    false
}

/// For formats of which each file is a run.
pub(crate) fn own_run(_: &Path) -> Option<String> {
    None
}
