//! A model that burn's `Learner` trains under a guard.

mod metrics;
mod passes;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::data::dataloader::Progress;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::{Device, Tensor};
use burn::train::metric::{Adaptor, LossInput, LossMetric, Metric, MetricMetadata, Numeric};
use burn::train::{InferenceStep, Interrupter, TrainOutput, TrainStep};
use tamegrad::Mode;
use tamegrad_runs::RunError;

use crate::clip::Clip;
use crate::guard::Guard;
use crate::input::{see_input, take_inputs};
use crate::rate::Optimize;
use crate::report::Report;

pub use metrics::{GradientNorm, UpdateRatio};

use metrics::Measured;
use passes::{Lineage, Pass, Passes};

/// Said where a copy of the model makes steps that the guard does not see.
const ALONE: &str = "a copy of the model was trained beside the one that the guard follows, and its \
                     steps are not watched";
/// Said where a guard that was to protect only watches.
const REPLICAS: &str = "in distributed data parallel training the guard only watches, because all \
                        replicas have to make the same steps";

/// A model under a guard, for burn's `Learner`.
///
/// To burn it is the model: it has the same parameters, names and records, so that checkpoints can be
/// loaded with the guard and without. Each step of the `Learner` is one of the guard. With accumulated
/// gradients or several devices, the loss of a step is the mean of those of its passes, and its gradients
/// are their sum, as burn's optimizer applies it.
///
/// Clones and forks share the guard. It follows the first that makes a step; one that is trained beside it
/// makes its steps without the guard, and a notice of the report says so. In distributed data parallel
/// training the guard follows one of the replicas, and only watches even if it was to protect.
///
/// ```
/// use std::sync::Arc;
///
/// use burn::data::dataloader::batcher::Batcher;
/// use burn::data::dataloader::DataLoaderBuilder;
/// use burn::data::dataset::InMemDataset;
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig, loss::{MseLoss, Reduction}};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn::train::metric::LossMetric;
/// use burn::train::{
///     InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
/// };
/// use tamegrad_burn::{Guard, default_device};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     linear: Linear,
/// }
///
/// impl TrainStep for Net {
///     type Input = Tensor<2>;
///     type Output = RegressionOutput;
///
///     fn step(&self, x: Tensor<2>) -> TrainOutput<RegressionOutput> {
///         let item = InferenceStep::step(self, tamegrad_burn::input(x));
///         TrainOutput::new(self, item.loss.backward(), item)
///     }
/// }
///
/// impl InferenceStep for Net {
///     type Input = Tensor<2>;
///     type Output = RegressionOutput;
///
///     fn step(&self, x: Tensor<2>) -> RegressionOutput {
///         let (outputs, targets) = (self.linear.forward(x.clone()), x.sum_dim(1));
///         let loss = MseLoss::new().forward(outputs.clone(), targets.clone(), Reduction::Mean);
///         RegressionOutput::new(loss, outputs, targets)
///     }
/// }
///
/// struct Rows;
///
/// impl Batcher<[f32; 3], Tensor<2>> for Rows {
///     fn batch(&self, rows: Vec<[f32; 3]>, device: &Device) -> Tensor<2> {
///         let rows = rows.into_iter().map(|row| Tensor::<1>::from_data(row, device));
///         Tensor::stack(rows.collect(), 0)
///     }
/// }
///
/// # let folder = std::env::temp_dir().join(format!("tamegrad-guarded-{}", std::process::id()));
/// # let artifacts = &folder;
/// let rows: Vec<[f32; 3]> = (0..64).map(|i| [i as f32 / 64.0, 0.5, -0.25]).collect();
/// let load = || DataLoaderBuilder::new(Rows).batch_size(8).build(InMemDataset::new(rows.clone()));
/// let training = SupervisedTraining::new(artifacts, load(), load())
///     .metrics((LossMetric::new(),))
///     .num_epochs(2);
/// # let training = training.with_application_logger(None);
///
/// let model = Net { linear: LinearConfig::new(3, 1).init(&default_device()) };
/// let model = Guard::protect(&model).wrap(model).stop_with(training.interrupter());
/// let training = training.metric_train_numeric(model.gradient_norm());
///
/// let result = training.launch(Learner::new(model, SgdConfig::new().init(), 0.05));
/// println!("{}", result.model.diagnosis());
/// # assert_eq!(result.model.with_guard(|guard| guard.record().rows().len()), 16);
/// let model: Net = result.model.into_inner();
/// # drop(model);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Guarded<M: Module> {
    model: M,
    lineage: Lineage,
    shared: Arc<Shared<M>>,
    interrupter: Option<Interrupter>,
}

