//! The numbers of the rules. Each is defined once, and shared by signs, causes, the ladder, the
//! diagnosis of logs and the texts of `explain`.
//!
//! A log has one record for many steps and can be judged from its end, so some of its rules have
//! different numbers: a [`Pair`] holds both.

mod causes;
mod guard;
mod logs;
mod signs;

pub use causes::*;
pub use guard::*;
pub use logs::*;
pub use signs::*;

/// A rule for live runs, and the same rule for logs, where records take the place of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Pair<T> {
    /// For live runs, watched step by step.
    pub live: T,
    /// For logs.
    pub logs: T,
}

/// All rules.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Rules {
    /// Steps in which only non-finite values and gross growth count, because there is no history yet;
    /// and records of a log that make a history.
    pub warm_up: Pair<u32>,
    /// How what is usual is followed.
    pub baseline: BaselineRule,
    /// A spike of the gradient norm.
    pub spike: Pair<SpikeRule>,
    /// A slow rise of the gradient norm.
    pub drift: DriftRule,
    /// Steps within which tensors of neighbouring layers must spike.
    pub agree_steps: u64,
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
    /// In logs: the rest of what a gradient norm says.
    pub log_gradient: LogGradientRule,
    /// In logs: where it began.
    pub log_tensor: LogTensorRule,
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
    /// A jump of the loss that the data made.
    pub jump: JumpRule,
    /// A loss that swings.
    pub swing: SwingRule,
    /// A loss that runs away from where it began.
    pub runaway: RunawayRule,
    /// A loss of a log that leaves its level.
    pub log_loss: LogLossRule,
    /// In logs: parts of the loss whose weights have changed.
    pub log_parts: LogPartsRule,
    /// In logs: records below which a log without an alarm says nothing.
    pub log_records_min: usize,
    /// In logs: the first records of a tensor that starts at zero, whose update ratios have any size.
    pub log_update_start: usize,
    /// In logs: gaps between cuts of the learning rate that are equal but for this part are those of a plan.
    pub log_cut_even: f64,
    /// A metric that stalls or deteriorates; the same in logs.
    pub metric: MetricRule,
    /// A learning rate that is cut.
    pub cut: Pair<CutRule>,
    /// In logs: a loss scale that collapses.
    pub loss_scale: LossScaleRule,
    /// A learning rate that is the cause.
    pub rate_cause: Pair<RateCauseRule>,
    /// The layer in which it began.
    pub origin: OriginRule,
    /// What became of a run.
    pub verdict: VerdictRule,
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
    /// Inputs that are not scaled.
    pub input: InputRule,
    /// A first update that is too large.
    pub preflight: PreflightRule,
    /// What remedies propose.
    pub remedy: RemedyRule,
    /// What the guard does at run time.
    pub ladder: LadderRule,
}

// Sizes of windows, which types need.

/// Calm losses that make the level.
pub const CALM_LOSSES: usize = 100;
/// Calm changes of the loss that make their spread.
pub const CALM_CHANGES: usize = 100;
/// First losses that tell where a run began.
pub const FIRST_LOSSES: usize = 5;
/// Batches before the first alarm that tell what is usual.
pub const DATA_BATCHES: usize = 50;
/// First batches that tell whether data is scaled.
pub const FIRST_BATCHES: usize = 5;
/// Steps at the end of a run that may be dead.
pub const DEAD_STEPS: usize = 20;

