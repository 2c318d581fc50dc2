//! The search for the fix: train as given, diagnose, try each remedy, keep the least that works.

use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad::SignName;
use tamegrad::diagnosis::SignSummary;
use tamegrad::remedies::Proposal;
use tamegrad::{Mode, Run, Verdict};

use crate::changes::edits;
use crate::prepare::SetupError;
use crate::recipe::edit::{self, EditError};
use crate::recipe::{self, RecipeError, RecipeFile, diff};
use crate::train::{Progress, TrainOptions, Trained, train};

/// Why the search cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FixError {
    /// The recipe cannot be run.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A remedy cannot be written into the recipe.
    #[error("the remedy cannot be written into the recipe: {0}")]
    Edit(#[from] EditError),
    /// The recipe with a remedy is not valid.
    #[error("the recipe with the remedy is not valid: {0}")]
    Recipe(#[from] RecipeError),
}

/// One remedy, tried alone.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The remedy.
    pub proposal: Proposal,
    /// Verdict on the short run with it.
    pub verdict: Verdict,
    /// Held-out metric at the end of the short run.
    pub metric: f64,
    /// Steps of the short run.
    pub steps: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Whether it learned something: its metric did not stall, and is not below the best that the run
    /// as given reached before it exploded.
    pub learns: bool,
    text: String,
}

/// What a trial of an earlier search came to, which was interrupted.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlierTrial {
    /// The remedy, as [`Proposal::label`] has it.
    pub remedy: String,
    /// As in [`Trial`].
    pub verdict: Verdict,
    /// As in [`Trial`].
    pub metric: f64,
    /// As in [`Trial`].
    pub steps: u64,
    /// As in [`Trial`].
    pub seconds: f64,
    /// As in [`Trial`].
    pub learns: bool,
}

/// What a search tells while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum News<'a> {
    /// A step of a run.
    Step(&'a Stage, Progress, &'a Run),
    /// The run as given has ended.
    Given(&'a Trained),
    /// A trial has ended.
    Tried(&'a Trial),
}

/// The remedy that was trained to the end.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The remedy.
    pub proposal: Proposal,
    /// The recipe with it; valid by itself in any folder.
    pub text: String,
    /// What it changes, as a unified diff.
    pub diff: String,
    /// The run to the end.
    pub trained: Trained,
}

/// What the search found.
#[derive(Debug, Clone)]
pub struct Fix {
    /// The run as given.
    pub given: Trained,
    /// All remedies that were tried, the least force first.
    pub trials: Vec<Trial>,
    /// The least that works; `None` when the run was healthy, or nothing works.
    pub chosen: Option<Chosen>,
    /// Whether it was cancelled before its end.
    pub cancelled: bool,
}

/// What the search is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// Training the recipe as it is.
    Given,
    /// Trying a remedy: its label, its number from 1, and how many there are.
    Trial(String, usize, usize),
    /// Training with the remedy to the end.
    Final(String),
}

/// Steps after the first alarm that show whether a run recovers.
const AFTER_ALARM_STEPS: u64 = 100;
/// A trial is at least this many times as long as the given run was up to its alarm.
const TRIAL_OF_ONSET: u64 = 3;
/// A trial is at least this part of the run.
const TRIAL_OF_RUN: f64 = 0.35;
/// A trial of fewer steps is too short to be called healthy.
const TRIAL_STEPS_MIN: u64 = tamegrad::diagnosis::ROWS_MIN as u64;
/// How far below the best trial's metric a remedy may be.
const METRIC_MARGIN: f64 = 0.02;

