//! The form of the rules of signs.

/// A value far above its own history; both conditions must hold.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct SpikeRule {
    /// Sigmas of its logarithm by which it must exceed the mean.
    pub sigmas: f64,
    /// Times the mean that it must exceed.
    pub ratio: f64,
}

impl SpikeRule {
    /// Whether a value that is `ratio` times its usual and `sigmas` above it is a spike.
    ///
    /// ```
    /// use tamegrad::rules::RULES;
    ///
    /// assert!(RULES.spike.live.is_spike(5.0, 7.0));
    /// assert!(!RULES.spike.live.is_spike(3.0, 7.0));
    /// ```
    pub fn is_spike(&self, ratio: f64, sigmas: f64) -> bool {
        ratio > self.ratio && sigmas > self.sigmas
    }
}

/// A slow rise of the gradient norm, by a cumulative sum (Page 1954).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct DriftRule {
    /// Sigmas above the mean that do not count.
    pub slack: f64,
    /// Sum above which the rise is a drift, in sigmas.
    pub sigmas: f64,
    /// Times the mean that the norm must exceed.
    pub ratio: f64,
    /// Steps in a row with a departed loss that make it an alarm.
    pub departed_steps: u32,
    /// Part of their past that the averages of the correlation of successive norms keep.
    pub correlation_decay: f64,
    /// Highest correlation that is believed.
    pub correlation_max: f64,
}

/// Gradient norms that are too high whatever their history.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct HighGradientRule {
    /// A norm of the whole gradient that no healthy run starts with.
    pub absurd: f64,
    /// A norm that is very high whatever the network.
    pub very_high: f64,
    /// Growth over the usual norm, or over that of the first step, that alone raises an alarm.
    pub gross_ratio: f64,
    /// Product of backward gains at step 0 that raises an alarm if the norm is above `first_norm`.
    pub product: f64,
    /// Norm for `product`.
    pub first_norm: f64,
    /// Part of the first loss's magnitude by which the loss has risen where `gross_ratio` is that of the first
    /// step.
    pub loss_rise: f64,
    /// Part of the first loss below which a loss has come down.
    pub loss_fall: f64,
}

/// How large an update may be relative to the weights that it changes, |dW|/|W|.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct UpdateRule {
    /// The ratio at which trouble begins.
    pub trouble: f64,
    /// Times its own mean that a ratio in trouble must exceed.
    pub times_usual: f64,
    /// A ratio at which the matrix is replaced.
    pub overthrow: f64,
    /// The same in the first steps: RMSprop starts with steps of ten times the learning rate, which a
    /// small output layer survives.
    pub first_overthrow: f64,
    /// Number of those steps.
    pub first_steps: u64,
    /// Steps whose largest update tells whether updates are small.
    pub recent_steps: usize,
    /// Part of 1 / sqrt(fan-in) under which a weight has no size yet. Usual initialisations have an RMS of
    /// 0.5 (PyTorch's uniform) to 1.4 (He) times that, GPT-2's scaled projections 0.1 and more up to a
    /// width of 12,288; a class token of 1e-6, a hash grid of 1e-4 and zeros are far below, and so are what
    /// is small by design: the last layer of a policy (0.01) and a readout of muP (1 / fan-in) wider than
    /// 400.
    ///
    /// The number is where trouble begins over what alarms in the first steps: at the limit an update of
    /// twice the weight is a tenth of a usual one. Adam at 1e-2 reaches that at a fan-in of 100, and there
    /// its first update, whose elements all have the size of the rate and the gradient's signs, moves the
    /// output by as much as the whole signal. A weight far under the limit is, when it passes it, as large
    /// as the updates that made it grow.
    pub size_min: f64,
}

/// Updates that grow with a learning rate that keeps growing.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct RateDriftRule {
    /// Steps of each half of the window.
    pub half: usize,
    /// Growth of the learning rate in the later half.
    pub rate_growth: f64,
    /// Growth in each quarter of it: a single step up is not a drift.
    pub quarter_growth: f64,
    /// Fraction of the earlier half's growth that the later half must reach.
    pub steady: f64,
    /// Growth of the median ratio over the whole window.
    pub ratio_growth: f64,
    /// Median ratio below which a drift does not matter.
    pub ratio_min: f64,
    /// Steps at each end of the window over which that median is taken.
    pub end: usize,
}

/// A loss that has risen under steps larger than those that the run has borne.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct OutgrownRule {
    /// Times the highest learning rate at which the loss was at its best.
    pub rate_times: f64,
    /// The same of the average update ratio.
    pub update_times: f64,
    /// Sigmas by which the average of the loss is above its best.
    pub sigmas: f64,
    /// Fraction of the descent so far.
    pub of_descent: f64,
    /// Steps in a row for which all that holds.
    pub steps: u32,
    /// Part of its past that the average of the loss keeps at each step.
    pub decay: f64,
    /// The same of the updates, which are not measured at every step.
    pub update_decay: f64,
    /// The same of the squared deviation of the loss from its average.
    pub noise_decay: f64,
    /// Sigmas by which one loss moves the average at most, once there is a sigma.
    pub winsor_sigmas: f64,
    /// Losses after which there is one.
    pub sigma_min: u32,
}

