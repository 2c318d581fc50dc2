//! The guard of a training loop: what it measures at a step, and how it carries out what the core
//! decides.

#[cfg(feature = "learner")]
mod launch;

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use tamegrad::observe::LayerTrace;
use tamegrad::{
    Asks, Decision, Finished, GradientAction, GuardConfig, LayerInfo, Layout, Mode, NamedInput,
    Observation, OpenStep, Record, Run, RunFacts, Step, TensorStats, Update,
};
use tamegrad_runs::{COMPLETED, Existing, Recorder, RunError, RunInfo};
use tamegrad_state::StateError;
use tamegrad_stats::ListStats;

use crate::change::Change;
use crate::clip::Clip;
use crate::critical::critical_step;
use crate::device::device_name;
use crate::elasticity::elasticities;
use crate::estimate::estimate;
use crate::gradients::{GradientStats, copy};
use crate::input::take_inputs;
use crate::lag;
use crate::parameters::ParameterTable;
use crate::probe::Probes;
use crate::rate::{Optimize, scaled};
use crate::report::Report;
use crate::snapshot::{Buffers, Snapshot};
use crate::updates::{self, along};

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepOutcome {
    /// Training loss of the batch before the update; NaN where it is not known.
    pub loss: f64,
    /// L2 norm of the finite part of the gradient; `None` with the guard off.
    pub gradient_norm: Option<f64>,
    /// What the guard decided.
    pub decision: Decision,
    /// Whether an update was made.
    pub updated: bool,
}

/// A forward pass that can be repeated: the loss of the latest batch.
type Pass<'a, M> = &'a dyn Fn(&M, &Probes) -> Tensor<1>;

/// The guard of one model in its user's training loop.
///
/// Model, optimizer, learning rate and records remain the user's: [`Guard::step`] stands in place of
/// the optimizer's.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig, loss::{MseLoss, Reduction}};
/// use burn::optim::{GradientsParams, SgdConfig};
/// use burn::tensor::{Tensor, activation::relu};
/// use tamegrad_burn::{Guard, default_device};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     first: Linear,
///     last: Linear,
/// }
///
/// let device = default_device();
/// let mut model = Net {
///     first: LinearConfig::new(2, 16).init(&device),
///     last: LinearConfig::new(16, 1).init(&device),
/// };
/// let mut optimizer = SgdConfig::new().init();
/// let x = Tensor::<2>::from_data([[1.0, -0.5], [0.25, 2.0], [-1.0, 1.0]], &device);
/// let y = Tensor::<2>::from_data([[0.5], [-2.0], [1.0]], &device);
///
/// let mut guard = Guard::protect(&model);
/// for _ in 0..20 {
///     let x = tamegrad_burn::input(x.clone());
///     let outputs = model.last.forward(relu(model.first.forward(x)));
///     let loss = MseLoss::new().forward(outputs, y.clone(), Reduction::Mean);
///     let value = loss.clone().into_scalar::<f32>();
///     let gradients = GradientsParams::from_grads(loss.backward(), &model);
///     model = guard.step(&mut optimizer, 0.05, model, gradients, value);
///     if guard.should_stop() {
///         break;
///     }
/// }
/// let names: Vec<&str> = guard.record().layout().layers.iter().map(|l| &*l.name).collect();
/// assert_eq!(names, ["first", "last"]);
/// ```
pub struct Guard<M: Module> {
    core: tamegrad::Guard,
    facts: RunFacts,
    /// As the user describes them.
    layers: Option<Vec<LayerInfo>>,
    clip: Option<Clip>,
    optimize: Optimize<M>,
    /// The trainable tensors, once a forward pass has initialised them.
    table: Option<Arc<ParameterTable>>,
    probes: Probes,
    trace: Option<LayerTrace>,
    next: Step,
    metric: Option<f64>,
    targets: Option<TensorStats>,
    /// The running statistics from before the pass, in protect mode.
    before: Option<Arc<Buffers>>,
    snapshots: VecDeque<(Step, Snapshot<M>)>,
    gradient_stats: GradientStats,
    update_buffers: ListStats,
    outcome: Option<StepOutcome>,
    recorder: Option<Recorder>,
    /// Why nothing is recorded.
    record_error: Option<RunError>,
    notices: Vec<String>,
}

