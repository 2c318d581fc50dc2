//! What the commands that train a recipe share: reading it, and where the run goes.

use std::path::{Path, PathBuf};

use tamegrad::Mode;
use tamegrad_lab::recipe::edit::{self, Edit, EditValue};
use tamegrad_lab::recipe::{self, RecipeFile};
use tamegrad_runs::{Existing, RunInfo};

pub(crate) use super::exit_code;
use crate::args::{Common, Output};
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

impl Output {
    /// The folder that is asked for; that of the recipe's name without it.
    pub(crate) fn folder(&self, file: &RecipeFile) -> PathBuf {
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(&file.recipe.name))
    }

    /// What is to be done about what is there.
    pub(crate) fn existing(&self) -> Existing {
        match (self.overwrite, self.resume) {
            (true, _) => Existing::Overwrite,
            (false, true) => Existing::Resume,
            (false, false) => Existing::Number,
        }
    }
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