/// What the copies of a model share. A copy that the guard does not follow never waits for the guard, which
/// may be waiting for gradients that the two exchange.
struct Shared<M: Module> {
    guard: Mutex<Guard<M>>,
    passes: Mutex<Passes>,
    measured: Measured,
    /// The guard's, for steps that it does not see.
    clip: Option<Clip>,
    /// Whether a pass comes that the guard is to look at the model before.
    is_new: AtomicBool,
    is_alone: AtomicBool,
    forks: AtomicU64,
}

impl<M: Module> Guard<M> {
    /// The model under this guard, for burn's `Learner`. Options, a folder to record to and a state to
    /// resume from are given to the guard before.
    pub fn wrap(self, model: M) -> Guarded<M> {
        let shared = Shared {
            clip: self.clip(),
            guard: Mutex::new(self),
            passes: Mutex::default(),
            measured: Measured::default(),
            is_new: AtomicBool::new(true),
            is_alone: AtomicBool::new(false),
            forks: AtomicU64::new(0),
        };
        let (lineage, shared) = (Lineage::root(), Arc::new(shared));
        Guarded { model, lineage, shared, interrupter: None }
    }
}

impl<M: Module> Guarded<M> {
    /// Stops the training when the guard sees no way to go on ([`Guard::should_stop`]). The reason, which
    /// `LearningResult::interrupted` holds, names verdict and step.
    pub fn stop_with(mut self, interrupter: Interrupter) -> Self {
        self.interrupter = Some(interrupter);
        self
    }

    /// A metric of training: the L2 norm of the whole gradient.
    pub fn gradient_norm(&self) -> GradientNorm {
        GradientNorm::new(self.shared.measured.clone())
    }

    /// A metric of training: how large the update is beside the weights.
    pub fn update_ratio(&self) -> UpdateRatio {
        UpdateRatio::new(self.shared.measured.clone())
    }

    /// Gives access to the guard: its state for a checkpoint, its record, what became of the latest step.
    /// Within the closure, do not call other methods of a copy of this model: they would wait for it
    /// forever.
    pub fn with_guard<T>(&self, access: impl FnOnce(&mut Guard<M>) -> T) -> T {
        access(&mut self.shared.guard())
    }

    /// The diagnosis of what was seen so far, which prints as a report.
    pub fn diagnosis(&self) -> Report {
        self.with_guard(|guard| guard.diagnosis())
    }

    /// Ends the run: writes the diagnosis to the folder of [`Guard::record_to`] and returns it. Otherwise
    /// this happens, and errors are passed over, when the last copy of the model is dropped.
    ///
    /// # Errors
    /// The first [`RunError`] of the folder; what was written before it is there.
    pub fn finish(&self) -> Result<Report, RunError> {
        self.with_guard(Guard::end)
    }

    /// The model alone.
    pub fn into_inner(self) -> M {
        self.model
    }

