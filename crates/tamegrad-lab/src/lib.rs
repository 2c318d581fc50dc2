//! The laboratory: recipes, data sets, models, training under guard, and the search for the fix.
//!
//! A [`recipe`] says what is trained. [`train()`] trains it, [`preflight()`] looks at it before the
//! first update, and [`fix()`] finds the least change that makes it train well.
//!
//! ```
//! let text = r#"
//!     name = "circles"
//!     seed = 1
//!
//!     [data.circles]
//!     samples = 200
//!     noise = 0.1
//!     factor = 0.5
//!
//!     [model.mlp]
//!     depth = 2
//!     width = 8
//!     activation = "relu"
//!
//!     [optimizer.sgd]
//!     learning_rate = 0.1
//!
//!     [training]
//!     batch = 16
//!     epochs = 2
//! "#;
//! let recipe = tamegrad_lab::recipe::parse(text, None)?;
//! let preflight = tamegrad_lab::preflight(&recipe)?;
//! assert_eq!(preflight.warnings(), []);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cases;
pub mod changes;
mod checkpoint;
pub mod data;
mod file;
pub mod fix;
pub mod init;
pub mod model;
mod preflight;
mod prepare;
pub mod recipe;
mod schedule;
mod train;
mod with_network;

pub use checkpoint::TakeCheckpoint;
pub use fix::{Fix, FixError, fix};
pub use preflight::preflight;
pub use prepare::SetupError;
pub use tamegrad_burn::device_name;
pub use train::{Progress, TrainOptions, Trained, train};
