//! A diagnosis in words: for the terminal, in Markdown and as JSON.
//!
//! Every function here is pure: a [`tamegrad::Diagnosis`] and its [`tamegrad::Record`] go in, text
//! comes out. Nothing is printed, no file is touched and no environment is read; whether colours
//! are wanted and how wide a line may be is said by the caller in a [`Style`].

pub mod chain;
pub mod change;
#[cfg(test)]
mod check;
pub mod checkpoint;
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
