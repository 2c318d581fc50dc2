//! Trains a recipe under guard.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tamegrad::{Diagnosis, GuardConfig, Mode, Run, Step};
use tamegrad_burn::{Guard, Probes, see_input, weights_hash};

use crate::checkpoint::{self, Position, TakeCheckpoint};
use crate::model::Network;
use crate::prepare::{Prepared, SetupError, clip, loss, optimizer, prepare};
use crate::recipe::Recipe;
use crate::schedule::learning_rate;
use crate::with_network::{WithNetwork, with_network};

/// How a recipe is trained.
#[derive(Clone, Copy)]
pub struct TrainOptions<'a> {
    /// What the guard may do.
    pub mode: Mode,
    /// Stop after this many steps of the run, if it has more.
    pub steps_max: Option<u64>,
    /// Stop this many steps after the first alarm, unless the run has recovered by then.
    pub stop_after_alarm: Option<u64>,
    /// When it becomes true the run stops at the next step, and what was recorded is returned.
    pub cancel: &'a AtomicBool,
    /// The checkpoint to go on from.
    pub resume: Option<&'a [u8]>,
    /// Takes the checkpoints that are made every ten seconds, and when the run is cancelled.
    pub checkpoints: Option<TakeCheckpoint<'a>>,
}

impl<'a> TrainOptions<'a> {
    /// The whole of a run in this mode, from its start.
    pub fn new(mode: Mode, cancel: &'a AtomicBool) -> Self {
        let (resume, checkpoints) = (None, None);
        Self { mode, steps_max: None, stop_after_alarm: None, cancel, resume, checkpoints }
    }
}

/// Where a run stands, after each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps that the run means to take.
    pub steps: u64,
    /// Training loss.
    pub loss: f64,
    /// L2 norm of the gradient; `None` with the guard off.
    pub gradient_norm: Option<f64>,
    /// The latest held-out metric.
    pub metric: Option<f64>,
}

/// A run that ended.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The diagnosis.
    pub diagnosis: Diagnosis,
    /// What the guard kept of it.
    pub run: Run,
    /// Held-out metric at the end: accuracy for classes, R^2 for values.
    pub metric: f64,
    /// Hash of the final weights, 32 hexadecimal digits.
    pub weights_hash: String,
    /// Steps taken.
    pub steps: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Whether it was cancelled.
    pub cancelled: bool,
}

/// Non-finite losses in a row after which a run that nobody protects is over.
const NONFINITE_MAX: u32 = 20;

/// Trains a recipe; calls `progress` after each step, with what the guard has recorded up to it.
///
/// A run that goes on from a checkpoint ends as it would have without the interruption, to the bit. In
/// protect mode, snapshots are not part of a checkpoint: until the next one there is nothing to rewind to.
///
/// # Errors
/// When the data cannot be loaded, or the checkpoint is not one of this recipe. A run that explodes is
/// no error: the diagnosis says so.
pub fn train(
    recipe: &Recipe,
    options: &TrainOptions<'_>,
    progress: &mut dyn FnMut(Progress, &Run),
) -> Result<Trained, SetupError> {
    with_network(recipe, prepare(recipe)?, Training { recipe, options, progress })
}

/// A training run that is to be made.
struct Training<'a, 'b> {
    recipe: &'a Recipe,
    options: &'a TrainOptions<'b>,
    progress: &'a mut dyn FnMut(Progress, &Run),
}

impl WithNetwork for Training<'_, '_> {
    type Output = Result<Trained, SetupError>;

    fn run<N: Network>(self, network: N, prepared: Prepared) -> Self::Output {
        run(network, prepared, self.recipe, self.options, self.progress)
    }
}

