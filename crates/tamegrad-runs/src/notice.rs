//! What was left out of what was read, with the place.

use std::fmt;
use std::path::{Path, PathBuf};

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

/// Notices while they come; beyond [`NOTICES_MAX`] they are counted only.
#[derive(Debug, Clone, Default)]
pub struct Notices {
    kept: Vec<Notice>,
    dropped: u64,
}

impl Notices {
    /// Notes something that was left out or looked odd.
    pub fn push(&mut self, path: &Path, offset: Option<u64>, text: impl Into<String>) {
        if self.kept.len() < NOTICES_MAX - 1 {
            self.kept.push(Notice { path: path.to_owned(), offset, text: text.into() });
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
