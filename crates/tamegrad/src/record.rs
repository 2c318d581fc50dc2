//! The history of a run: bounded rows, baselines of every tensor and layer, probed passes.

use tamegrad_stats::TensorStats;

use crate::batch::{BatchTrack, DataTrack};
use crate::borne::Borne;
use crate::cadence::OPERATION_TRIES_MAX;
use crate::chain::Chain;
use crate::evidence::{Names, Place};
use crate::inspection::Inspection;
use crate::observe::{
    LayerId, LayerTrace, Layout, Observation, RunFacts, Step, TensorId, TensorInfo, Update,
};
use crate::rules::{CALM_LOSSES, FIRST_LOSSES, RULES};
use crate::running::{Baseline, Window, median};

/// Rows kept in full before the older half is thinned to every second row.
pub const ROWS_MAX: usize = 65_536;
/// Steps whose losses make the loss baseline.
pub const LOSS_WINDOW: usize = CALM_LOSSES;

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

impl Default for TensorTrack {
    /// A track that has seen nothing.
    fn default() -> Self {
        let rule = RULES.baseline;
        Self {
            gradient: Baseline::new(rule.decay, rule.sigma_floor),
            gradient_slow: Baseline::new(rule.slow_decay, rule.sigma_floor),
            update: Baseline::new(rule.decay, rule.sigma_floor),
            latest: None,
            latest_update: None,
            at_alarm: None,
            calm_norm: None,
        }
    }
}

impl TensorTrack {
    fn take_norm(&mut self, norm: f64) {
        if norm.is_finite() && norm > 0.0 {
            self.gradient.push(norm.ln());
            self.gradient_slow.push(norm.ln());
        }
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

impl Default for GainTrack {
    /// A track that has seen nothing.
    fn default() -> Self {
        let rule = RULES.baseline;
        let baseline = || Baseline::new(rule.gain_decay, rule.sigma_floor);
        Self { forward: baseline(), backward: baseline() }
    }
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
    /// In a gradient: that of a parameter, if it is known of which.
    Gradient(Option<TensorId>),
    /// In a parameter, after an update.
    Parameter(TensorId),
}

/// What is kept of a run's history. Memory is bounded by the number of tensors and layers and by
/// [`ROWS_MAX`]. What signs make of it is kept elsewhere ([`Run`](crate::Run)).
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    pub(crate) layout: Layout,
    pub(crate) facts: RunFacts,
    /// One row a step, oldest first.
    pub(crate) rows: Vec<Row>,
    pub(crate) rows_dropped: u64,
    /// One track a tensor.
    pub(crate) tensors: Vec<TensorTrack>,
    /// The track of the whole gradient.
    pub(crate) total: TensorTrack,
    /// One gain track a layer.
    pub(crate) gains: Vec<GainTrack>,
    /// The probes of the first pass.
    pub(crate) first_trace: Option<(Step, LayerTrace)>,
    /// The latest probes up to the first alarm, of a pass whose loss and gradients are finite.
    pub(crate) calm_trace: Option<(Step, LayerTrace)>,
    /// The first probes at or after the first alarm.
    pub(crate) alarm_trace: Option<(Step, LayerTrace)>,
    /// The critical step size, measured at the first alarm.
    pub(crate) critical_step: Option<CriticalStep>,
    pub(crate) first_nonfinite: Option<(Step, NonFiniteAt)>,
    /// The data of the first batch, of the calm batches' median and of the batch at the alarm.
    pub(crate) batch: BatchTrack,
    /// The largest lag of Adam's second moment at the first update from the first alarm on.
    pub(crate) alarm_lag: Option<(TensorId, f64)>,
    /// What the integration has found out about the first alarm.
    pub(crate) inspection: Option<Inspection>,
    /// Steps in which the operation behind it was looked for.
    operation_tries: u64,
    /// Losses of the last [`LOSS_WINDOW`] calm steps.
    pub(crate) calm_losses: Window<LOSS_WINDOW>,
    /// Losses of the first steps.
    pub(crate) first_losses: Window<FIRST_LOSSES>,
    /// Elasticities of the loss in the first pass, by [`TensorId`].
    pub(crate) first_elasticities: Option<Vec<Option<f64>>>,
    /// The same in the pass that raised the first alarm, unless an update had done so.
    pub(crate) alarm_elasticities: Option<Vec<Option<f64>>>,
    /// Gains of the weight matrices by their size before the first update, by [`TensorId`].
    pub(crate) first_weight_gains: Vec<Option<f64>>,
    /// Lowest median of calm losses.
    pub(crate) best_loss: Option<f64>,
    /// Smallest finite norm of the whole gradient of all steps.
    pub(crate) lowest_norm: Option<f64>,
    /// The learning rate that the run has borne.
    pub(crate) borne: Borne,
    /// Largest norm of the whole gradient in a calm step.
    pub(crate) highest_calm_norm: f64,
    /// Steps taken in, which rewinds do not turn back.
    pub(crate) clock: u64,
    segment: u32,
}

impl Record {
    /// An empty record of a run.
    pub(crate) fn new(layout: Layout, facts: RunFacts) -> Self {
        Self {
            tensors: vec![TensorTrack::default(); layout.tensors.len()],
            gains: vec![GainTrack::default(); layout.layers.len()],
            layout,
            facts,
            ..Self::default()
        }
    }

