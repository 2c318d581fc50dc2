//! tamegrad's integration with burn: a guarded training step, layer probes, snapshots and clipping.
//!
//! [`Session`] runs one training step at a time: forward, backward, statistics, the guard's
//! decision, the update. A model marks where its layers end by passing their outputs through
//! [`Probes::tap`]. This crate carries out what the core decides and judges nothing itself.
//!
//! `docs/burn.md` lists what it relies on in burn, and where burn differs from what you might expect.

mod change;
mod clip;
mod critical;
mod device;
mod device_scan;
mod estimate;
mod gradients;
mod host;
mod lag;
mod list;
mod parameters;
mod preflight;
mod probe;
mod session;
mod snapshot;
mod updates;

pub use clip::Clip;
pub use device::{default_device, device_name};
pub use lag::{Lagged, SecondMoment};
pub use parameters::weights_hash;
pub use preflight::{FirstUpdate, preflight};
pub use probe::Probes;
pub use session::{Session, SessionOptimizer, StepInput, StepOutcome};
pub use tamegrad_state::StateError;
