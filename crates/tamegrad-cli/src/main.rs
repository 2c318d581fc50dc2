//! The command line of tamegrad: arguments, progress, output and exit codes.

mod args;
mod commands;
mod failure;
mod progress;
mod screen;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

use args::{Args, Command};

/// Set by Ctrl-C: the run stops at its next step and still writes what it has.
static CANCEL: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let args = Args::parse();
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
        ExitCode::from(commands::COULD_NOT_RUN)
    })
}
