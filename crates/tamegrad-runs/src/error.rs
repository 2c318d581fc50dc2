//! Why nothing could be read at all.

use std::io;
use std::path::{Path, PathBuf};

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file or folder could not be opened, listed or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not of a known format.
    #[error("{}: got {found}, want {wanted}", path.display())]
    Unknown {
        /// Which file or folder.
        path: PathBuf,
        /// What it looks like.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The format is known, but nothing in the file could be used.
    #[error("{} at byte {offset}: got {found}, want {wanted}", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Where, in bytes from the start.
        offset: u64,
        /// What is there.
        found: String,
        /// What should be there.
        wanted: &'static str,
    },
}

impl ReadError {
    /// An error of the system with the path that it is about.
    pub fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// What was found at an offset of a file, and what was wanted there.
    pub fn broken(
        path: &Path,
        offset: u64,
        found: impl Into<String>,
        wanted: &'static str,
    ) -> Self {
        Self::Broken { path: path.to_owned(), offset, found: found.into(), wanted }
    }
}
