//! The guard: takes observations, reads the signs, and says what the integration is to do.

use std::collections::VecDeque;

use crate::cadence::{self, Cadence};
use crate::decision::{Decision, GradientAction, UpdateVerdict};
use crate::diagnosis::{Diagnosis, diagnose};
use crate::finding::Finding;
use crate::inspection::Inspection;
use crate::jump;
use crate::ladder::Ladder;
use crate::observe::{
    LayerTrace, Layout, Observation, OtherModel, RunFacts, Step, TensorInfo, Update,
};
use crate::record::{CriticalStep, Record};
use crate::run::Run;
use crate::signs::Signs;
use crate::step::{Asks, Finished, OpenStep, ShrinkingStep};

/// What the guard may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing: the integration gives it only the loss, and it judges that.
    Off,
    /// Watch and report. The run is bit-identical to one without the guard.
    #[default]
    Observe,
    /// Watch and intervene, as little as possible.
    Protect,
}

/// The guard's options.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardConfig {
    /// What it may do.
    pub mode: Mode,
    /// Steps between two passes with probes, which read every layer's output and gradient.
    pub trace_every: u64,
    /// Steps between two snapshots in protect mode.
    pub snapshot_every: u64,
    /// Most snapshots held at the same time.
    pub snapshots_max: usize,
}

impl Mode {
    /// Its name: `off`, `observe` or `protect`.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Observe => "observe",
            Mode::Protect => "protect",
        }
    }
}

impl Default for GuardConfig {
    fn default() -> Self {
        let Cadence { trace_every, snapshot_every, snapshots_max } = Cadence::SHARED;
        Self { mode: Mode::Observe, trace_every, snapshot_every, snapshots_max }
    }
}

/// Snapshots in the time in which later on one is taken.
const EARLY_SNAPSHOTS: u64 = 4;

impl From<Mode> for GuardConfig {
    fn from(mode: Mode) -> Self {
        Self { mode, ..Self::default() }
    }
}

/// The guard of one run. Cloning it saves its whole state.
///
/// With the feature `serde` it can be serialised, except for its options and its snapshots:
/// [`Guard::resume`] continues from what was read back.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Guard {
    #[cfg_attr(feature = "serde", serde(skip))]
    config: GuardConfig,
    run: Run,
    signs: Signs,
    ladder: Ladder,
    #[cfg_attr(feature = "serde", serde(skip))]
    snapshots: VecDeque<(Step, Signs)>,
}

impl Guard {
    /// Creates the guard of a run.
    pub fn new(layout: Layout, facts: RunFacts, config: GuardConfig) -> Self {
        Self {
            config,
            run: Run::new(layout, facts),
            signs: Signs::default(),
            ladder: Ladder::default(),
            snapshots: VecDeque::new(),
        }
    }

    /// Continues from a saved guard of the same model: record, baselines, findings, actions, signs, and
    /// in protect mode the learning rate.
    ///
    /// Options remain those of this guard, and so do layout and facts as far as they are known here:
    /// a run may be resumed in another mode or for more steps. Outside protect mode the learning
    /// rate is the schedule's, so an earlier cut is forgotten. Snapshots are lost, because they are in
    /// the integration's memory: until the next one there is nothing to rewind to.
    ///
    /// # Errors
    /// [`OtherModel`] if the names of tensors or layers differ; nothing has changed then.
    pub fn resume(&mut self, saved: Guard) -> Result<(), OtherModel> {
        self.run.record.layout.same_names(&saved.run.record.layout)?;
        self.run.resume(saved.run);
        self.signs = saved.signs;
        self.ladder = match self.config.mode {
            Mode::Protect => saved.ladder,
            Mode::Off | Mode::Observe => Ladder::default(),
        };
        self.snapshots.clear();
        Ok(())
    }

    /// Whether a guard that was read from a saved state is consistent: it has as many tensors and layers
    /// as its layout, and nothing in it happened later than now.
    pub fn validate(&self) -> bool {
        self.run.validate() && self.ladder.validate()
    }

    /// The options.
    pub fn config(&self) -> &GuardConfig {
        &self.config
    }

    /// What it has seen, found and done.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The history of the run.
    pub fn record(&self) -> &Record {
        &self.run.record
    }

