//! What is kept of a run: bounded history, baselines of every tensor and layer, and findings.

use std::collections::VecDeque;

use tamegrad_stats::TensorStats;

use crate::batch::{BatchTrack, DataTrack};
use crate::chain::Chain;
use crate::decision::{Decision, GradientAction};
use crate::finding::{Finding, Reading, Severity, SignName};
use crate::observe::{
    LayerId, LayerTrace, Layout, Observation, RunFacts, Step, TensorId, TensorInfo, Update,
};
use crate::running::{Baseline, Window, median};

/// Rows kept in full before the older half is thinned to every second row.
pub const ROWS_MAX: usize = 65_536;
/// Findings kept; later ones are only counted.
pub const FINDINGS_MAX: usize = 4_096;
/// Actions kept; later ones are only counted.
pub const ACTIONS_MAX: usize = 4_096;
/// A norm of the whole gradient that is no gradient to begin with.
pub const ABSURD_NORM: f64 = 1e9;
/// A norm of the whole gradient that is very high whatever the network.
pub const VERY_HIGH_NORM: f64 = 1e6;
/// Robust spreads above the calm losses from which a loss has departed.
const DEPARTED: f64 = 4.0;
/// Steps in which only non-finite values and gross growth count, for there is no history yet.
pub const WARM_UP_STEPS: u32 = 100;
/// Steps whose losses make the loss baseline.
pub const LOSS_WINDOW: usize = 100;

/// The numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Row {
    /// The step's number.
    pub step: Step,
    /// How often the run was rewound before this row.
    pub segment: u32,
    /// Training loss, NaN and Inf included.
    pub loss: Option<f64>,
    /// Held-out metric, when measured.
    pub metric: Option<f64>,
    /// Learning rate.
    pub learning_rate: Option<f64>,
    /// L2 norm of the finite part of the gradient.
    pub gradient_norm: Option<f64>,
    /// NaN and Inf elements of the gradient.
    pub nonfinite_gradients: u64,
    /// Largest update ratio of a weight matrix.
    pub update_ratio: Option<f64>,
}

impl Row {
    /// Whether the loss or a gradient is not finite.
    pub(crate) fn is_broken(&self) -> bool {
        self.nonfinite_gradients > 0 || self.loss.is_some_and(|loss| !loss.is_finite())
    }
}

/// The baselines and the latest values of one parameter tensor.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TensorTrack {
    /// Log of the gradient norm, over about 50 steps.
    pub gradient: Baseline,
    /// Log of the gradient norm, over about 200 steps.
    pub gradient_slow: Baseline,
    /// Log of the update ratio.
    pub update: Baseline,
    /// Latest gradient.
    pub latest: Option<TensorStats>,
    /// Latest update.
    pub latest_update: Option<Update>,
    /// Gradient at the first alarm.
    pub at_alarm: Option<TensorStats>,
    /// Usual gradient norm when the first alarm came; `None` without a history.
    pub calm_norm: Option<f64>,
}

impl TensorTrack {
    /// A track that has seen nothing.
    pub fn new() -> Self {
        Self {
            gradient: Baseline::new(0.98, 0.1),
            gradient_slow: Baseline::new(0.995, 0.1),
            update: Baseline::new(0.98, 0.1),
            latest: None,
            latest_update: None,
            at_alarm: None,
            calm_norm: None,
        }
    }
}

impl Default for TensorTrack {
    fn default() -> Self {
        Self::new()
    }
}

/// The history of one layer's gains while the run was calm.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GainTrack {
    /// Log of the forward gain.
    pub forward: Baseline,
    /// Log of the backward gain.
    pub backward: Baseline,
}

/// A jump of the loss that the data made: no trouble while it comes down.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Jump {
    /// Loss up to which it is borne.
    pub bears: f64,
    /// The last losses, oldest first.
    pub(crate) losses: VecDeque<f64>,
}

