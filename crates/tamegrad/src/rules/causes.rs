//! The form of the rules of causes, and of where a run broke.

/// A learning rate that is the cause.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct RateCauseRule {
    /// Times by which it jumped ...
    pub jump: f64,
    /// ... within this many steps before the alarm.
    pub within: u64,
    /// Times by which it rose ...
    pub ramp: f64,
    /// ... over this many steps before the alarm.
    pub over: u64,
    /// Updates before the alarm whose median may be too large.
    pub updates: usize,
    /// First steps in which updates that are too large speak for the rate.
    pub first_steps: u64,
}

/// Batches unlike those before them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct DataRule {
    /// Times the median of the batches before.
    pub ratio: f64,
    /// Batches that the median is taken over.
    pub batches: usize,
    /// First batches that tell whether data is scaled.
    pub first: usize,
}

/// Initial weights whose gains multiply far from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct InitialisationRule {
    /// Product of the gains of all layers.
    pub product: f64,
    /// Gain of a weight matrix by its size alone, RMS times the square root of its fan-in. Usual
    /// initialisations have 0.5 (PyTorch's uniform) to 1.7 (Xavier's for tanh).
    pub weight_gain: f64,
    /// Steps from the start in which an alarm is put down to such weights.
    pub steps: u64,
}

/// A gradient that is a sum where a mean is meant.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct AccumulationRule {
    /// Times the gradient of the only pass of a step from which on the whole gradient holds more than that.
    pub uncleared: f64,
    /// Labels over which a loss that is a sum is a fault.
    pub labels: u64,
    /// Times the usual number of elements from which on a batch is larger.
    pub larger: f64,
    /// Part of that growth which loss and gradient norm must reach; the inverse is the most.
    pub follows: f64,
}

/// Normalisation that multiplies gradients, or is missing.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct NormalisationRule {
    /// Layers that make a deep network.
    pub layers: usize,
    /// Product of backward gains of batch norm without skip connections.
    pub harmful_product: f64,
    /// Product of backward gains at the alarm, without normalisation ...
    pub missing_product: f64,
    /// ... and its growth since the first pass.
    pub missing_growth: f64,
}

/// A network that no longer learns.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct DeadRule {
    /// Fraction of the gradient's norm before the alarm.
    pub gradient: f64,
    /// Fraction of the first loss below which a flat loss is convergence.
    pub converged: f64,
    /// Steps at the end that are looked at.
    pub steps: usize,
}

/// An activation that grows faster than its input, found by the elasticities of the loss
/// ([`Guard::observe_elasticities`](crate::Guard::observe_elasticities)).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct SuperlinearRule {
    /// Elasticity of the last matrix below which the loss does not come from the outputs.
    pub last: f64,
    /// Times that elasticity that a matrix before it must have, as must all before that matrix.
    pub ratio: f64,
    /// Fraction of that elasticity below which a matrix is rescaled by normalisation after it.
    pub rescaled: f64,
    /// Times the elasticity of the next matrix that one has whose output passes through the activation.
    pub degree: f64,
}

/// Regression targets that are not scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct TargetRule {
    /// RMS of the targets.
    pub rms: f64,
    /// Loss of the first step.
    pub first_loss: f64,
    /// RMS of inputs that are not scaled.
    pub input_rms: f64,
    /// Targets at most this many times as large as such inputs follow from the inputs.
    pub like_inputs: f64,
    /// Elasticity of the first loss, where the targets are not seen: below it, the loss does not come
    /// from the outputs.
    pub elasticity: f64,
}

/// Inputs that are not scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct InputRule {
    /// RMS of the inputs.
    pub rms: f64,
    /// Steps within which they break a run: what has borne them so long breaks from something else.
    pub steps: u64,
}

/// How the layer is found in which an explosion began.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct OriginRule {
    /// Gains below which a layer shrinks what passes ...
    pub gain_low: f64,
    /// ... and above which it enlarges it.
    pub gain_high: f64,
    /// Times the median of the other layers that a gain stands out by at the first step.
    pub stands_out: f64,
    /// Sigmas by which a gain leaves its own history.
    pub leaves_sigmas: f64,
    /// Sigmas that suffice for a gain of `far_ratio` times its mean.
    pub far_sigmas: f64,
    /// A gain of so many times its mean has left its history, whatever the spread of a few passes.
    pub far_ratio: f64,
    /// How much further another layer must have risen (as a power) than one that was bad from the start.
    pub risen_further: f64,
    /// Calm measurements that make a history.
    pub history_min: u32,
    /// A layer whose departure is within this part of the largest shares its rank.
    pub shares: f64,
    /// Outputs of so many times their usual size are no longer of that size. A usual size under 1 counts as
    /// 1, and so does one that is not known: a fresh network's outputs are about that.
    pub unusual_output: f64,
    /// Steps before the first alarm in which a tensor that strains is the one.
    pub near_alarm: u64,
    /// Times the median of the ranks from which on one of them stands out.
    pub rank_ratio: f64,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct VerdictRule {
    /// Steps below which a run without an alarm is too short to be called healthy.
    pub steps_min: usize,
    /// Steps after which a loss should be below that of the first steps.
    pub learning_steps: u64,
    /// Steps at the end that show the outcome.
    pub end: usize,
    /// The last steps whose gradients are all not finite in a run that has exploded.
    pub broken: usize,
    /// Part of the loss of a constant answer below which a run has learned.
    pub of_constant: f64,
    /// Steps before the alarm that make a level to come back to.
    pub level_steps: usize,
}
