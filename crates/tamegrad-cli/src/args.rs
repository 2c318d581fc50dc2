//! The arguments.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tamegrad_logs::Role;

/// Detects, explains and fixes exploding gradients in neural-network training.
///
/// In back-propagation the gradient is a product along the chain rule. Factors above one multiply,
/// updates become huge, and training turns unstable or NaN. tamegrad sees it early, says when,
/// where and why it began, and finds the least change that cures it.
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
                          2 could not run (or not read all), 130 stopped by Ctrl-C.\n\
                          Colours are left out when the output is no terminal or NO_COLOR is set.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "train")]
    /// Train as given; if it explodes, explain it, try the remedies, and train with the least one
    /// that works
    Fix(Fix),
    #[cfg(not(feature = "train"))]
    #[command(hide = true)]
    Fix(NotBuilt),
    #[cfg(feature = "train")]
    /// Train a recipe under guard, and say how it went
    Train(Train),
    #[cfg(not(feature = "train"))]
    #[command(hide = true)]
    Train(NotBuilt),
    #[cfg(feature = "train")]
    /// Look at a recipe before the first update: gains, overflow, size of the first step
    Preflight(Preflight),
    #[cfg(not(feature = "train"))]
    #[command(hide = true)]
    Preflight(NotBuilt),
    /// Read training logs that exist already, of many formats, and say whether, when and as far as
    /// they show it why the gradients exploded
    Diagnose(Diagnose),
    /// Follow a log that is still growing, and alarm within a second of the record that shows it;
    /// the training process is never touched
    Watch(Watch),
    /// Look for NaN, Inf and little headroom in the tensors of safetensors files
    Scan(Scan),
    #[cfg(feature = "parquet")]
    /// Write the steps and tensors of a run folder as Parquet, for pandas, polars, DuckDB, Spark
    Export(Export),
    #[cfg(not(feature = "parquet"))]
    #[command(hide = true)]
    Export(NotBuilt),
    /// Tell what a sign, a cause or a remedy is; alone, list them all
    Explain(Explain),
}

#[cfg(feature = "train")]
/// What `fix`, `train` and `preflight` have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// The recipe: a TOML file that says data, model, optimizer and training
    #[arg(value_name = "RECIPE")]
    pub(crate) recipe: PathBuf,
    /// Use this seed in place of the recipe's
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) seed: Option<i64>,
    /// Print one JSON object for machines in place of the report
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress bar and no report on the screen: the exit code tells how it ended
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[cfg(feature = "train")]
/// Arguments of `fix`.
#[derive(Debug, clap::Args)]
pub(crate) struct Fix {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Write report.md, report.json, fixed.toml and the runs `given` and `fixed` to this folder, in
    /// place of an earlier search's [default: runs/<name of the recipe>]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
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
    /// Write the run and report.json to this folder, in place of an earlier run there
    /// [default: runs/<name of the recipe>, with a number where that holds a run]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

#[cfg(feature = "train")]
/// What the guard may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuardMode {
    /// Nothing: only the loss is noted
    Off,
    /// Watch and tell; the weights are bit-identical to those without it
    Observe,
    /// Watch, and act with the least force: skip, scale, lower the learning rate, rewind
    Protect,
}

#[cfg(feature = "train")]
/// Arguments of `preflight`.
#[derive(Debug, clap::Args)]
pub(crate) struct Preflight {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Write a picture of the signal's and the gradient's size in each layer to this file
    // One file in place of a folder with a report: all the rest is on the screen or in the JSON.
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
    /// Logs, or folders to look for logs in
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Read the series NAME as loss, grad_norm, lr, loss_scale or metric
    #[arg(long, value_name = "ROLE=NAME", value_parser = mapping)]
    pub(crate) map: Vec<(Role, String)>,
    /// List the series that were found, and judge nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// Print one JSON object a run, each in a line
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Print in this form
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
    /// No progress bar and nothing on the screen: the exit code tells
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// How `diagnose` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// A block of text a run
    Text,
    /// Annotations of GitHub's workflow commands
    Github,
}

fn mapping(text: &str) -> Result<(Role, String), String> {
    let (role, name) = text
        .split_once('=')
        .ok_or_else(|| format!("got `{text}`, want ROLE=NAME, as in loss=train/objective"))?;
    Ok((role.parse()?, name.to_owned()))
}

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// A log, or a folder of logs; it may not be there yet
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Read the series NAME as loss, grad_norm, lr, loss_scale or metric
    #[arg(long, value_name = "ROLE=NAME", value_parser = mapping)]
    pub(crate) map: Vec<(Role, String)>,
    #[cfg(feature = "webhook")]
    /// Send each alarm to this address as JSON with a `text`, as Slack's incoming webhooks take it
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,
    /// Run this command in a shell at each alarm, with TAMEGRAD_PATH, TAMEGRAD_VERDICT,
    /// TAMEGRAD_ONSET_STEP and TAMEGRAD_TEXT in its environment
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
    /// Stop when nothing was written for so many seconds; without it only Ctrl-C stops
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle: Option<f64>,
    /// Print one JSON object an alarm, each in a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `scan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Scan {
    /// A .safetensors file, a .safetensors.index.json with its shards, or a folder of either.
    /// Pickles (.pt, .bin) are not loaded: they can run code
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// List every tensor: otherwise the broken ones, and the 20 with the least headroom
    #[arg(long)]
    pub(crate) all: bool,
    /// Print one JSON object a FILE, each in a line
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress bar and no table on the screen: the exit code tells what was found
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[cfg(feature = "parquet")]
/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// A run folder, as `train` and `fix` write it
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Write steps.parquet and tensors.parquet to this folder [default: RUN]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// A sign, cause or remedy, or `exploding-gradients` for the whole story
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// With `exploding-gradients`: the chain of factors to multiply, with commas between them
    #[arg(long, value_name = "FACTORS", value_delimiter = ',')]
    pub(crate) factors: Option<Vec<f64>>,
}
