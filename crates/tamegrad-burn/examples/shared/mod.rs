//! What the examples share: the mode is their argument, and they print weights and report.

#![allow(clippy::print_stdout, reason = "an example prints what it has to tell")]

use tamegrad_burn::Mode;

/// Trains with the guard that the first argument names (`bare`, `observe` or `protect`), and prints
/// the hash of the weights and the report that come back.
pub(crate) fn run(train: impl FnOnce(Option<Mode>) -> (String, String)) {
    let mode = match std::env::args().nth(1).as_deref() {
        Some("bare") => None,
        Some("observe") => Some(Mode::Observe),
        _ => Some(Mode::Protect),
    };
    let (weights, report) = train(mode);
    println!("weights {weights}\n{report}");
}
