//! tamegrad's integration with burn: a guarded training step, layer probes, snapshots and clipping.
//!
//! ```
//! # use burn::module::Module;
//! # use burn::nn::{Linear, LinearConfig, loss::{MseLoss, Reduction}};
//! # use burn::optim::{GradientsParams, SgdConfig};
//! # use burn::tensor::Tensor;
//! # use tamegrad_burn::{Guard, default_device};
//! # let device = default_device();
//! # let mut model = LinearConfig::new(2, 1).init(&device);
//! # let mut optimizer = SgdConfig::new().init();
//! # let batches = vec![(Tensor::<2>::ones([4, 2], &device), Tensor::<2>::zeros([4, 1], &device)); 9];
//! let mut guard = Guard::protect(&model);
//! for (x, y) in batches {
//!     let outputs = model.forward(tamegrad_burn::input(x));
//!     let loss = MseLoss::new().forward(outputs, y, Reduction::Mean);
//!     let value = loss.clone().into_scalar::<f32>();
//!     let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!     model = guard.step(&mut optimizer, 0.01, model, gradients, value);
//!     if guard.should_stop() {
//!         break;
//!     }
//! }
//! println!("{}", guard.diagnosis());
//! ```
//!
//! Model, optimizer and learning rate remain the user's. For the gains of single layers, a model marks
//! where its layers end ([`Probes::tap`]) and [`Guard::backward`] makes the gradients. This crate
//! carries out what the core decides and judges nothing itself. With the feature `learner`,
//! `Guard::wrap` makes a model that burn's `Learner` trains under the guard.
//!
//! `docs/burn.md` lists what it relies on in burn, and where burn differs from what you might expect.

#![deny(missing_debug_implementations)]

mod change;
mod clip;

mod critical;
mod device;
mod device_scan;
mod elasticity;
mod estimate;
mod gradients;
mod guard;
mod host;
mod input;
mod lag;
#[cfg(feature = "learner")]
mod learner;
mod list;
mod parameters;
mod preflight;
mod probe;
mod rate;
mod report;
mod snapshot;
mod updates;

pub use clip::Clip;

pub use device::{default_device, device_name};
pub use guard::{Guard, StepOutcome};
pub use input::{input, named_input, see_input};
pub use lag::{Lagged, SecondMoment};
#[cfg(feature = "learner")]
pub use learner::{GradientNorm, Guarded, UpdateRatio};
pub use parameters::weights_hash;
pub use preflight::{FirstUpdate, preflight};
pub use probe::Probes;
pub use report::{Report, burn_code};
pub use tamegrad::observe::LayerTrace;
pub use tamegrad::remedies::{Change, Proposal};
pub use tamegrad::{
    Decision, Diagnosis, GradientAction, GuardConfig, LayerInfo, Mode, Record, Run, RunFacts, Step,
    TensorStats, Verdict,
};
pub use tamegrad_runs::RunError;
pub use tamegrad_state::StateError;