    /// Takes in parameters that the optimizer has got later; their tracks begin empty.
    pub(crate) fn add_tensors(&mut self, tensors: Vec<TensorInfo>) {
        self.tensors.extend(tensors.iter().map(|_| TensorTrack::default()));
        self.layout.tensors.extend(tensors);
    }

    /// Checks that a record that was read back has a track for each tensor and layer.
    pub(crate) fn validate(&self) -> bool {
        self.tensors.len() == self.layout.tensors.len()
            && self.gains.len() == self.layout.layers.len()
    }

    /// Tensors and layers.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What holds for the whole run.
    pub fn facts(&self) -> &RunFacts {
        &self.facts
    }

    /// One row a step, oldest first.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Rows that were thinned out.
    pub fn rows_dropped(&self) -> u64 {
        self.rows_dropped
    }

    /// Number of steps that were seen.
    pub fn steps_seen(&self) -> u64 {
        self.rows.len() as u64 + self.rows_dropped
    }

    /// One track a tensor, by [`TensorId`].
    pub fn tensors(&self) -> &[TensorTrack] {
        &self.tensors
    }

    /// The gains of one layer while the run was calm.
    pub fn gain(&self, layer: LayerId) -> Option<&GainTrack> {
        self.gains.get(layer.0)
    }

    /// The probes of the first pass.
    pub fn first_trace(&self) -> Option<&(Step, LayerTrace)> {
        self.first_trace.as_ref()
    }

    /// The first non-finite value.
    pub fn first_nonfinite(&self) -> Option<(Step, NonFiniteAt)> {
        self.first_nonfinite
    }

    /// What the integration has found out about the first alarm.
    pub fn inspection(&self) -> Option<&Inspection> {
        self.inspection.as_ref()
    }

    /// The tensor in which Adam's second moment lagged most behind at the first alarm, with the RMS of
    /// g^2/v.
    pub fn alarm_lag(&self) -> Option<(TensorId, f64)> {
        self.alarm_lag
    }

    /// The names of tensors, layers and inputs.
    pub fn names(&self) -> Names {
        let inputs = self.batch.inputs.iter().map(|(name, _)| name.clone()).collect();
        Names { inputs, ..Names::of(&self.layout) }
    }

    /// The latest row.
    pub fn now(&self) -> Option<&Row> {
        self.rows.last()
    }

    /// The last `count` rows, oldest first.
    pub fn recent(&self, count: usize) -> &[Row] {
        &self.rows[self.rows.len().saturating_sub(count)..]
    }

    /// The largest update of the last steps, relative to the parameters that it changed; `None` where
    /// updates are not known.
    pub(crate) fn largest_update(&self) -> Option<f64> {
        let rows = self.recent(RULES.update.live.recent_steps);
        rows.iter().filter_map(|row| row.update_ratio).reduce(f64::max)
    }