/// A loss that has left its calm level.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct DepartureRule {
    /// Robust spreads above the calm losses.
    pub spreads: f64,
    /// Fraction of the descent so far.
    pub of_descent: f64,
    /// Calm losses that must be known.
    pub losses_min: usize,
    /// The last calm losses that make the level.
    pub window: usize,
    /// Fraction of that level which a spread is at least.
    pub spread_min: f64,
}

/// A loss that swings.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct SwingRule {
    /// Spreads of the calm changes that a change must exceed.
    pub spreads: f64,
    /// Fraction of the descent so far that it must exceed.
    pub of_descent: f64,
    /// The same for the height of the loss above its level, for an alarm.
    pub of_descent_alarm: f64,
    /// This many such changes ...
    pub count: usize,
    /// ... among this many last changes.
    pub among: usize,
    /// The last calm changes that make their spread.
    pub window: usize,
}

/// A loss that runs away from where it began.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct RunawayRule {
    /// Above the first loss by this many times its magnitude ...
    pub times: f64,
    /// ... in this many steps ...
    pub count: usize,
    /// ... among this many last steps.
    pub among: usize,
}

/// A held-out metric that stalls or deteriorates.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct MetricRule {
    /// Measurements that are needed.
    pub measurements_min: u32,
    /// Deterioration: below the best by this fraction of what was gained ...
    pub lost_of_gained: f64,
    /// ... and by this fraction of the metric's unit.
    pub lost_of_unit: f64,
    /// Stall: less than this fraction of the unit was gained ...
    pub gain_min: f64,
    /// ... over at least this many steps and a quarter of the run.
    pub steps_min: u64,
    /// Fraction of the unit from which a metric counts as converged.
    pub converged: f64,
    /// Far from learning: a loss of more than this many times that of a constant answer ...
    pub constant_times: f64,
    /// ... for this many steps in a row.
    pub constant_steps: u32,
    /// Measurements in a row that are below the best.
    pub in_a_row: u32,
}

/// A learning rate that is cut, not by plan.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct CutRule {
    /// A cut leaves less than this fraction of the rate ...
    pub left: f64,
    /// ... and falls by more than this many times the fall of the step before.
    pub abrupt: f64,
    /// A cut within this many steps after an alarm is a response to it.
    pub after_alarm: u64,
    /// More cuts than a plan usually has.
    pub count: usize,
    /// What they leave of the rate.
    pub left_in_all: f64,
    /// Steps in which cuts are counted where the length of the run is not known; else a quarter of it.
    pub within: u64,
    /// A cut is also needed where the critical step size is this or less.
    pub critical: f64,
}

/// A loss scale of mixed precision that collapses.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct LossScaleRule {
    /// Halvings in a row, to below 1 or to where it can fall no further.
    pub halvings: u32,
    /// Records in a row at such an end.
    pub at_minimum: usize,
    /// A log that ends with so many halvings in a row ...
    pub last_halvings: usize,
    /// ... to this or less.
    pub low: f64,
}

/// How the usual value of a positive number is followed: exponential averages of its logarithm and of its
/// spread, which what they judge moves little.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct BaselineRule {
    /// Part of its past that the average keeps at each step (0.98: about the last 50 values).
    pub decay: f64,
    /// The same of the slower one, for drifts.
    pub slow_decay: f64,
    /// The same of a layer's gains, which are measured less often.
    pub gain_decay: f64,
    /// The least sigma.
    pub sigma_floor: f64,
    /// Sigmas to which a value is winsorised before it enters.
    pub winsor_sigmas: f64,
    /// What a value beyond that counts for in the spread, in sigmas: 100 of them widen it by half.
    pub outlier_spread: f64,
    /// Values after which the spread is known well enough to winsorise.
    pub winsor_after: u32,
}

/// A jump of the loss that the data made and not an update.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct JumpRule {
    /// Times its mean up to which a gradient or an update before the jump was a usual one, and times their
    /// median for learning rates.
    pub usual: f64,
    /// The same in sigmas, for streams that are rough by nature.
    pub usual_sigmas: f64,
    /// Times its mean up to which the gradient of the jump itself is one to learn from.
    pub gradient: f64,
    /// Height that the loss may then have, in heights of the jump: momentum still goes the old way.
    pub margin: f64,
    /// Steps in a row without departure that end it, over which its height is measured anew, and whose
    /// learning rates are usual ones.
    pub steps: usize,
    /// Steps without an alarm or an action before the jump.
    pub calm_steps: u64,
}
