//! What could not be done, and how it is shown.

#[cfg(feature = "train")]
mod in_text;

use std::path::PathBuf;

#[cfg(feature = "train")]
use tamegrad_lab::recipe::RecipeError;
#[cfg(feature = "train")]
use tamegrad_lab::{FixError, SetupError};
use tamegrad_runs::{ReadError, RunError};

fn way_out(error: &RunError) -> &'static str {
    match error {
        RunError::Io { .. } | RunError::NotOurs { .. } => {
            "; hint: choose another folder with --out"
        }
        _ => "",
    }
}

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Saved roles cannot be used or written.
    #[error("{}: {error}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is wanted.
        error: String,
    },
    #[cfg(feature = "train")]
    /// The recipe is not valid.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[cfg(feature = "train")]
    /// The recipe cannot be run.
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[cfg(feature = "train")]
    /// The search for a fix cannot go on.
    #[error(transparent)]
    Fix(#[from] FixError),
    #[cfg(feature = "train")]
    /// A file cannot be written.
    #[error("cannot write {path}: {error}; hint: choose another folder with --out")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    #[cfg(feature = "train")]
    /// What was interrupted is of another recipe.
    #[error(
        "{}: holds a run of another recipe, seed or guard; hint: leave out --resume to use a folder of \
         its own",
        folder.display()
    )]
    OtherRecipe {
        /// The folder.
        folder: PathBuf,
    },
    #[cfg(feature = "train")]
    /// There is nothing to go on with.
    #[error(
        "{}: the run has already finished; hint: leave out --resume to train again in a folder of its own",
        folder.display()
    )]
    Completed {
        /// The folder.
        folder: PathBuf,
    },
    #[cfg(feature = "train")]
    /// A picture cannot be written.
    #[error("cannot write {path}: {error}; hint: choose another file with --svg")]
    WritePicture {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// No run could be read.
    #[error("nothing was written: no run could be read")]
    NoRun,
    /// A file is in the way that is not a report.
    #[error(
        "{}: already there, and not written by `tamegrad report`; hint: choose another name with \
         --output or --figures, or replace it with --overwrite",
        path.display()
    )]
    InTheWay {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A folder or file for the report cannot be looked at or made.
    #[error("{}: {error}; hint: choose another place with --output or --figures", path.display())]
    Place {
        /// The folder or file.
        path: std::path::PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// This build leaves a command or an option out.
    #[cfg(not(all(feature = "train", feature = "parquet", feature = "webhook")))]
    #[error("this build has no `{what}`; hint: install tamegrad-cli with the feature `{feature}`")]
    NotBuilt {
        /// What was asked for.
        what: &'static str,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// The report cannot be written as JSON.
    #[error("the report cannot be written as JSON: {0}")]
    Json(serde_json::Error),
    /// A log or a checkpoint cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A run folder cannot be read or written.
    #[error("{0}{hint}", hint = way_out(.0))]
    Run(#[from] RunError),
    /// There is nothing of that name to explain.
    #[error("got `{name}`, want the name of a sign, cause, remedy or rule; hint: {hint}")]
    Unknown {
        /// What was given.
        name: String,
        /// What to do.
        hint: String,
    },
    /// A sign, cause or remedy has no factors.
    #[error(
        "got --factors with `{name}`, want it with `{story}`, the only page that takes factors"
    )]
    FactorsOf {
        /// What was to be explained.
        name: String,
        /// The page that takes factors.
        story: &'static str,
    },
    /// Factors that have no product to speak of.
    #[error("got the factor {0}, want finite numbers above 0, such as --factors 100,400")]
    Factor(f64),
}

/// Shows a failure on the standard error stream: a recipe's with the place in its text.
pub(crate) fn show(failure: &Failure) {
    #[cfg(feature = "train")]
    if let Failure::Recipe(error) | Failure::Fix(FixError::Recipe(error)) = failure
        && !error.text.is_empty()
    {
        return in_text::show(error);
    }
    crate::screen::say(&format!("error: {failure}"));
}
