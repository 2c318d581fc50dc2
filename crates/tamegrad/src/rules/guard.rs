//! The form of the rules of the guard, of remedies and of the look before a run.

/// How far a learning rate is lowered.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LowerRateRule {
    /// |dW|/|W| of a step that trains.
    pub update: f64,
    /// The critical step size, in steps.
    pub critical: f64,
    /// The factor where the rate is the cause and nothing tells how far it is off; no cut is smaller.
    pub cause: f64,
    /// The factor for other causes, and for logs.
    pub other: f64,
    /// The least factor: what makes an update larger than that is not the rate.
    pub least: f64,
}

/// A first update that is a reason not to start the run.
///
/// Measured on 138 small networks (perceptrons with and without normalisation and residual
/// connections, recurrent ones; SGD, momentum, Adam, AdamW and RMSprop at many rates).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct PreflightRule {
    /// Update ratio above which little is left of a matrix's initialisation. Later updates of a tenth
    /// are trouble, a first one is not: of 120 networks that stayed healthy, a quarter had a first
    /// update above 0.1, and none above 0.92.
    pub update: f64,
    /// Fraction of a number type's powers of 2 above 1 that must be left.
    pub headroom: f64,
    /// Critical multiple below which the learning rate is too large. Not 1: a healthy run may cross the
    /// edge of stability at once (Cohen 2021), because the first updates of Adam and RMSprop are as
    /// large as any. Networks that trained well were at 0.48 or more, one of them below 0.5; of 90 drawn
    /// at random, 13 of the 14 that had an alarm later were below 0.4.
    pub critical: f64,
}

/// What the guard does at run time.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LadderRule {
    /// Fraction of the tensors that must spike for all to be scaled.
    pub spiking: f64,
    /// A spike of this many times the mean is scaled without another sign: a network that begins to
    /// learn has norms of up to ten times those before.
    pub tall_ratio: f64,
    /// Actions within `action_window` steps that lower the learning rate.
    pub actions: usize,
    /// Steps for `actions`.
    pub action_window: u64,
    /// Factor of such a cut of the learning rate.
    pub back_off: f64,
    /// Factor on the learning rate after a rewind.
    pub after_rewind: f64,
    /// Steps between two cuts, so that one can show what it does.
    pub rest_steps: u64,
    /// Calm steps in which the limit of the rate becomes e times as high, up to `back_off` times the rate
    /// at which the latest trouble began.
    pub growth_steps: u32,
    /// The same above that.
    pub slow_growth_steps: u32,
    /// Steps with a departed loss after which the run is rewound.
    pub loss_up_steps: u32,
    /// How far back a rewind goes at least.
    pub rewind_steps: u64,
    /// Most rewinds of one run.
    pub rewinds: u32,
    /// Skips in a row after which the run is rewound; after twice as many it is stopped.
    pub skips: u32,
    /// Scaled steps in a row with a calm loss after which the new level is accepted.
    pub accept_after: u32,
    /// Sigmas above its mean to which a spike is scaled.
    pub scaled_to: f64,
    /// Times `update.trouble` above which an update made anew from smaller gradients is still too large.
    pub still_large: f64,
    /// Steps after an alarm or an action in which a run is in trouble.
    pub trouble_steps: u64,
    /// Steps after an alarm in which a step is not calm.
    pub uncalm_steps: u64,
    /// Steps whose highest learning rate is a usual one, where a copy of the parameters is not needed.
    pub rate_steps: usize,
    /// Times that rate above which one is.
    pub rate_growth: f64,
}

/// The numbers that remedies propose where nothing measured tells a better one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct RemedyRule {
    /// Times the largest usual RMS of a tensor's gradient at which elements are clipped ...
    pub clip_value: f64,
    /// ... and the limit where that is not known.
    pub clip_value_unknown: f64,
    /// In logs: times the usual norm at which the gradient is clipped. The records miss most steps, and their
    /// median is the less certain.
    pub clip_log: f64,
    /// Steps before the onset without which no norm is a usual one.
    pub calm_steps: u64,
    /// Strength of an L1 penalty.
    pub l1: f64,
    /// Strength of an L2 penalty.
    pub l2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The smallest batch.
    pub batch_min: u64,
    /// The shortest warm-up, in steps ...
    pub warm_up_min: u64,
    /// ... and one for a run of unknown length.
    pub warm_up_unknown: u64,
}