/// What passes on copies along a proposed update show.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CriticalStep {
    /// The step of the update.
    pub step: Step,
    /// The critical step size: the smallest multiple of the update that raises the loss of its own
    /// batch; infinite when none that was tried does.
    pub multiple: f64,
    /// The sharpness along the update, u^T H u / |u|^2, from second differences of the loss; `None`
    /// where the loss is not finite along the way. A step of plain gradient descent at the rate r
    /// raises the loss where it is above 2 / r (Cohen et al. 2021, Gradient Descent on Neural
    /// Networks Typically Occurs at the Edge of Stability).
    pub sharpness: Option<f64>,
}

/// Where a non-finite value was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum NonFiniteAt {
    /// In one of the batch's inputs: its place in [`BatchTrack::inputs`].
    Input(usize),
    /// In the batch's targets.
    Targets,
    /// In a layer's output; the producer, if a probe was there.
    Output(LayerId),
    /// In the loss.
    Loss,
    /// In a parameter's gradient.
    Gradient(TensorId),
    /// In a parameter, after an update.
    Parameter(TensorId),
}

/// Everything that is kept of a run. Memory is bounded by the number of tensors and layers and
/// by [`ROWS_MAX`].
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// Tensors and layers.
    pub layout: Layout,
    /// What holds for the whole run.
    pub facts: RunFacts,
    /// One row a step, oldest first.
    pub rows: Vec<Row>,
    /// Rows that were thinned out.
    pub rows_dropped: u64,
    /// One track a tensor.
    pub tensors: Vec<TensorTrack>,
    /// The track of the whole gradient.
    pub total: TensorTrack,
    /// One gain track a layer.
    pub gains: Vec<GainTrack>,
    /// The probes of the first pass.
    pub first_trace: Option<(Step, LayerTrace)>,
    /// The latest probes up to the first alarm, of a pass whose loss and gradients are finite.
    pub calm_trace: Option<(Step, LayerTrace)>,
    /// The first probes at or after the first alarm.
    pub alarm_trace: Option<(Step, LayerTrace)>,
    /// Findings, oldest first.
    pub findings: Vec<Finding>,
    /// Findings beyond [`FINDINGS_MAX`].
    pub findings_dropped: u64,
    /// What the guard made the door do, with the step.
    pub actions: Vec<(Step, Decision)>,
    /// Actions beyond [`ACTIONS_MAX`].
    pub actions_dropped: u64,
    /// What the six signs said of the latest step.
    pub readings: Vec<(SignName, Reading)>,
    /// The critical step size, measured at the first alarm: the smallest multiple of the proposed
    /// update that raises the loss of its own batch, with the step.
    pub critical_step: Option<CriticalStep>,
    /// The first non-finite value.
    pub first_nonfinite: Option<(Step, NonFiniteAt)>,
    /// The data of the first batch, of the calm batches' median and of the batch at the alarm.
    pub batch: BatchTrack,
    /// The largest lag of Adam's second moment at the first update from the first alarm on.
    pub alarm_lag: Option<(TensorId, f64)>,
    /// Losses of the last [`LOSS_WINDOW`] calm steps.
    pub calm_losses: Window<LOSS_WINDOW>,
    /// A jump of the loss that the data made, while it lasts.
    pub jump: Option<Jump>,
    /// Losses of the first five steps.
    pub first_losses: Window<5>,
    /// Lowest median of calm losses.
    pub best_loss: Option<f64>,
    /// Smallest finite norm of the whole gradient of all steps.
    pub lowest_norm: Option<f64>,
    /// Largest norm of the whole gradient in a calm step.
    pub highest_calm_norm: f64,
    /// Steps taken in, which rewinds do not turn back.
    pub clock: u64,
    /// The clock at the latest alarm.
    pub last_alarm: Option<u64>,
    /// The clock at the latest action of the guard.
    pub last_action: Option<u64>,
    segment: u32,
}

