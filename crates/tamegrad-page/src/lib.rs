//! A diagnosed run as figures, and as one HTML file to send to somebody.
//!
//! Every function is pure: a [`RunView`] goes in, SVG or HTML comes out. [`figures`] draws what the run has
//! numbers for; [`page`] puts them with verdict, signs, causes and remedies into a file that needs nothing
//! else and runs no script. What is read from a log, names above all, is escaped everywhere.
//!
//! ```
//! use tamegrad::logs::{History, Sample, diagnose};
//! use tamegrad_page::{RunView, page};
//! use tamegrad_report::log::LogRun;
//!
//! let value = |step: i64| if step < 40 { 2.0 } else { f64::NAN };
//! let loss: Vec<Sample> = (0..50).map(|step| Sample { step, value: value(step) }).collect();
//! let diagnosis = diagnose(&History { loss: &loss, ..History::default() });
//! let log = LogRun {
//!     loss: Some(("loss", &loss)),
//!     ..LogRun::of("log.csv", "csv", &diagnosis)
//! };
//! let file = page(&[RunView::of(log)]);
//! assert!(file.contains("The run ended with NaN or Inf after the alarm at step 40."));
//! ```

mod badge;
mod curve;
mod envelope;
mod events;
mod figure;
mod figures;
mod gains;
mod grid;
mod heat;
mod live;
mod markup;
mod order;
mod overlay;
mod page;
mod ramp;
mod scale;
mod sections;
mod steps;
#[cfg(test)]
mod tests;
mod view;

pub use figure::{Figure, Table, Width};
pub use figures::{figures, overlays};
pub use live::live_page;
pub use page::page;
pub use sections::short_names;
pub use view::{Action, ActionKind, RunView};

/// What a page and a figure say that they were written by, near their start.
pub const MARK: &str = concat!("tamegrad ", env!("CARGO_PKG_VERSION"));
