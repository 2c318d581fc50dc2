//! burn's `Learner` under a guard: the same weights, and what goes wrong found, named and stopped.
#![cfg(feature = "learner")]

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, Param};
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, MultiGradientsParams, SgdConfig};
use burn::store::ModuleRecord;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::EventStoreClient;
use burn::train::metric::{Metric, Numeric};
use burn::train::{
    ExecutionStrategy, InferenceStep, Learner, LearnerModel, LearningResult, MultiDeviceOptim,
    RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
};
use tamegrad_burn::{Guard, Guarded, Mode, Report, Step, Verdict, default_device, weights_hash};
use tamegrad_runs::RunFolder;

/// Rows of a batch.
const BATCH: usize = 8;

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    norm: BatchNorm,
    dropout: Dropout,
    last: Linear,
}

impl Net {
    /// Draws nothing: tests share the generator.
    fn new(dropout: f64) -> Self {
        Self {
            first: linear(4, 16),
            norm: BatchNormConfig::new(16).init(&default_device()),
            dropout: DropoutConfig::new(dropout).init(),
            last: linear(16, 1),
        }
    }
}

fn linear(inputs: usize, outputs: usize) -> Linear {
    Linear { weight: parameter([inputs, outputs]), bias: Some(parameter([outputs])) }
}

fn parameter<const D: usize>(shape: [usize; D]) -> Param<Tensor<D>> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| 0.6 * noise(i)).collect();
    Param::from_data(TensorData::new(values, shape), &default_device())
}

/// A repeatable value in -1..1.
fn noise(i: usize) -> f32 {
    let x = ((i + 1) as f64 * 12.9898).sin() * 43758.5453;
    (2.0 * (x - x.floor()) - 1.0) as f32
}

impl TrainStep for Net {
    type Input = Rows;
    type Output = RegressionOutput;

    fn step(&self, rows: Rows) -> TrainOutput<RegressionOutput> {
        let item = InferenceStep::step(self, rows);
        TrainOutput::new(self, item.loss.backward(), item)
    }

    /// Keeps the bias of the output at 0.
    fn optimize(
        self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        let mut net = optimizer.step(rate, self, gradients);
        let zeroed = |bias: Tensor<1>| Tensor::from_inner(bias.inner() * 0.0).require_grad();
        net.last.bias = net.last.bias.map(|bias| bias.map(zeroed));
        net
    }
}

impl InferenceStep for Net {
    type Input = Rows;
    type Output = RegressionOutput;

    fn step(&self, Rows { x, y }: Rows) -> RegressionOutput {
        let h = relu(self.norm.forward(self.first.forward(tamegrad_burn::input(x))));
        let outputs = self.last.forward(self.dropout.forward(h));
        let loss = MseLoss::new().forward(outputs.clone(), y.clone(), Reduction::Mean);
        RegressionOutput::new(loss, outputs, y)
    }
}

/// Inputs, whose sum is the target.
#[derive(Debug, Clone)]
struct Rows {
    x: Tensor<2>,
    y: Tensor<2>,
}

#[derive(Clone)]
struct Batches;

impl Batcher<[f32; 4], Rows> for Batches {
    fn batch(&self, rows: Vec<[f32; 4]>, device: &Device) -> Rows {
        let data = TensorData::new(rows.concat(), [rows.len(), 4]);
        let x = Tensor::<2>::from_data(data, device);
        Rows { y: x.clone().sum_dim(1), x }
    }
}

fn rows(count: usize) -> Vec<[f32; 4]> {
    (0..count).map(|row| [0, 1, 2, 3].map(|column| noise(4 * row + column))).collect()
}

fn loader(rows: Vec<[f32; 4]>, is_shuffled: bool) -> Arc<dyn DataLoader<Rows>> {
    let builder = DataLoaderBuilder::new(Batches).batch_size(BATCH).num_workers(1);
    let builder = if is_shuffled { builder.shuffle(42) } else { builder };
    builder.build(InMemDataset::new(rows))
}

