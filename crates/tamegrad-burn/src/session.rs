//! One guarded training step after another.

use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Gradients, Tensor};
use tamegrad::observe::LayerTrace;
use tamegrad::{
    Decision, Finished, GradientAction, Guard, GuardConfig, LayerInfo, Mode, NamedInput,
    Observation, OpenStep, RunFacts, Step, TensorStats, Update,
};
use tamegrad_state::StateError;
use tamegrad_stats::ListStats;

use crate::change::Change;
use crate::clip::Clip;
use crate::critical::critical_step;
use crate::estimate::estimate;
use crate::gradients::{GradientStats, copy};
use crate::lag::{LagMeter, Lagged, SecondMoment};
use crate::parameters::ParameterTable;
use crate::probe::Probes;
use crate::snapshot::Snapshot;
use crate::updates;

/// What the loop knows about a step before it runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepInput<'a> {
    /// The step's number.
    pub step: Step,
    /// Learning rate from the schedule.
    pub learning_rate: f64,
    /// Held-out metric of the parameters before this step, if it was measured.
    pub metric: Option<f64>,
    /// Statistics of the batch's inputs, each under a name that stays the same.
    pub inputs: &'a [NamedInput<'a>],
    /// Statistics of the batch's regression targets; `None` for classes.
    pub targets: Option<TensorStats>,
}

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Training loss of the batch before the update.
    pub loss: f64,
    /// L2 norm of the finite part of the gradient; `None` with the guard off.
    pub gradient_norm: Option<f64>,
    /// What the guard decided.
    pub decision: Decision,
    /// Whether an update was made.
    pub updated: bool,
}

/// An optimizer of a session: any of burn's, or an Adam whose second moment can be measured.
pub struct SessionOptimizer {
    optimizer: ModuleOptimizer,
    meter: Option<LagMeter>,
}

impl From<ModuleOptimizer> for SessionOptimizer {
    fn from(optimizer: ModuleOptimizer) -> Self {
        Self { optimizer, meter: None }
    }
}

impl<O: SecondMoment> From<Lagged<O>> for SessionOptimizer {
    fn from(optimizer: Lagged<O>) -> Self {
        let meter = Some(optimizer.meter());
        Self { optimizer: ModuleOptimizer::from(optimizer), meter }
    }
}

/// A model in training, its optimizer and its guard.
pub struct Session<M: Module> {
    model: M,
    optimizer: ModuleOptimizer,
    meter: Option<LagMeter>,
    guard: Guard,
    table: ParameterTable,
    clip: Option<Clip>,
    weight_decay: f64,
    snapshots: VecDeque<(Step, Snapshot<M>)>,
    gradient_stats: GradientStats,
    update_buffers: ListStats,
}

impl<M: Module> Session<M> {
    /// Creates the session of a model whose layers are listed in order of execution.
    pub fn new(
        model: M,
        layers: Vec<LayerInfo>,
        optimizer: impl Into<SessionOptimizer>,
        facts: RunFacts,
        config: GuardConfig,
    ) -> Self {
        let table = ParameterTable::new(&model, layers);
        let guard = Guard::new(table.layout.clone(), facts, config);
        let SessionOptimizer { optimizer, meter } = optimizer.into();
        Self {
            model,
            optimizer,
            meter,
            guard,
            table,
            clip: None,
            weight_decay: 0.0,
            snapshots: VecDeque::new(),
            gradient_stats: GradientStats::default(),
            update_buffers: ListStats::default(),
        }
    }

    /// Clips the gradients after the guard has seen them. A step whose gradients are not finite is
    /// skipped, because scaling cannot repair it.
    pub fn with_clip(mut self, clip: Option<Clip>) -> Self {
        self.clip = clip;
        self
    }

