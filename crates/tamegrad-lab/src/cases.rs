//! The evaluation: runs that explode and runs that do not, and what is said of them.
//!
//! A [`Case`] is a recipe and what is known to be true of it. [`list`] makes them all, [`run`] runs
//! one, and [`summary`] counts. Whether a run failed is decided by what happened to its loss and
//! its parameters ([`Ending`]), never by what a guard said of it.

mod grid;
mod healthy;
mod outcome;
mod planted;
mod published;
mod rivals;
mod stream;
pub mod summary;
pub mod table;
mod zoo;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use tamegrad::causes::CauseName;

pub use outcome::{Ending, Outcome};
pub use rivals::RIVALS;

use crate::prepare::SetupError;

/// Where a case comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// An explosion that was published.
    Published,
    /// A healthy run with one fault.
    Planted,
    /// A healthy run of the same models, schedules and batches.
    Healthy,
    /// A random configuration; what happens decides.
    Grid,
}

/// What is known to be true of a case before it is run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Truth {
    /// The layer that the fault is in.
    pub layer: Option<String>,
    /// The causes that are right; empty when none was planted.
    pub causes: Vec<CauseName>,
    /// Whether the fault grows over many steps.
    pub grows: bool,
    /// Whether a run that learns nothing has failed, though its loss was never harmed: it was lost
    /// from the start.
    pub is_lost: bool,
}

/// A run to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// `group/kind/seed`; the same name is always the same recipe.
    pub name: String,
    /// Where it comes from.
    pub group: Group,
    /// The recipe, as TOML.
    pub recipe: String,
    /// What is true of it.
    pub truth: Truth,
}

/// How much of the list is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it: at least 20 seeds of each published case, at least 300 failing and 300 healthy
    /// runs.
    Full,
    /// A fixed sample, for a look within minutes.
    Quick,
}

/// All cases of an extent, in a fixed order.
pub fn list(extent: Extent) -> Vec<Case> {
    let of = |full: u64, quick: u64| if extent == Extent::Full { full } else { quick };
    let mut cases = published::cases(of(20, 2));
    cases.extend(planted::cases(of(8, 2)));
    cases.extend(healthy::cases(of(22, 5)));
    cases.extend(grid::cases(of(520, 90)));
    cases
}

/// Runs cases on all processors, and hands each outcome over as it comes. Stops when one cannot be
/// run, or when `cancel` becomes true: then the cases that were not finished have no outcome.
///
/// # Errors
/// When a recipe or its data cannot be made.
pub fn run(
    cases: &[Case],
    cancel: &AtomicBool,
    done: &mut dyn FnMut(Outcome),
) -> Result<(), SetupError> {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, outcomes) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers.min(cases.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = outcome::run(case, cancel);
                    // The receiver is gone when another case could not be run.
                    if cancel.load(Ordering::Relaxed) || sender.send(outcome).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        outcomes.into_iter().try_for_each(|outcome| outcome.map(&mut *done))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_is_a_recipe_and_has_a_name_of_its_own() {
        for extent in [Extent::Full, Extent::Quick] {
            let cases = list(extent);
            let names: HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
            assert_eq!(names.len(), cases.len());
            for case in &cases {
                let recipe = crate::recipe::parse(&case.recipe, None)
                    .unwrap_or_else(|error| panic!("{}: {error}\n{}", case.name, case.recipe));
                assert!(recipe.training.epochs > 0 && recipe.name.len() > 4, "{}", case.name);
            }
        }
    }

    #[test]
    fn the_quick_list_is_a_part_of_the_full_one() {
        let full: Vec<Case> = list(Extent::Full);
        let known: HashSet<(&str, &str)> =
            full.iter().map(|case| (case.name.as_str(), case.recipe.as_str())).collect();
        let quick = list(Extent::Quick);
        assert!(quick.iter().all(|c| known.contains(&(c.name.as_str(), c.recipe.as_str()))));
        let published = full.iter().filter(|case| case.group == Group::Published);
        assert!(published.count() >= 400);
    }
}
