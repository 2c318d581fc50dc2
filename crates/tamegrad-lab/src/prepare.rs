//! Everything a run needs, made from a recipe: data, batches, loss, metric, facts, optimizer.

use burn::module::{ModuleVisitor, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdamConfig, AdamWConfig, LearningRate, ModuleOptimizer, RmsPropConfig, SgdConfig,
};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use half::f16;
use tamegrad::{RunFacts, TensorStats};
use tamegrad_burn::{Clip, Lagged, Probes, default_device};

use crate::data::{self, Batches, DataError, Dataset, Table, Targets};
use crate::model::{Network, Shape};
use crate::recipe::check::Conflict;
use crate::recipe::memory::{self, Samples};
use crate::recipe::{self, ClipBy, Dtype, Fault, Loss, Optimizer, Recipe, Regularise, Scale};

/// Why a recipe cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SetupError {
    /// The data cannot be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Too few rows for a batch.
    #[error("got no rows to train on; hint: lower data.test_fraction")]
    NoRows,
    /// The checkpoint to go on from is damaged, or that of another recipe or version.
    #[error("the checkpoint cannot be used: {reason}; hint: start the run anew, without --resume")]
    Checkpoint {
        /// What is wrong with it.
        reason: String,
    },
    /// It needs more memory than there is.
    #[error("`{key}`: {message}; hint: {hint}")]
    Memory {
        /// The key of the recipe that makes it so large.
        key: String,
        /// What it needs, and what there is.
        message: String,
        /// A next step.
        hint: &'static str,
    },
    /// A case of the evaluation is no recipe.
    #[error("case {name} is no recipe: {reason}")]
    Case {
        /// The case's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<Conflict> for SetupError {
    fn from(Conflict { path: key, message, help: hint }: Conflict) -> Self {
        SetupError::Memory { key, message, hint }
    }
}

/// A recipe with its data loaded.
pub(crate) struct Prepared {
    pub(crate) dataset: Dataset,
    pub(crate) shape: Shape,
    pub(crate) batches: Batches,
    pub(crate) planned_steps: u64,
    pub(crate) device: Device,
    /// What the model computes in.
    pub(crate) dtype: FloatDType,
}

/// A batch on the device.
pub(crate) struct Batch {
    inputs: Tensor<2>,
    targets: BatchTargets,
    /// Statistics of the inputs.
    pub(crate) input_stats: TensorStats,
    /// Statistics of the targets; `None` for classes.
    pub(crate) target_stats: Option<TensorStats>,
}

enum BatchTargets {
    Classes(Tensor<1, Int>, usize),
    Values(Tensor<2>),
}

/// Loads and scales the data of a recipe.
pub(crate) fn prepare(recipe: &Recipe) -> Result<Prepared, SetupError> {
    if let Some(excess) = memory::excess(recipe, None) {
        return Err(excess.into());
    }
    let mut dataset = data::load(&recipe.data, recipe.seed)?;
    if recipe.scale.input == Scale::Standard {
        dataset.standardise_inputs();
    }
    if recipe.scale.target == Scale::Standard {
        // The metric (accuracy, R^2) does not depend on the scale: it need not be undone.
        let _ = dataset.standardise_targets();
    }
    let rows = dataset.train.rows();
    if rows == 0 {
        return Err(SetupError::NoRows);
    }
    if recipe.data.samples().is_none()
        && let Some(excess) = memory::excess(recipe, Some(&dataset.samples()))
    {
        return Err(excess.into());
    }
    let batches = Batches::new(rows, recipe.training.batch, recipe.seed);
    let Samples { shape: input, outputs, .. } = dataset.samples();
    Ok(Prepared {
        shape: Shape { input, outputs },
        planned_steps: recipe.training.epochs.saturating_mul(batches.batches_per_epoch()),
        batches,
        dataset,
        device: default_device(),
        dtype: match recipe.training.dtype {
            Dtype::F32 => FloatDType::F32,
            Dtype::F16 => FloatDType::F16,
        },
    })
}

impl Prepared {
    /// The batch of a step of the data's order, its inputs multiplied if a fault says so.
    pub(crate) fn batch(&mut self, data_step: u64, fault: Option<&Fault>) -> Batch {
        let rows = self.batches.rows_of(data_step);
        let (mut inputs, targets) = self.dataset.train.gather(rows);
        let factor = fault.map_or(1.0, |fault| fault.input_factor(data_step));
        if factor != 1.0 {
            inputs.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
        }
        let target_stats = match &targets {
            Targets::Classes { .. } => None,
            Targets::Values { values, .. } => Some(tamegrad_stats::scan(values)),
        };
        let input_stats = tamegrad_stats::scan(&inputs);
        let width = self.dataset.train.input_width();
        let inputs = matrix(inputs, width, &self.device).cast(self.dtype);
        Batch { inputs, targets: on_device(targets, &self.device), input_stats, target_stats }
    }