impl Record {
    /// An empty record of a run.
    pub fn new(layout: Layout, facts: RunFacts) -> Self {
        let gain =
            || GainTrack { forward: Baseline::new(0.9, 0.1), backward: Baseline::new(0.9, 0.1) };
        Self {
            tensors: vec![TensorTrack::new(); layout.tensors.len()],
            gains: layout.layers.iter().map(|_| gain()).collect(),
            layout,
            facts,
            rows: Vec::new(),
            rows_dropped: 0,
            total: TensorTrack::new(),
            first_trace: None,
            calm_trace: None,
            alarm_trace: None,
            findings: Vec::new(),
            findings_dropped: 0,
            actions: Vec::new(),
            actions_dropped: 0,
            readings: Vec::new(),
            critical_step: None,
            first_nonfinite: None,
            batch: BatchTrack::default(),
            alarm_lag: None,
            calm_losses: Window::default(),
            jump: None,
            first_losses: Window::default(),
            best_loss: None,
            lowest_norm: None,
            highest_calm_norm: 0.0,
            clock: 0,
            last_alarm: None,
            last_action: None,
            segment: 0,
        }
    }

    /// Takes in parameters that the optimizer has got later; their tracks begin empty.
    pub(crate) fn add_tensors(&mut self, tensors: Vec<TensorInfo>) {
        self.tensors.extend(tensors.iter().map(|_| TensorTrack::new()));
        self.layout.tensors.extend(tensors);
    }

    /// Goes on from a saved record of the same model; the layout stays, and the facts that are known
    /// here.
    pub(crate) fn resume(&mut self, saved: Record) {
        let (layout, facts) = (
            std::mem::take(&mut self.layout),
            std::mem::take(&mut self.facts).or(saved.facts.clone()),
        );
        *self = Record { layout, facts, ..saved };
    }

    /// Whether it has a track for each tensor and layer, and no time lies ahead of its clock: what a
    /// record that was read back has to show before it is used.
    pub(crate) fn is_whole(&self) -> bool {
        let past = [self.last_alarm, self.last_action].into_iter().flatten();
        self.tensors.len() == self.layout.tensors.len()
            && self.gains.len() == self.layout.layers.len()
            && past.max().is_none_or(|at| at <= self.clock)
    }

    /// The latest row.
    pub fn now(&self) -> Option<&Row> {
        self.rows.last()
    }

    /// The last `count` rows, oldest first.
    pub fn recent(&self, count: usize) -> &[Row] {
        &self.rows[self.rows.len().saturating_sub(count)..]
    }

    /// The first alarm.
    pub fn first_alarm(&self) -> Option<&Finding> {
        // Asked for several times a step, and thousands of strains may be there.
        self.last_alarm?;
        self.findings.iter().find(|finding| finding.severity == Severity::Alarm)
    }

    /// Whether an alarm came or the guard acted within the last `steps` steps.
    pub fn is_troubled(&self, steps: u64) -> bool {
        let latest = self.last_alarm.max(self.last_action);
        latest.is_some_and(|at| self.clock - at < steps)
    }

    /// The largest update of the last 20 steps, relative to the parameters that it changed; `None` where
    /// updates are not known.
    pub fn largest_update(&self) -> Option<f64> {
        self.recent(20).iter().filter_map(|row| row.update_ratio).reduce(f64::max)
    }

    /// How much the loss has come down: where it began less its best level, at least the magnitude
    /// of where it began. The yardstick of what is a large change of the loss, which holds for
    /// losses that cross zero as well.
    pub fn loss_range(&self) -> f64 {
        let first = self.first_losses.median().unwrap_or(0.0);
        let best = self.best_loss.unwrap_or(first);
        (first - best).max(first.abs()).max(f64::MIN_POSITIVE)
    }

    /// Whether the gradient was very high from the first step on, and this loss is not down by half:
    /// such a run has no calm level, neither to leave nor to come back to.
    pub fn never_came_down(&self, loss: f64) -> bool {
        let first = self.first_losses.iter().next();
        self.lowest_norm.is_some_and(|lowest| lowest > VERY_HIGH_NORM)
            && first.is_some_and(|first| !(loss <= 0.5 * first))
    }

    /// Whether a loss lies above the calm ones by more than 4 robust spreads and a tenth of
    /// [`Record::loss_range`], and above a jump that the data made; never while fewer than ten calm
    /// losses are known.
    pub fn departs(&self, loss: f64) -> bool {
        self.loss_departure(loss) > DEPARTED
    }

