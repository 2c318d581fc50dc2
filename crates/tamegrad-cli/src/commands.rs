//! The commands, one file each.

pub(crate) mod diagnose;
pub(crate) mod explain;
#[cfg(feature = "parquet")]
pub(crate) mod export;
#[cfg(feature = "train")]
pub(crate) mod fix;
#[cfg(feature = "train")]
pub(crate) mod preflight;
#[cfg(feature = "train")]
mod recipe;
pub(crate) mod scan;
#[cfg(feature = "train")]
pub(crate) mod train;
pub(crate) mod watch;

#[cfg(feature = "train")]
use crate::failure::Failure;

/// Exit code: nothing was found, or what was found is cured.
pub(crate) const HEALTHY: u8 = 0;
/// Exit code: exploding gradients were found (and, for `fix`, not cured); for `scan`, NaN or Inf.
pub(crate) const FOUND: u8 = 1;
/// Exit code: the command could not run; for `scan`, not read all.
pub(crate) const COULD_NOT_RUN: u8 = 2;
/// Exit code: stopped by Ctrl-C, as shells have it (128 and the number of the signal).
pub(crate) const STOPPED: u8 = 130;

#[cfg(feature = "train")]
/// A report as JSON text.
pub(crate) fn to_json<T: serde::Serialize>(report: &T) -> Result<String, Failure> {
    tamegrad_report::json::to_string(report).map_err(Failure::Json)
}