    /// A step of the guard, whose update is made in this way.
    fn step_by(
        self,
        optimize: Optimize<M>,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        let seen = self.shared.passes().take(&self.lineage);
        let Some(seen) = seen else {
            return self.step_alone(optimize, optimizer, rate, gradients);
        };
        // Workers see the inputs on threads of their own; the guard takes those of this one, where others may
        // be left.
        drop(take_inputs());
        seen.inputs.iter().for_each(|(name, stats)| see_input(name, *stats));
        let Self { model, lineage, shared, interrupter } = self;
        let mut guard = shared.guard();
        if seen.is_first && is_distributed(&model) && guard.mode() == Mode::Protect {
            guard.only_observe();
            guard.note(REPLICAS.to_owned());
        }
        guard.optimize_by(optimize);
        let model = guard.advance(optimizer, &rate, model, gradients, seen.loss, None);
        let gradient_norm = guard.outcome().and_then(|outcome| outcome.gradient_norm);
        let update_ratio = guard.record().now().and_then(|row| row.update_ratio);
        shared.measured.note_step(gradient_norm, update_ratio);
        if let Some(interrupter) = interrupter.as_ref().filter(|_| guard.should_stop()) {
            interrupter.stop(Some(&reason(&guard)));
        }
        drop(guard);
        Self { model, lineage: lineage.alone(), shared, interrupter }
    }

    /// The step of a copy that the guard does not follow.
    fn step_alone(
        self,
        optimize: Optimize<M>,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        mut gradients: GradientsParams,
    ) -> Self {
        let Self { model, lineage, shared, interrupter } = self;
        shared.is_alone.store(true, Ordering::Relaxed);
        // Like the guard, a copy takes no step with a clip and gradients that are not finite.
        let is_broken = shared.clip.is_some_and(|clip| clip.apply(&model, &mut gradients).is_nan());
        let model = if is_broken { model } else { optimize(model, optimizer, rate, gradients) };
        Self { model, lineage, shared, interrupter }
    }
}

impl<M: Module> Shared<M> {
    fn guard(&self) -> MutexGuard<'_, Guard<M>> {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_alone.load(Ordering::Relaxed) {
            guard.note(ALONE.to_owned());
        }
        guard
    }

    fn passes(&self) -> MutexGuard<'_, Passes> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the model if this is the first pass of a training. Passes of other threads wait meanwhile,
    /// because they move its running statistics. What passes before the training have left is dropped.
    fn before_pass(&self, model: &M) {
        let mut passes = self.passes();
        if self.is_new.swap(false, Ordering::Relaxed) {
            passes.clear();
            drop(take_inputs());
            self.guard().look_at(model);
        }
    }
}

impl<M> TrainStep for Guarded<M>
where
    M: Module + TrainStep,
    M::Output: Adaptor<LossInput>,
{
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: M::Input) -> TrainOutput<M::Output> {
        self.shared.before_pass(&self.model);
        let output = self.model.step(item);
        let (loss, inputs) = (loss_of(&output.item), take_inputs());
        self.shared.measured.note_pass();
        self.shared.passes().push(Pass { by: self.lineage.clone(), loss, inputs });
        output
    }

    fn optimize(
        self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        self.step_by(M::optimize, optimizer, rate, gradients)
    }

    fn optimize_multi(
        mut self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        mut gradients: MultiGradientsParams,
    ) -> Self {
        let mut summer = Summer { of: &mut gradients, sums: GradientsParams::new() };
        self.model = self.model.map(&mut summer);
        let sums = summer.sums;
        let optimize: Optimize<M> = |model, optimizer, rate, sums| {
            let sums = by_device(&model, sums);
            model.optimize_multi(optimizer, rate, sums)
        };
        self.step_by(optimize, optimizer, rate, sums)
    }
}

impl<M: Module + InferenceStep> InferenceStep for Guarded<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: M::Input) -> M::Output {
        let output = self.model.step(item);
        // Inputs of validation are none of the next step.
        drop(take_inputs());
        output
    }
}

