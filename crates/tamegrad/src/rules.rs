//! The numbers of the rules. Each is defined once, and shared by signs, causes, the ladder, the
//! diagnosis of logs and the texts of `explain`.
//!
//! A log has one record for many steps and can be judged from its end, so some of its rules have
//! different numbers: a [`Pair`] holds both.

/// A rule for live runs, and the same rule for logs, where records take the place of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair<T> {
    /// For live runs, watched step by step.
    pub live: T,
    /// For logs.
    pub logs: T,
}

/// A value far above its own history; both conditions must hold.
#[derive(Debug, Clone, Copy, PartialEq)]
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
pub struct DriftRule {
    /// Sigmas above the mean that do not count.
    pub slack: f64,
    /// Sum above which the rise is a drift, in sigmas.
    pub sigmas: f64,
    /// Times the mean that the norm must exceed.
    pub ratio: f64,
}

/// Gradient norms that are too high whatever their history.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// How large an update may be relative to the weights that it changes, |dW|/|W|.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// Updates that grow with a learning rate that keeps growing.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// A loss that has risen under steps larger than those that the run has borne.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// A loss that has left its calm level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DepartureRule {
    /// Robust spreads above the calm losses.
    pub spreads: f64,
    /// Fraction of the descent so far.
    pub of_descent: f64,
    /// Calm losses that must be known.
    pub losses_min: usize,
}

/// A loss that swings.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// A loss that runs away from where it began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunawayRule {
    /// Above the first loss by this many times its magnitude ...
    pub times: f64,
    /// ... in this many steps ...
    pub count: usize,
    /// ... among this many last steps.
    pub among: usize,
}

/// The loss of a log that jumps or rises from its level.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// A held-out metric that stalls or deteriorates.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// A learning rate that is cut, not by plan.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// A loss scale of mixed precision that collapses.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// A learning rate that is the cause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateCauseRule {
    /// Times by which it jumped ...
    pub jump: f64,
    /// ... within this many steps before the alarm.
    pub within: u64,
    /// Times by which it rose ...
    pub ramp: f64,
    /// ... over this many steps before the alarm.
    pub over: u64,
}

/// Batches unlike those before them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataRule {
    /// Times the median of the batches before.
    pub ratio: f64,
    /// Batches that the median is taken over.
    pub batches: usize,
}

/// Initial weights whose gains multiply far from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
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
pub struct AccumulationRule {
    /// Times the gradient of the only pass of a step from which on the whole gradient holds more than that.
    pub uncleared: f64,
    /// Labels over which a loss that is a sum is a fault.
    pub labels: u64,
    /// Times the usual number of elements from which on a batch is larger.
    pub larger: f64,
    /// Part of that growth which loss and gradient norm must reach.
    pub follows: f64,
}

/// Normalisation that multiplies gradients, or is missing.
#[derive(Debug, Clone, Copy, PartialEq)]
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
pub struct DeadRule {
    /// Fraction of the gradient's norm before the alarm.
    pub gradient: f64,
    /// Fraction of the first loss below which a flat loss is convergence.
    pub converged: f64,
}

/// An activation that grows faster than its input, found by the elasticities of the loss
/// ([`Guard::observe_elasticities`](crate::Guard::observe_elasticities)).
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// How far a learning rate is lowered.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// Regression targets that are not scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// A first update that is a reason not to start the run.
///
/// Measured on 138 small networks (perceptrons with and without normalisation and residual
/// connections, recurrent ones; SGD, momentum, Adam, AdamW and RMSprop at many rates).
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

