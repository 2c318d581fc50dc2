//! One case run: what became of it, and what was said of it, by us and by the rivals.

use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use tamegrad::SignName;
use tamegrad::record::NonFiniteAt;
use tamegrad::{GradientAction, Mode, Record, Run};

use super::rivals::Rivals;
use super::stream::Seen;
use super::{Case, Group};
use crate::data::Targets;
use crate::preflight;
use crate::prepare::SetupError;
use crate::recipe::{self, Loss, Recipe, Scale, Source, Task};
use crate::train::{TrainOptions, Trained, train};

/// How a run ended, by what happened alone: no guard is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The first pass already has values that are not finite.
    Overflow,
    /// A loss or a parameter became non-finite later.
    NonFinite,
    /// The loss rose by 1 nat (by a factor of e where it is a squared error) above its best level
    /// in 3 of 5 steps, or began at 1,000 times what always giving the mean would cost; or a run
    /// that is known to be lost from the start learned nothing.
    Harmed,
    /// As `Harmed`, but the run learned in the end.
    Rough,
    /// The held-out metric ended well above chance, and the loss was never harmed.
    Learned,
    /// None of these: it learned little, and was not harmed.
    Idle,
}

impl Ending {
    /// Whether an alarm is right.
    pub fn is_failure(self) -> bool {
        matches!(self, Ending::Overflow | Ending::NonFinite | Ending::Harmed)
    }
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The case's name.
    pub name: String,
    /// Where it comes from.
    pub group: Group,
    /// How it ended.
    pub ending: Ending,
    /// Steps taken.
    pub steps: u64,
    /// Held-out metric at the end; `None` when it is NaN.
    pub metric: Option<f64>,
    /// The step at which the planted fault comes; 0 where it is there from the start.
    pub fault_at: u64,
    /// Whether the fault grows over many steps.
    pub grows: bool,
    /// The first step whose update makes a parameter non-finite.
    pub parameter_nonfinite: Option<u64>,
    /// The first step at which the loss is harmed or not finite.
    pub harmed_at: Option<u64>,
    /// Our first alarm.
    pub alarm: Option<u64>,
    /// Whether the alarm is one that only a non-finite parameter raised.
    pub alarm_is_late: bool,
    /// Whether preflight warns.
    pub preflight: bool,
    /// Our verdict.
    pub verdict: String,
    /// The planted layer, if the fault is in one.
    pub planted_layer: Option<String>,
    /// The layer that we name.
    pub origin: Option<String>,
    /// How many layers it is away from the planted one.
    pub origin_distance: Option<u64>,
    /// The causes that are right.
    pub planted_causes: Vec<String>,
    /// The cause that we rank first.
    pub cause: Option<String>,
    /// The remedy that we rank first.
    pub remedy: Option<String>,
    /// Steps at which the guard acted in protect mode.
    pub actions: u64,
    /// Whether all parameters are finite at the end in protect mode.
    pub protected_finite: bool,
    /// Held-out metric at the end in protect mode; `None` when it is NaN.
    pub protected_metric: Option<f64>,
    /// The first step at which each rival fired.
    pub rivals: Vec<Option<u64>>,
}

/// Runs a case twice, watched and protected.
///
/// # Errors
/// When its data cannot be made.
pub(super) fn run(case: &Case, cancel: &AtomicBool) -> Result<Outcome, SetupError> {
    let recipe = recipe::parse(&case.recipe, None)
        .map_err(|error| SetupError::Case { name: case.name.clone(), reason: error.to_string() })?;
    let chance = chance_loss(&recipe)?;
    let mut rivals = Rivals::new();
    let mut harm = Harm::new(&recipe, chance);
    let options = |mode| TrainOptions::new(mode, cancel);
    let watched = train(&recipe, &options(Mode::Observe), &mut |progress, run| {
        if let Some(seen) = Seen::latest(run.record(), progress.steps) {
            harm.see(seen.step, seen.loss);
            rivals.see(&seen);
        }
    })?;
    let protected = train(&recipe, &options(Mode::Protect), &mut |_, _| {})?;
    let warns = !preflight(&recipe)?.warnings().is_empty();
    Ok(outcome(case, &recipe, &watched, &protected, harm, rivals, warns))
}

