//! What the commands that train a recipe share: reading it, and where the run goes.

use std::path::{Path, PathBuf};

use tamegrad::Mode;
use tamegrad_lab::recipe::edit::{self, Edit, EditValue};
use tamegrad_lab::recipe::{self, RecipeFile};
use tamegrad_runs::RunInfo;

pub(crate) use super::exit_code;
use crate::args::Common;
use crate::failure::Failure;

/// Reads the recipe, with the seed of the command line written into its text.
pub(crate) fn read_recipe(common: &Common) -> Result<RecipeFile, Failure> {
    let mut file = recipe::read(&common.recipe)?;
    if let Some(seed) = common.seed {
        let edit = Edit { key: "seed".into(), value: EditValue::Integer(seed) };
        file.text = edit::apply(&file.text, &[edit]).map_err(tamegrad_lab::FixError::from)?;
        file.recipe = recipe::parse(&file.text, Some(&file.path))?;
    }
    Ok(file)
}

/// The folder `runs/NAME`, or `runs/NAME-2` and so on where there is a run already.
pub(crate) fn free_folder(name: &str) -> PathBuf {
    let runs = Path::new("runs");
    let numbered = (2_u64..).map(|number| runs.join(format!("{name}-{number}")));
    let mut folders = std::iter::once(runs.join(name)).chain(numbered);
    let is_free = |folder: &PathBuf| !folder.join("run.json").exists();
    folders.find(is_free).unwrap_or_else(|| runs.join(name))
}

/// What a run folder says of the run of a recipe.
pub(crate) fn run_info(file: &RecipeFile, mode: Mode) -> RunInfo {
    let environment = [
        ("tamegrad", env!("CARGO_PKG_VERSION").to_owned()),
        ("device", tamegrad_lab::device_name().to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("guard", mode.as_str().to_owned()),
    ];
    RunInfo {
        recipe: Some(file.text.clone()),
        environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
        ..RunInfo::default()
    }
}

/// Makes the folder that the report goes to: before the run, which is lost if it cannot be made.
pub(crate) fn make_folder(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path)
        .map_err(|error| Failure::Write { path: path.to_path_buf(), error })
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::Write { path: path.to_path_buf(), error })
}