impl<M: Module> Module for Guarded<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.model.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        let number = self.shared.forks.fetch_add(1, Ordering::Relaxed) + 1;
        let lineage = self.lineage.fork(number);
        Self { model: self.model.fork(device), lineage, ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { model: self.model.to_device(device), ..self }
    }

    fn train(self) -> Self {
        // Training goes on with a model that may have been loaded.
        self.shared.is_new.store(true, Ordering::Relaxed);
        Self { model: self.model.train(), ..self }
    }

    fn valid(&self) -> Self {
        Self { model: self.model.valid(), ..self.clone() }
    }

    fn materialize(self) -> Self {
        Self { model: self.model.materialize(), ..self }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit(visitor);
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        Self { model: self.model.map(mapper), ..self }
    }
}

impl<M: Module> Clone for Guarded<M> {
    fn clone(&self) -> Self {
        Self {
            model: self.model.clone(),
            lineage: self.lineage.clone(),
            shared: Arc::clone(&self.shared),
            interrupter: self.interrupter.clone(),
        }
    }
}

impl<M: Module> fmt::Debug for Guarded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.model, f)
    }
}

impl<M: Module + fmt::Display> fmt::Display for Guarded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.model, f)
    }
}

/// The loss of a pass, which burn's own metric alone can read; `None` if the device failed, of which burn
/// tells the user itself.
fn loss_of(output: &impl Adaptor<LossInput>) -> Option<f64> {
    let progress = Progress::new(0, 0, None);
    let metadata = MetricMetadata { progress, iteration: None, lr: None };
    let mut metric = LossMetric::new();
    metric.update(&output.adapt(), &metadata).ok()?;
    metric.value().map(|value| value.current())
}

/// Whether a model is a replica of distributed data parallel training, which exchanges its gradients
/// with others.
fn is_distributed<M: Module>(model: &M) -> bool {
    struct Finder(bool);
    impl ModuleVisitor for Finder {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.is_initialized().then(|| param.val());
            // burn asks this of tensors with autodiff only.
            self.0 |= value.is_some_and(|value| value.is_autodiff() && value.is_distributed());
        }
    }
    let mut finder = Finder(false);
    model.visit(&mut finder);
    finder.0
}

/// Why the training stops.
fn reason<M: Module>(guard: &Guard<M>) -> String {
    let diagnosis = guard.diagnosis();
    let now = guard.record().now().map_or(0, |row| row.step.0);
    let onset = diagnosis.onset.map_or_else(String::new, |step| format!(", since step {}", step.0));
    let verdict = diagnosis.verdict.as_str();
    format!(
        "tamegrad: {verdict} at step {now}{onset}; nothing that can be done during the run helps"
    )
}

/// Sums the gradients of several devices as burn's optimizer does, each on the device where burn keeps the
/// parameter, and moves the parameters there.
struct Summer<'a> {
    of: &'a mut MultiGradientsParams,
    sums: GradientsParams,
}

impl ModuleMapper for Summer<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((sum, device)) = self.of.remove::<D>(param.id) else { return param };
        self.sums.register(param.id, sum);
        if param.lazy_device() == device { param } else { param.fork(&device) }
    }
}

/// The sums as burn gives gradients to a model, each among those of its device.
fn by_device<M: Module>(model: &M, mut sums: GradientsParams) -> MultiGradientsParams {
    struct Divider<'a>(&'a mut GradientsParams, MultiGradientsParams);
    impl ModuleVisitor for Divider<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(sum) = self.0.remove::<D>(param.id) else { return };
            let (device, devices) = (sum.device(), &mut self.1.grads);
            let index = devices.iter().position(|(_, other)| *other == device);
            let index = index.unwrap_or_else(|| {
                devices.push((GradientsParams::new(), device));
                devices.len() - 1
            });
            devices[index].0.register(param.id, sum);
        }
    }
    let mut divider = Divider(&mut sums, MultiGradientsParams::default());
    model.visit(&mut divider);
    divider.1
}