    /// What the integration is asked for before the pass of a step: a snapshot of the state (in protect
    /// mode, while the run is calm; see [`Guard::snapshot_kept`]), and probes (in the first pass, and
    /// every [`GuardConfig::trace_every`] steps until the first alarm has been traced).
    pub fn before_pass(&self, step: Step) -> Asks {
        let every = self.config.snapshot_every.max(1);
        let trace = self.config.mode != Mode::Off
            && self.run.record.alarm_trace.is_none()
            && step.0.is_multiple_of(self.config.trace_every.max(1));
        // The first steps are the most likely to fail, and a rewind to the start loses everything.
        let often = if step.0 < every { every.div_ceil(EARLY_SNAPSHOTS) } else { every };
        let snapshot = self.config.mode == Mode::Protect
            && step.0.is_multiple_of(often)
            && !self.run.is_troubled(every)
            && self.snapshots.back().is_none_or(|(last, _)| *last < step);
        Asks { trace, snapshot, ..Asks::default() }
    }

    /// Notes that the integration keeps a snapshot of the state before this step, to which a decision
    /// may rewind. It keeps at most [`GuardConfig::snapshots_max`] and drops the oldest.
    pub fn snapshot_kept(&mut self, step: Step) {
        if self.snapshots.len() >= self.config.snapshots_max.max(1) {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back((step, self.signs.clone()));
    }

    /// What the integration is asked for from the observation of a step to its end. It may change with
    /// the step's update, which can bring the first alarm.
    ///
    /// The pass is to be repeated after an alarm that no probes have seen. The operation behind what is not finite
    /// is looked for in a few steps ([`cadence::OPERATION_TRIES_MAX`]) until it is known. In protect mode, a copy is
    /// asked for on steps that are unlike the calm ones before. The elasticities of the loss are measured
    /// in the first pass and in one that raises the first alarm; the lag of Adam's second moment and the critical step size
    /// once, after an alarm.
    pub fn asks(&self) -> Asks {
        let (record, is_alarmed) = (&self.run.record, self.run.is_alarmed());
        let is_at_risk = self.config.mode != Mode::Off && crate::risk::is_at_risk(&self.run);
        let is_looked_at = record.clock <= cadence::UPDATES_ALL_UNTIL
            || record.clock.is_multiple_of(cadence::UPDATES_EVERY)
            || crate::risk::is_rate_untried(&self.run);
        Asks {
            update: is_at_risk || is_looked_at,
            repeated_trace: is_alarmed && record.alarm_trace.is_none(),
            operation: is_alarmed && record.wants_operation(),
            copy: self.config.mode == Mode::Protect && is_at_risk,
            elasticities: self.config.mode != Mode::Off
                && record.wants_elasticities(self.run.alarms_now()),
            lag: is_alarmed && record.alarm_lag.is_none(),
            critical_step: self.config.mode != Mode::Off
                && is_alarmed
                && record.critical_step.is_none(),
            ..Asks::default()
        }
    }

    /// Observes the probes of a repeated pass of the latest step, with the parameters from before its
    /// update.
    pub fn observe_trace(&mut self, trace: &LayerTrace) {
        self.observe_trace_of(self.now(), trace);
    }

    /// Observes the probes of a repeated pass of any step: the one after the latest, if the parameters
    /// were those after the latest update.
    pub fn observe_trace_of(&mut self, step: Step, trace: &LayerTrace) {
        self.run.take_trace(step, trace);
    }

    /// Observes how much the loss of the latest step depends on the scale of each weight matrix W with
    /// gradient G: the magnitude of the sum of W * G, divided by that of the loss, by [`TensorId`].
    /// `None` for vectors, and where it is not a number.
    ///
    /// It is the relative change of the loss for a relative change of the matrix. In a chain of layers
    /// whose activations are linear or piecewise linear it is the same for all of them: about 2 for
    /// squared errors of outputs that are far too large, about 0 for targets that are.
    pub fn observe_elasticities(&mut self, elasticities: &[Option<f64>]) {
        let is_alarm = self.run.alarms_now();
        self.run.record.take_elasticities(elasticities, is_alarm);
    }

    /// Observes the lag of Adam's second moment (RMS of g^2/v), measured at an alarm.
    pub fn observe_lag(&mut self, lag: &[Option<f64>]) {
        self.run.record.take_lag(lag);
    }

    /// Observes what the integration has found out about an alarm. It may be told in parts: what is known
    /// already stays. While [`Asks::operation`] is set, it also says that the operation was looked for.
    ///
    /// ```
    /// use tamegrad::inspection::{Inspection, Operation, OperationKind};
    /// use tamegrad::{Guard, GuardConfig, Layout, Observation, RunFacts};
    ///
    /// let mut guard = Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
    /// guard.observe(&Observation { loss: Some(f64::NAN), ..Observation::default() }, &[]);
    /// let operation = Some(Operation::new(OperationKind::Log));
    /// guard.observe_inspection(Inspection { operation, ..Inspection::default() });
    /// assert_eq!(guard.diagnosis().cause(), Some("singular-operation"));
    /// ```
    pub fn observe_inspection(&mut self, found: Inspection) {
        self.run.record.take_inspection(found);
    }

    /// The factor on the learning rate at the latest decision; exactly 1 if the guard leaves the rate
    /// alone.
    pub fn learning_rate_factor(&self) -> f64 {
        self.ladder.learning_rate()
    }

    /// Observes the critical step size (the smallest multiple of the proposed update that raises
    /// the loss of its own batch) and the sharpness along the update, see [`CriticalStep`].
    pub fn observe_critical_step(&mut self, multiple: f64, sharpness: Option<f64>) {
        let found = CriticalStep { step: self.now(), multiple, sharpness };
        self.run.record.critical_step.get_or_insert(found);
    }

    /// Observes a step before its update and decides. Outside [`Mode::Protect`] the decision is
    /// always to proceed.
    ///
    /// ```
    /// use tamegrad::{Finished, Guard, GuardConfig, Layout, Observation, RunFacts};
    ///
    /// let mut guard = Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
    /// let step = guard.begin(&Observation { loss: Some(0.5), ..Observation::default() });
    /// assert!(step.decision().is_proceed());
    /// // Here the optimizer steps.
    /// assert!(matches!(guard.finish(step, &[]), Finished::Taken));
    /// ```
    pub fn begin(&mut self, seen: &Observation<'_>) -> OpenStep {
        OpenStep { decision: self.decide(seen) }
    }

    fn decide(&mut self, seen: &Observation<'_>) -> Decision {
        jump::follow(&mut self.run, seen);
        self.run.take(seen);
        let readings = self.signs.read(&self.run);
        let fired: Vec<Finding> =
            readings.iter().filter_map(|(_, reading)| reading.clone().fired()).collect();
        self.run.note_readings(readings);
        self.run.note(fired.iter().cloned());
        if self.config.mode != Mode::Protect {
            return Decision::default();
        }
        let snapshots: Vec<Step> = self.snapshots.iter().map(|(step, _)| *step).collect();
        let decision = self.ladder.decide(&self.run, &fired, &snapshots, seen.clipped_to);
        if self.ladder.accepts_level() {
            self.run.record.accept_gradient_level();
        }
        self.carry_out(seen.step, &decision);
        decision
    }

    /// Observes the update that the optimizer made or proposes (an empty slice if the step was
    /// skipped), and ends the step unless the update is to be shrunk. Outside [`Mode::Protect`] the
    /// update is always kept.
    pub fn finish(&mut self, _: OpenStep, updates: &[Option<Update>]) -> Finished {
        let is_alarmed = self.take_update(updates);
        let verdict = if self.config.mode == Mode::Protect {
            self.ladder.judge_update(&self.run, updates, self.largest_ratio(), is_alarmed)
        } else {
            UpdateVerdict::Take
        };
        match verdict {
            UpdateVerdict::Take => {
                self.run.settle();
                Finished::Taken
            }
            UpdateVerdict::Shrink(factor) => Finished::Shrink(ShrinkingStep { factor }),
            UpdateVerdict::Refuse => {
                self.refuse();
                Finished::Refused
            }
        }
    }

    /// Observes the update redone with shrunk gradients, and ends the step. False means that it is
    /// still too large (Adam divides the factor away): do not keep it.
    pub fn finish_shrunk(&mut self, step: ShrinkingStep, updates: &[Option<Update>]) -> bool {
        self.run.record.take_update(updates);
        let takes = self.ladder.takes_shrunk(&self.run, updates, self.largest_ratio());
        if takes {
            self.note(GradientAction::ScaleAll(step.factor));
            self.run.settle();
        } else {
            self.refuse();
        }
        takes
    }

    /// Observes an update that was already made and cannot be undone, and ends the step; it is judged
    /// as by [`Guard::finish`].
    pub fn finish_taken(&mut self, _: OpenStep, updates: &[Option<Update>]) {
        let is_alarmed = self.take_update(updates);
        if is_alarmed && self.config.mode == Mode::Protect {
            self.ladder.note_taken_alarm(&self.run);
        }
        let is_broken = updates.iter().flatten().any(|update| update.nonfinite > 0);
        if is_broken && self.config.mode == Mode::Protect {
            self.ladder.note_broken();
        }
        self.run.settle();
    }

    /// Observes a whole step that was already made, for a loop that only watches.
    pub fn observe(&mut self, seen: &Observation<'_>, updates: &[Option<Update>]) -> Decision {
        let step = self.begin(seen);
        let decision = step.decision().clone();
        self.finish_taken(step, updates);
        decision
    }

    /// Notes what an update shows; returns whether it raises an alarm.
    fn take_update(&mut self, updates: &[Option<Update>]) -> bool {
        self.run.record.take_update(updates);
        let fired = self.signs.read_update(&self.run);
        let is_alarmed = fired.iter().any(Finding::is_alarm);
        self.run.note(fired);
        is_alarmed
    }

    /// Adds parameters that the optimizer was given later, after those that it had.
    pub fn add_tensors(&mut self, tensors: Vec<TensorInfo>) {
        self.run.record.add_tensors(tensors);
    }

    /// The latest step.
    fn now(&self) -> Step {
        self.run.record.now().map_or(Step(0), |row| row.step)
    }

    fn largest_ratio(&self) -> f64 {
        self.run.record.now().and_then(|row| row.update_ratio).unwrap_or(0.0)
    }

    fn refuse(&mut self) {
        self.ladder.note_refusal();
        self.note(GradientAction::Skip);
        self.run.record.undo_update();
        self.run.settle();
    }

    fn note(&mut self, gradients: GradientAction) {
        let learning_rate = self.ladder.learning_rate();
        let decision = Decision { gradients, learning_rate, ..Decision::default() };
        self.run.note_action(self.now(), decision);
    }

    /// The diagnosis of what was seen so far.
    pub fn diagnosis(&self) -> Diagnosis {
        diagnose(&self.run)
    }

    fn carry_out(&mut self, step: Step, decision: &Decision) {
        let acts = decision.gradients != GradientAction::Keep
            || decision.rewind.is_some()
            || decision.stop
            || self.ladder.cut_now();
        if acts {
            self.run.note_action(step, decision.clone());
        }
        if let Some(to) = decision.rewind {
            self.snapshots.retain(|(at, _)| *at <= to);
            if let Some((_, signs)) = self.snapshots.back() {
                self.signs = signs.clone();
            }
            self.run.rewind();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use crate::inspection::{Operation, OperationKind};
    use crate::observe::RunFacts;
    use crate::observe::TensorId;
    use crate::signs::check::{layout, noise, seen, stats, update};

    /// Runs a guard in protect mode over given losses and norms of two tensors; returns the
    /// decisions that are not "proceed", with their steps.
    fn protect(steps: u64, at: impl Fn(u64) -> (f64, f64)) -> (Guard, Vec<(u64, Decision)>) {
        let mut guard = protecting();
        let mut acted = Vec::new();
        for step in 0..steps {
            keep_snapshot(&mut guard, step);
            let (loss, norm) = at(step);
            let decision = guard.observe(&seen(step, loss, &[Some(stats(norm)); 2]), &[]);
            if !decision.is_proceed() {
                acted.push((step, decision));
            }
        }
        (guard, acted)
    }

    fn keep_snapshot(guard: &mut Guard, step: u64) {
        if guard.before_pass(Step(step)).snapshot {
            guard.snapshot_kept(Step(step));
        }
    }

    /// A step of a run under a guard in protect mode: decision and what became of the update.
    fn guarded(
        guard: &mut Guard,
        step: u64,
        (loss, norm): (f64, f64),
        clipped_to: Option<f64>,
        update: Option<Update>,
    ) -> (Decision, Finished) {
        keep_snapshot(guard, step);
        let gradients = [Some(stats(norm)); 2];
        let open = guard.begin(&Observation { clipped_to, ..seen(step, loss, &gradients) });
        (open.decision().clone(), guard.finish(open, &[update, update]))
    }

    /// A guard of a model of so many tensors.
    fn guard(mode: Mode, tensors: usize) -> Guard {
        let config = GuardConfig { mode, ..GuardConfig::default() };
        Guard::new(layout(tensors), RunFacts::default(), config)
    }

    fn protecting() -> Guard {
        guard(Mode::Protect, 2)
    }

    /// One that has seen 150 calm steps.
    fn protecting_calm(clipped_to: Option<f64>) -> Guard {
        let mut guard = protecting();
        for step in 0..150 {
            let _ = guarded(&mut guard, step, calm(step), clipped_to, update(0.003));
        }
        guard
    }

    /// Sequences become ten times longer at step 120: the norm is 10,000 times what it was at every
    /// step from then on, and the loss comes down slowly and wildly.
    fn longer_sequences(step: u64) -> (f64, f64) {
        let Some(since) = step.checked_sub(120) else { return calm(step) };
        let wild = noise(step as usize + 3);
        (0.3 + 6.0 * (-(since as f64) / 100.0).exp() * (1.2 + wild), 1e4 * (2.0 * wild).exp())
    }

    #[test]
    fn a_batch_of_nothing_is_left_out_and_counts_for_nothing() {
        for norm in [0.0, 0.5] {
            let ends = |s: u64| if s >= 200 { (f64::NAN, norm) } else { calm(s) };
            let (_, acted) = protect(260, ends);
            let skip = Decision { gradients: GradientAction::Skip, ..Decision::default() };
            let only_skips = (200..260).map(|step| (step, skip.clone())).collect::<Vec<_>>();
            assert_eq!(acted == only_skips, norm == 0.0, "{norm}: {acted:?}");
        }
    }

    #[test]
    fn what_the_loop_clips_is_not_acted_on_while_updates_stay_small() {
        for (clipped_to, ratio, acts) in [
            (Some(1.0), 0.003, false),
            (Some(1.0), 0.3, true),
            (Some(1e6), 0.003, true),
            (None, 0.003, true),
        ] {
            let mut guard = protecting();
            for step in 0..400 {
                let _ =
                    guarded(&mut guard, step, longer_sequences(step), clipped_to, update(ratio));
            }
            let actions = guard.run().actions();
            assert_eq!(!actions.is_empty(), acts, "{clipped_to:?} {ratio}: {actions:?}");
            assert_eq!(guard.learning_rate_factor() < 1.0, acts, "{clipped_to:?} {ratio}");
        }
    }

    #[test]
    fn a_clip_mends_neither_what_is_not_finite_nor_what_breaks() {
        let mut guard = protecting_calm(Some(1.0));
        let (_, finished) = guarded(&mut guard, 150, calm(150), Some(1.0), update(f64::NAN));
        assert!(matches!(finished, Finished::Refused));
        let (decision, _) = guarded(&mut guard, 151, (0.5, f64::INFINITY), Some(1.0), None);
        assert_eq!(decision.gradients, GradientAction::Skip);
    }

    #[test]
    fn what_is_taken_already_is_noted_and_a_broken_parameter_is_rewound_at_once() {
        for (nonfinite, rewinds_to) in [(0, None), (1, Some(Step(50)))] {
            let mut guard = protecting_calm(None);
            let open = guard.begin(&seen(150, calm(150).0, &[Some(stats(1.0)); 2]));
            let taken = update(3.0).map(|update| Update { nonfinite, ..update });
            guard.finish_taken(open, &[taken, update(0.003)]);
            let last =
                guard.run().findings().last().map(|finding| (finding.step, finding.severity));
            assert_eq!(last, Some((Step(150), Severity::Alarm)), "{nonfinite}");
            assert_eq!(guard.run().actions(), [], "{nonfinite}");
            let (decision, _) = guarded(&mut guard, 151, (f64::NAN, f64::NAN), None, None);
            assert_eq!(decision.rewind, rewinds_to, "{nonfinite}");
        }
    }

    #[test]
    fn a_copy_is_wanted_in_protect_mode_until_the_run_is_known_to_be_calm() {
        for (mode, wanted) in [(Mode::Protect, 100), (Mode::Observe, 0)] {
            let mut guard = guard(mode, 2);
            let wants = (0..200).filter(|step| {
                let norm = (0.1 * noise(*step as usize)).exp();
                let open = guard.begin(&seen(*step, calm(*step).0, &[Some(stats(norm)); 2]));
                let wants = guard.asks().copy;
                guard.finish_taken(open, &[update(0.003); 2]);
                wants
            });
            assert_eq!(wants.count(), wanted, "{mode:?}");
        }
    }

    #[test]
    fn each_update_is_measured_at_first_and_while_the_rate_rises_and_then_one_in_eight() {
        for (rise, wanted) in [(0.0, 19), (1e-6, 150)] {
            let mut guard = guard(Mode::Observe, 2);
            let measured = (0..300).filter(|step| {
                let norm = (0.1 * noise(*step as usize)).exp();
                let gradients = [Some(stats(norm)); 2];
                let learning_rate = Some(0.01 + rise * *step as f64);
                let seen = seen(*step, calm(*step).0, &gradients);
                let open = guard.begin(&Observation { learning_rate, ..seen });
                let measures = guard.asks().update;
                guard.finish_taken(open, &[update(0.003); 2]);
                measures && *step >= 150
            });
            assert_eq!(measured.count(), wanted, "{rise}");
        }
    }

    /// Whether the operation was asked for in each step of a run that breaks in its second and stays so, with
    /// this answer each time.
    fn operation_asks(found: &Inspection) -> Vec<bool> {
        let mut guard = guard(Mode::Observe, 1);
        let losses = [1.0, f64::NAN, f64::NAN, f64::NAN];
        let asks = losses.iter().enumerate().map(|(step, loss)| {
            let open = guard.begin(&seen(step as u64, *loss, &[Some(stats(1.0))]));
            let asks = guard.asks().operation;
            if asks {
                guard.observe_inspection(found.clone());
            }
            guard.finish_taken(open, &[update(0.003)]);
            asks
        });
        asks.collect()
    }

    #[test]
    fn the_operation_of_a_broken_pass_is_asked_for_twice_unless_it_is_found() {
        assert_eq!(operation_asks(&Inspection::default()), [false, true, true, false]);
        let operation = Some(Operation::new(OperationKind::Log));
        let found = Inspection { operation, ..Inspection::default() };
        assert_eq!(operation_asks(&found), [false, true, false, false]);
    }

    #[test]
    fn parameters_that_come_later_begin_without_a_history() {
        let mut guard = protecting_calm(None);
        let later = TensorInfo { name: "head.weight".to_owned(), ..layout(1).tensors[0].clone() };
        guard.add_tensors(vec![later]);
        assert!(guard.validate());
        let gradients = [1.0, 1.0, 0.7].map(|norm| Some(stats(norm)));
        let open = guard.begin(&seen(150, calm(150).0, &gradients));
        assert!(open.decision().is_proceed() && guard.asks().copy);
        assert!(guard.finish(open, &[update(0.003); 3]).is_taken());
        let counts: Vec<_> = guard.record().tensors.iter().map(|t| t.gradient.count()).collect();
        assert_eq!(counts, [151, 151, 1]);
        assert_eq!(guard.record().layout.tensor_name(TensorId(2)), "head.weight");
    }

    fn calm(step: u64) -> (f64, f64) {
        let n = noise(step as usize);
        (2.3 * (-(step as f64) / 80.0).exp() + 0.2 + 0.03 * n, (0.2 * n).exp())
    }

    #[test]
    fn a_guard_without_a_track_for_each_tensor_and_layer_is_not_valid() {
        let (guard, _) = protect(3, calm);
        assert!(guard.validate());
        let damages: [fn(&mut Record); 2] =
            [|record| record.tensors.clear(), |record| record.gains.clear()];
        for damage in damages {
            let mut damaged = guard.clone();
            damage(&mut damaged.run.record);
            assert!(!damaged.validate());
        }
    }

    #[test]
    fn a_calm_run_is_left_alone() {
        let (guard, acted) = protect(600, calm);
        assert_eq!(acted, []);
        assert_eq!(guard.run().actions(), []);
    }

    #[test]
    fn a_non_finite_gradient_is_skipped_once() {
        let (_, acted) = protect(300, |s| if s == 200 { (0.4, f64::NAN) } else { calm(s) });
        let skip = Decision { gradients: GradientAction::Skip, ..Decision::default() };
        assert_eq!(acted, [(200, skip)]);
    }

    #[test]
    fn a_spike_is_scaled_to_three_sigma_above_its_mean() {
        let (_, acted) = protect(300, |s| if s == 200 { (0.4, 1000.0) } else { calm(s) });
        let [(200, Decision { gradients: GradientAction::ScaleAll(factor), .. })] = &acted[..]
        else {
            panic!("{acted:?}");
        };
        let scaled = factor * 1000.0 * 2f64.sqrt();
        assert!((1.0..6.0).contains(&scaled), "scaled to {scaled}, usual is 1.4");
    }

    #[test]
    fn repeated_spikes_cut_the_rate_and_warm_up_again() {
        let spikes =
            |s: u64| if s >= 200 && s.is_multiple_of(10) { (0.4, 1000.0) } else { calm(s) };
        let (_, acted) = protect(260, spikes);
        let lowest = acted.iter().map(|(_, d)| d.learning_rate).fold(1.0, f64::min);
        assert!(lowest < 0.5, "{acted:?}");
        let rates: Vec<f64> = acted.iter().map(|(_, d)| d.learning_rate).collect();
        assert!(rates.windows(2).any(|pair| pair[1] > pair[0]), "it warms up again: {rates:?}");
    }

    #[test]
    fn a_jump_of_the_rate_is_undone_at_its_first_alarm() {
        let mut guard = protecting();
        for step in 0..60 {
            let rate = guard.learning_rate_factor() * if step < 50 { 0.1 } else { 10.0 };
            let loss = Some(2.0 - 0.02 * step as f64);
            let open = guard.begin(&Observation {
                loss,
                learning_rate: Some(rate),
                ..seen(step, 1.0, &[Some(stats(1.0)); 2])
            });
            let ratio = 0.2 * rate;
            let is_refused = matches!(guard.finish(open, &[update(ratio); 2]), Finished::Refused);
            assert_eq!(is_refused, step == 50, "{step}");
        }
        assert!((0.0100..0.0106).contains(&guard.learning_rate_factor()));
    }

    #[test]
    fn a_loss_that_stays_up_is_rewound_to_a_snapshot_before_it() {
        let (_, acted) = protect(300, |s| if s >= 250 { (6.0, 2.0) } else { calm(s) });
        let to = acted.iter().find_map(|(_, decision)| decision.rewind);
        assert_eq!(to, Some(Step(150)), "{acted:?}");
    }

    #[test]
    fn a_rewind_puts_the_signs_back_to_their_snapshot() {
        let mut guard = guard(Mode::Protect, 1);
        let mut at_snapshot = std::collections::BTreeMap::new();
        for step in 0..300 {
            let before = format!("{:?}", guard.signs);
            if guard.before_pass(Step(step)).snapshot {
                guard.snapshot_kept(Step(step));
                at_snapshot.insert(Step(step), before);
            }
            let (loss, norm) = if step >= 250 { (6.0, 2.0) } else { calm(step) };
            let (metric, gradients) = (Some(1.0 - loss), [Some(stats(norm))]);
            let open = guard.begin(&Observation { metric, ..seen(step, loss, &gradients) });
            if let Some(to) = open.decision().rewind {
                assert_eq!(Some(&format!("{:?}", guard.signs)), at_snapshot.get(&to));
                return;
            }
            assert_ne!(Some(&format!("{:?}", guard.signs)), at_snapshot.get(&Step(step)));
            guard.finish_taken(open, &[]);
        }
        panic!("never rewound");
    }

    #[test]
    fn a_resumed_guard_keeps_its_options_and_what_only_it_knows() {
        let (saved, _) = protect(300, |s| if s >= 250 { (60.0, 2.0) } else { calm(s) });
        assert!(saved.learning_rate_factor() < 1.0);
        for (mode, rate) in
            [(Mode::Protect, saved.learning_rate_factor()), (Mode::Observe, 1.0), (Mode::Off, 1.0)]
        {
            let config = GuardConfig { mode, trace_every: 7, ..GuardConfig::default() };
            let facts = RunFacts { planned_steps: Some(900), ..RunFacts::default() };
            let mut guard = Guard::new(layout(2), facts, config.clone());
            guard.resume(saved.clone()).expect("the same model");
            assert_eq!(guard.config(), &config);
            assert_eq!(guard.record().facts.planned_steps, Some(900));
            assert_eq!(guard.record().rows, saved.record().rows);
            assert_eq!(format!("{:?}", guard.signs), format!("{:?}", saved.signs));
            assert_eq!(guard.learning_rate_factor(), rate, "{mode:?}");
            assert_eq!(guard.snapshots.len(), 0);
        }
    }

    #[test]
    fn a_guard_of_another_model_is_refused_and_nothing_changes() {
        let (saved, _) = protect(30, calm);
        for (count, message) in [
            (1, "tensors: got 2, want 1"),
            (3, "tensors: got 2, want 3"),
            (2, "tensor 1: got `fc1.weight`, want `head.weight`"),
        ] {
            let mut here = layout(count);
            if count == 2 {
                here.tensors[1].name = "head.weight".to_owned();
            }
            let mut guard = Guard::new(here, RunFacts::default(), GuardConfig::default());
            let error = guard.resume(saved.clone()).expect_err("another model").to_string();
            assert!(error.contains(message), "{error}");
            assert_eq!(guard.record().rows, []);
        }
    }

    #[test]
    fn a_run_that_is_never_finite_is_given_up() {
        let (_, acted) = protect(100, |_| (f64::NAN, f64::NAN));
        let stop = acted.iter().find(|(_, decision)| decision.stop).map(|(step, _)| *step);
        assert_eq!(stop, Some(19));
    }

    #[test]
    fn an_update_that_would_break_a_parameter_is_refused() {
        for (mode, taken) in [(Mode::Observe, true), (Mode::Protect, false)] {
            let mut guard = guard(mode, 1);
            for _ in 0..4 {
                let open = guard.begin(&seen(0, 1.0, &[]));
                let finished = guard.finish(open, &[update(f64::NAN)]);
                assert_eq!(finished.is_taken(), taken, "{mode:?}: {finished:?}");
            }
        }
    }

    #[test]
    fn a_bias_that_would_break_counts_as_well() {
        let mut guard = guard(Mode::Protect, 1);
        guard.run.record.layout.tensors[0].is_matrix = false;
        let open = guard.begin(&seen(0, 1.0, &[]));
        assert!(matches!(guard.finish(open, &[update(f64::NAN)]), Finished::Refused));
    }

    #[test]
    fn a_new_level_that_the_loss_bears_costs_no_learning_rate() {
        let (_, acted) =
            protect(300, |s| (calm(s).0, if s >= 200 { 40.0 } else { 1.0 } * calm(s).1));
        assert!(!acted.is_empty() && acted.len() <= 25, "{}", acted.len());
        assert!(acted.iter().all(|(_, decision)| decision.learning_rate == 1.0), "{acted:?}");
    }

    #[test]
    fn norms_of_some_times_the_usual_that_the_loss_bears_change_no_step() {
        let (guard, acted) =
            protect(300, |s| (calm(s).0, if s >= 200 { 8.0 } else { 1.0 } * calm(s).1));
        assert!(!guard.run().findings().is_empty(), "they are shown");
        assert_eq!(acted, []);
    }

    #[test]
    fn a_drift_that_the_loss_bears_changes_no_step() {
        let grows = |s: u64| (calm(s).0, (1.0 + (s as f64 - 200.0).max(0.0) / 40.0) * calm(s).1);
        let (guard, acted) = protect(300, grows);
        let strains = guard.run().findings().iter();
        let drifts = strains.filter(|f| f.sign == crate::finding::SignName::GradientSpikes).count();
        assert!(drifts > 0, "the drift is shown");
        assert_eq!(acted, []);
    }

    #[test]
    fn an_alarm_of_the_loss_that_stands_cuts_the_rate_once_in_a_while() {
        let (guard, _) = protect(270, |s| if s >= 250 { (60.0, 2.0) } else { calm(s) });
        let full = guard.learning_rate_factor() / 0.1;
        assert!(full > 0.3, "the rate was cut to {full} of itself within 20 steps");
    }

    #[test]
    fn an_update_that_overthrows_a_matrix_is_shrunk_to_a_tenth_of_it() {
        for (shrunk, takes) in [(0.1, true), (40.0, false)] {
            let mut guard = guard(Mode::Protect, 1);
            let open = guard.begin(&seen(0, 1.0, &[]));
            let Finished::Shrink(shrinking) = guard.finish(open, &[update(50.0)]) else {
                panic!("50 times the matrix is taken or refused");
            };
            assert_eq!(shrinking.factor(), 0.1 / 50.0);
            assert_eq!(guard.finish_shrunk(shrinking, &[update(shrunk)]), takes, "{shrunk}");
            let ratio = guard.record().now().and_then(|row| row.update_ratio);
            assert_eq!(ratio, takes.then_some(shrunk));
        }
    }
}
