//! Reads existing training logs and checkpoints as numbers.
//!
//! tamegrad's own run folders, which `tamegrad-runs` writes and reads, are one of the formats.
//! [`discover`] finds the runs below a path and [`Source::read`] reads one of them, in any of the
//! formats of [`readers`], recognised by content. A reader never panics, never prints, and keeps
//! what it can read: what is broken is left out and listed in [`Log::notices`].
//!
//! ```
//! use tamegrad::Verdict;
//! use tamegrad_logs::{Source, read_verdict};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("log.jsonl");
//! let row = |step: u32| match step {
//!     0..150 => format!("{{\"step\": {step}, \"loss\": {}}}\n", 2.0 - 0.01 * f64::from(step)),
//!     _ => format!("{{\"step\": {step}, \"loss\": NaN}}\n"),
//! };
//! std::fs::write(&path, (0..200).map(row).collect::<String>())?;
//!
//! let source = Source::open(&path)?;
//! let log = source.read()?;
//! let reading = read_verdict(&log, source.format(), &[])?;
//! assert_eq!(reading.diagnosis.verdict, Verdict::Exploded);
//! # Ok(())
//! # }
//! ```
//!
//! [`scan_checkpoint`] computes the statistics of the tensors of a safetensors file in the same way.

mod bins;
mod checkpoint;
mod discover;
mod files;
mod follow;
mod framed;
mod json;
mod lines;
mod log;
mod number;
pub mod readers;
mod roles;
mod row;
mod rows;
mod step;
mod tags;
mod unpack;
mod unread;
mod verdict;
mod vocabulary;
mod window;
mod wire;

pub use checkpoint::{Checkpoint, TensorReport, scan_checkpoint};
pub use discover::{Source, discover, discover_input, discover_mapped};
pub use follow::Follower;
pub use log::{Damage, Log, LogBuilder, POINTS_MAX, Point, Recorded, SERIES_MAX, Series};
pub use readers::Format;
pub use roles::{Ground, Map, Role, Roles};
pub use tamegrad_runs::{Ending, Event, NOTICES_MAX, Notice, ReadError};
pub use verdict::{Missing, Reading, read_verdict};
