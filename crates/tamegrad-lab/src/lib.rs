//! The laboratory: recipes, data sets, models, training under guard, and the search for the fix.
//!
//! A [`recipe`] says what is trained. [`train()`] trains it, [`preflight()`] looks at it before the
//! first update, and [`fix()`] finds the least change that makes it train well.

pub mod cases;
pub mod changes;
pub mod data;
pub mod fix;
pub mod init;
pub mod model;
mod preflight;
mod prepare;
pub mod recipe;
mod schedule;
mod train;
mod with_network;

pub use fix::{Fix, FixError, fix};
pub use preflight::preflight;
pub use prepare::SetupError;
pub use tamegrad_burn::device_name;
pub use train::{Progress, TrainOptions, Trained, train};
