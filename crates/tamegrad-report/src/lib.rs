//! A diagnosis in words: for the terminal, in Markdown and as JSON.
//!
//! Every function here is pure: a [`tamegrad::Diagnosis`] and its [`tamegrad::Run`] go in, text
//! comes out. Nothing is printed, no file is touched and no environment is read; whether colours
//! are wanted and how wide a line may be is said by the caller in a [`Style`].
//!
//! ```
//! use tamegrad::{Guard, GuardConfig, Layout, Observation, RunFacts, Step};
//! use tamegrad_report::{Style, terminal};
//!
//! let mut guard = Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
//! for step in 0..200 {
//!     let loss = 2.0 - 0.01 * step as f64;
//!     guard.observe(&Observation { step: Step(step), loss: Some(loss), ..Observation::default() }, &[]);
//! }
//! let text = terminal::diagnosis(&guard.diagnosis(), guard.run(), &Style::plain(80));
//! assert!(text.starts_with("HEALTHY  no alarm (200 steps seen)"));
//! ```

pub mod chain;
pub mod change;
#[cfg(test)]
mod check;
pub mod checkpoint;
pub mod code;
pub mod explain;
mod exploding;
pub mod json;
pub mod log;
pub mod markdown;
pub mod number;
mod picture;
pub mod preflight;
pub mod spark;
mod style;
pub mod svg;
mod table;
pub mod terminal;
mod text;
mod words;

pub use change::describe_change;
pub use number::number;
pub use style::Style;
pub use text::{capital, escaped, printable, printable_lines};
pub use words::{
    ActionKind, acted, action, checklist, measure, no_cause, place, sentence, title, why,
};