    /// What holds for the whole run.
    pub(crate) fn facts(&self, recipe: &Recipe) -> RunFacts {
        let train = &self.dataset.train;
        // A penalty on the weights has no constant answer.
        let is_cross_entropy =
            recipe.loss() == Loss::CrossEntropy && recipe.regularise == Regularise::default();
        RunFacts {
            planned_steps: Some(self.planned_steps),
            batch_size: Some(recipe.training.batch as u64),
            target_rms: match &train.targets {
                Targets::Classes { .. } => None,
                Targets::Values { values, .. } => Some(tamegrad_stats::scan(values).rms()),
            },
            input_rms: Some(tamegrad_stats::scan(&train.inputs).rms()),
            dtype_max: Some(largest(self.dtype)),
            constant_loss: match &train.targets {
                Targets::Classes { classes, .. } if is_cross_entropy => {
                    Some((*classes as f64).ln())
                }
                _ => None,
            },
        }
    }

    /// The held-out metric, higher is better: accuracy (0 to 1) for classes; for values R^2, one
    /// less the squared error over that of always giving the mean (1 is perfect, 0 is the mean).
    /// NaN when a prediction of a value is NaN.
    pub(crate) fn metric<N: Network>(&self, model: &N) -> f64 {
        let model = model.valid();
        let test = &self.dataset.test;
        let device = self.device.clone().inner();
        let outputs = outputs(&model, test, self.dtype, &device);
        match &test.targets {
            Targets::Classes { labels, classes } => accuracy(outputs, labels, *classes),
            Targets::Values { values, .. } => r_squared(outputs, values),
        }
    }
}

/// The largest number of a type.
fn largest(dtype: FloatDType) -> f64 {
    match dtype {
        FloatDType::F16 => f64::from(f16::MAX),
        _ => f64::from(f32::MAX),
    }
}

/// The outputs of all rows, a batch of rows at a time: those of all together may be too many to keep.
fn outputs<N: Network>(
    model: &N,
    table: &Table,
    dtype: FloatDType,
    device: &Device,
) -> impl Iterator<Item = Vec<f32>> {
    let rows = table.rows() as u32;
    let starts = (0..rows).step_by(memory::TEST_ROWS);
    starts.map(move |start| {
        let end = start.saturating_add(memory::TEST_ROWS as u32).min(rows);
        let (inputs, _) = table.gather(&(start..end).collect::<Vec<_>>());
        let inputs = matrix(inputs, table.input_width(), device).cast(dtype);
        let outputs = model.forward(inputs, &Probes::unarmed());
        outputs.into_data().iter::<f32>().collect()
    })
}

fn accuracy(outputs: impl Iterator<Item = Vec<f32>>, labels: &[u32], classes: usize) -> f64 {
    let mut left = labels.iter();
    let right = outputs.map(|outputs| {
        let right = outputs.chunks(classes.max(1)).zip(&mut left).filter(|(scores, label)| {
            // A NaN score is never the largest; where all are NaN nothing is right.
            let best = scores.iter().enumerate().filter(|(_, s)| !s.is_nan());
            let best = best.max_by(|a, b| a.1.total_cmp(b.1));
            best.is_some_and(|(class, _)| class == **label as usize)
        });
        right.count()
    });
    right.sum::<usize>() as f64 / labels.len().max(1) as f64
}

fn r_squared(outputs: impl Iterator<Item = Vec<f32>>, values: &[f32]) -> f64 {
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64;
    let squares = |pairs: &mut dyn Iterator<Item = f64>| pairs.map(|e| e * e).sum::<f64>();
    let error =
        squares(&mut outputs.flatten().zip(values).map(|(o, v)| f64::from(o) - f64::from(*v)));
    let total = squares(&mut values.iter().map(|v| f64::from(*v) - mean));
    1.0 - error / total.max(f64::MIN_POSITIVE)
}

/// The loss of a batch, with the penalties on the weight matrices.
pub(crate) fn loss<N: Network>(
    model: &N,
    probes: &Probes,
    batch: &Batch,
    kind: Loss,
    regularise: &Regularise,
) -> Tensor<1> {
    // The loss is f32 whatever the model computes in, as in mixed-precision training.
    let outputs = model.forward(batch.inputs.clone(), probes).cast(FloatDType::F32);
    let error = match (&batch.targets, kind) {
        (BatchTargets::Classes(labels, _), Loss::CrossEntropy) => {
            let cross_entropy = CrossEntropyLossConfig::new().init(&outputs.device());
            return with_penalties(
                model,
                cross_entropy.forward(outputs, labels.clone()),
                regularise,
            );
        }
        (BatchTargets::Classes(labels, classes), _) => {
            outputs - labels.clone().one_hot::<2>(*classes).float()
        }
        (BatchTargets::Values(values), _) => outputs - values.clone(),
    };
    let squares = error.square();
    let loss = match kind {
        Loss::SumSquaredError => squares.sum(),
        Loss::MeanSquaredError | Loss::CrossEntropy => squares.mean(),
    };
    with_penalties(model, loss, regularise)
}