/// All rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Steps in which only non-finite values and gross growth count, because there is no history yet;
    /// and records of a log that make a history.
    pub warm_up: Pair<u32>,
    /// A spike of the gradient norm.
    pub spike: Pair<SpikeRule>,
    /// A slow rise of the gradient norm.
    pub drift: DriftRule,
    /// In logs: a norm that rises from record to record, up to this.
    pub log_growth: SpikeRule,
    /// The same in the first records, where little is known of the norm.
    pub log_early_growth: SpikeRule,
    /// In logs: the first of several spikes may be as low as this.
    pub log_lesser_spike: SpikeRule,
    /// In logs: a spike that counts where the loss more than doubles with it.
    pub log_joint_spike: SpikeRule,
    /// In logs: number of spikes that no healthy run has.
    pub log_spikes: usize,
    /// Gradient norms that are too high whatever their history.
    pub high_gradient: Pair<HighGradientRule>,
    /// Updates that are too large.
    pub update: Pair<UpdateRule>,
    /// Updates that grow with the learning rate.
    pub rate_drift: RateDriftRule,
    /// Steps larger than those that the run has borne.
    pub outgrown: OutgrownRule,
    /// A loss that has left its calm level.
    pub departure: DepartureRule,
    /// A loss that swings.
    pub swing: SwingRule,
    /// A loss that runs away from where it began.
    pub runaway: RunawayRule,
    /// A loss of a log that leaves its level.
    pub log_loss: LogLossRule,
    /// A metric that stalls or deteriorates; the same in logs.
    pub metric: MetricRule,
    /// A learning rate that is cut.
    pub cut: Pair<CutRule>,
    /// In logs: a loss scale that collapses.
    pub loss_scale: LossScaleRule,
    /// A learning rate that is the cause.
    pub rate_cause: Pair<RateCauseRule>,
    /// A batch unlike those before.
    pub data: DataRule,
    /// Initial weights that are too large.
    pub initialisation: InitialisationRule,
    /// Normalisation that is missing or harmful.
    pub normalisation: NormalisationRule,
    /// An activation that grows faster than its input.
    pub superlinear: SuperlinearRule,
    /// How far a learning rate is lowered.
    pub lower_rate: LowerRateRule,
    /// A gradient that is a sum where a mean is meant.
    pub accumulation: AccumulationRule,
    /// RMS of g^2/v above which Adam's second moment lags behind (Wortsman et al. 2023).
    pub lag: f64,
    /// Part of the optimizer's state that has lost its squares.
    pub lost_squares: f64,
    /// What an optimizer adds to its divisor where its state has 16 bits.
    pub optimizer_eps: f64,
    /// Fraction of the number type's largest value above which values are too close to overflow.
    pub precision: f64,
    /// Product of backward gains over time steps.
    pub recurrence: f64,
    /// A network that no longer learns.
    pub dead: DeadRule,
    /// Targets that are not scaled.
    pub target: TargetRule,
    /// A first update that is too large.
    pub preflight: PreflightRule,
    /// What the guard does at run time.
    pub ladder: LadderRule,
}

