//! Training logs and checkpoints that people already have, read as numbers.
//!
//! [`discover`] finds the runs below a path and [`Source::read`] reads one of them, in any of the
//! formats of [`readers`], recognised by content. A reader never panics, never prints, and keeps
//! what it can read: what is broken is left out and said in [`Log::notices`].
//!
//! [`scan_checkpoint`] gives the statistics of the tensors of a safetensors file in the same spirit.

mod checkpoint;
mod discover;
mod error;
mod log;
pub mod readers;

pub use checkpoint::{Checkpoint, TensorReport, scan_checkpoint};
pub use discover::{Source, discover};
pub use error::ReadError;
pub use log::{Log, LogBuilder, Notice, Point, Series};
