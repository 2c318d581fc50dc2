//! The run folder: what tamegrad writes about a run and all of its parts can read.
//!
//! `runs/<name>/` holds
//! - `run.json`: format version, tensor table, recipe, environment ([`RunInfo`]);
//! - `steps.arrows`: an Arrow IPC stream, one row per step ([`StepRow`]);
//! - `tensors.arrows`: an Arrow IPC stream, one row per step and tensor ([`TensorRecord`]) around
//!   incidents, otherwise one envelope for many steps;
//! - `events.jsonl`: findings and actions, one [`Event`] per line;
//! - `diagnosis.json`: what is known of the run so far, and how it ended ([`State`]);
//! - `steps.recent.arrows`, `tensors.recent.arrows`: the last rows, before they make a batch of their
//!   stream; removed when the run ends;
//! - `lock`: held by the one writer.
//!
//! The streams and the events only grow, and every other file is replaced in one go, so the folder is
//! readable at any moment. After a crash, complete batches count and the truncated tail is left out.
//!
//! ```
//! use tamegrad_runs::{RunFolder, RunInfo, RunWriter, StepRow};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let mut run = RunWriter::create(folder.path(), &RunInfo::default())?;
//! for step in 0..3 {
//!     run.step(&StepRow { step, loss: Some(0.5), ..StepRow::default() })?;
//! }
//! run.finish()?;
//!
//! let contents = RunFolder::open(folder.path())?.contents();
//! assert_eq!(contents.steps[2].loss, Some(0.5));
//! # Ok(())
//! # }
//! ```

mod batch;
mod disk;
mod error;
#[cfg(feature = "parquet")]
mod export;
mod journal;
mod keeper;
mod kind;
mod notice;
mod place;
#[cfg(test)]
mod power;
mod read;
mod recorder;
mod state;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod thin;
mod write;

use std::io;
use std::path::{Path, PathBuf};

pub use disk::overwrite;
pub use error::ReadError;
#[cfg(feature = "parquet")]
pub use export::export;
pub use keeper::end_all;
pub use kind::{Kind, RUN, SEARCH, SEARCH_FILE, TRIALS_FILE};
pub use notice::{NOTICES_MAX, Notice, Notices};
pub use place::{Claimed, Existing, Place};
pub use read::{Contents, EVENTS_MAX, ROWS_READ_MAX, RunFolder};
pub use recorder::Recorder;
pub use state::{COMPLETED, Ending, State};
pub use table::{Event, RunInfo, StepRow, TensorInfo, TensorRecord, TensorRow};
pub use write::{Lost, RunWriter};

const INFO_FILE: &str = "run.json";
const STEPS_FILE: &str = "steps.arrows";
const TENSORS_FILE: &str = "tensors.arrows";
const RECENT_STEPS_FILE: &str = "steps.recent.arrows";
const RECENT_TENSORS_FILE: &str = "tensors.recent.arrows";
const EVENTS_FILE: &str = "events.jsonl";
const STATE_FILE: &str = "diagnosis.json";
const LOCK_FILE: &str = "lock";

/// Whether a folder with files of these names is a run folder.
pub fn is_run_folder(names: &[String]) -> bool {
    [INFO_FILE, STEPS_FILE].iter().all(|wanted| names.iter().any(|name| name == wanted))
}

/// Why a run folder could not be written or exported.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refused.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another writer has the folder open.
    #[error(
        "{}: another process{} is writing this run; hint: wait for it to end, or write to \
         another folder",
        path.display(), holder.map(|pid| format!(" ({pid})")).unwrap_or_default()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, if known.
        holder: Option<u32>,
    },
    /// The folder already holds a run.
    #[error("{}: already holds a run; hint: write to another folder", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something that tamegrad has not written.
    #[error(
        "{}: holds `{}`, which is no file of a run; want a folder that is empty or not there yet",
        path.display(), found.escape_debug()
    )]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The folder was removed, moved or replaced while the run was written.
    #[error("{}: the run folder was removed, moved or replaced during the run", path.display())]
    Gone {
        /// The folder.
        path: PathBuf,
    },
    /// The disk did not answer.
    #[error("{}: the disk does not answer", path.display())]
    Stalled {
        /// The folder.
        path: PathBuf,
    },
    /// The end of a run could not be written.
    #[error(
        "the run could not be written to its end: {source}{}{}", lost_words(lost),
        fallback.as_ref().map_or(String::new(), |path| format!(
            "; the diagnosis is in {}", path.display()
        ))
    )]
    NotWritten {
        /// Why.
        source: Box<RunError>,
        /// What was given up.
        lost: Lost,
        /// Where the diagnosis is instead, if it could be written anywhere.
        fallback: Option<PathBuf>,
    },
    /// The rows could not be put into Arrow or Parquet form.
    #[error("{}: {text}", path.display())]
    Encode {
        /// The file that was being written.
        path: PathBuf,
        /// What the encoder said.
        text: String,
    },
    /// What is already there could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn lost_words(lost: &Lost) -> String {
    if *lost == Lost::default() {
        String::new()
    } else {
        format!("; {} steps are lost", lost.steps)
    }
}

impl RunError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn encode(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Encode { path: path.to_owned(), text: error.to_string() }
    }
}