fn run<N: Network>(
    mut model: N,
    mut prepared: Prepared,
    recipe: &Recipe,
    options: &TrainOptions<'_>,
    progress: &mut dyn FnMut(Progress, &Run),
) -> Result<Trained, SetupError> {
    let mut started = Instant::now();
    let config = GuardConfig { mode: options.mode, ..GuardConfig::default() };
    let mut guard = Guard::new(&model, config)
        .with_layers(model.layers())
        .with_facts(prepared.facts(recipe))
        .with_clip(clip(recipe));
    let mut optimizer = optimizer(recipe);
    let kind = recipe.loss();
    let planned = prepared.planned_steps;
    let steps = options.steps_max.map_or(planned, |max| max.min(planned));
    let per_epoch = prepared.batches.batches_per_epoch();
    let mut at = Position::default();
    if let Some(bytes) = options.resume {
        (at, model, optimizer) = checkpoint::load(bytes, model, optimizer, &mut guard)?;
        started = started.checked_sub(seconds_of(at.seconds)).unwrap_or(started);
    }
    let Position { mut step, mut skipped_batches, mut taken, mut nonfinite, mut metric, .. } = at;
    let mut keeper = checkpoint::Keeper::new(options.checkpoints);
    while step < steps && !options.cancel.load(Ordering::Relaxed) {
        if step.is_multiple_of(per_epoch) {
            let measured = prepared.metric(&model);
            guard.see_metric(measured);
            metric = Some(measured);
        }
        let fault = recipe.fault.as_ref();
        let batch = prepared.batch(step + skipped_batches, fault);
        see_input("inputs", batch.input_stats);
        if let Some(targets) = batch.target_stats {
            guard.see_targets(targets);
        }
        let rate = learning_rate(recipe.optimizer.learning_rate(), &recipe.schedule, step, planned)
            * fault.map_or(1.0, |fault| fault.rate_factor(step));
        let pass =
            |model: &N, probes: &Probes| loss(model, probes, &batch, kind, &recipe.regularise);
        let tensor = pass(&model, guard.probes());
        let loss = f64::from(tensor.clone().inner().into_scalar::<f32>());
        let gradients = guard.backward(tensor, &model);
        model = guard.step_with_pass(&mut optimizer, rate, model, gradients, loss, pass);
        taken += 1;
        nonfinite = if loss.is_finite() { 0 } else { nonfinite + 1 };
        let outcome = guard.outcome();
        let gradient_norm = outcome.and_then(|outcome| outcome.gradient_norm);
        let rewind = outcome.and_then(|outcome| outcome.decision.rewind);
        progress(Progress { step: step + 1, steps, loss, gradient_norm, metric }, guard.run());
        if let Some(Step(to)) = rewind {
            skipped_batches += step + 1 - to;
            step = to;
            continue;
        }
        step += 1;
        let seconds = seconds(started);
        let position = Position { step, skipped_batches, taken, nonfinite, metric, seconds };
        keeper.save(false, &position, &model, &optimizer, &guard);
        let unprotected = options.mode != Mode::Protect;
        if guard.should_stop()
            || (unprotected && nonfinite >= NONFINITE_MAX)
            || verdict_stands(&guard, options.stop_after_alarm, step)
        {
            break;
        }
    }
    let cancelled = options.cancel.load(Ordering::Relaxed);
    if cancelled {
        let seconds = seconds(started);
        let position = Position { step, skipped_batches, taken, nonfinite, metric, seconds };
        keeper.save(true, &position, &model, &optimizer, &guard);
    }
    Ok(Trained {
        diagnosis: guard.diagnosis().into_diagnosis(),
        run: guard.run().clone(),
        metric: prepared.metric(&model),
        weights_hash: weights_hash(&model),
        steps: taken,
        seconds: seconds(started),
        cancelled,
    })
}

/// A span of a checkpoint, which may be damaged.
fn seconds_of(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// Whether enough was seen after the first alarm, and the run did not recover by itself.
fn verdict_stands<N: Network>(guard: &Guard<N>, after_alarm: Option<u64>, step: u64) -> bool {
    let (Some(after), Some(alarm)) = (after_alarm, guard.run().first_alarm()) else {
        return false;
    };
    let since = step.saturating_sub(alarm.step.0);
    // A diagnosis costs more than a step: it is made once in a while.
    since >= after && since.is_multiple_of(after) && !guard.diagnosis().verdict.is_good()
}