    /// Applies decoupled weight decay: at each update every weight matrix loses `rate` times the
    /// learning rate of itself (Loshchilov and Hutter 2019).
    pub fn with_weight_decay(mut self, rate: f64) -> Self {
        self.weight_decay = rate;
        self
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The guard.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Runs one step: forward (`loss` passes the layers' outputs through the probes), backward,
    /// statistics, decision, update. After a rewind the model is that of the snapshot, and
    /// [`Decision::rewind`] tells the loop where to go on.
    pub fn step(
        &mut self,
        input: StepInput<'_>,
        loss: impl Fn(&M, &Probes) -> Tensor<1>,
    ) -> StepOutcome {
        if self.guard.config().mode == Mode::Off {
            return self.bare_step(input, loss);
        }
        let asks = self.guard.before_pass(input.step);
        if asks.snapshot {
            self.keep_snapshot(input.step);
        }
        // A forward pass moves the running statistics of batch norm: only protect needs them back.
        let before = self.protects().then(|| self.model.valid());
        let probes = if asks.trace { Probes::armed() } else { Probes::unarmed() };
        let (value, mut raw) = backward(&self.model, &probes, &loss);
        let trace = probes.collect(&mut raw);
        let gradients = GradientsParams::from_grads(raw, &self.model);
        let mut stats = std::mem::take(&mut self.gradient_stats);
        stats.scan(&self.table, &self.model, &gradients);
        let gradient_norm = Some(stats.norm());
        let open = self.guard.begin(&Observation {
            step: input.step,
            loss: Some(value),
            metric: input.metric,
            learning_rate: Some(input.learning_rate * self.guard.learning_rate_factor()),
            gradients: &stats.tensors,
            trace: trace.as_ref(),
            inputs: input.inputs,
            targets: input.targets,
            ..Observation::default()
        });
        self.repeat_with_probes(&loss);
        let decision = open.decision().clone();
        let updated = match decision.rewind {
            Some(to) => {
                self.guard.finish_taken(open, &[]);
                self.rewind(to);
                false
            }
            None => self.update(&input, open, gradients, &mut stats, &loss),
        };
        self.gradient_stats = stats;
        if let Some(before) = before.filter(|_| !updated && decision.rewind.is_none()) {
            self.model = before.train();
        }
        StepOutcome { loss: value, gradient_norm, decision, updated }
    }

    /// A step as it is without tamegrad, of which only the loss is noted.
    fn bare_step(
        &mut self,
        input: StepInput<'_>,
        loss: impl Fn(&M, &Probes) -> Tensor<1>,
    ) -> StepOutcome {
        let (value, raw) = backward(&self.model, &Probes::unarmed(), &loss);
        let mut gradients = GradientsParams::from_grads(raw, &self.model);
        let decision = self.guard.observe(
            &Observation {
                step: input.step,
                loss: Some(value),
                metric: input.metric,
                learning_rate: Some(input.learning_rate),
                ..Observation::default()
            },
            &[],
        );
        let updated = self.clip.is_none() || {
            self.gradient_stats.scan(&self.table, &self.model, &gradients);
            self.clip_gradients(&mut gradients, &self.gradient_stats)
        };
        if updated {
            self.model = self.stepped(input.learning_rate, gradients);
        }
        StepOutcome { loss: value, gradient_norm: None, decision, updated }
    }

    /// Takes the update that the decision leaves, unless the guard refuses it. Says whether.
    fn update(
        &mut self,
        input: &StepInput<'_>,
        open: OpenStep,
        mut gradients: GradientsParams,
        stats: &mut GradientStats,
        loss: &impl Fn(&M, &Probes) -> Tensor<1>,
    ) -> bool {
        let decision = open.decision().clone();
        let takes_step = decision.gradients != GradientAction::Skip && !decision.stop && {
            if self.scale_gradients(&decision.gradients, &mut gradients) {
                stats.scan(&self.table, &self.model, &gradients);
            }
            self.clip_gradients(&mut gradients, stats)
        };
        if !takes_step {
            self.guard.finish_taken(open, &[]);
            return false;
        }
        let before = self.model.clone();
        // Only protect takes an update back. With a second owner of its state the optimizer would
        // copy the state at every step.
        let optimizer = self.protects().then(|| self.optimizer.clone());
        let rate = match decision.learning_rate {
            1.0 => input.learning_rate,
            factor => input.learning_rate * factor,
        };
        let kept = self.protects().then(|| copy(&self.table, &self.model, &gradients));
        let mut after = self.stepped(rate, gradients);
        let measured = self.measure_update(input.step, &before, &after, stats);
        let finished = self.guard.finish(open, &measured);
        self.repeat_with_probes(loss);
        if self.guard.asks().critical_step {
            let (multiple, second) = critical_step(&before, &after, loss);
            let square =
                measured.iter().flatten().map(|u| u.change_norm * u.change_norm).sum::<f64>();
            let sharpness = second.filter(|_| square > 0.0).map(|second| second / square);
            self.guard.observe_critical_step(multiple, sharpness);
        }
        let takes = match (finished, kept, &optimizer) {
            (Finished::Taken, ..) => true,
            (Finished::Shrink(shrinking), Some(mut gradients), Some(optimizer)) => {
                self.optimizer = optimizer.clone();
                let smaller = GradientAction::ScaleAll(shrinking.factor());
                self.scale_gradients(&smaller, &mut gradients);
                after = self.stepped(rate, gradients);
                let measured = self.measure_update(input.step, &before, &after, stats);
                self.guard.finish_shrunk(shrinking, &measured)
            }
            (Finished::Shrink(_) | Finished::Refused, ..) => false,
        };
        if takes {
            self.model = after;
        } else if let Some(optimizer) = optimizer {
            self.optimizer = optimizer;
        }
        takes
    }

    fn stepped(&mut self, rate: f64, gradients: GradientsParams) -> M {
        let decayed = if self.weight_decay > 0.0 {
            self.model.clone().map(&mut Decay { keep: 1.0 - rate * self.weight_decay })
        } else {
            self.model.clone()
        };
        match self.meter.clone().filter(|_| self.guard.asks().lag) {
            Some(meter) => {
                let (after, lags) = meter.measure(|| self.optimizer.step(rate, decayed, gradients));
                let lags: Vec<Option<f64>> = lags.into_iter().map(Some).collect();
                if lags.len() == self.table.len() {
                    self.guard.observe_lag(&lags);
                }
                after
            }
            None => self.optimizer.step(rate, decayed, gradients),
        }
    }

    /// Protect may refuse an update and measures all of it, and preflight tells the first; later
    /// observe looks at a sample.
    fn measure_update(
        &mut self,
        step: Step,
        before: &M,
        after: &M,
        gradients: &GradientStats,
    ) -> Vec<Option<Update>> {
        let in_full = self.protects() || step == Step(0);
        let buffers = &mut self.update_buffers;
        if in_full {
            return updates::measure(&self.table, before, after, buffers);
        }
        let tracks = self.guard.record().tensors();
        estimate(&self.table, before, after, &gradients.tensors, tracks, step, buffers)
    }

    /// Scales as decided. Says whether anything was changed.
    fn scale_gradients(&self, action: &GradientAction, gradients: &mut GradientsParams) -> bool {
        let count = self.table.len();
        let factors = match action {
            GradientAction::Keep | GradientAction::Skip => return false,
            GradientAction::ScaleAll(factor) => vec![Some(*factor); count],
            GradientAction::Scale(of) => {
                let mut factors = vec![None; count];
                let known = of.iter().filter(|(id, _)| id.0 < count);
                known.for_each(|(id, factor)| factors[id.0] = Some(*factor));
                factors
            }
        };
        Change::Scale(factors).apply(&self.table, &self.model, gradients)
    }

    /// Clips, if the user asked for it. False: the gradients are not finite, take no step.
    fn clip_gradients(&self, gradients: &mut GradientsParams, stats: &GradientStats) -> bool {
        let Some(clip) = self.clip else { return true };
        if !stats.is_finite() {
            return false;
        }
        clip.change(&stats.tensors).apply(&self.table, &self.model, gradients);
        true
    }

    /// Repeats the pass on a copy with probes when an alarm has none: forward, backward, no update.
    fn repeat_with_probes(&mut self, loss: &impl Fn(&M, &Probes) -> Tensor<1>) {
        if self.guard.asks().repeated_trace
            && let Some(trace) = trace(&self.model.valid().train(), loss)
        {
            self.guard.observe_trace(&trace);
        }
    }

    fn protects(&self) -> bool {
        self.guard.config().mode == Mode::Protect
    }

    fn keep_snapshot(&mut self, step: Step) {
        self.guard.snapshot_kept(step);
        if self.snapshots.len() >= self.guard.config().snapshots_max.max(1) {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back((step, Snapshot::take(&self.model, &self.optimizer)));
    }

    fn rewind(&mut self, to: Step) {
        self.snapshots.retain(|(step, _)| *step <= to);
        if let Some((_, snapshot)) = self.snapshots.back() {
            (self.model, self.optimizer) = snapshot.restore();
        }
    }

    /// The guard's state, to be saved with a checkpoint of the model and the optimizer: what it has
    /// seen, found and done, its baselines and signs, and in protect mode the learning rate.
    ///
    /// # Errors
    /// [`StateError::Unwritten`], which only happens when memory runs out.
    pub fn guard_state(&self) -> Result<Vec<u8>, StateError> {
        tamegrad_state::save(&self.guard)
    }

    /// Continues from a guard's state from [`Session::guard_state`], in a session of the same model
    /// that has the checkpoint's parameters and optimizer: the steps that follow are judged as if
    /// the run had not been interrupted. Options and facts remain those of this session. Snapshots
    /// are not part of the state, so until the next one is taken there is nothing to rewind to.
    ///
    /// # Errors
    /// [`StateError`] if the bytes are not a state, are truncated or damaged, or belong to another
    /// format or to a model with other names; nothing has changed then.
    pub fn restore_guard(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.guard.resume(tamegrad_state::load(state)?)?;
        self.snapshots.clear();
        Ok(())
    }
}

/// One forward and backward pass on a model with armed probes: the layers' outputs and the
/// gradients with respect to them. `None` when no gradient came back.
fn trace<M: Module>(model: &M, loss: impl Fn(&M, &Probes) -> Tensor<1>) -> Option<LayerTrace> {
    let probes = Probes::armed();
    let (_, mut raw) = backward(model, &probes, &loss);
    probes.collect(&mut raw)
}

fn backward<M: Module>(
    model: &M,
    probes: &Probes,
    loss: impl Fn(&M, &Probes) -> Tensor<1>,
) -> (f64, Gradients) {
    let loss = loss(model, probes);
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    (value, loss.backward())
}

/// Multiplies weight matrices by a factor; biases and norm scales stay.
struct Decay {
    keep: f64,
}

impl ModuleMapper for Decay {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let keep = self.keep;
        let decays = D >= 2 && param.val().is_require_grad();
        if !decays {
            return param;
        }
        param.map(|tensor| Tensor::from_inner(tensor.inner() * keep).require_grad())
    }
}