/// Most notices that are kept.
const NOTICES_MAX: usize = 16;

/// Said of gradients that belong to none of the parameters of the first step.
const OTHER_MODEL: &str = "the model has other parameters than at the first step, so its gradients \
     are not seen; hint: give a new model a guard of its own";
/// Said where there are gradients of parameters that are not in the table.
const NEWCOMERS: &str = "there are gradients of parameters that took none at the first step, such as layers \
     that were frozen then, and they are not watched; hint: after a change of what is trained, make a new guard";
/// Said where it is not known where an explosion began, and no layer was measured.
const TAP_HINT: &str = "no layer was measured; to see where it begins, pass the outputs of layers \
     through `guard.probes().tap(name, h)` and make the gradients with `guard.backward(loss, &model)`";

impl<M: Module> Guard<M> {
    /// A guard that watches a model. The run is bit-identical to one without it.
    ///
    /// Parameters are listed at the first step, after the forward pass that initialises them.
    pub fn observe(model: &M) -> Self {
        Self::new(model, Mode::Observe)
    }

    /// A guard that also intervenes, as little as possible.
    pub fn protect(model: &M) -> Self {
        Self::new(model, Mode::Protect)
    }

    /// A guard with these options, or of this mode and else the default options.
    pub fn new(model: &M, config: impl Into<GuardConfig>) -> Self {
        let core = tamegrad::Guard::new(Layout::default(), RunFacts::default(), config.into());
        let probes = Probes::default();
        probes.arm(core.before_pass(Step(0)).trace);
        let before = (core.config().mode == Mode::Protect).then(|| Arc::new(Buffers::of(model)));
        Self {
            core,
            facts: RunFacts::default(),
            layers: None,
            clip: None,
            optimize: |model, optimizer, rate, gradients| optimizer.step(rate, model, gradients),
            table: None,
            probes,
            trace: None,
            next: Step(0),
            metric: None,
            targets: None,
            before,
            snapshots: VecDeque::new(),
            gradient_stats: GradientStats::default(),
            update_buffers: ListStats::default(),
            outcome: None,
            recorder: None,
            record_error: None,
            notices: Vec::new(),
        }
    }

    /// Tells what is known of the run, such as its length.
    pub fn with_facts(mut self, facts: RunFacts) -> Self {
        self.facts = facts;
        self
    }

    /// Describes the layers, in order of execution. Without it, layers are what [`Probes::tap`] names
    /// in the first pass, or else the modules that have parameters.
    pub fn with_layers(mut self, layers: Vec<LayerInfo>) -> Self {
        self.layers = Some(layers);
        self
    }

    /// Clips the gradients after the guard has seen them. A step whose gradients are not finite is
    /// skipped, because scaling cannot repair it.
    pub fn with_clip(mut self, clip: impl Into<Option<Clip>>) -> Self {
        self.clip = clip.into();
        self
    }

    /// Records the run to a folder, which `tamegrad diagnose`, `watch` and `export` read, and which any
    /// reader of Arrow files opens. If there is a run already, this one gets a number: `runs/mlp-2`.
    /// [`Guard::record_over`] takes its place instead, [`Guard::record_on`] goes on with it.
    ///
    /// Rows are written by a thread of their own, and each step is on the disk within a second. An error
    /// does not stop the training: it becomes a notice of the diagnosis, and [`Guard::finish`] returns it.
    pub fn record_to(self, folder: impl AsRef<Path>) -> Self {
        self.record_with(folder.as_ref(), Existing::Number)
    }

    /// [`Guard::record_to`], taking the place of the run that the folder holds when this one ends.
    pub fn record_over(self, folder: impl AsRef<Path>) -> Self {
        self.record_with(folder.as_ref(), Existing::Overwrite)
    }

