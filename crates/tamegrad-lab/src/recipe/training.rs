//! `[optimizer]`, `[schedule]`, `[clip]`, `[regularise]`, `[training]`: how the weights are trained.

use serde::Deserialize;

use super::number;

/// `[optimizer]`: how a gradient becomes an update, such as `[optimizer.sgd]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Gradient descent.
    Sgd(Sgd),
    /// Adam (Kingma and Ba 2015).
    Adam(Adam),
    /// AdamW (Loshchilov and Hutter 2019): Adam, usually with `weight_decay`.
    Adamw(Adam),
    /// RMSprop (Tieleman and Hinton 2012).
    Rmsprop(Rmsprop),
}

impl Optimizer {
    /// Its name in a recipe.
    pub fn name(&self) -> &'static str {
        match self {
            Optimizer::Sgd(_) => "sgd",
            Optimizer::Adam(_) => "adam",
            Optimizer::Adamw(_) => "adamw",
            Optimizer::Rmsprop(_) => "rmsprop",
        }
    }

    /// Step size before the schedule.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Optimizer::Sgd(of) => of.learning_rate,
            Optimizer::Adam(of) | Optimizer::Adamw(of) => of.learning_rate,
            Optimizer::Rmsprop(of) => of.learning_rate,
        }
    }

    /// Decoupled weight decay (Loshchilov and Hutter 2019), which every optimizer can have: each
    /// step takes `learning_rate * weight_decay` of each weight away.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Optimizer::Sgd(of) => of.weight_decay,
            Optimizer::Adam(of) | Optimizer::Adamw(of) => of.weight_decay,
            Optimizer::Rmsprop(of) => of.weight_decay,
        }
    }
}

/// `[optimizer.sgd]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// See [`Optimizer::learning_rate`]; > 0.
    #[serde(deserialize_with = "number::positive")]
    pub learning_rate: f64,
    /// See [`Optimizer::weight_decay`]; >= 0. Default 0.
    #[serde(default, deserialize_with = "number::not_negative")]
    pub weight_decay: f64,
    /// Part of the last update that is kept: from 0 to below 1. Default 0.
    #[serde(default, deserialize_with = "number::below_one")]
    pub momentum: f64,
}

/// `[optimizer.adam]` and `[optimizer.adamw]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adam {
    /// See [`Optimizer::learning_rate`]; > 0.
    #[serde(deserialize_with = "number::positive")]
    pub learning_rate: f64,
    /// See [`Optimizer::weight_decay`]; >= 0. Default 0.
    #[serde(default, deserialize_with = "number::not_negative")]
    pub weight_decay: f64,
    /// Decay of the mean of gradients: from 0 to below 1. Default 0.9.
    #[serde(default = "beta1", deserialize_with = "number::below_one")]
    pub beta1: f64,
    /// Decay of the mean of squared gradients: from 0 to below 1. Default 0.999.
    #[serde(default = "beta2", deserialize_with = "number::below_one")]
    pub beta2: f64,
    /// Added to the denominator; > 0. Default 1e-8.
    #[serde(default = "epsilon", deserialize_with = "number::positive")]
    pub epsilon: f64,
}

/// `[optimizer.rmsprop]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rmsprop {
    /// See [`Optimizer::learning_rate`]; > 0.
    #[serde(deserialize_with = "number::positive")]
    pub learning_rate: f64,
    /// See [`Optimizer::weight_decay`]; >= 0. Default 0.
    #[serde(default, deserialize_with = "number::not_negative")]
    pub weight_decay: f64,
    /// Decay of the mean of squared gradients: from 0 to below 1. Default 0.99.
    #[serde(default = "alpha", deserialize_with = "number::below_one")]
    pub alpha: f64,
    /// Part of the last update that is kept: from 0 to below 1. Default 0.
    #[serde(default, deserialize_with = "number::below_one")]
    pub momentum: f64,
    /// Added to the denominator; > 0. Default 1e-8.
    #[serde(default = "epsilon", deserialize_with = "number::positive")]
    pub epsilon: f64,
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn alpha() -> f64 {
    0.99
}

fn epsilon() -> f64 {
    1e-8
}

/// `[schedule]`: how the learning rate changes with the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Steps over which it rises linearly from 0; 0 to 1,000,000,000. Default 0.
    #[serde(default, deserialize_with = "number::integer::<_, _, 0, 1_000_000_000>")]
    pub warm_up: u64,
    /// What it does afterwards. Default constant.
    #[serde(default)]
    pub decay: Decay,
}

/// `schedule.decay`: the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Stays.
    #[default]
    Constant,
    /// Falls to 0 at the last step along half a cosine (Loshchilov and Hutter 2017).
    Cosine,
    /// Falls to a tenth after half of the steps, and to a hundredth after three quarters.
    Step,
    /// Four half cosines down to 0, one after the other (Loshchilov and Hutter 2017).
    Restarts,
}

/// `[clip]`: how gradients are limited before the update.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// What is limited.
    pub by: ClipBy,
    /// The limit, in units of the gradient; > 0.
    #[serde(deserialize_with = "number::positive")]
    pub limit: f64,
}

/// `clip.by`: what is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClipBy {
    /// The norm over all tensors (Pascanu et al. 2013).
    GlobalNorm,
    /// The norm of each tensor by itself.
    TensorNorm,
    /// Each element's absolute value.
    Value,
}

/// `[regularise]`: penalties on the weights, added to the loss.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regularise {
    /// Factor of the sum of absolute weights; >= 0. Default 0.
    #[serde(default, deserialize_with = "number::not_negative")]
    pub l1: f64,
    /// Factor of the sum of squared weights; >= 0. Default 0.
    #[serde(default, deserialize_with = "number::not_negative")]
    pub l2: f64,
}

/// `[training]`: how long and with which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Samples of each step: 1 to 1,000,000.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 1_000_000>")]
    pub batch: usize,
    /// Passes over the training part: 1 to 1,000,000.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 1_000_000>")]
    pub epochs: u64,
    /// What is made small. Default: by the task, see [`Recipe::loss`].
    pub loss: Option<Loss>,
    /// The type that weights, activations and gradients are held in; the loss is always f32.
    /// Default f32.
    #[serde(default)]
    pub dtype: Dtype,
}

/// `training.dtype`: the type of weights, activations and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32 bits; the largest number is 3.4e38.
    #[default]
    F32,
    /// 16 bits; the largest number is 65,504.
    F16,
}

/// `training.loss`: what is made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Of the softmax of the outputs; for classes only.
    CrossEntropy,
    /// Mean over samples and outputs; classes are one-hot.
    MeanSquaredError,
    /// Sum over samples and outputs, so that the gradient grows with the batch; classes are one-hot.
    SumSquaredError,
}
