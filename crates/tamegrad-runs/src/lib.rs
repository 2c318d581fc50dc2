//! The run folder: what tamegrad writes about a run and all of its parts can read.
//!
//! `runs/<name>/` holds
//! - `run.json`: format version, tensor table, recipe, environment ([`RunInfo`]);
//! - `steps.arrows`: an Arrow IPC stream, one row per step ([`StepRow`]);
//! - `tensors.arrows`: an Arrow IPC stream, one row per step and tensor ([`TensorRecord`]) around
//!   incidents, otherwise one envelope for many steps;
//! - `recent.arrows`: the last steps in full, replaced as the run goes on and removed when it ends;
//! - `events.jsonl`: findings, diagnoses and actions, one [`Event`] per line;
//! - `lock`: held by the one writer.
//!
//! The two streams and the events only grow, so the folder is readable at any moment; after a crash,
//! complete batches count and the truncated tail is left out.
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
mod diagnosis;
mod error;
#[cfg(feature = "parquet")]
mod export;
mod notice;
mod read;
mod recorder;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod thin;
mod write;

use std::io;
use std::path::{Path, PathBuf};

pub use diagnosis::diagnosis;
pub use error::ReadError;
#[cfg(feature = "parquet")]
pub use export::export;
pub use notice::{NOTICES_MAX, Notice, Notices};
pub use read::{Contents, EVENTS_MAX, ROWS_READ_MAX, RunFolder};
pub use recorder::Recorder;
pub use table::{Event, RunInfo, StepRow, TensorInfo, TensorRecord, TensorRow};
pub use thin::Bounds;
pub use write::RunWriter;

const INFO_FILE: &str = "run.json";
const STEPS_FILE: &str = "steps.arrows";
const TENSORS_FILE: &str = "tensors.arrows";
const RECENT_FILE: &str = "recent.arrows";
const EVENTS_FILE: &str = "events.jsonl";
const LOCK_FILE: &str = "lock";

/// Whether a folder with files of these names is a run folder.
pub fn is_run_folder(names: &[String]) -> bool {
    [INFO_FILE, STEPS_FILE].iter().all(|wanted| names.iter().any(|name| name == wanted))
}

/// Why a run folder could not be written or exported.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
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
    #[error("{}: already holds a run; hint: resume it, or write to another folder", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
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

impl RunError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn encode(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Encode { path: path.to_owned(), text: error.to_string() }
    }
}
