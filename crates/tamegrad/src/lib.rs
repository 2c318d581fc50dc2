//! The core of tamegrad: from the numbers of a training run it detects, explains and proposes.
//!
//! Every integration (a training loop) turns one training step into an [`Observation`]; the
//! [`Guard`] keeps a [`Record`] of them, reads the [`signs`], and answers with a [`Decision`]
//! that the integration carries out. [`diagnose`] turns a [`Run`] into a [`Diagnosis`]: verdict,
//! onset, origin, [`causes`] and ranked [`remedies`]; [`logs::diagnose`] does the same for a log.
//!
//! ```
//! use tamegrad::{Guard, GuardConfig, Layout, Observation, RunFacts, Step, Verdict};
//!
//! let mut guard = Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
//! for step in 0..200 {
//!     let loss = if step < 150 { 2.0 - 0.01 * step as f64 } else { f64::NAN };
//!     let seen = Observation { step: Step(step), loss: Some(loss), ..Observation::default() };
//!     assert!(guard.observe(&seen, &[]).is_proceed(), "observe mode changes nothing");
//! }
//! let diagnosis = guard.diagnosis();
//! assert_eq!(diagnosis.verdict, Verdict::Exploded);
//! assert_eq!(diagnosis.onset, Some(Step(150)));
//! ```
//!
//! The core sees numbers, never tensors, and is independent of any framework, file, clock and format.
//! With the feature `serde` (off by default) a guard's state can be serialised, in a format of the
//! caller's choice.

pub mod batch;
mod borne;
pub mod cadence;
pub mod causes;
pub mod chain;
pub mod critical;
pub mod decision;
pub mod diagnosis;
pub mod doc;
pub mod evidence;
pub mod explain;
pub mod finding;
pub mod first;
pub mod guard;
pub mod inspection;
mod jump;
mod ladder;
pub mod logs;
pub mod observe;
pub mod origin;
pub mod preflight;
mod rate_limit;
pub mod record;
pub mod remedies;
mod risk;
pub mod rules;
pub mod run;
pub mod running;
pub mod signs;
pub mod step;

pub use chain::{Chain, Link};
pub use decision::{Decision, GradientAction};
pub use diagnosis::{Diagnosis, Verdict, diagnose};
pub use evidence::{Measure, Names, Place, Quantity, Reference};
pub use finding::{Finding, Reading, Severity, SignName};
pub use first::{FirstNonFinite, Stage};
pub use guard::{Guard, GuardConfig, Mode};
pub use observe::{
    ActivationKind, LayerId, LayerInfo, LayerSample, Layout, NamedInput, NormalisationKind,
    Observation, OtherModel, RunFacts, Step, TensorId, TensorInfo, Update,
};
pub use origin::Origin;
pub use preflight::{FirstStep, Preflight, preflight};
pub use record::Record;
pub use run::Run;
pub use step::{Asks, Finished, OpenStep, ShrinkingStep};
pub use tamegrad_stats::TensorStats;