    /// How many robust spreads a loss lies above the calm ones; 0 where it does not depart whatever
    /// the spread.
    fn loss_departure(&self, loss: f64) -> f64 {
        let is_borne = self.jump.as_ref().is_some_and(|jump| loss <= jump.bears);
        if is_borne || self.calm_losses.len() < 10 {
            return 0.0;
        }
        let middle = self.calm_losses.median().unwrap_or(0.0);
        let spread = self.calm_losses.spread().unwrap_or(0.0);
        let above = loss - middle;
        if !loss.is_finite() {
            f64::INFINITY
        } else if above < 0.1 * self.loss_range() {
            0.0
        } else {
            above / spread.max(0.02 * middle.abs()).max(f64::MIN_POSITIVE)
        }
    }

    /// What data is the first that is not finite, in words; `None` when it was not data.
    pub fn broken_data(&self) -> Option<String> {
        let what = match self.first_nonfinite?.1 {
            NonFiniteAt::Input(place) => {
                let (name, _) = self.batch.inputs.get(place)?;
                self.batch.called(name).unwrap_or_else(|| "the data".to_owned())
            }
            NonFiniteAt::Targets => "a target".to_owned(),
            _ => return None,
        };
        Some(format!("step at which {what} is first not finite"))
    }

    /// The probes at or after the first alarm, unless parameters may be broken by then: the outputs
    /// of such a pass tell of the update that broke them, and of no layer.
    pub fn alarm_pass(&self) -> Option<&(Step, LayerTrace)> {
        self.alarm_trace.as_ref().filter(|(step, _)| !self.may_be_broken_before(*step))
    }

    /// Whether an update before this step broke a parameter, or was taken from gradients that were
    /// not finite.
    fn may_be_broken_before(&self, step: Step) -> bool {
        let Some((first, at)) = self.first_nonfinite.filter(|(first, _)| *first < step) else {
            return false;
        };
        let was_skipped = |at: Step| {
            self.actions.iter().any(|(step, decision)| {
                *step == at
                    && (decision.gradients == GradientAction::Skip || decision.rewind.is_some())
            })
        };
        let rows = self.rows.iter().rev().take_while(|row| row.step >= first);
        let mut before = rows.filter(|row| row.step < step);
        matches!(at, NonFiniteAt::Parameter(_))
            || before.any(|row| row.nonfinite_gradients > 0 && !was_skipped(row.step))
    }

    /// The passes that were probed, the one that shows the most first: at the alarm, the latest calm
    /// one, the first.
    pub fn passes(&self) -> impl Iterator<Item = &(Step, LayerTrace)> {
        let calm = [&self.calm_trace, &self.first_trace].into_iter().flatten();
        self.alarm_pass().into_iter().chain(calm)
    }

    /// The gains of a pass that was probed.
    pub fn chain(&self, (step, trace): &(Step, LayerTrace)) -> Chain {
        Chain::measure(*step, trace, &self.layout)
    }

    /// The chain of gains of the pass that shows the most.
    pub fn telling_chain(&self) -> Option<Chain> {
        self.passes().next().map(|pass| self.chain(pass))
    }

    /// The chain of gains of the first pass.
    pub fn first_chain(&self) -> Option<Chain> {
        self.first_trace.as_ref().map(|pass| self.chain(pass))
    }

    /// RMS of the regression targets: what the door knows of the whole run, else that of the first
    /// batches.
    pub fn target_rms(&self) -> Option<f64> {
        self.facts.target_rms.or_else(|| self.batch.targets.first_rms.median())
    }

    /// RMS of the inputs, in the same way; of several inputs that of the largest.
    pub fn input_rms(&self) -> Option<f64> {
        let of_batches = self.batch.inputs.iter().filter_map(|(_, track)| track.first_rms.median());
        self.facts.input_rms.or_else(|| of_batches.max_by(f64::total_cmp))
    }

    /// The tensor nearest to the loss, by the order of execution of its layer, among those that are
    /// so.
    pub(crate) fn nearest_to_loss(&self, is_so: impl Fn(&TensorTrack) -> bool) -> Option<TensorId> {
        let so = self.tensors.iter().enumerate().filter(|(_, track)| is_so(track));
        let ids = so.map(|(index, _)| TensorId(index));
        ids.max_by_key(|id| (self.layout.layer_of(*id), *id))
    }

