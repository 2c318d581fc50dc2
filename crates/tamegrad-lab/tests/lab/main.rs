//! The laboratory as a whole: recipes, remedies, the guard and the search, on small runs.

mod faults;
mod fix;
mod guard;
mod odd;
mod preflight;
mod recipes;
mod remedies;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tamegrad::Mode;
use tamegrad_lab::recipe::{self, Recipe};
use tamegrad_lab::{TrainOptions, Trained, train};

/// Trains a recipe to its end.
fn run(recipe: &Recipe, mode: Mode) -> Trained {
    run_for(recipe, mode, None)
}

/// Trains a recipe for at most so many steps.
fn run_for(recipe: &Recipe, mode: Mode, steps_max: Option<u64>) -> Trained {
    let cancel = AtomicBool::new(false);
    let options = TrainOptions { steps_max, ..TrainOptions::new(mode, &cancel) };
    train(recipe, &options, &mut |_, _| {}).unwrap_or_else(|error| panic!("{error}"))
}

fn parse(text: &str) -> Recipe {
    recipe::parse(text, None).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A recipe of the repository.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(name)
}