fn with_penalties<N: Network>(model: &N, loss: Tensor<1>, regularise: &Regularise) -> Tensor<1> {
    if regularise.l1 == 0.0 && regularise.l2 == 0.0 {
        return loss;
    }
    let mut penalties = Penalties { regularise, sum: None };
    model.visit(&mut penalties);
    match penalties.sum {
        Some(sum) => loss + sum,
        None => loss,
    }
}

/// Sums `l1 * |w| + l2 * w^2` over the weight matrices.
struct Penalties<'a> {
    regularise: &'a Regularise,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Penalties<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if D < 2 || !weight.is_require_grad() {
            return;
        }
        let Regularise { l1, l2 } = *self.regularise;
        let terms = [
            (l1 > 0.0).then(|| weight.clone().abs().sum() * l1),
            (l2 > 0.0).then(|| weight.clone().square().sum() * l2),
        ];
        for term in terms.into_iter().flatten() {
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + term,
                None => term,
            });
        }
    }
}

/// burn's optimizer of a recipe. Weight decay is not its matter: it is decoupled for every one.
pub(crate) fn optimizer(recipe: &Recipe) -> ModuleOptimizer {
    let decay = recipe.optimizer.weight_decay();
    match recipe.optimizer {
        Optimizer::Sgd(recipe::Sgd { momentum, .. }) => {
            let momentum = (momentum > 0.0)
                .then(|| MomentumConfig::new().with_momentum(momentum).with_dampening(0.0));
            Decayed(SgdConfig::new().with_momentum(momentum).build(), decay).into()
        }
        Optimizer::Adam(recipe::Adam { beta1, beta2, epsilon, .. }) => {
            let config = AdamConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
            let adam = config.with_epsilon(epsilon as f32).build();
            Decayed(Lagged::new(adam, beta2), decay).into()
        }
        Optimizer::Adamw(recipe::Adam { beta1, beta2, epsilon, .. }) => {
            let config = AdamWConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
            let adamw = config.with_epsilon(epsilon as f32).with_weight_decay(0.0).build();
            Decayed(Lagged::new(adamw, beta2), decay).into()
        }
        Optimizer::Rmsprop(recipe::Rmsprop { alpha, momentum, epsilon, .. }) => {
            let config = RmsPropConfig::new().with_alpha(alpha as f32);
            let config = config.with_momentum(momentum as f32).with_epsilon(epsilon as f32);
            Decayed(config.build(), decay).into()
        }
    }
}

/// An optimizer with decoupled weight decay: at each update every weight matrix loses this rate times
/// the learning rate of itself (Loshchilov and Hutter 2019); biases and norm scales stay.
#[derive(Clone)]
struct Decayed<O>(O, f64);

impl<O: burn::optim::Optimizer> burn::optim::Optimizer for Decayed<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let Self(optimizer, rate) = self;
        let decays = D >= 2 && *rate > 0.0;
        let tensor = if decays { tensor * (1.0 - lr * rate) } else { tensor };
        optimizer.step(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}

/// The clipping of a recipe.
pub(crate) fn clip(recipe: &Recipe) -> Option<Clip> {
    recipe.clip.as_ref().map(|clip| match clip.by {
        ClipBy::GlobalNorm => Clip::GlobalNorm(clip.limit),
        ClipBy::TensorNorm => Clip::TensorNorm(clip.limit),
        ClipBy::Value => Clip::Value(clip.limit),
    })
}

fn matrix(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / width.max(1);
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

fn on_device(targets: Targets, device: &Device) -> BatchTargets {
    match targets {
        Targets::Classes { labels, classes } => {
            let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
            let len = labels.len();
            BatchTargets::Classes(
                Tensor::from_data(TensorData::new(labels, [len]), device),
                classes,
            )
        }
        Targets::Values { values, width } => BatchTargets::Values(matrix(values, width, device)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_counts_the_largest_score() {
        let outputs = [vec![0.1, 0.9, 2.0, 1.0], vec![f32::NAN, f32::NAN, f32::NAN, -1.0]];
        assert_eq!(accuracy(outputs.into_iter(), &[1, 1, 0, 1], 2), 0.5);
    }

    #[test]
    fn r_squared_is_one_for_perfect_and_zero_for_the_mean() {
        let values = [1.0, 2.0, 6.0];
        let of = |outputs: [f32; 3]| {
            r_squared([outputs[..2].to_vec(), outputs[2..].to_vec()].into_iter(), &values)
        };
        for (outputs, score) in [(values, 1.0), ([3.0; 3], 0.0)] {
            assert!((of(outputs) - score).abs() < 1e-12);
        }
        assert!(of([f32::NAN; 3]).is_nan());
    }
}
