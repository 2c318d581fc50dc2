//! The extension module `tamegrad._core`: statistics of Python's tensors where they lie, and the
//! guard of the core crate.
//!
//! It knows no torch. Tensors are Python objects whose memory DLPack's C exchange interface, the
//! array interface or torch's own methods tell; what cannot be read in place is left to the Python
//! side, which hands in numbers.

#![allow(
    unsafe_code,
    reason = "the memory of tensors belongs to Python: `memory.rs` and what it asks; `signals.rs`"
)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod array_struct;
mod command;
mod decision;
mod dlpack;
mod guard;
mod inspection;
mod layout;
mod memory;
mod numbers;
mod preflight;
mod record;
mod remedies;
mod scan;
mod signals;
mod trace;
mod units;
mod updates;

use pyo3::prelude::*;

/// Statistics of tensors where they lie, and the guard that judges them.
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::command::run_command;
    #[pymodule_export]
    use crate::decision::Decision;
    #[pymodule_export]
    use crate::guard::Guard;
    #[pymodule_export]
    use crate::inspection::judge_experiments;
    #[pymodule_export]
    use crate::preflight::{Preflight, critical_multiple};
    #[pymodule_export]
    use crate::record::{Recorder, end_runs};
    #[pymodule_export]
    use crate::remedies::remedies;
    #[pymodule_export]
    use crate::scan::Scan;
    #[pymodule_export]
    use crate::trace::Trace;
    #[pymodule_export]
    use crate::units::clip_units;
    #[pymodule_export]
    use crate::updates::{Sampler, Updates};

    // The core's defaults for an integration whose optimizer writes over the parameters.
    #[pymodule_export]
    const TRACE_EVERY: u64 = tamegrad::cadence::Cadence::IN_PLACE.trace_every;
    #[pymodule_export]
    const SNAPSHOT_EVERY: u64 = tamegrad::cadence::Cadence::IN_PLACE.snapshot_every;
    #[pymodule_export]
    const SNAPSHOTS_MAX: usize = tamegrad::cadence::Cadence::IN_PLACE.snapshots_max;
    #[pymodule_export]
    const RANK_RATIO: f64 = tamegrad::rules::RULES.origin.rank_ratio;
    #[pymodule_export]
    const COPY_KEPT_STEPS: u64 = tamegrad::cadence::COPY_KEPT_STEPS;
}