/// A training that writes to a folder.
fn training<M>(folder: &Path, train: Arc<dyn DataLoader<Rows>>) -> SupervisedTraining<M>
where
    M: LearnerModel
        + TrainStep<Input = Rows, Output = RegressionOutput>
        + InferenceStep<Input = Rows, Output = RegressionOutput>,
{
    // No step may take the inputs of validation for its own.
    let broken = vec![[f32::NAN; 4]; 2 * BATCH];
    SupervisedTraining::new(folder, train, loader(broken, false)).with_application_logger(None)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn adam() -> ModuleOptimizer {
    AdamWConfig::new().init()
}

/// How a training differs from the usual.
#[derive(Clone)]
struct Setup {
    accumulation: usize,
    devices: Option<MultiDeviceOptim>,
    dropout: f64,
}

impl Setup {
    fn launch<M>(&self, folder: &Path, model: M) -> LearningResult<M>
    where
        M: LearnerModel
            + TrainStep<Input = Rows, Output = RegressionOutput>
            + InferenceStep<Input = Rows, Output = RegressionOutput>,
    {
        // One test alone uses dropout.
        if self.dropout > 0.0 {
            default_device().seed(3);
        }
        let train = loader(rows(30 * BATCH), true);
        let mut training = training(folder, train).num_epochs(2);
        if self.accumulation > 1 {
            training = training.grads_accumulation(self.accumulation);
        }
        if let Some(optim) = self.devices {
            let devices = vec![default_device(), default_device()];
            let strategy = ExecutionStrategy::multi(devices, optim);
            training = training.with_training_strategy(strategy.into());
        }
        training.launch(Learner::new(model, adam(), 1e-3))
    }
}

#[test]
fn a_guard_changes_no_bit_of_a_healthy_training() {
    let single = Setup { accumulation: 1, devices: None, dropout: 0.2 };
    let multi = |optim| Setup { devices: Some(optim), dropout: 0.0, ..single.clone() };
    let cases = [
        (single.clone(), 60),
        (Setup { accumulation: 2, ..single.clone() }, 30),
        (multi(MultiDeviceOptim::OptimMainDevice), 30),
        (multi(MultiDeviceOptim::OptimSharded), 30),
        (Setup { accumulation: 2, ..multi(MultiDeviceOptim::OptimSharded) }, 16),
    ];
    for (number, (setup, steps)) in cases.into_iter().enumerate() {
        let folder = folder();
        let bare = setup.launch(folder.path(), Net::new(setup.dropout));
        let bare = weights_hash(&bare.model);
        for mode in [Mode::Observe, Mode::Protect] {
            let model = Net::new(setup.dropout);
            let model = Guard::new(&model, mode).wrap(model);
            let result = setup.launch(folder.path(), model);
            assert_eq!(weights_hash(&result.model), bare, "case {number}, {mode:?}");
            let report = result.model.diagnosis();
            assert!(!report.verdict.is_explosion(), "case {number}: {report}");
            assert!(!report.to_string().contains("notice"), "case {number}: {report}");
            let (rows, nonfinite) = result.model.with_guard(|guard| {
                (guard.record().rows().to_vec(), guard.record().first_nonfinite())
            });
            assert_eq!((rows.len(), nonfinite), (steps, None), "case {number}");
            assert!(rows.iter().all(|row| row.loss > Some(0.0) && row.gradient_norm > Some(0.0)));
        }
    }
}

#[test]
fn the_loss_of_a_step_is_the_mean_of_its_passes() {
    let seen = |accumulation| {
        let folder = folder();
        let setup = Setup { accumulation, devices: None, dropout: 0.0 };
        let model = Net::new(0.0);
        let model = Guard::observe(&model).wrap(model);
        // The first passes have the same weights.
        let passes = [loader(rows(30 * BATCH), true).iter().take(accumulation).collect::<Vec<_>>()];
        let losses = passes.into_iter().flatten().map(|rows| {
            let rows = rows.expect("in memory");
            f64::from(TrainStep::step(&Net::new(0.0), rows).item.loss.into_scalar::<f32>())
        });
        let mean = losses.sum::<f64>() / accumulation as f64;
        let result = setup.launch(folder.path(), model);
        (result.model.with_guard(|guard| guard.record().rows()[0].loss), mean)
    };
    for accumulation in [1, 3] {
        let (loss, mean) = seen(accumulation);
        assert_eq!(loss, Some(mean), "{accumulation}");
    }
}

#[test]
fn a_rate_that_is_much_too_high_is_found() {
    let folder = folder();
    let loader = || loader(rows(30 * BATCH), true);
    let bare = training(folder.path(), loader()).num_epochs(2);
    let bare = bare.launch(Learner::new(Net::new(0.0), SgdConfig::new().init(), 50.0));
    let model = Net::new(0.0);
    let training = training(folder.path(), loader()).num_epochs(2);
    let model = Guard::observe(&model).wrap(model).stop_with(training.interrupter());
    let result = training.launch(Learner::new(model, SgdConfig::new().init(), 50.0));
    assert_eq!(weights_hash(&result.model), weights_hash(&bare.model), "observing changes no bit");
    let report = result.model.diagnosis();
    assert!(report.verdict.is_explosion(), "{report}");
    assert!(report.onset.is_some_and(|step| step < Step(3)), "{report}");
    let causes: Vec<_> = report.causes.iter().map(|cause| cause.name.as_str()).collect();
    assert_eq!(causes.first(), Some(&"learning-rate"), "{report}");
    assert_eq!(result.interrupted, None, "watching stops nothing");
}

#[test]
fn a_training_that_nothing_helps_is_stopped_and_says_why() {
    let folder = folder();
    let mut all = rows(200 * BATCH);
    all[20 * BATCH..].fill([f32::NAN; 4]);
    let model = Net::new(0.0);
    let training = training(folder.path(), loader(all, false));
    let model = Guard::protect(&model).wrap(model).stop_with(training.interrupter());
    let result = training.launch(Learner::new(model, adam(), 1e-3));
    let reason = result.interrupted.and_then(|stop| stop.reason).expect("stopped");
    let rows = result.model.with_guard(|guard| guard.record().rows().to_vec());
    assert!((21..200).contains(&rows.len()), "{}", rows.len());
    let last = rows.last().map_or(0, |row| row.step.0);
    assert!(reason.contains(&format!(" at step {last}, since step 20;")), "{reason}");
}

#[test]
fn a_broken_batch_is_skipped_and_named() {
    let folder = folder();
    let setup = |bad: Option<usize>| {
        let mut all = rows(30 * BATCH);
        if let Some(batch) = bad {
            // One more batch between the others.
            let mut broken = all[..BATCH].to_vec();
            broken[3][2] = f32::NAN;
            all.splice(batch * BATCH..batch * BATCH, broken);
        }
        let model = Net::new(0.0);
        let model = Guard::protect(&model).wrap(model);
        let training = training(folder.path(), loader(all, false));
        training.launch(Learner::new(model, adam(), 1e-3)).model
    };
    let whole = weights_hash(&setup(None));
    for batch in [0, 20] {
        let model = setup(Some(batch));
        assert_eq!(weights_hash(&model), whole, "batch {batch}");
        let report = model.diagnosis();
        assert_eq!(report.onset, Some(Step(batch as u64)), "{report}");
        let cause = report.causes.first().map(|cause| cause.name.as_str());
        assert_eq!(cause, Some("data"), "{report}");
    }
}

#[test]
fn records_are_those_of_the_model() {
    let folder = folder();
    let setup = Setup { accumulation: 1, devices: None, dropout: 0.0 };
    let model = Net::new(0.0);
    let result = setup.launch(folder.path(), Guard::protect(&model).wrap(model));
    let hash = weights_hash(&result.model);
    let bytes = result.model.into_record().into_bytes().expect("memory");
    let record = ModuleRecord::from_bytes(bytes).expect("a record");
    assert_eq!(weights_hash(&Net::new(0.0).load_record(record)), hash);
}

#[test]
fn a_training_leaves_a_run_folder_and_metrics() {
    let (folder, run) = (folder(), folder());
    let model = Net::new(0.0);
    let training = training(folder.path(), loader(rows(30 * BATCH), true)).num_epochs(2);
    let model = Guard::observe(&model).record_to(run.path()).wrap(model);
    let training = training
        .metric_train_numeric(model.gradient_norm())
        .metric_train_numeric(model.update_ratio());
    let result = training.launch(Learner::new(model, adam(), 1e-3));
    let report = result.model.finish().expect("written");
    assert_eq!(report.verdict, Verdict::Healthy);

    let recorded = RunFolder::open(run.path()).expect("a run folder").contents();
    let norms: Vec<f64> = recorded.steps.iter().filter_map(|row| row.gradient_norm).collect();
    let ratios: Vec<f64> = recorded.steps.iter().filter_map(|row| row.update_ratio).collect();
    assert_eq!((norms.len(), ratios.len()), (60, 60));
    let state = RunFolder::open(run.path()).expect("a run folder").state().expect("readable");
    assert_eq!(state.and_then(|state| state.end).as_deref(), Some("completed"));
    for (name, values) in [("Gradient_Norm", norms), ("Update_Ratio", ratios)] {
        for epoch in [1, 2] {
            let file = format!("train/epoch-{epoch}/{name}.log");
            let text = std::fs::read_to_string(folder.path().join(file)).expect("a log");
            let logged: Vec<f64> = text.lines().filter_map(|line| value(line, ",1")).collect();
            assert_eq!(logged, values[30 * (epoch - 1)..30 * epoch], "{name}");
            let mean = text.lines().find_map(|line| value(line, ",final")).expect("a mean");
            let want = logged.iter().sum::<f64>() / 30.0;
            assert!((mean / want - 1.0).abs() < 1e-12, "{name}: {mean} {want}");
        }
    }
}

fn value(line: &str, end: &str) -> Option<f64> {
    line.strip_suffix(end)?.parse().ok()
}

#[test]
fn a_metric_has_no_value_before_the_first_step() {
    let model = Net::new(0.0);
    let metric = Guard::observe(&model).wrap(model).gradient_norm();
    assert_eq!(*metric.name(), "Gradient Norm");
    assert!(metric.value().is_none() && metric.running_value().is_none());
}

/// Saves everything at each epoch, the state of the guard as well.
struct EachEpoch {
    model: Guarded<Net>,
    folder: std::path::PathBuf,
}

impl CheckpointingStrategy for EachEpoch {
    fn checkpointing(&mut self, epoch: usize, _: &EventStoreClient) -> Vec<CheckpointingAction> {
        let state = self.model.with_guard(|guard| guard.state()).expect("memory");
        std::fs::write(self.folder.join(format!("guard-{epoch}")), state).expect("written");
        vec![CheckpointingAction::Save]
    }
}

/// Trains from a checkpoint or from the start.
fn resumable(
    folder: &Path,
    train: Arc<dyn DataLoader<Rows>>,
    epochs: usize,
    from: Option<usize>,
) -> (String, Guarded<Net>) {
    // Made anew, its parameters have other identities than those of the checkpoint.
    let model = Net::new(0.0);
    drop(model.valid());
    let mut guard = Guard::protect(&model);
    let mut training = training(folder, train).num_epochs(epochs).with_default_checkpointers();
    if let Some(epoch) = from {
        let state = std::fs::read(folder.join(format!("guard-{epoch}"))).expect("saved");
        guard.resume(&model, &state).expect("the same model");
        training = training.checkpoint(epoch);
    }
    let model = guard.wrap(model);
    let strategy = EachEpoch { model: model.clone(), folder: folder.to_owned() };
    let result =
        training.with_checkpointing_strategy(strategy).launch(Learner::new(model, adam(), 1e-3));
    assert!(result.error.is_none(), "{:?}", result.error);
    (weights_hash(&result.model), result.model)
}

#[test]
fn a_training_resumed_from_a_checkpoint_of_burn_is_the_whole_one() {
    let folder = folder();
    let train = || loader(rows(30 * BATCH), false);
    let whole = resumable(folder.path(), train(), 4, None);
    let resumed = resumable(folder.path(), train(), 4, Some(2));
    assert_eq!(whole.0, resumed.0);
    let [whole, resumed] = [whole.1, resumed.1].map(|model| {
        model.with_guard(|guard| format!("{:?} {}", guard.record().rows(), guard.diagnosis()))
    });
    assert!(whole == resumed, "{whole}\n{resumed}");
}

#[test]
fn a_step_skipped_first_after_a_checkpoint_keeps_the_checkpoint() {
    let folder = folder();
    let (saved, _) = resumable(folder.path(), loader(rows(30 * BATCH), false), 1, None);
    let broken = loader(vec![[f32::NAN; 4]; BATCH], false);
    let (kept, model) = resumable(folder.path(), broken, 2, Some(1));
    assert_eq!(kept, saved);
    assert!(model.with_guard(|guard| guard.outcome().is_some_and(|outcome| !outcome.updated)));
}

/// One step as the `Learner` makes it.
fn step<M>(model: M, optimizer: &mut ModuleOptimizer, rows: Rows) -> M
where
    M: Module + TrainStep<Input = Rows, Output = RegressionOutput>,
{
    let gradients = TrainStep::step(&model, rows).grads;
    model.optimize(optimizer, ModuleLearningRate::from(1e-2), gradients)
}

fn first_batches(count: usize) -> Vec<Rows> {
    let all = loader(rows(count * BATCH), false);
    all.iter().map(|rows| rows.expect("in memory")).collect()
}

#[test]
fn a_copy_trained_beside_the_followed_one_is_trained_without_the_guard() {
    let device = default_device();
    // Copies share their running statistics, which training does not read.
    let parameters = |net: &Net| [weights_hash(&net.first), weights_hash(&net.last)];
    let bare = |rows: &[Rows]| {
        let (mut model, mut optimizer) = (Net::new(0.0), adam());
        for rows in rows {
            model = step(model, &mut optimizer, rows.clone());
        }
        parameters(&model)
    };
    let batches = first_batches(12);
    let (left, right) = batches.split_at(6);
    let model = Net::new(0.0);
    let model = Guard::protect(&model).wrap(model);
    // As distributed data parallel training does, but each with batches of its own.
    let [mut first, mut second] = [model.clone().fork(&device), model.fork(&device)];
    let mut optimizers = [adam(), adam()];
    for (left, right) in left.iter().zip(right) {
        first = step(first, &mut optimizers[0], left.clone());
        second = step(second, &mut optimizers[1], right.clone());
    }
    assert_eq!(first.with_guard(|guard| guard.record().rows().len()), 6);
    let report = second.diagnosis().to_string();
    assert!(report.contains("notice: a copy of the model was trained beside"), "{report}");
    assert_eq!(parameters(&first.into_inner()), bare(left));
    assert_eq!(parameters(&second.into_inner()), bare(right));
}

#[test]
fn gradients_of_several_devices_are_summed_as_burn_does() {
    let device = default_device();
    let mut batches = first_batches(6).into_iter();
    let (mut bare, mut guarded) = (Net::new(0.0), Net::new(0.0));
    let mut optimizers = [adam(), adam()];
    let mut guard = Guard::protect(&guarded).wrap(guarded);
    while let Some(rows) = batches.next() {
        let other = batches.next().expect("an even number");
        let multi = |gradients: [GradientsParams; 2]| {
            let grads = gradients.map(|gradients| (gradients, device.clone())).into();
            MultiGradientsParams { grads }
        };
        let gradients = [&rows, &other].map(|rows| TrainStep::step(&bare, rows.clone()).grads);
        bare = bare.optimize_multi(&mut optimizers[0], 1e-2.into(), multi(gradients));
        let gradients = [&rows, &other].map(|rows| TrainStep::step(&guard, rows.clone()).grads);
        guard = guard.optimize_multi(&mut optimizers[1], 1e-2.into(), multi(gradients));
    }
    assert_eq!(weights_hash(&bare), weights_hash(&guard));
    guarded = guard.into_inner();
    assert_eq!(weights_hash(&bare), weights_hash(&guarded));
}

#[test]
fn a_trained_model_is_trained_further_under_the_same_guard() {
    let folder = folder();
    let setup = Setup { accumulation: 1, devices: None, dropout: 0.0 };
    let model = Net::new(0.0);
    let first = setup.launch(folder.path(), Guard::protect(&model).wrap(model)).model;
    // Kept, and so alive, while the training goes on with a fork.
    let kept = first.clone();
    let again = setup.launch(folder.path(), first.train().fork(&default_device())).model;
    let report: Report = again.diagnosis();
    assert_eq!(again.with_guard(|guard| guard.record().rows().len()), 120);
    assert!(!report.to_string().contains("notice"), "{report}");
    assert_ne!(weights_hash(&kept), weights_hash(&again));
}