/// The rules in use.
pub const RULES: Rules = Rules {
    warm_up: Pair { live: 100, logs: 20 },
    baseline: BaselineRule {
        decay: 0.98,
        slow_decay: 0.995,
        gain_decay: 0.9,
        sigma_floor: 0.1,
        winsor_sigmas: 3.0,
        outlier_spread: 1.2,
        winsor_after: 10,
    },
    spike: Pair {
        live: SpikeRule { sigmas: 6.0, ratio: 4.0 },
        logs: SpikeRule { sigmas: 8.0, ratio: 12.0 },
    },
    drift: DriftRule {
        slack: 1.0,
        sigmas: 12.0,
        ratio: 1.5,
        departed_steps: 2,
        correlation_decay: 0.99,
        correlation_max: 0.9,
    },
    agree_steps: 3,
    log_growth: SpikeRule { sigmas: 6.0, ratio: 8.0 },
    log_early_growth: SpikeRule { sigmas: 6.0, ratio: 30.0 },
    log_lesser_spike: SpikeRule { sigmas: 4.0, ratio: 7.0 },
    log_joint_spike: SpikeRule { sigmas: 8.0, ratio: 100.0 },
    log_spikes: 3,
    log_gradient: LogGradientRule {
        window: 50,
        sigma_floor: 0.1,
        growth_begin: 3.0,
        growth_records: 3,
        loss_sigmas: 5.0,
        loss_spread_min: 0.005,
        loss_leap: 2.0,
        loss_falls: 0.5,
        broken: 3,
        broken_part: 0.2,
        first_of_highest: 0.5,
    },
    log_tensor: LogTensorRule { sigmas: 6.0, window_min: 5, early: 5 },
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
        end: 10,
    },
    outgrown: OutgrownRule {
        rate_times: 1.5,
        update_times: 3.0,
        sigmas: 8.0,
        of_descent: 0.5,
        steps: 5,
        decay: 0.9,
        update_decay: 0.8,
        noise_decay: 0.98,
        winsor_sigmas: 3.0,
        sigma_min: 10,
    },
    departure: DepartureRule {
        spreads: 4.0,
        of_descent: 0.1,
        losses_min: 10,
        window: CALM_LOSSES,
        spread_min: 0.02,
    },
    jump: JumpRule {
        usual: 2.0,
        usual_sigmas: 3.0,
        gradient: 20.0,
        margin: 1.5,
        steps: 20,
        calm_steps: 100,
    },
    swing: SwingRule {
        spreads: 8.0,
        of_descent: 0.1,
        of_descent_alarm: 0.5,
        count: 3,
        among: 20,
        window: CALM_CHANGES,
    },
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
        near: 10,
        far: 50,
        home: 1.2,
        spread_min: 0.01,
        log_spread_min: 0.05,
        lasting_log: 0.5,
        lasting_part: 0.9,
        rise_records: 6,
        rise_slack: 2.0,
        begin_ratio: 1.5,
        before_nan: 30,
        finite_first: 10,
        gap_max: 5,
        heavy_records: 10,
        beside_worst: 0.5,
        recovered_of_peak: 0.2,
        dead_spread: 1e-3,
        lost_of_first: 0.5,
        early_ratio: 2.0,
    },
    log_parts: LogPartsRule { explained: 0.1, near: 10, calm: 1.5 },
    log_records_min: 3,
    log_update_start: 3,
    log_cut_even: 0.05,
    metric: MetricRule {
        measurements_min: 3,
        lost_of_gained: 1.0 / 3.0,
        lost_of_unit: 0.05,
        gain_min: 0.02,
        steps_min: 200,
        converged: 0.9,
        constant_times: 2.0,
        constant_steps: 20,
        in_a_row: 2,
    },
    cut: Pair { live: CUT, logs: CutRule { after_alarm: 20, count: 4, left_in_all: 0.1, ..CUT } },
    loss_scale: LossScaleRule { halvings: 8, at_minimum: 3, last_halvings: 4, low: 4.0 },
    rate_cause: Pair { live: RATE_CAUSE, logs: RateCauseRule { within: 5, ..RATE_CAUSE } },
    origin: OriginRule {
        gain_low: 0.5,
        gain_high: 2.0,
        stands_out: 4.0,
        leaves_sigmas: 6.0,
        far_sigmas: 3.0,
        far_ratio: 10.0,
        risen_further: 1.5,
        history_min: 3,
        shares: 0.8,
        unusual_output: 10.0,
        near_alarm: 3,
        rank_ratio: 10.0,
    },
    verdict: VerdictRule {
        steps_min: 20,
        learning_steps: 100,
        end: 20,
        broken: 3,
        of_constant: 0.98,
        level_steps: 5,
    },
    data: DataRule { ratio: 4.0, batches: DATA_BATCHES, first: FIRST_BATCHES },
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
    dead: DeadRule { gradient: 1e-6, converged: 0.01, steps: DEAD_STEPS },
    target: TargetRule {
        rms: 10.0,
        first_loss: 100.0,
        input_rms: 3.0,
        like_inputs: 10.0,
        elasticity: 0.05,
    },
    input: InputRule { rms: 10.0, steps: 20 },
    preflight: PreflightRule { update: 1.0, headroom: 1.0 / 8.0, critical: 0.4 },
    remedy: RemedyRule {
        clip_value: 3.0,
        clip_value_unknown: 0.1,
        clip_log: 2.0,
        calm_steps: 5,
        l1: 1e-4,
        l2: 1e-3,
        weight_decay: 0.1,
        batch_min: 8,
        warm_up_min: 10,
        warm_up_unknown: 100,
    },
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
        scaled_to: 3.0,
        still_large: 2.0,
        trouble_steps: 50,
        uncalm_steps: 3,
        rate_steps: 20,
        rate_growth: 1.5,
    },
};

const HIGH_GRADIENT: HighGradientRule = HighGradientRule {
    absurd: 1e9,
    very_high: 1e6,
    gross_ratio: 100.0,
    product: 1e4,
    first_norm: 1e3,
    loss_rise: 0.5,
    loss_fall: 0.5,
};

const UPDATE: UpdateRule = UpdateRule {
    trouble: 0.1,
    times_usual: 4.0,
    overthrow: 1.0,
    first_overthrow: 2.0,
    first_steps: 10,
    recent_steps: 20,
    size_min: 0.05,
};

const CUT: CutRule = CutRule {
    left: 0.7,
    abrupt: 3.0,
    after_alarm: 100,
    count: 3,
    left_in_all: 1.0 / 8.0,
    within: 1000,
    critical: 1.0,
};

const RATE_CAUSE: RateCauseRule =
    RateCauseRule { jump: 3.0, within: 20, ramp: 1.5, over: 100, updates: 10, first_steps: 5 };