    /// How much the loss has come down: where it began less its best level, at least the magnitude
    /// of where it began. The yardstick of what is a large change of the loss, which holds for
    /// losses that cross zero as well.
    pub(crate) fn loss_range(&self) -> f64 {
        let first = self.first_losses.median().unwrap_or(0.0);
        let best = self.best_loss.unwrap_or(first);
        (first - best).max(first.abs()).max(f64::MIN_POSITIVE)
    }

    /// Whether the gradient was very high from the first step on, and this loss is not down by half:
    /// such a run has no calm level, neither to leave nor to come back to.
    pub(crate) fn never_came_down(&self, loss: f64) -> bool {
        let first = self.first_losses.iter().next();
        let high = RULES.high_gradient.live;
        self.lowest_norm.is_some_and(|lowest| lowest > high.very_high)
            && first.is_some_and(|first| !(loss <= high.loss_fall * first))
    }

    /// How many robust spreads a loss lies above the calm ones; 0 where it does not depart whatever
    /// the spread. Losses up to the `ceiling` of a jump that the data made do not.
    pub(crate) fn loss_departure(&self, loss: f64, ceiling: Option<f64>) -> f64 {
        let rule = RULES.departure;
        let is_under = ceiling.is_some_and(|ceiling| loss <= ceiling);
        if is_under || self.calm_losses.len() < rule.losses_min {
            return 0.0;
        }
        let middle = self.calm_losses.median().unwrap_or(0.0);
        let above = loss - middle;
        if !loss.is_finite() {
            f64::INFINITY
        } else if above < rule.of_descent * self.loss_range() {
            0.0
        } else {
            let spread = self.calm_losses.spread().unwrap_or(0.0);
            above / spread.max(rule.spread_min * middle.abs()).max(f64::MIN_POSITIVE)
        }
    }

    /// What data is the first that is not finite; `None` when it was not data.
    pub(crate) fn broken_data(&self) -> Option<(Step, Place)> {
        let (step, at) = self.first_nonfinite?;
        match at {
            NonFiniteAt::Input(place) => Some((step, Place::Input(place))),
            NonFiniteAt::Targets => Some((step, Place::Targets)),
            _ => None,
        }
    }

    /// The gains of a pass that was probed.
    pub(crate) fn chain(&self, (step, trace): &(Step, LayerTrace)) -> Chain {
        Chain::measure(*step, trace, &self.layout)
    }

    /// The chain of gains of the first pass.
    pub fn first_chain(&self) -> Option<Chain> {
        self.first_trace.as_ref().map(|pass| self.chain(pass))
    }

    /// RMS of the regression targets: what the integration knows of the whole run, else that of the first
    /// batches.
    pub(crate) fn target_rms(&self) -> Option<f64> {
        self.facts.target_rms.or_else(|| self.batch.targets.first_rms.median())
    }