    /// Takes in a step before its update. The baselines do not move until [`Record::settle`].
    pub fn take(&mut self, seen: &Observation<'_>) {
        self.clock = self.clock.saturating_add(1);
        let merged = seen.whole_gradient();
        let norm = seen.gradient_norm.or(merged.map(|stats| stats.l2));
        for (index, track) in self.tensors.iter_mut().enumerate() {
            track.latest = seen.gradients.get(index).copied().flatten();
        }
        self.total.latest = merged;
        let nonfinite = self.total.latest.map_or(0, |stats| stats.nonfinite())
            + u64::from(seen.gradient_norm.is_some_and(|norm| !norm.is_finite()));
        self.rows.push(Row {
            step: seen.step,
            segment: self.segment,
            loss: seen.loss,
            metric: seen.metric,
            learning_rate: seen.learning_rate,
            gradient_norm: norm,
            nonfinite_gradients: nonfinite,
            update_ratio: None,
        });
        self.thin_out();
        if let Some(norm) = norm.filter(|norm| norm.is_finite()) {
            self.lowest_norm = Some(self.lowest_norm.map_or(norm, |lowest| lowest.min(norm)));
        }
        if let Some(loss) = seen.loss
            && self.clock <= 5
        {
            self.first_losses.push(loss);
        }
        self.batch.take(seen.inputs, seen.targets);
        if let Some(trace) = seen.trace {
            self.take_trace(seen.step, trace);
        }
        self.note_nonfinite(seen);
    }

    /// Takes in probes: those of this step's own pass, or of a repeated pass after an alarm.
    pub fn take_trace(&mut self, step: Step, trace: &LayerTrace) {
        self.first_trace.get_or_insert_with(|| (step, trace.clone()));
        if self.first_alarm().is_some() {
            self.alarm_trace.get_or_insert_with(|| (step, trace.clone()));
        } else if !self.now().is_some_and(Row::is_broken) {
            self.calm_trace = Some((step, trace.clone()));
        }
        // The pass of the very step shows the layer that the loss and the gradients do not.
        if let Some((first, NonFiniteAt::Loss | NonFiniteAt::Gradient(_))) = self.first_nonfinite
            && first == step
            && let Some(layer) = trace.first_nonfinite_output()
        {
            self.first_nonfinite = Some((step, NonFiniteAt::Output(layer)));
        }
    }

    /// Takes in the update of this step.
    pub fn take_update(&mut self, updates: &[Option<Update>]) {
        let mut largest: Option<f64> = None;
        for (index, track) in self.tensors.iter_mut().enumerate() {
            track.latest_update = updates.get(index).copied().flatten();
            let info = &self.layout.tensors[index];
            if let Some(update) = track.latest_update.filter(|update| info.is_judged_by(update)) {
                largest = Some(largest.map_or(update.ratio(), |l| l.max(update.ratio())));
            }
        }
        let broken = self
            .tensors
            .iter()
            .position(|track| track.latest_update.is_some_and(|update| update.nonfinite > 0));
        if let Some(row) = self.rows.last_mut() {
            row.update_ratio = largest;
            let step = row.step;
            if let Some(index) = broken {
                self.first_nonfinite.get_or_insert((step, NonFiniteAt::Parameter(TensorId(index))));
            }
        }
    }

