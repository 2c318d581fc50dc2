//! What was left out of what was read, with the place.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::ReadError;

/// Notices kept of one run or log.
pub const NOTICES_MAX: usize = 100;

/// Something that was left out or looked odd, with the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The file.
    pub path: PathBuf,
    /// Bytes from the start of the file, where that is known.
    pub offset: Option<u64>,
    /// What, in words.
    pub text: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{} at byte {offset}: {}", self.path.display(), self.text),
            None => write!(f, "{}: {}", self.path.display(), self.text),
        }
    }
}

impl From<&ReadError> for Notice {
    fn from(error: &ReadError) -> Self {
        let (path, offset, text) = match error {
            ReadError::Io { path, source } => (path, None, source.to_string()),
            ReadError::Unknown { path, found, wanted } => {
                (path, None, format!("got {found}, want {wanted}"))
            }
            ReadError::Broken { path, offset, found, wanted } => {
                (path, Some(*offset), format!("got {found}, want {wanted}"))
            }
        };
        Self { path: path.clone(), offset, text }
    }
}

/// Notices while they come; beyond [`NOTICES_MAX`] they are counted only.
#[derive(Debug, Clone, Default)]
pub struct Notices {
    kept: Vec<Notice>,
    dropped: u64,
}

impl Notices {
    /// Notes something that was left out or looked odd.
    pub fn push(&mut self, path: &Path, offset: Option<u64>, text: impl Into<String>) {
        self.add(Notice { path: path.to_owned(), offset, text: text.into() });
    }

    /// Adds a notice.
    pub fn add(&mut self, notice: Notice) {
        if self.kept.len() < NOTICES_MAX - 1 {
            self.kept.push(notice);
        } else {
            self.dropped += 1;
        }
    }

    /// The file of the first one; an empty path before there is any.
    pub fn first_path(&self) -> PathBuf {
        self.kept.first().map_or(PathBuf::new(), |notice| notice.path.clone())
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.kept.len() as u64 + self.dropped
    }

    /// The notices in their order; the last says how many more there were.
    pub fn finish(mut self) -> Vec<Notice> {
        if self.dropped > 0
            && let Some(path) = self.kept.last().map(|notice| notice.path.clone())
        {
            let text = format!("{} more such notices", self.dropped);
            self.kept.push(Notice { path, offset: None, text });
        }
        self.kept
    }
}