    /// RMS of what reaches the first weights in the first pass, whatever the model makes of its arguments
    /// before. Where no pass was looked at, that of the inputs, in the same way; of several inputs that of
    /// the largest.
    pub(crate) fn input_rms(&self) -> Option<f64> {
        if let Some(((_, trace), first)) =
            self.first_trace.as_ref().zip(self.layout.with_matrices().next())
        {
            return trace.given_to(first).map(|stats| stats.rms());
        }
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
    pub(crate) fn take(&mut self, seen: &Observation<'_>, is_alarmed: bool) {
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
        self.facts.constant_loss = seen.constant_loss.or(self.facts.constant_loss);
        if let Some(loss) = seen.loss
            && self.clock <= FIRST_LOSSES as u64
        {
            self.first_losses.push(loss);
        }
        let before = self.rows.iter().nth_back(1).and_then(|row| row.update_ratio);
        self.borne.follow(seen.loss, seen.learning_rate, before, self.loss_range());
        self.batch.take(seen.inputs, seen.targets);
        if let Some(trace) = seen.trace {
            self.take_trace(seen.step, trace, is_alarmed);
        }
        self.note_nonfinite(seen);
    }

    /// Takes in probes: those of this step's own pass, or of a repeated pass after an alarm.
    pub(crate) fn take_trace(&mut self, step: Step, trace: &LayerTrace, is_alarmed: bool) {
        self.first_trace.get_or_insert_with(|| (step, trace.clone()));
        if is_alarmed {
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

    /// Whether the first pass was not finite though its data was.
    pub(crate) fn broke_at_once(&self) -> bool {
        use NonFiniteAt::{Gradient, Loss, Output};
        matches!(self.first_nonfinite, Some((Step(0), Output(_) | Loss | Gradient(_))))
    }

    /// Whether the elasticities of the latest pass are still to be measured: it is the first, or it
    /// raised the first alarm. What an update has wrecked before tells of the update.
    pub(crate) fn wants_elasticities(&self, is_alarm: bool) -> bool {
        let is_first = self.clock == 1 && self.first_elasticities.is_none();
        is_first || is_alarm && self.alarm_elasticities.is_none()
    }

    /// Takes in the elasticities of the latest pass.
    pub(crate) fn take_elasticities(&mut self, elasticities: &[Option<f64>], is_alarm: bool) {
        if self.clock == 1 {
            self.first_elasticities.get_or_insert_with(|| elasticities.to_vec());
        }
        if is_alarm {
            self.alarm_elasticities.get_or_insert_with(|| elasticities.to_vec());
        }
    }

    /// Takes in the lags of Adam's second moment at the first alarm.
    pub(crate) fn take_lag(&mut self, lag: &[Option<f64>]) {
        let known =
            lag.iter().enumerate().filter_map(|(index, lag)| Some((TensorId(index), (*lag)?)));
        let largest = known.filter(|(_, lag)| !lag.is_nan()).max_by(|a, b| a.1.total_cmp(&b.1));
        self.alarm_lag = self.alarm_lag.or(largest);
    }

    /// Whether the operation is to be looked for that made the latest pass not finite.
    pub(crate) fn wants_operation(&self) -> bool {
        let is_known = self.inspection.as_ref().is_some_and(|found| found.operation.is_some());
        !is_known
            && self.operation_tries < OPERATION_TRIES_MAX
            && self.now().is_some_and(Row::is_broken)
    }

    /// Takes in what the integration has found out about an alarm; what is known already stays.
    pub(crate) fn take_inspection(&mut self, found: Inspection) {
        self.operation_tries += u64::from(self.wants_operation());
        self.inspection = Some(self.inspection.take().unwrap_or_default().or(found));
    }

    /// Takes in the update of this step.
    pub(crate) fn take_update(&mut self, updates: &[Option<Update>]) {
        let mut largest: Option<f64> = None;
        for (index, track) in self.tensors.iter_mut().enumerate() {
            track.latest_update = updates.get(index).copied().flatten();
            let info = &self.layout.tensors[index];
            if let Some(update) = track.latest_update.filter(|update| info.is_judged_by(update)) {
                largest = Some(largest.map_or(update.ratio(), |l| l.max(update.ratio())));
            }
        }
        if self.clock == 1 {
            let known = updates.iter().zip(&self.layout.tensors);
            self.first_weight_gains = known.map(|(update, info)| info.gain(&(*update)?)).collect();
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

    /// Lets the baselines take in the latest step. What is not finite never enters; gradients
    /// enter winsorised; losses and gains enter only while the run is calm, batches until the first
    /// alarm.
    pub(crate) fn settle(&mut self, is_calm: bool, is_alarmed: bool) {
        let take_norm = |track: &mut TensorTrack| {
            if let Some(stats) = track.latest.filter(TensorStats::is_finite) {
                track.take_norm(stats.l2);
            }
        };
        take_norm(&mut self.total);
        for (track, info) in self.tensors.iter_mut().zip(&self.layout.tensors) {
            take_norm(track);
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
        if let (None, Some(norm)) = (self.total.latest, row.gradient_norm) {
            self.total.take_norm(norm);
        }
        if !is_alarmed {
            self.batch.tracks().for_each(DataTrack::settle);
        }
        if !is_calm {
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
    pub(crate) fn rewind(&mut self) {
        self.segment = self.segment.saturating_add(1);
        self.borne.rewind();
    }

    /// Forgets the update of this step, which was not taken.
    pub(crate) fn undo_update(&mut self) {
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
    pub(crate) fn accept_gradient_level(&mut self) {
        for track in self.tensors.iter_mut().chain([&mut self.total]) {
            if let Some(stats) = track.latest.filter(|stats| stats.is_finite() && stats.l2 > 0.0) {
                track.gradient.accept_level(stats.l2.ln());
                track.gradient_slow.accept_level(stats.l2.ln());
            }
        }
    }

    /// Median of the gradient norm over the rows before a step; `None` when there are none.
    pub(crate) fn calm_gradient_norm(&self, before: Option<Step>) -> Option<f64> {
        median(self.rows_before(before).filter_map(|row| row.gradient_norm))
    }

    /// The rows before a step, or all rows.
    pub(crate) fn rows_before(&self, before: Option<Step>) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .take_while(move |row| before.is_none_or(|step| row.segment == 0 && row.step < step))
    }

    /// Keeps what was usual, and what is now, when the first alarm comes.
    pub(crate) fn freeze(&mut self) {
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
        let is_harmful = |track: &DataTrack| is_broken(&track.latest) && !track.is_harmless;
        let broken_input = self.batch.inputs.iter().position(|(_, track)| is_harmful(track));
        // The whole gradient tells whether any is broken, without a look at each.
        let broken_gradient = || {
            let is_any = is_broken(&self.total.latest);
            let known = is_any.then(|| self.nearest_to_loss(|track| is_broken(&track.latest)));
            let is_told = seen.gradient_norm.is_some_and(|norm| !norm.is_finite());
            known.flatten().map(Some).or(is_told.then_some(None))
        };
        let is_finite = seen.loss.is_some_and(f64::is_finite)
            && self.total.latest.is_some()
            && broken_gradient().is_none()
            && seen.trace.and_then(LayerTrace::first_nonfinite_output).is_none();
        if is_finite {
            let broken = self.batch.tracks().filter(|track| is_broken(&track.latest));
            return broken.for_each(|track| track.is_harmless = true);
        }
        let at = if let Some(input) = broken_input {
            Some(NonFiniteAt::Input(input))
        } else if is_broken(&seen.targets) && !self.batch.targets.is_harmless {
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
    use crate::signs::check::seen;

    fn run(losses: impl IntoIterator<Item = f64>) -> Record {
        let mut record = Record::new(Layout::default(), RunFacts::default());
        for (step, loss) in losses.into_iter().enumerate() {
            let seen = seen(step as u64, loss, &[]);
            record.take(&Observation { gradient_norm: Some(1.0), ..seen }, false);
            record.settle(true, false);
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
        assert!(falling.loss_departure(2.0, None) > RULES.departure.spreads);
        assert_eq!(falling.loss_departure(2.0, Some(2.0)), 0.0);
        assert_eq!(
            falling.loss_departure(0.05, None),
            0.0,
            "0.05 is large against 0.01, not against 2.3"
        );
        assert_eq!(falling.loss_departure(f64::NAN, None), f64::INFINITY);
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
            record.take(&Observation::default(), false);
            let update = Update { change_norm: 0.01, weight_norm, len: 1, nonfinite };
            record.take_update(&[Some(update)]);
            record.settle(true, false);
            let seen = record.now().and_then(|row| row.update_ratio);
            assert_eq!((seen, record.tensors[0].update.count()), (ratio, count), "{weight_norm}");
        }
    }

    #[test]
    fn an_infinite_norm_counts_as_a_non_finite_gradient() {
        let mut record = Record::new(Layout::default(), RunFacts::default());
        let seen = Observation { gradient_norm: Some(f64::INFINITY), ..Observation::default() };
        record.take(&seen, false);
        assert_eq!(record.now().map(|row| row.nonfinite_gradients), Some(1));
    }
}
