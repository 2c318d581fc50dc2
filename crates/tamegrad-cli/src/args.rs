//! The arguments.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tamegrad_logs::Role;

use crate::delivery::Exec;
#[cfg(feature = "webhook")]
use crate::delivery::check_webhook;

/// Detects, explains and fixes exploding gradients in neural-network training.
///
/// In backpropagation the gradient is a product along the chain rule. When the factors exceed one
/// they multiply, updates become huge, and training turns unstable or NaN. tamegrad detects this
/// early, says when, where and why it began, and finds the smallest change that cures it.
///
#[cfg_attr(feature = "train", doc = "Start with: tamegrad fix recipes/exploding-digits.toml")]
#[cfg_attr(not(feature = "train"), doc = "Start with: tamegrad diagnose path/to/runs")]
#[derive(Debug, Parser)]
#[command(name = "tamegrad", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 healthy (or fixed), 1 exploding gradients (or NaN, Inf) found,\n\
                          2 could not run (or could not read everything), 130 stopped by Ctrl-C (129 SIGHUP, 143 SIGTERM).\n\
                          Output is not coloured if it is not a terminal or NO_COLOR is set.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "train")]
    /// Train a recipe; if it explodes, explain why, try the remedies, and train to the end with the
    /// mildest one that works
    Fix(Fix),
    #[cfg(not(feature = "train"))]
    #[command(hide = true)]
    Fix(NotBuilt),
    #[cfg(feature = "train")]
    /// Train a recipe under the guard, and report how it went
    Train(Train),
    #[cfg(not(feature = "train"))]
    #[command(hide = true)]
    Train(NotBuilt),
    #[cfg(feature = "train")]
    /// Check a recipe before the first update: gains, overflow, headroom, size of the first update
    Preflight(Preflight),
    #[cfg(not(feature = "train"))]
    #[command(hide = true)]
    Preflight(NotBuilt),
    /// Diagnose existing training logs: whether, when and, as far as the log shows, why gradients
    /// exploded
    Diagnose(Diagnose),
    /// Write a run, or several against each other, as one HTML file with figures: verdict, curves, heat
    /// map, chain of gains, signs, causes and remedies with code
    Report(Report),
    /// Follow a log that is still growing, and raise an alarm within a second of the record that
    /// shows it; the training process is not touched
    Watch(Watch),
    /// Look for NaN, Inf and low headroom in safetensors checkpoints
    Scan(Scan),
    #[cfg(feature = "parquet")]
    /// Write the steps and tensors of a run folder as Parquet, for pandas, Polars, DuckDB or Spark
    Export(Export),
    #[cfg(not(feature = "parquet"))]
    #[command(hide = true)]
    Export(NotBuilt),
    /// Explain a sign, cause, remedy or rule; without a name, list them all
    Explain(Explain),
}

#[cfg(feature = "train")]
/// What `fix`, `train` and `preflight` have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// The recipe: a TOML file with the data, model, optimizer and training
    #[arg(value_name = "RECIPE")]
    pub(crate) recipe: PathBuf,
    /// Use this seed instead of the recipe's
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) seed: Option<i64>,
    /// Print one JSON object instead of the report
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress bar and print no report; the exit code says how it ended
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[cfg(feature = "train")]
/// Where `fix` and `train` write.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Write to this folder, or to FOLDER-2, FOLDER-3 and so on if it is taken
    /// [default: runs/<name of the recipe>]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Take the place of what an earlier run has left in the folder, once this one is whole
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Go on with the run that was interrupted in the folder
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) resume: bool,
}

#[cfg(feature = "train")]
/// Arguments of `fix`.
#[derive(Debug, clap::Args)]
pub(crate) struct Fix {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[cfg(feature = "train")]
/// Arguments of `train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) common: Common,
    /// What the guard may do
    #[arg(long, value_enum, default_value_t = GuardMode::Observe)]
    pub(crate) guard: GuardMode,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[cfg(feature = "train")]
/// What the guard may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuardMode {
    /// Nothing; only the loss is recorded
    Off,
    /// Watch and report; the weights are bit-identical to those of a run without the guard
    Observe,
    /// Watch, and intervene as little as possible: skip, scale, lower the learning rate, rewind
    Protect,
}

