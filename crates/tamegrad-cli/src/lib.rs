//! The command line of tamegrad: arguments, progress, output and exit codes.
//!
//! The features `train` (recipes, which need burn), `sqlite` (logs of MLflow and trackio), `parquet`
//! (`export`) and `webhook` are on unless they are left out.
//!
//! It is a library so that the Python package can bring the same command that `cargo install`
//! brings.

mod args;
mod commands;
mod delivery;
mod failure;
mod map;
mod progress;
mod screen;
mod signals;

use std::ffi::OsString;

use clap::Parser;
use tamegrad_report::printable;

use args::{Args, Command};

/// Runs the command of these arguments, the first of which is the name of the program, and gives
/// the exit code: 0 healthy or fixed, 1 exploding gradients found, 2 could not run, 130 stopped by
/// Ctrl-C, 129 by SIGHUP, 143 by SIGTERM.
///
/// It takes the process for its own: it prints, and handles these signals from here on; a second one
/// ends the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(message) => {
            // It repeats the arguments.
            let plain = |of: &OsString| OsString::from(&*printable(&of.to_string_lossy()));
            return usage(
                &Args::try_parse_from(arguments.iter().map(plain)).err().unwrap_or(message),
            );
        }
    };
    let cancel = signals::listen();
    let result = match args.command {
        #[cfg(feature = "train")]
        Command::Fix(fix) => commands::fix::run(&fix, cancel),
        #[cfg(feature = "train")]
        Command::Train(train) => commands::train::run(&train, cancel),
        #[cfg(feature = "train")]
        Command::Preflight(preflight) => commands::preflight::run(&preflight),
        #[cfg(not(feature = "train"))]
        Command::Fix(_) => Err(not_built("fix", "train")),
        #[cfg(not(feature = "train"))]
        Command::Train(_) => Err(not_built("train", "train")),
        #[cfg(not(feature = "train"))]
        Command::Preflight(_) => Err(not_built("preflight", "train")),
        Command::Diagnose(diagnose) => commands::diagnose::run(&diagnose, cancel),
        Command::Report(report) => commands::report::run(&report, cancel),
        Command::Watch(watch) => commands::watch::run(&watch, cancel),
        Command::Scan(scan) => commands::scan::run(&scan, cancel),
        #[cfg(feature = "parquet")]
        Command::Export(export) => commands::export::run(&export),
        #[cfg(not(feature = "parquet"))]
        Command::Export(_) => Err(not_built("export", "parquet")),
        Command::Explain(explain) => commands::explain::run(&explain),
    };
    let code = result.unwrap_or_else(|failure| {
        failure::show(&failure);
        commands::COULD_NOT_RUN
    });
    // What a signal has stopped keeps its exit code.
    let is_lost = screen::is_output_lost() && code <= commands::COULD_NOT_RUN;
    if is_lost { commands::COULD_NOT_RUN } else { code }
}

/// Prints help, or what is wrong with the arguments.
fn usage(message: &clap::Error) -> u8 {
    let printed = message.print();
    if message.use_stderr() {
        // Where nobody reads it there is nothing more to be said.
        return commands::COULD_NOT_RUN;
    }
    screen::check(printed);
    if screen::is_output_lost() { commands::COULD_NOT_RUN } else { commands::HEALTHY }
}

/// The failure of a command that this build leaves out.
#[cfg(not(all(feature = "train", feature = "parquet")))]
fn not_built(what: &'static str, feature: &'static str) -> failure::Failure {
    failure::Failure::NotBuilt { what, feature }
}
