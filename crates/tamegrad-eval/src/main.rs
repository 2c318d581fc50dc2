//! `cargo xtask eval`: how good the verdicts are, on a corpus of logs and on runs made for it.
//!
//! It is a program of its own, so that neither users nor the other commands of xtask build it.

#[cfg(feature = "train")]
mod cases;
mod logs;
#[cfg(feature = "train")]
mod loops;
mod made;
mod score;
mod trust;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Scores the verdicts of tamegrad. The exit code is 0 whatever the score, which is for people to
/// judge; 2 when not all could be scored, 130 when it was stopped by Ctrl-C
#[derive(Debug, Parser)]
#[command(name = "cargo xtask eval")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Compare the verdicts on a corpus of logs with its labels
    Logs(Logs),
    #[cfg(feature = "train")]
    /// Make runs whose truth is known (published explosions, planted faults, healthy runs, random
    /// configurations), and score what the guard and the rules of other tools say of them
    Cases(Cases),
    #[cfg(feature = "train")]
    /// Train burn loops as users write them, each with a planted fault, and train them anew with the
    /// first remedy
    Loops(Loops),
    /// Kill processes that write runs at random moments, break their disks, and look at what is left;
    /// exit code 1 if a promise was not kept
    Trust(Trust),
}

#[derive(Debug, clap::Args)]
struct Logs {
    /// A folder with labels.tsv (columns id, label, onset_step) and a folder of logs for each id
    #[arg(value_name = "DIR", required_unless_present = "made")]
    corpus: Option<PathBuf>,
    /// Make logs of runs whose truth is known, in many ways to keep them, instead
    #[arg(long, conflicts_with = "corpus")]
    made: bool,
    /// Of the made logs only a fixed tenth
    #[arg(long, requires = "made")]
    tenth: bool,
    /// List the made logs that were not judged rightly
    #[arg(long, requires = "made")]
    misses: bool,
    /// Write these to a folder
    #[arg(long, value_name = "FOLDER", requires = "made")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[cfg(feature = "train")]
#[derive(Debug, clap::Args)]
struct Cases {
    /// A fixed sample that ends within 10 minutes on 2 cores
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains one of these
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Write cases.csv, cases.md and the recipes of the misses to this folder; what it holds of an
    /// earlier run of the same program is not run again [default: runs/cases, or runs/cases-quick]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[cfg(feature = "train")]
#[derive(Debug, clap::Args)]
struct Loops {
    /// Seeds of each loop
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// Only loops whose network and fault, as in mlp/rate, contain one of these
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Trust {
    /// The program `tamegrad`
    #[arg(long, value_name = "PATH")]
    program: PathBuf,
    /// A Python that has torch and tamegrad; without it no torch run is killed
    #[arg(long, value_name = "PATH")]
    torch: Option<PathBuf>,
    /// How often each kind of process is killed
    #[arg(long, value_name = "N", default_value_t = 500)]
    kills: u64,
    /// How often each fault is tried
    #[arg(long, value_name = "N", default_value_t = 20)]
    faults: u64,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Output {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

/// Set by Ctrl-C: the case that runs is left, and what is there is still counted.
static CANCEL: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let args = Args::parse();
    // Without the handler Ctrl-C ends the program at once, which is no reason not to run.
    let _ = ctrlc::set_handler(|| {
        if CANCEL.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    let result = match &args.what {
        What::Logs(logs) => logs::run(logs),
        #[cfg(feature = "train")]
        What::Cases(cases) => cases::run(cases, &CANCEL),
        #[cfg(feature = "train")]
        What::Loops(loops) => loops::run(loops, &CANCEL),
        What::Trust(trust) => trust::run(trust, &CANCEL),
    };
    match result {
        Ok(scored) => {
            print!("{}", scored.text);
            ExitCode::from(scored.exit_code)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// What was scored, as it is printed.
struct Scored {
    text: String,
    exit_code: u8,
}

fn to_json(report: &impl Serialize) -> Result<String, Box<dyn Error>> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

fn progress(count: usize, output: &Output) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    if output.quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {wide_msg}") {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar
}