#[cfg(feature = "train")]
/// Arguments of `preflight`.
#[derive(Debug, clap::Args)]
pub(crate) struct Preflight {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Plot the size of the signal and the gradient in each layer to this SVG file
    // One file instead of a folder with a report: all the rest is on the screen or in the JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// Arguments of a command that this build leaves out.
#[cfg(not(all(feature = "train", feature = "parquet")))]
#[derive(Debug, clap::Args)]
pub(crate) struct NotBuilt {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<std::ffi::OsString>,
}

/// Arguments of `diagnose`.
#[derive(Debug, clap::Args)]
pub(crate) struct Diagnose {
    /// Logs, or folders to search for logs; - is the standard input
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Use the series NAME as ROLE: loss, grad_norm, lr, loss_scale or metric; may be repeated, and NAME
    /// may be a pattern with * and ?
    #[arg(long, value_name = "ROLE=NAME", value_parser = mapping)]
    pub(crate) map: Vec<(Role, String)>,
    /// Save what --map says in tamegrad.toml beside the logs, where it is found the next time
    #[arg(long, requires = "map")]
    pub(crate) save_map: bool,
    /// List the series of each log with their roles instead of diagnosing it
    #[arg(long)]
    pub(crate) list: bool,
    /// Print one JSON object per run, one per line
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
    /// Show no progress bar and print nothing but errors; the exit code gives the result
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// Run folders or logs, or folders to search for them; several runs are compared first
    #[arg(value_name = "RUN", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Use the series NAME as ROLE: loss, grad_norm, lr, loss_scale or metric
    #[arg(long, value_name = "ROLE=NAME", value_parser = mapping)]
    pub(crate) map: Vec<(Role, String)>,
    /// Write the report to this file [default: <name of the first RUN>-report.html]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write each figure as SVG to this folder, too
    #[arg(long, value_name = "FOLDER")]
    pub(crate) figures: Option<PathBuf>,
    /// Replace files that are in the way although tamegrad has not written them
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Show no progress bar and print nothing but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// How `diagnose` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// A block of text per run
    Text,
    /// Annotations for GitHub Actions
    Github,
}

/// Seconds of any length that a clock can count.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("got `{text}`, want a number of seconds from 0 up, such as 600"))
}

fn mapping(text: &str) -> Result<(Role, String), String> {
    let (role, name) = text
        .split_once('=')
        .ok_or_else(|| format!("got `{text}`, want ROLE=NAME, such as loss=train/objective"))?;
    if name.is_empty() {
        return Err(format!(
            "got no name for `{role}`, want ROLE=NAME, such as loss=train/objective"
        ));
    }
    Ok((role.parse()?, name.to_owned()))
}

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// A log, or a folder of logs; it need not exist yet
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Use the series NAME as ROLE: loss, grad_norm, lr, loss_scale or metric
    #[arg(long, value_name = "ROLE=NAME", value_parser = mapping)]
    pub(crate) map: Vec<(Role, String)>,
    #[cfg(feature = "webhook")]
    /// POST each alarm to this URL as JSON with a `text` field, as Slack's incoming webhooks expect;
    /// what fails is tried again twice
    #[arg(long, value_name = "URL", value_parser = check_webhook)]
    pub(crate) webhook: Option<String>,
    /// Run this program at each alarm, for at most 60 seconds, with TAMEGRAD_PATH, TAMEGRAD_VERDICT,
    /// TAMEGRAD_ONSET_STEP and TAMEGRAD_TEXT in its environment. Words are split as a shell splits
    /// them, but no shell is run: for `$NAME`, `|` or `>`, give a script or `sh -c '...'`
    #[arg(long, value_name = "COMMAND", value_parser = Exec::parse)]
    pub(crate) exec: Option<Exec>,
    /// Stop when nothing has been written for this many seconds [default: watch until Ctrl-C]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub(crate) idle: Option<Duration>,
    /// Print one JSON object per alarm, one per line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `scan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Scan {
    /// A .safetensors file, a .safetensors.index.json with its shards, or a folder of either.
    /// Pickles (.pt, .bin) are not loaded, because they can run code
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// List every tensor, not only the broken ones and the 20 with the least headroom
    #[arg(long)]
    pub(crate) all: bool,
    /// Print one JSON object per FILE, one per line
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress bar and print no table; the exit code says what was found
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[cfg(feature = "parquet")]
/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// A run folder, as written by `train` and `fix`
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Write steps.parquet and tensors.parquet to this folder [default: RUN]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// A sign, cause, remedy or rule, or `exploding-gradients` for an introduction
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// With `exploding-gradients`: the factors of the worked example, separated by commas
    #[arg(long, value_name = "FACTORS", value_delimiter = ',')]
    pub(crate) factors: Option<Vec<f64>>,
}
