//! The form of the rules that only logs have.

/// The loss of a log that jumps or rises from its level.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LogLossRule {
    /// A jump: times the level of the records just before it.
    pub jump_ratio: f64,
    /// Times the highest of them.
    pub jump_over_highest: f64,
    /// Sigmas above the level.
    pub jump_sigmas: f64,
    /// A rise: times the level, for five of six records.
    pub rise_ratio: f64,
    /// Sigmas above the level.
    pub rise_sigmas: f64,
    /// Sigmas that its peak must reach.
    pub rise_peak_sigmas: f64,
    /// For a loss that crosses zero: times the range of the records before it.
    pub jump_ranges: f64,
    /// A run that ends within this many times the level before has recovered.
    pub recovered_ratio: f64,
    /// Sigmas of the logarithm that a jump exceeds, and a lasting rise by half: the losses of reinforcement
    /// learning spread over decades.
    pub log_sigmas: f64,
    /// Spread of the logarithm from which a jump of a few records tells nothing.
    pub heavy: f64,
    /// A rise that lasts to the end: times the level before.
    pub lasting_ratio: f64,
    /// The records of a lasting rise, at least so many.
    pub lasting_records: usize,
    /// An explosion in the first records: times the first loss, and times what comes after.
    pub first_ratio: f64,
    /// A loss that is flat to this part stays where a constant answer would be.
    pub flat: f64,
    /// Records before that a jump is held against.
    pub near: usize,
    /// Records before that a spread is taken over.
    pub far: usize,
    /// Times the level below which a loss is back, if that is above all records near before.
    pub home: f64,
    /// Fraction of the level which a spread is at least.
    pub spread_min: f64,
    /// The least spread of the logarithms.
    pub log_spread_min: f64,
    /// Part of `log_sigmas` that a lasting rise exceeds.
    pub lasting_log: f64,
    /// Part of the records of a lasting rise that are up.
    pub lasting_part: f64,
    /// Records of a rise, of which all but one are up.
    pub rise_records: usize,
    /// Sigmas less than `rise_sigmas` that all but the first need.
    pub rise_slack: f64,
    /// A slow rise begins where the loss stays above this many times the level before.
    pub begin_ratio: f64,
    /// Records before NaN in which its rise lies.
    pub before_nan: usize,
    /// A finite explosion of so many records before the first Inf is the event, and Inf its end.
    pub finite_first: usize,
    /// Records in a row without a value that are a gap.
    pub gap_max: usize,
    /// Records of a jump that counts where losses are heavy-tailed.
    pub heavy_records: usize,
    /// An episode is the first if it has this part of the severity of the worst.
    pub beside_worst: f64,
    /// Part of the peak below which a run has recovered.
    pub recovered_of_peak: f64,
    /// Relative spread of a loss that does not change any more.
    pub dead_spread: f64,
    /// Part of the first loss above which a flat loss has learned nothing.
    pub lost_of_first: f64,
    /// In a log of few records: times the first ones that make the last ones too high to be called healthy.
    pub early_ratio: f64,
}

/// The gradient norm of a log, beside `log_growth` and the spikes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LogGradientRule {
    /// Records before that a norm is held against.
    pub window: usize,
    /// The least spread of the logarithm.
    pub sigma_floor: f64,
    /// Times the usual at which growth begins, and below which it is over.
    pub growth_begin: f64,
    /// Records of growth that need no rise of the loss.
    pub growth_records: usize,
    /// Sigmas of the loss that react.
    pub loss_sigmas: f64,
    /// Fraction of the loss's level which that sigma is at least.
    pub loss_spread_min: f64,
    /// Times the highest loss before that a spike of one record needs.
    pub loss_leap: f64,
    /// Part of the first losses after a huge norm below which the loss falls all the same.
    pub loss_falls: f64,
    /// Records that are not finite ...
    pub broken: usize,
    /// ... and their part of all, unless they are the last.
    pub broken_part: f64,
    /// Part of the highest spike that the first has.
    pub first_of_highest: f64,
}

/// The gradient norm of a single tensor in a log, which tells where it began.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LogTensorRule {
    /// Sigmas of the logarithm by which it leaves its history.
    pub sigmas: f64,
    /// Records that make a history.
    pub window_min: usize,
    /// Records before the onset in which a tensor may be the first.
    pub early: usize,
}

/// Logged parts of a loss whose weights have changed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LogPartsRule {
    /// The parts made up the whole up to this fraction of it.
    pub explained: f64,
    /// Records on both sides of the onset in which parts are compared.
    pub near: usize,
    /// Times its height before below which a part has not risen.
    pub calm: f64,
}
