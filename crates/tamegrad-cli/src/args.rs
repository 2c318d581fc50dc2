//! The arguments.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Detects, explains and fixes exploding gradients in neural-network training.
///
/// In back-propagation the gradient is a product along the chain rule. Factors above one multiply,
/// updates become huge, and training turns unstable or NaN. tamegrad sees it early, says when,
/// where and why it began, and finds the least change that cures it.
///
/// Start with: tamegrad fix recipes/exploding-digits.toml
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
    /// Train as given; if it explodes, explain it, try the remedies, and train with the least one
    /// that works
    Fix(Fix),
    /// Train a recipe under guard, and say how it went
    Train(Train),
    /// Look at a recipe before the first update: gains, overflow, size of the first step
    Preflight(Preflight),
    /// Look for NaN, Inf and little headroom in the tensors of safetensors files
    Scan(Scan),
    /// Tell what a sign, a cause or a remedy is; alone, list them all
    Explain(Explain),
}

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

/// Arguments of `fix`.
#[derive(Debug, clap::Args)]
pub(crate) struct Fix {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Write report.md, report.json and fixed.toml to this folder [default: runs/<name of the recipe>]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) common: Common,
    /// What the guard may do
    #[arg(long, value_enum, default_value_t = GuardMode::Observe)]
    pub(crate) guard: GuardMode,
    /// Write report.json to this folder as well
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

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

/// Arguments of `preflight`.
#[derive(Debug, clap::Args)]
pub(crate) struct Preflight {
    #[command(flatten)]
    pub(crate) common: Common,
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
    /// Print a JSON object for each FILE in place of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress bar and no table on the screen: the exit code tells what was found
    #[arg(long, short)]
    pub(crate) quiet: bool,
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
