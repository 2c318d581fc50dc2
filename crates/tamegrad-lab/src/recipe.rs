//! A recipe: the TOML file that says on which data which model is trained, and how.
//!
//! ```toml
//! name = "healthy-digits"
//! seed = 7
//!
//! [data.digits]
//!
//! [scale]
//! input = "standard"
//!
//! [model.mlp]
//! depth = 3
//! width = 64
//! activation = "relu"
//! init.he.gain = 1.0
//! normalisation = { kind = "batch", place = "before" }
//!
//! [[model.mlp.layer]]
//! index = 2
//! activation = "tanh"
//!
//! [optimizer.sgd]
//! learning_rate = 0.05
//! momentum = 0.9
//!
//! [schedule]
//! warm_up = 100
//! decay = "cosine"
//!
//! [clip]
//! by = "global-norm"
//! limit = 1.0
//!
//! [regularise]
//! l2 = 1e-4
//!
//! [training]
//! batch = 64
//! epochs = 20
//! ```
//!
//! Reading is strict: an unknown key, a wrong type or an impossible value is a [`RecipeError`] that
//! points at line and column and says what is allowed. The structs here are the only description of
//! the format, which serde's derive reads; a new key is a new field. Where one of several is chosen
//! (data, model, optimizer, `init`, fault) its name is that of a table, which holds its keys.

mod allowed;
pub(crate) mod check;
pub mod diff;
pub mod edit;
mod error;
mod fault;
pub(crate) mod memory;
mod model;
mod near;
mod number;
mod place;
mod source;
mod training;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

use crate::file;

pub use error::RecipeError;
pub use fault::Fault;
pub use model::{
    Activation, Cell, Conv, Distribution, Init, LayerOverride, Mlp, Model, Normalisation,
    NormalisationKind, Place, Rnn, Transformer,
};
pub use source::{Scale, Scaling, Source, Task};
pub use training::{
    Adam, Clip, ClipBy, Decay, Dtype, Loss, Optimizer, Regularise, Rmsprop, Schedule, Sgd, Training,
};

/// All that a training run is made from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run and of its folder: 1 to 100 ASCII letters, digits, `-` and `_`.
    #[serde(deserialize_with = "number::name")]
    pub name: String,
    /// Where all chance comes from: generated data, splits, initial weights, batches. Default 0.
    #[serde(default, deserialize_with = "number::integer::<_, _, 0, { i64::MAX }>")]
    pub seed: u64,
    /// What is learned.
    pub data: Source,
    /// What is done to the data before training. Default: nothing.
    #[serde(default)]
    pub scale: Scaling,
    /// What learns.
    pub model: Model,
    /// How a gradient becomes an update.
    pub optimizer: Optimizer,
    /// How the learning rate changes with the step. Default: not at all.
    #[serde(default)]
    pub schedule: Schedule,
    /// How gradients are limited. Default: they are not.
    pub clip: Option<Clip>,
    /// Penalties on the weights. Default: none.
    #[serde(default)]
    pub regularise: Regularise,
    /// How long and with which loss.
    pub training: Training,
    /// What goes wrong on purpose. Default: nothing.
    pub fault: Option<Fault>,
}

impl Recipe {
    /// The loss that is trained: the one the recipe names, or else the usual one for the task
    /// (cross-entropy for classes, mean squared error for values).
    pub fn loss(&self) -> Loss {
        self.training.loss.unwrap_or(match self.data.task() {
            Task::Classification => Loss::CrossEntropy,
            Task::Regression => Loss::MeanSquaredError,
        })
    }
}

/// A recipe and the file it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct RecipeFile {
    /// The file as it stands, with its comments: what [`edit::apply`] works on.
    pub text: String,
    /// Where the file is, as given.
    pub path: PathBuf,
    /// What it says.
    pub recipe: Recipe,
}

/// Most bytes of a recipe: a hundred times the largest that a person writes.
const BYTES_MAX: u64 = 4 << 20;

/// Reads the recipe at `path`.
///
/// # Errors
/// When the file cannot be read, is not UTF-8, is not a recipe (see [`parse`]), or when the run needs more
/// memory than there is.
pub fn read(path: &Path) -> Result<RecipeFile, RecipeError> {
    let bytes = file::read(path, BYTES_MAX);
    let bytes = bytes.map_err(|error| RecipeError::unreadable(path, &error))?;
    let text = String::from_utf8(bytes).map_err(|error| RecipeError::not_utf8(path, &error))?;
    let recipe = parse_with(&text, Some(path), |recipe| {
        check::conflict(recipe).or_else(|| memory::excess(recipe, None))
    })?;
    Ok(RecipeFile { text, path: path.to_path_buf(), recipe })
}

/// Parses `text`. `path` is where it came from: errors name it, and the relative paths in `[data]`
/// are resolved against its folder. Without it they stay as written.
///
/// # Errors
/// When `text` is not TOML, has an unknown key, lacks one, or has a value of the wrong type, out of
/// range or at odds with another value. Of several errors one is told.
pub fn parse(text: &str, path: Option<&Path>) -> Result<Recipe, RecipeError> {
    parse_with(text, path, check::conflict)
}

fn parse_with(
    text: &str,
    path: Option<&Path>,
    conflict: impl FnOnce(&Recipe) -> Option<check::Conflict>,
) -> Result<Recipe, RecipeError> {
    let fail = |told| RecipeError::new(text, path, told);
    let table = DeTable::parse(text).map_err(|error| fail(error::syntax(&error)))?;
    let mut recipe = Recipe::deserialize(Deserializer::from(table.clone()))
        .map_err(|error| fail(error::refused(text, table.get_ref(), &error)))?;
    if let Some(conflict) = conflict(&recipe) {
        return Err(fail(error::at_odds(table.get_ref(), conflict)));
    }
    if let Some(folder) = path.and_then(Path::parent) {
        recipe.data.resolve(folder);
    }
    Ok(recipe)
}

#[cfg(test)]
mod tests;