fn outcome(
    case: &Case,
    recipe: &Recipe,
    watched: &Trained,
    protected: &Trained,
    harm: Harm,
    rivals: Rivals,
    warns: bool,
) -> Outcome {
    let record = watched.run.record();
    let found = &watched.diagnosis;
    let name = |layer| record.layout().layer_name(layer).to_owned();
    let origin = found.origin.as_ref().and_then(|origin| origin.layer());
    let planted = case.truth.layer.as_deref();
    let place = planted
        .and_then(|planted| record.layout().layers.iter().position(|layer| layer.name == planted));
    let alarm = watched.run.first_alarm();
    let nonfinite = first_broken_parameter(record);
    Outcome {
        name: case.name.clone(),
        group: case.group,
        ending: ending(case, recipe, watched, &harm, nonfinite),
        steps: watched.steps,
        metric: Some(watched.metric).filter(|metric| !metric.is_nan()),
        fault_at: recipe.fault.map_or(0, |fault| fault.step()),
        grows: case.truth.grows,
        parameter_nonfinite: nonfinite,
        harmed_at: harm.at,
        alarm: alarm.map(|alarm| alarm.step.0),
        alarm_is_late: alarm.is_some_and(|alarm| {
            alarm.sign == SignName::LossNonFinite
                && matches!(record.first_nonfinite(), Some((step, NonFiniteAt::Parameter(_)))
                    if step == alarm.step)
        }),
        preflight: warns,
        verdict: found.verdict.as_str().to_owned(),
        planted_layer: case.truth.layer.clone(),
        origin: origin.map(name),
        origin_distance: origin.zip(place).map(|(o, place)| o.0.abs_diff(place) as u64),
        planted_causes: case.truth.causes.iter().map(|cause| cause.as_str().to_owned()).collect(),
        cause: found.causes.first().map(|cause| cause.name.as_str().to_owned()),
        remedy: found.remedies.first().map(|proposal| proposal.remedy.as_str().to_owned()),
        actions: acted(&protected.run),
        protected_finite: first_broken_parameter(protected.run.record()).is_none(),
        protected_metric: Some(protected.metric).filter(|metric| !metric.is_nan()),
        rivals: rivals.fired,
    }
}

/// Steps that the guard changed.
fn acted(run: &Run) -> u64 {
    let changes = run.actions().iter().filter(|(_, decision)| {
        decision.gradients != GradientAction::Keep
            || decision.learning_rate != 1.0
            || decision.rewind.is_some()
    });
    changes.count() as u64 + run.actions_dropped()
}

/// The first step whose update makes a parameter non-finite.
fn first_broken_parameter(record: &Record) -> Option<u64> {
    let broken = |ratio: f64| ratio.is_infinite();
    record.rows().iter().find(|row| row.update_ratio.is_some_and(broken)).map(|row| row.step.0)
}

fn ending(
    case: &Case,
    recipe: &Recipe,
    run: &Trained,
    harm: &Harm,
    nonfinite: Option<u64>,
) -> Ending {
    let first = run.run.record().rows().first();
    let overflows = first.is_some_and(|row| {
        row.nonfinite_gradients > 0 || row.loss.is_some_and(|loss| !loss.is_finite())
    });
    let lost =
        run.run.record().rows().iter().any(|row| row.loss.is_some_and(|loss| !loss.is_finite()));
    let learned = run.metric >= learned_from(recipe);
    match (overflows, lost || nonfinite.is_some(), harm.at.is_some(), learned) {
        (true, ..) => Ending::Overflow,
        (_, true, ..) => Ending::NonFinite,
        (_, _, true, false) => Ending::Harmed,
        (_, _, true, true) => Ending::Rough,
        (_, _, _, true) => Ending::Learned,
        (_, _, _, false) if case.truth.is_lost => Ending::Harmed,
        (_, _, _, false) => Ending::Idle,
    }
}

/// Watches for harm to the loss.
struct Harm {
    is_log: bool,
    first_limit: f64,
    first: Option<f64>,
    recent: std::collections::VecDeque<f64>,
    best: Option<f64>,
    at: Option<u64>,
}

impl Harm {
    /// Losses that make a level.
    const LEVEL: usize = 5;
    /// Multiple of the loss at chance from which on a first loss is an explosion.
    const FIRST_LIMIT: f64 = 1e3;

    fn new(recipe: &Recipe, chance: f64) -> Self {
        Self {
            is_log: recipe.loss() == Loss::CrossEntropy,
            first_limit: Self::FIRST_LIMIT * chance,
            first: None,
            recent: std::collections::VecDeque::new(),
            best: None,
            at: None,
        }
    }

