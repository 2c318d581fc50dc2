//! Training logs that people already have, read as series of numbers.
//!
//! [`discover`] finds the runs below a path and [`Source::read`] reads one of them, in any of the
//! formats of [`readers`], recognised by content. A reader never panics, never prints, and keeps
//! what it can read: what is broken is left out and said in [`Log::notices`].

mod bins;
mod discover;
mod error;
mod json;
mod lines;
mod files;
mod log;
mod number;
pub mod readers;
mod roles;
pub mod score;
mod verdict;
mod row;
mod step;
mod tags;
mod window;
mod wire;

pub use discover::{Source, discover};
pub use error::ReadError;
pub use log::{Log, LogBuilder, Notice, Point, Series};
pub use roles::{Map, Role, Roles};
pub use verdict::{Reading, read_verdict};