/// Trains a recipe as given until its verdict stands; if it explodes, tries each remedy alone in
/// a short run on the same seed, the least force first, and trains with the first one that is
/// healthy and within 2% of the best trial's metric to the end. A remedy that does not hold to
/// the end gives way to the next.
///
/// Trials of an `earlier` search of the same recipe are not run again.
///
/// # Errors
/// When the recipe cannot be run or edited.
pub fn fix(
    file: &RecipeFile,
    earlier: &[EarlierTrial],
    cancel: &AtomicBool,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Fix, FixError> {
    let observe = TrainOptions::new(Mode::Observe, cancel);
    let until_clear = TrainOptions { stop_after_alarm: Some(AFTER_ALARM_STEPS), ..observe };
    let given =
        train(&file.recipe, &until_clear, &mut |p, r| tell(News::Step(&Stage::Given, p, r)))?;
    tell(News::Given(&given));
    let mut found = Fix { given, trials: Vec::new(), chosen: None, cancelled: false };
    if found.given.diagnosis.verdict.is_explosion() {
        found.trials = try_all(file, &found.given, earlier, &observe, tell)?;
        found.chosen = train_to_the_end(file, &found.trials, &observe, tell)?;
    }
    found.cancelled = cancel.load(Ordering::Relaxed);
    Ok(found)
}

fn try_all(
    file: &RecipeFile,
    given: &Trained,
    earlier: &[EarlierTrial],
    options: &TrainOptions<'_>,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Vec<Trial>, FixError> {
    let folder = file.path.parent().unwrap_or(std::path::Path::new("."));
    let text = edit::absolute_paths(&file.text, folder);
    let mut proposals = given.diagnosis.remedies.clone();
    proposals.sort_by_key(|proposal| proposal.remedy.force());
    let candidates: Vec<_> = proposals
        .into_iter()
        .filter_map(|proposal| Some((edits(&proposal.change, &file.recipe)?, proposal)))
        .collect();
    let mut trials = Vec::new();
    let count = candidates.len();
    for (index, (edits, proposal)) in candidates.into_iter().enumerate() {
        if options.cancel.load(Ordering::Relaxed) {
            break;
        }
        let text = edit::apply(&text, &edits)?;
        if let Some(known) = earlier.iter().find(|known| known.remedy == proposal.label()) {
            let EarlierTrial { verdict, metric, steps, seconds, learns, .. } = *known;
            trials.push(Trial { proposal, verdict, metric, steps, seconds, learns, text });
            continue;
        }
        let recipe = recipe::parse(&text, Some(&file.path))?;
        let stage = Stage::Trial(proposal.label(), index + 1, count);
        let steps_max = Some(trial_steps(given));
        let options = TrainOptions { steps_max, ..*options };
        let run = train(&recipe, &options, &mut |p, r| tell(News::Step(&stage, p, r)))?;
        if run.cancelled {
            break;
        }
        let trial = Trial {
            proposal,
            learns: learns(&run, given),
            verdict: run.diagnosis.verdict,
            metric: run.metric,
            steps: run.steps,
            seconds: run.seconds,
            text,
        };
        tell(News::Tried(&trial));
        trials.push(trial);
    }
    Ok(trials)
}

/// Whether a trial learned something: its metric did not stall, and is not below the best that
/// the run as given reached before it exploded. A run that stands still is healthy as well, and
/// cures nothing.
fn learns(trial: &Trained, given: &Trained) -> bool {
    let is_stall = |s: &&SignSummary| s.sign == SignName::MetricStalls && s.count > 0;
    let stalls = trial.diagnosis.signs.iter().any(|sign| is_stall(&sign));
    let measured = given.run.record().rows().iter().filter_map(|row| row.metric);
    let best = measured.filter(|metric| metric.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    !stalls && trial.metric >= best - METRIC_MARGIN
}

/// The length of a trial: it must outlast the onset, and be long enough to tell how well it learns.
fn trial_steps(given: &Trained) -> u64 {
    let planned = given.run.record().facts().planned_steps.unwrap_or(given.steps);
    let onset = given.diagnosis.onset.map_or(0, |step| step.0);
    let part = (TRIAL_OF_RUN * planned as f64) as u64;
    (TRIAL_OF_ONSET * onset).max(part).max(TRIAL_STEPS_MIN).min(planned)
}

fn train_to_the_end(
    file: &RecipeFile,
    trials: &[Trial],
    options: &TrainOptions<'_>,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Option<Chosen>, FixError> {
    let healthy = || trials.iter().filter(|t| t.verdict == Verdict::Healthy && t.learns);
    let best = healthy().map(|trial| trial.metric).fold(f64::NEG_INFINITY, f64::max);
    for trial in healthy().filter(|trial| trial.metric >= best - METRIC_MARGIN) {
        if options.cancel.load(Ordering::Relaxed) {
            break;
        }
        let recipe = recipe::parse(&trial.text, Some(&file.path))?;
        let stage = Stage::Final(trial.proposal.label());
        let trained = train(&recipe, options, &mut |p, r| tell(News::Step(&stage, p, r)))?;
        if trained.cancelled {
            break;
        }
        // Written so that a NaN metric does not hold.
        let holds = trained.metric >= trial.metric - METRIC_MARGIN;
        if trained.diagnosis.verdict != Verdict::Healthy || !holds {
            continue;
        }
        let before = file.path.display().to_string();
        return Ok(Some(Chosen {
            proposal: trial.proposal.clone(),
            diff: diff::unified(&file.text, &trial.text, &before, "fixed.toml"),
            text: trial.text.clone(),
            trained,
        }));
    }
    Ok(None)
}