    fn see(&mut self, step: u64, loss: f64) {
        let first = *self.first.get_or_insert(loss);
        let best = self.best.unwrap_or(first);
        if self.recent.len() == Self::LEVEL {
            self.recent.pop_front();
        }
        self.recent.push_back(loss);
        let limit = if self.is_log {
            best + 1.0
        } else {
            // A squared error may be tiny: it must also be a part of what it came down from.
            (std::f64::consts::E * best).max(best + 0.05 * first)
        };
        let above = self.recent.iter().filter(|loss| !(**loss <= limit)).count();
        let harmed = !loss.is_finite() || !(first <= self.first_limit) || above >= 3;
        if harmed && self.at.is_none() {
            self.at = Some(step);
        }
        let level = tamegrad::running::median(self.recent.iter().copied());
        if let Some(level) = level.filter(|_| self.recent.len() == Self::LEVEL) {
            self.best = Some(best.min(level));
        }
    }
}

/// The metric from which on a run has learned: a third of the way from chance to 1.
fn learned_from(recipe: &Recipe) -> f64 {
    let chance = match recipe.data.task() {
        Task::Classification => 1.0 / classes(&recipe.data) as f64,
        Task::Regression => 0.0,
    };
    chance + (1.0 - chance) / 3.0
}

/// The loss of always giving the mean.
fn chance_loss(recipe: &Recipe) -> Result<f64, SetupError> {
    let classes = classes(&recipe.data) as f64;
    let square = match recipe.data.task() {
        Task::Classification => 1.0 / classes,
        Task::Regression => target_square(recipe)?,
    };
    Ok(match recipe.loss() {
        Loss::CrossEntropy => classes.ln(),
        Loss::MeanSquaredError => square,
        Loss::SumSquaredError => square * classes * recipe.training.batch as f64,
    })
}

/// The mean square of the regression targets as they are trained on.
fn target_square(recipe: &Recipe) -> Result<f64, SetupError> {
    if recipe.scale.target == Scale::Standard {
        return Ok(1.0);
    }
    let data = crate::data::load(&recipe.data, recipe.seed)?;
    Ok(match &data.train.targets {
        Targets::Values { values, .. } => tamegrad_stats::scan(values).rms().powi(2),
        Targets::Classes { .. } => 1.0,
    })
}

/// Number of classes, or 1 for values.
fn classes(source: &Source) -> usize {
    match source {
        Source::Digits {} => 10,
        Source::Circles { .. } => 2,
        Source::Blobs { centers, .. } => *centers,
        Source::TemporalOrder { .. } => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmed(loss: &str, losses: &[f64]) -> Option<u64> {
        let text = format!(
            "name = 'a'\ndata.digits = {{}}\n\
             model.mlp = {{ depth = 1, width = 4 }}\n\
             optimizer.sgd = {{ learning_rate = 0.1 }}\n\
             training = {{ batch = 8, epochs = 1, loss = '{loss}' }}"
        );
        let mut harm = Harm::new(&recipe::parse(&text, None).unwrap(), 1.0);
        losses.iter().zip(0..).for_each(|(loss, step)| harm.see(step, *loss));
        harm.at
    }

    #[test]
    fn harm_is_one_nat_in_three_of_five_steps_or_a_loss_that_is_not_finite() {
        let calm = [2.3, 2.2, 2.1, 2.0, 1.9, 1.8, 1.7];
        let then = |tail: &[f64]| [&calm[..], tail].concat();
        // The best level is the median of five, 1.9.
        for (losses, at) in [
            (then(&[1.6, 5.0, 1.6, 1.6]), None),
            (then(&[3.0, 3.0, 3.0]), Some(9)),
            (then(&[2.8, 2.8, 2.8, 2.8]), None),
            (then(&[f64::NAN]), Some(7)),
            (vec![5000.0, 2.0], Some(0)),
        ] {
            assert_eq!(harmed("cross-entropy", &losses), at, "{losses:?}");
        }
    }

    #[test]
    fn a_squared_error_must_rise_by_a_part_of_its_descent_as_well() {
        let tiny = [vec![1.0; 3], vec![1e-4; 6], vec![1e-3; 5]].concat();
        assert_eq!(harmed("mean-squared-error", &tiny), None);
        let large = [vec![1.0; 3], vec![1e-1; 6], vec![0.5; 5]].concat();
        assert_eq!(harmed("mean-squared-error", &large), Some(11));
    }
}