    /// Notes findings.
    pub fn note(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            if finding.severity == Severity::Alarm {
                if self.last_alarm.is_none() {
                    self.freeze();
                }
                self.last_alarm = Some(self.clock);
            }
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(finding);
            } else {
                self.findings_dropped = self.findings_dropped.saturating_add(1);
            }
        }
    }

    /// Notes what the guard made the door do.
    pub fn note_action(&mut self, step: Step, decision: Decision) {
        self.last_action = Some(self.clock);
        if self.actions.len() < ACTIONS_MAX {
            self.actions.push((step, decision));
        } else {
            self.actions_dropped = self.actions_dropped.saturating_add(1);
        }
    }

    /// Lets the baselines take in the latest step. What is not finite never enters; gradients
    /// enter winsorised; losses, gains and batches enter only while the run is calm.
    pub fn settle(&mut self) {
        let calm = !self.is_troubled(3);
        for track in self.tensors.iter_mut().chain([&mut self.total]) {
            if let Some(stats) = track.latest.filter(|stats| stats.is_finite() && stats.l2 > 0.0) {
                track.gradient.push(stats.l2.ln());
                track.gradient_slow.push(stats.l2.ln());
            }
        }
        for (track, info) in self.tensors.iter_mut().zip(&self.layout.tensors) {
            let counts = |update: &Update| {
                update.nonfinite == 0
                    && update.ratio() > 0.0
                    && (!info.is_matrix || info.is_judged_by(update))
            };
            if let Some(update) = track.latest_update.filter(counts) {
                track.update.push(update.ratio().ln());
            }
        }
        let row = self.rows.last().copied().unwrap_or_default();
        if self.total.latest.is_none()
            && let Some(norm) = row.gradient_norm.filter(|norm| norm.is_finite() && *norm > 0.0)
        {
            self.total.gradient.push(norm.ln());
            self.total.gradient_slow.push(norm.ln());
        }
        if self.last_alarm.is_none() {
            self.batch.tracks().for_each(DataTrack::settle);
        }
        if !calm {
            return;
        }
        if let Some(loss) = row.loss {
            self.calm_losses.push(loss);
        }
        if let Some(norm) = row.gradient_norm.filter(|norm| norm.is_finite()) {
            self.highest_calm_norm = self.highest_calm_norm.max(norm);
        }
        if let Some(middle) = self.calm_losses.median()
            && self.calm_losses.len() >= 5
        {
            self.best_loss = Some(self.best_loss.map_or(middle, |best| best.min(middle)));
        }
        if let Some(pass) = self.calm_trace.as_ref().filter(|(step, _)| *step == row.step) {
            for link in self.chain(pass).links {
                let Some(track) = self.gains.get_mut(link.layer.0) else { continue };
                track.forward.push(link.forward.map_or(f64::NAN, f64::ln));
                track.backward.push(link.backward.map_or(f64::NAN, f64::ln));
            }
        }
    }

    /// Starts a new segment after a rewind; the baselines stay.
    pub fn rewind(&mut self) {
        self.segment = self.segment.saturating_add(1);
        self.jump = None;
    }

    /// Forgets the update of this step, which was not taken.
    pub fn undo_update(&mut self) {
        let now = self.now().map(|row| row.step);
        self.first_nonfinite = self
            .first_nonfinite
            .filter(|(step, at)| !(matches!(at, NonFiniteAt::Parameter(_)) && Some(*step) == now));
        self.tensors.iter_mut().for_each(|track| track.latest_update = None);
        if let Some(row) = self.rows.last_mut() {
            row.update_ratio = None;
        }
    }

    /// Lets the gradient baselines start at the latest norms: a new level that the loss bears.
    pub fn accept_gradient_level(&mut self) {
        for track in self.tensors.iter_mut().chain([&mut self.total]) {
            if let Some(stats) = track.latest.filter(|stats| stats.is_finite() && stats.l2 > 0.0) {
                track.gradient.accept_level(stats.l2.ln());
                track.gradient_slow.accept_level(stats.l2.ln());
            }
        }
    }

    /// Median of the gradient norm over the rows before a step; `None` when there are none.
    pub fn calm_gradient_norm(&self, before: Option<Step>) -> Option<f64> {
        median(self.rows_before(before).filter_map(|row| row.gradient_norm))
    }

    /// The rows before a step, or all rows.
    pub fn rows_before(&self, before: Option<Step>) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .take_while(move |row| before.is_none_or(|step| row.segment == 0 && row.step < step))
    }

    /// Keeps what was usual, and what is now, when the first alarm comes.
    fn freeze(&mut self) {
        for track in self.tensors.iter_mut().chain([&mut self.total]) {
            track.at_alarm = track.latest;
            track.calm_norm = (track.gradient.count() > 0).then(|| track.gradient.mean().exp());
        }
        self.batch.tracks().for_each(DataTrack::freeze);
    }

    fn note_nonfinite(&mut self, seen: &Observation<'_>) {
        if self.first_nonfinite.is_some() {
            return;
        }
        let is_broken = |stats: &Option<TensorStats>| stats.is_some_and(|stats| !stats.is_finite());
        let broken_input = self.batch.inputs.iter().position(|(_, track)| is_broken(&track.latest));
        let broken_gradient = || self.nearest_to_loss(|track| is_broken(&track.latest));
        let at = if let Some(input) = broken_input {
            Some(NonFiniteAt::Input(input))
        } else if is_broken(&seen.targets) {
            Some(NonFiniteAt::Targets)
        } else if let Some(layer) = seen.trace.and_then(LayerTrace::first_nonfinite_output) {
            Some(NonFiniteAt::Output(layer))
        } else if seen.loss.is_some_and(|loss| !loss.is_finite()) {
            Some(NonFiniteAt::Loss)
        } else {
            broken_gradient().map(NonFiniteAt::Gradient)
        };
        self.first_nonfinite = at.map(|at| (seen.step, at));
    }

    fn thin_out(&mut self) {
        if self.rows.len() <= ROWS_MAX {
            return;
        }
        let half = self.rows.len() / 2;
        let mut index = 0;
        let before = self.rows.len();
        self.rows.retain(|_| {
            index += 1;
            index > half || index % 2 == 1
        });
        self.rows_dropped += (before - self.rows.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(losses: impl IntoIterator<Item = f64>) -> Record {
        let mut record = Record::new(Layout::default(), RunFacts::default());
        for (step, loss) in losses.into_iter().enumerate() {
            let seen = Observation {
                step: Step(step as u64),
                loss: Some(loss),
                gradient_norm: Some(1.0),
                ..Observation::default()
            };
            record.take(&seen);
            record.settle();
        }
        record
    }

    #[test]
    fn memory_stays_bounded_and_what_is_dropped_is_counted() {
        let steps = 3 * ROWS_MAX as u64;
        let record = run((0..steps).map(|_| 1.0));
        assert!(record.rows.len() <= ROWS_MAX);
        assert_eq!(record.rows.len() as u64 + record.rows_dropped, steps);
        assert_eq!(record.now().map(|row| row.step), Some(Step(steps - 1)));
    }

    #[test]
    fn a_large_loss_departs_and_jitter_near_zero_does_not() {
        let falling = run((0..100).map(|i| 2.3 * (-0.1 * f64::from(i)).exp() + 0.01));
        assert!(falling.departs(2.0));
        assert_eq!(
            falling.loss_departure(0.05),
            0.0,
            "0.05 is large against 0.01, not against 2.3"
        );
        assert_eq!(falling.loss_departure(f64::NAN), f64::INFINITY);
    }

    #[test]
    fn a_matrix_without_a_size_has_no_usual_ratio_and_breaks_as_any_other() {
        let (name, layer) = ("table.weight".to_owned(), None);
        let info = TensorInfo { name, layer, is_matrix: true, fan_in: Some(100) };
        let layout = Layout { tensors: vec![info], layers: Vec::new() };
        let mut record = Record::new(layout, RunFacts::default());
        for (weight_norm, nonfinite, ratio, count) in
            [(1e-4, 0, None, 0), (0.01, 0, Some(1.0), 1), (1e-4, 1, Some(f64::INFINITY), 1)]
        {
            record.take(&Observation::default());
            let update = Update { change_norm: 0.01, weight_norm, len: 1, nonfinite };
            record.take_update(&[Some(update)]);
            record.settle();
            let seen = record.now().and_then(|row| row.update_ratio);
            assert_eq!((seen, record.tensors[0].update.count()), (ratio, count), "{weight_norm}");
        }
    }

    #[test]
    fn an_infinite_norm_counts_as_a_non_finite_gradient() {
        let mut record = Record::new(Layout::default(), RunFacts::default());
        record.take(&Observation { gradient_norm: Some(f64::INFINITY), ..Observation::default() });
        assert_eq!(record.now().map(|row| row.nonfinite_gradients), Some(1));
    }
}
