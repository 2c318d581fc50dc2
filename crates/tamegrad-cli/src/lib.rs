//! The command line of tamegrad: arguments, progress, output and exit codes.
//!
//! It is a library so that the Python package can bring the same command that `cargo install`
//! brings.

mod args;
mod commands;
mod failure;
mod progress;
mod screen;

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

use args::{Args, Command};

/// Set by Ctrl-C: the run stops at its next step and still writes what it has.
static CANCEL: AtomicBool = AtomicBool::new(false);

/// Runs the command of these arguments, the first of which is the name of the program, and gives
/// the exit code: 0 healthy or fixed, 1 exploding gradients found, 2 could not run, 130 stopped by
/// Ctrl-C.
///
/// It takes the process for its own: it prints, and handles Ctrl-C from here on; a second Ctrl-C
/// ends the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(message) => {
            // Where nobody reads it there is nothing more to be said.
            let _ = message.print();
            return if message.use_stderr() { commands::COULD_NOT_RUN } else { commands::HEALTHY };
        }
    };
    // Without the handler Ctrl-C ends the program at once, which is no reason not to run.
    let _ = ctrlc::set_handler(|| {
        if CANCEL.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    let result = match args.command {
        Command::Fix(fix) => commands::fix::run(&fix, &CANCEL),
        Command::Train(train) => commands::train::run(&train, &CANCEL),
        Command::Preflight(preflight) => commands::preflight::run(&preflight),
        Command::Diagnose(diagnose) => commands::diagnose::run(&diagnose, &CANCEL),
        Command::Watch(watch) => commands::watch::run(&watch, &CANCEL),
        Command::Eval(eval) => commands::eval::run(&eval, &CANCEL),
        Command::Scan(scan) => commands::scan::run(&scan, &CANCEL),
        Command::Export(export) => commands::export::run(&export),
        Command::Explain(explain) => commands::explain::run(&explain),
    };
    result.unwrap_or_else(|failure| {
        failure::show(&failure);
        commands::COULD_NOT_RUN
    })
}