    /// [`Guard::record_to`], going on with the run that the folder holds. Give the guard its state with
    /// [`Guard::resume`] first.
    pub fn record_on(self, folder: impl AsRef<Path>) -> Self {
        self.record_with(folder.as_ref(), Existing::Resume)
    }

    fn record_with(mut self, folder: &Path, existing: Existing) -> Self {
        let environment = [
            ("tamegrad", env!("CARGO_PKG_VERSION").to_owned()),
            ("device", device_name().to_owned()),
            ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
            ("guard", self.core.config().mode.as_str().to_owned()),
        ];
        let info = RunInfo {
            source: Some("burn".to_owned()),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            ..RunInfo::default()
        };
        // A program that changes its folder later goes on in the same run.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        match Recorder::begin(&folder, info, existing) {
            Ok(recorder) => self.recorder = Some(recorder),
            Err(error) => {
                self.note(format!("the run is not recorded: {error}"));
                self.record_error = Some(error);
            }
        }
        self
    }

    /// Ends the run: writes the diagnosis to the folder of [`Guard::record_to`] and returns it. A
    /// guard that is dropped does the same, and passes over errors.
    ///
    /// # Errors
    /// The first [`RunError`] of the folder; what was written before it is there.
    pub fn finish(mut self) -> Result<Report, RunError> {
        self.end()
    }

    /// [`Guard::finish`] of a guard that others hold as well. What it sees later is not recorded.
    pub(crate) fn end(&mut self) -> Result<Report, RunError> {
        let report = self.diagnosis();
        match (self.recorder.take(), self.record_error.take()) {
            (Some(recorder), _) => recorder.finish(&report, self.run()).map(|_| report),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(report),
        }
    }

    /// The probes of the next pass, for a model that marks where its layers end.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// The gradients of a loss, and those that the probes ask for. Stands in place of
    /// `GradientsParams::from_grads(loss.backward(), model)`, which drops the latter.
    pub fn backward(&mut self, loss: Tensor<1>, model: &M) -> GradientsParams {
        let mut gradients = loss.backward();
        let layers = self.layers.as_deref().or(self.known_layers());
        let problems = self.probes.problems(layers);
        self.trace = self.probes.collect(&mut gradients, layers);
        problems.into_iter().for_each(|notice| self.note(notice));
        GradientsParams::from_grads(gradients, model)
    }

    /// Adds a notice, once.
    pub(crate) fn note(&mut self, notice: String) {
        if self.notices.len() < NOTICES_MAX && !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }

    fn known_layers(&self) -> Option<&[LayerInfo]> {
        self.table.as_ref().map(|table| &table.layout.layers[..])
    }

    /// Tells the held-out metric of the parameters before the next step; higher is better.
    pub fn see_metric(&mut self, metric: f64) {
        self.metric = Some(metric);
    }

    /// Tells the statistics of the next batch's regression targets.
    pub fn see_targets(&mut self, targets: TensorStats) {
        self.targets = Some(targets);
    }

    /// Takes a step: statistics, the guard's decision, and the optimizer's step where it is to be
    /// made. Stands in place of `optimizer.step(learning_rate, model, gradients)`.
    ///
    /// `loss` is the training loss that the gradients belong to. After a rewind the model and the
    /// optimizer are those of an earlier step, which [`Decision::rewind`] of [`Guard::outcome`] names.
    pub fn step(
        &mut self,
        optimizer: &mut ModuleOptimizer,
        learning_rate: impl Into<ModuleLearningRate>,
        model: M,
        gradients: GradientsParams,
        loss: impl Into<f64>,
    ) -> M {
        self.advance(optimizer, &learning_rate.into(), model, gradients, Some(loss.into()), None)
    }

    /// [`Guard::step`] of a pass that can be repeated: at an alarm the gains of the layers, the
    /// critical step size and the sharpness are measured at once, by more passes of the same batch.
    ///
    /// Give it only where a pass draws no random numbers: a repeated pass would draw those of the steps
    /// that follow. Of a model with burn's `Dropout`, `GaussianNoise` or `RRelu` no pass is
    /// repeated.
    pub fn step_with_pass(
        &mut self,
        optimizer: &mut ModuleOptimizer,
        learning_rate: impl Into<ModuleLearningRate>,
        model: M,
        gradients: GradientsParams,
        loss: impl Into<f64>,
        pass: impl Fn(&M, &Probes) -> Tensor<1>,
    ) -> M {
        let (rate, loss) = (learning_rate.into(), Some(loss.into()));
        self.advance(optimizer, &rate, model, gradients, loss, Some(&pass))
    }

    /// A step; `loss` is `None` where it is not known.
    pub(crate) fn advance(
        &mut self,
        optimizer: &mut ModuleOptimizer,
        rate: &ModuleLearningRate,
        model: M,
        gradients: GradientsParams,
        loss: Option<f64>,
        pass: Option<Pass<'_, M>>,
    ) -> M {
        if self.core.config().mode == Mode::Off {
            return self.step_bare(optimizer, rate, model, gradients, loss);
        }
        let step = self.next;
        let mut table = self.list(&model);
        let pass = pass.filter(|_| !table.draws);
        let mut stats = std::mem::take(&mut self.gradient_stats);
        stats.scan(&table, &model, &gradients);
        if stats.is_absent() && !gradients.is_empty() {
            table = self.list_again(&table, &model);
            stats.scan(&table, &model, &gradients);
        }
        if !stats.is_absent() && gradients.len() > stats.count() {
            self.note(NEWCOMERS.to_owned());
        }
        if self.core.before_pass(step).snapshot {
            self.keep_snapshot(step, &model, optimizer);
        }
        let inputs = take_inputs();
        let inputs: Vec<NamedInput<'_>> =
            inputs.iter().map(|(name, stats)| NamedInput { name, stats: *stats }).collect();
        let trace = self.trace.take();
        let open = self.core.begin(&Observation {
            step,
            loss,
            metric: self.metric.take(),
            learning_rate: Some(rate.base() * self.core.learning_rate_factor()),
            gradients: &stats.tensors,
            trace: trace.as_ref(),
            inputs: &inputs,
            targets: self.targets.take(),
            ..Observation::default()
        });
        let asks = self.core.asks();
        if asks.elasticities {
            let found = elasticities(&table, &model, &gradients, loss.unwrap_or(f64::NAN));
            self.core.observe_elasticities(&found);
        }
        if asks.repeated_trace {
            self.repeat_with_probes(&model, pass);
        }
        let decision = open.decision().clone();
        let gradient_norm = Some(stats.norm());
        let mut updated = false;
        let model = match decision.rewind.and_then(|to| self.rewind(to, optimizer)) {
            Some(model) => {
                self.core.finish_taken(open, &[]);
                model
            }
            None if !self.protects() && !asks.update && !asks.lag && !asks.critical_step => {
                let mut gradients = gradients;
                updated = self.clip_gradients(&table, &model, &mut gradients, &stats);
                self.core.finish_taken(open, &[]);
                // Without another owner of the parameters the optimizer writes over them.
                if updated {
                    (self.optimize)(model, optimizer, rate.clone(), gradients)
                } else {
                    model
                }
            }
            None => {
                let taking = Taking { table: &table, optimizer, rate, pass, asks };
                match self.update(taking, open, &model, gradients, &mut stats) {
                    Some(after) => {
                        updated = true;
                        after
                    }
                    None => self.with_earlier_statistics(model),
                }
            }
        };
        self.gradient_stats = stats;
        self.next = decision.rewind.unwrap_or(Step(step.0 + 1));
        let loss = loss.unwrap_or(f64::NAN);
        self.outcome = Some(StepOutcome { loss, gradient_norm, decision, updated });
        self.record_step();
        self.prepare(&model, pass.is_some());
        model
    }

    /// A step as it is without tamegrad, of which only the loss is noted.
    fn step_bare(
        &mut self,
        optimizer: &mut ModuleOptimizer,
        rate: &ModuleLearningRate,
        model: M,
        mut gradients: GradientsParams,
        loss: Option<f64>,
    ) -> M {
        let step = self.next;
        let decision = self.core.observe(
            &Observation {
                step,
                loss,
                metric: self.metric.take(),
                learning_rate: Some(rate.base()),
                ..Observation::default()
            },
            &[],
        );
        let updated = self.clip.is_none() || {
            let table = self.list(&model);
            let mut stats = std::mem::take(&mut self.gradient_stats);
            stats.scan(&table, &model, &gradients);
            let is_clipped = self.clip_gradients(&table, &model, &mut gradients, &stats);
            self.gradient_stats = stats;
            is_clipped
        };
        self.next = Step(step.0 + 1);
        let loss = loss.unwrap_or(f64::NAN);
        self.outcome = Some(StepOutcome { loss, gradient_norm: None, decision, updated });
        self.record_step();
        let rate = rate.clone();
        if updated { (self.optimize)(model, optimizer, rate, gradients) } else { model }
    }

    /// The trainable tensors of the model, listed at the first step.
    fn list(&mut self, model: &M) -> Arc<ParameterTable> {
        if let Some(table) = &self.table {
            return Arc::clone(table);
        }
        let layers = self.layers.clone().or_else(|| self.probes.layers());
        let table = Arc::new(ParameterTable::new(model, layers));
        let config = self.core.config().clone();
        self.core = tamegrad::Guard::new(table.layout.clone(), self.facts.clone(), config);
        self.table = Some(Arc::clone(&table));
        table
    }

    /// The same tensors under the ids that a model has which was made anew, or loaded from a record.
    fn list_again(&mut self, earlier: &Arc<ParameterTable>, model: &M) -> Arc<ParameterTable> {
        let table = Arc::new(ParameterTable::new(model, Some(earlier.layout.layers.clone())));
        if table.layout != earlier.layout {
            self.note(OTHER_MODEL.to_owned());
            return Arc::clone(earlier);
        }
        self.table = Some(Arc::clone(&table));
        table
    }

    fn record_step(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        recorder.take(self.core.run());
        if let Some(news) = recorder.news() {
            self.note(news);
        }
    }

    /// What the next pass needs.
    fn prepare(&mut self, model: &M, repeats: bool) {
        let asked = self.core.before_pass(self.next).trace;
        let missing = !repeats && self.core.asks().repeated_trace;
        self.probes.arm(asked || missing);
        // A forward pass moves the running statistics of batch norm: only protect needs them back.
        let moves = self.protects() && self.table.as_ref().is_some_and(|table| table.has_buffers);
        self.before = moves.then(|| Arc::new(Buffers::of(model)));
    }

    /// The update that the decision leaves; `None` if none was made.
    fn update(
        &mut self,
        taking: Taking<'_, '_, M>,
        open: OpenStep,
        model: &M,
        mut gradients: GradientsParams,
        stats: &mut GradientStats,
    ) -> Option<M> {
        let Taking { table, optimizer, rate, pass, asks } = taking;
        let decision = open.decision().clone();
        let takes_step = decision.gradients != GradientAction::Skip && !decision.stop && {
            if scale(table, model, &decision.gradients, &mut gradients) {
                stats.scan(table, model, &gradients);
            }
            self.clip_gradients(table, model, &mut gradients, stats)
        };
        if !takes_step {
            self.core.finish_taken(open, &[]);
            return None;
        }
        // Only a step at risk may be taken back. With a second owner of its state the optimizer would
        // copy the state at every step.
        let state = asks.copy.then(|| optimizer.clone());
        let kept = asks.copy.then(|| copy(table, model, &gradients));
        let factor = decision.learning_rate;
        let mut after = self.stepped(optimizer, rate, factor, model, gradients, asks.lag);
        let measured = self.measure_update(table, model, &after, stats, asks.copy);
        let finished = self.core.finish(open, &measured);
        // The update may have raised the first alarm.
        let asks = self.core.asks();
        if asks.repeated_trace {
            self.repeat_with_probes(model, pass);
        }
        if let Some(pass) = pass.filter(|_| asks.critical_step) {
            let (multiple, second) = critical_step(model, &after, &pass);
            let square =
                measured.iter().flatten().map(|u| u.change_norm * u.change_norm).sum::<f64>();
            let sharpness = second.filter(|_| square > 0.0).map(|second| second / square);
            self.core.observe_critical_step(multiple, sharpness);
        }
        let takes = match (finished, kept, &state) {
            (Finished::Taken, ..) => true,
            (Finished::Shrink(shrinking), kept, state) => {
                match (kept, state) {
                    (Some(mut gradients), Some(state)) => {
                        *optimizer = state.clone();
                        let smaller = GradientAction::ScaleAll(shrinking.factor());
                        scale(table, model, &smaller, &mut gradients);
                        after = self.stepped(optimizer, rate, factor, model, gradients, asks.lag);
                    }
                    _ => after = along(model, &after, shrinking.factor()),
                }
                let measured = self.measure_update(table, model, &after, stats, true);
                self.core.finish_shrunk(shrinking, &measured)
            }
            (Finished::Refused, ..) => false,
        };
        if !takes && let Some(state) = state {
            *optimizer = state;
        }
        takes.then_some(after)
    }

    /// The optimizer's step, with the lag of its second moment where that is asked for.
    fn stepped(
        &mut self,
        optimizer: &mut ModuleOptimizer,
        rate: &ModuleLearningRate,
        factor: f64,
        model: &M,
        gradients: GradientsParams,
        measures_lag: bool,
    ) -> M {
        let optimize = self.optimize;
        let step = || scaled(optimize, optimizer, rate, factor, model, gradients);
        if !measures_lag {
            return step();
        }
        let (after, lags) = lag::measure(step);
        if self.table.as_ref().is_some_and(|table| table.len() == lags.len()) {
            self.core.observe_lag(&lags.into_iter().map(Some).collect::<Vec<_>>());
        }
        after
    }

    /// An update that may be refused is measured in full, and the first, which preflight tells; of others
    /// a sample is looked at.
    fn measure_update(
        &mut self,
        table: &ParameterTable,
        before: &M,
        after: &M,
        gradients: &GradientStats,
        is_at_risk: bool,
    ) -> Vec<Option<Update>> {
        let in_full = is_at_risk || self.next == Step(0);
        let buffers = &mut self.update_buffers;
        if in_full {
            return updates::measure(table, before, after, buffers);
        }
        let tracks = self.core.record().tensors();
        estimate(table, before, after, &gradients.tensors, tracks, self.next, buffers)
    }

    /// Clips, if the user asked for it. False: the gradients are not finite, take no step.
    fn clip_gradients(
        &self,
        table: &ParameterTable,
        model: &M,
        gradients: &mut GradientsParams,
        stats: &GradientStats,
    ) -> bool {
        let Some(clip) = self.clip else { return true };
        if !stats.is_finite() {
            return false;
        }
        clip.change(&stats.tensors).apply(table, model, gradients);
        true
    }

    /// Repeats the pass on a copy with probes when an alarm has none: forward, backward, no update.
    fn repeat_with_probes(&mut self, model: &M, pass: Option<Pass<'_, M>>) {
        let Some(pass) = pass else { return };
        let probes = Probes::armed();
        let mut gradients = pass(&model.valid().train(), &probes).backward();
        if let Some(trace) = probes.collect(&mut gradients, self.known_layers()) {
            self.core.observe_trace(&trace);
        }
    }

    fn protects(&self) -> bool {
        self.core.config().mode == Mode::Protect
    }

    fn keep_snapshot(&mut self, step: Step, model: &M, optimizer: &ModuleOptimizer) {
        self.core.snapshot_kept(step);
        if self.snapshots.len() >= self.core.config().snapshots_max.max(1) {
            self.snapshots.pop_front();
        }
        let snapshot = Snapshot::take(model, self.before.clone(), optimizer);
        self.snapshots.push_back((step, snapshot));
    }

    /// Goes back to the latest snapshot up to a step.
    fn rewind(&mut self, to: Step, optimizer: &mut ModuleOptimizer) -> Option<M> {
        self.snapshots.retain(|(step, _)| *step <= to);
        let (_, snapshot) = self.snapshots.back()?;
        let (model, state) = snapshot.restore();
        *optimizer = state;
        Some(model)
    }

    /// The model of a step that was not taken: the running statistics of its pass are taken back.
    fn with_earlier_statistics(&self, model: M) -> M {
        match &self.before {
            Some(before) => before.put_into(&model),
            None => model,
        }
    }

    /// What became of the latest step; `None` before the first.
    pub fn outcome(&self) -> Option<&StepOutcome> {
        self.outcome.as_ref()
    }

    /// What is wrong with how the guard is used: layers that are tapped twice, or never; a model that is
    /// not the one of the first step. The report of [`Guard::diagnosis`] ends with them.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether the guard sees no way to go on: it has done what it may, and the run does not recover.
    pub fn should_stop(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| outcome.decision.stop)
    }

    /// What the guard was given, found and did.
    pub fn run(&self) -> &Run {
        self.core.run()
    }

    /// The history of the run.
    pub fn record(&self) -> &Record {
        self.core.record()
    }

    /// The diagnosis of what was seen so far, which prints as a report.
    pub fn diagnosis(&self) -> Report {
        let diagnosis = self.core.diagnosis();
        let mut notices = self.notices.clone();
        let is_unknown = diagnosis.verdict.is_explosion() && diagnosis.origin.is_none();
        if is_unknown && self.record().first_trace().is_none() {
            notices.push(TAP_HINT.to_owned());
        }
        Report::new(diagnosis, self.core.run(), &notices)
    }

    /// The guard's state, to be saved with a checkpoint of the model and the optimizer: what it has
    /// seen, found and done, its baselines and signs, and in protect mode the learning rate.
    ///
    /// # Errors
    /// [`StateError::Unwritten`], which only happens when memory runs out.
    pub fn state(&self) -> Result<Vec<u8>, StateError> {
        tamegrad_state::save(&self.core)
    }

    /// Continues from a state from [`Guard::state`], with a model that has the checkpoint's
    /// parameters: the steps that follow are judged as if the run had not been interrupted. Options
    /// and facts remain those of this guard. Snapshots are not part of the state, so until the next
    /// one is taken there is nothing to rewind to.
    ///
    /// # Errors
    /// [`StateError`] if the bytes are not a state, are truncated or damaged, or belong to another
    /// format or to a model with other names; nothing has changed then.
    pub fn resume(&mut self, model: &M, state: &[u8]) -> Result<(), StateError> {
        let saved = tamegrad_state::load(state)?;
        if self.table.is_none() && self.layers.is_none() {
            self.layers = Some(saved.record().layout().layers.clone());
        }
        self.list(model);
        self.core.resume(saved)?;
        self.next = self.record().now().map_or(Step(0), |row| Step(row.step.0 + 1));
        self.snapshots.clear();
        self.prepare(model, false);
        Ok(())
    }
}

impl<M: Module> Drop for Guard<M> {
    fn drop(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            let end = if std::thread::panicking() { "panic" } else { COMPLETED };
            // Who wants the error calls `finish`.
            let _ = recorder.finish_as(end, &self.core.diagnosis(), self.core.run());
        }
    }
}

impl<M: Module> fmt::Debug for Guard<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("config", self.core.config())
            .field("next", &self.next)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

/// What an update is made with.
struct Taking<'a, 'b, M> {
    table: &'a ParameterTable,
    optimizer: &'a mut ModuleOptimizer,
    rate: &'a ModuleLearningRate,
    pass: Option<Pass<'b, M>>,
    /// What the guard asks of this step.
    asks: Asks,
}

/// Scales as decided. Says whether anything was changed.
fn scale<M: Module>(
    table: &ParameterTable,
    model: &M,
    action: &GradientAction,
    gradients: &mut GradientsParams,
) -> bool {
    let count = table.len();
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
    Change::Scale(factors).apply(table, model, gradients)
}
