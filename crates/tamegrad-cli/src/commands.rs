//! The commands, one file each.

pub(crate) mod explain;
pub(crate) mod fix;
pub(crate) mod preflight;
pub(crate) mod train;

use std::path::Path;
use std::process::ExitCode;

use tamegrad::Verdict;
use tamegrad_lab::recipe::edit::{self, Edit, EditValue};
use tamegrad_lab::recipe::{self, RecipeFile};

use crate::args::Common;
use crate::failure::Failure;

/// Exit code: exploding gradients were found (and, for `fix`, not cured).
pub(crate) const FOUND: u8 = 1;
/// Exit code: the command could not run.
pub(crate) const COULD_NOT_RUN: u8 = 2;

/// The exit code of a run: 0 when it ended well (healthy, recovered, too early to say).
pub(crate) fn exit_code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Healthy | Verdict::Recovered | Verdict::TooEarly => ExitCode::SUCCESS,
        Verdict::Exploding | Verdict::Exploded | Verdict::Dead => ExitCode::from(FOUND),
    }
}

/// Reads the recipe, with the seed of the command line written into its text.
pub(crate) fn read_recipe(common: &Common) -> Result<RecipeFile, Failure> {
    let mut file = recipe::read(&common.recipe)?;
    if let Some(seed) = common.seed {
        let value = EditValue::Integer(i64::try_from(seed).unwrap_or(i64::MAX));
        let edit = Edit { key: "seed".into(), value };
        file.text = edit::apply(&file.text, &[edit]).map_err(tamegrad_lab::FixError::from)?;
        file.recipe = recipe::parse(&file.text, Some(&file.path))?;
    }
    Ok(file)
}

/// Writes a file and the folders that lead to it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, text));
    written.map_err(|error| Failure::Write { path: path.to_path_buf(), error })
}

/// A report as JSON text.
pub(crate) fn to_json<T: serde::Serialize>(report: &T) -> Result<String, Failure> {
    tamegrad_report::json::to_string(report).map_err(Failure::Json)
}
