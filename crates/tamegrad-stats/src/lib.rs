//! Statistics of tensors in one pass, and clipping in place: the basis of every other crate.
//!
//! A tensor is a slice of `f32`, `f64`, [`half::f16`] or [`half::bf16`]; its shape does not matter
//! here. Everything is computed in f64, and no finite input overflows or underflows on the way: in
//! f32 the norm of values of 1e20 would be infinite and that of values of 1e-30 zero; [`scan`] is
//! right in both cases. NaN and infinity are counted separately and never enter a norm, and a clip
//! by norm that meets one reports it and writes nothing. [`update_of`] measures the size of an
//! update. [`scan_file`] reads tensors in files.
//!
//! No function panics, and the same values in the same order give bit-identical results.
//!
//! ```
//! use tamegrad_stats::{Clip, ListStats, clip_global_norm, scan};
//!
//! let stats = scan(&[3.0_f32, f32::NAN, 4.0]);
//! assert_eq!((stats.l2, stats.nans, stats.finite()), (5.0, 1, 2));
//!
//! let (mut weight, mut bias) = ([30.0_f32, 0.0], [40.0_f32]);
//! let mut stats = ListStats::default();
//! let list = &mut [weight[..].as_mut().into(), bias[..].as_mut().into()];
//! let clip = clip_global_norm(list, 5.0, &mut stats);
//! assert_eq!(clip, Clip::Clipped { norm: 50.0, factor: 0.1 });
//! assert_eq!(stats.tensors()[1].l2, 40.0);
//! assert_eq!((weight, bias), ([3.0, 0.0], [4.0]));
//! ```

#![allow(unsafe_code, reason = "vector instructions are chosen at run time: `isa.rs`")]
#![deny(clippy::undocumented_unsafe_blocks)]

mod clip;
mod element;
mod histogram;
mod in_file;
mod isa;
mod kernel;
mod list;
mod scan;
mod sum;
mod threads;
mod units;
mod update;

pub use clip::{
    Clip, TensorClips, ValueClip, clip_global_norm, clip_tensor_norm, clip_tensor_norms,
    clip_value, clip_values, global_norm_factor, scale, scale_list,
};
pub use element::Element;
pub use histogram::{Histogram, Sampling};
pub use in_file::{ElementType, scan_file};
pub use list::{ListStats, TensorMut, TensorRef, scan_list, scan_list_with_histograms};
pub use scan::{TensorStats, merge, scan};
pub use units::{UnitClip, UnitError, UnitLimits, clip_units};
pub use update::{
    TensorSample, Update, is_sampled, may_mislead, sample_seed, update_by_sample, update_of,
};