/// The rules in use.
pub const RULES: Rules = Rules {
    warm_up: Pair { live: 100, logs: 20 },
    spike: Pair {
        live: SpikeRule { sigmas: 6.0, ratio: 4.0 },
        logs: SpikeRule { sigmas: 8.0, ratio: 12.0 },
    },
    drift: DriftRule { slack: 1.0, sigmas: 12.0, ratio: 1.5 },
    log_growth: SpikeRule { sigmas: 6.0, ratio: 8.0 },
    log_early_growth: SpikeRule { sigmas: 6.0, ratio: 30.0 },
    log_lesser_spike: SpikeRule { sigmas: 4.0, ratio: 7.0 },
    log_joint_spike: SpikeRule { sigmas: 8.0, ratio: 100.0 },
    log_spikes: 3,
    high_gradient: Pair {
        live: HIGH_GRADIENT,
        logs: HighGradientRule { absurd: 1e8, ..HIGH_GRADIENT },
    },
    update: Pair { live: UPDATE, logs: UPDATE },
    rate_drift: RateDriftRule {
        half: 100,
        rate_growth: 1.5,
        quarter_growth: 1.08,
        steady: 0.95,
        ratio_growth: 2.5,
        ratio_min: 0.003,
    },
    outgrown: OutgrownRule {
        rate_times: 1.5,
        update_times: 3.0,
        sigmas: 8.0,
        of_descent: 0.5,
        steps: 5,
    },
    departure: DepartureRule { spreads: 4.0, of_descent: 0.1, losses_min: 10 },
    swing: SwingRule { spreads: 8.0, of_descent: 0.1, of_descent_alarm: 0.5, count: 3, among: 20 },
    runaway: RunawayRule { times: 2.0, count: 3, among: 5 },
    log_loss: LogLossRule {
        jump_ratio: 20.0,
        jump_over_highest: 3.0,
        jump_sigmas: 10.0,
        rise_ratio: 1.4,
        rise_sigmas: 6.0,
        rise_peak_sigmas: 25.0,
        jump_ranges: 20.0,
        recovered_ratio: 10.0,
        log_sigmas: 5.5,
        heavy: 0.5,
        lasting_ratio: 1.6,
        lasting_records: 5,
        first_ratio: 100.0,
        flat: 0.05,
    },
    metric: MetricRule {
        measurements_min: 3,
        lost_of_gained: 1.0 / 3.0,
        lost_of_unit: 0.05,
        gain_min: 0.02,
        steps_min: 200,
        converged: 0.9,
        constant_times: 2.0,
        constant_steps: 20,
    },
    cut: Pair {
        live: CutRule {
            left: 0.7,
            abrupt: 3.0,
            after_alarm: 100,
            count: 3,
            left_in_all: 1.0 / 8.0,
        },
        logs: CutRule { left: 0.7, abrupt: 3.0, after_alarm: 20, count: 4, left_in_all: 0.1 },
    },
    loss_scale: LossScaleRule { halvings: 8, at_minimum: 3, last_halvings: 4, low: 4.0 },
    rate_cause: Pair {
        live: RateCauseRule { jump: 3.0, within: 20, ramp: 1.5, over: 100 },
        logs: RateCauseRule { jump: 3.0, within: 5, ramp: 1.5, over: 100 },
    },
    data: DataRule { ratio: 4.0, batches: 50 },
    initialisation: InitialisationRule { product: 1e3, weight_gain: 5.0, steps: 5 },
    normalisation: NormalisationRule {
        layers: 10,
        harmful_product: 100.0,
        missing_product: 1e3,
        missing_growth: 100.0,
    },
    superlinear: SuperlinearRule { last: 0.5, ratio: 4.0, rescaled: 0.1, degree: 1.5 },
    lower_rate: LowerRateRule { update: 0.01, critical: 4.0, cause: 0.1, other: 0.3, least: 1e-4 },
    accumulation: AccumulationRule { uncleared: 3.0, labels: 8, larger: 4.0, follows: 0.5 },
    lag: 2.3,
    lost_squares: 0.01,
    optimizer_eps: 1e-4,
    precision: 1.0 / 8.0,
    recurrence: 30.0,
    dead: DeadRule { gradient: 1e-6, converged: 0.01 },
    target: TargetRule {
        rms: 10.0,
        first_loss: 100.0,
        input_rms: 3.0,
        like_inputs: 10.0,
        elasticity: 0.05,
    },
    preflight: PreflightRule { update: 1.0, headroom: 1.0 / 8.0, critical: 0.4 },
    ladder: LadderRule {
        spiking: 0.3,
        tall_ratio: 20.0,
        actions: 3,
        action_window: 50,
        back_off: 0.5,
        after_rewind: 0.7,
        rest_steps: 10,
        growth_steps: 200,
        slow_growth_steps: 2000,
        loss_up_steps: 20,
        rewind_steps: 100,
        rewinds: 5,
        skips: 10,
        accept_after: 20,
    },
};

const HIGH_GRADIENT: HighGradientRule = HighGradientRule {
    absurd: 1e9,
    very_high: 1e6,
    gross_ratio: 100.0,
    product: 1e4,
    first_norm: 1e3,
};

const UPDATE: UpdateRule = UpdateRule {
    trouble: 0.1,
    times_usual: 4.0,
    overthrow: 1.0,
    first_overthrow: 2.0,
    first_steps: 10,
};
