//! A run as the guard keeps it: its record, what the signs found in it, and what the guard did.

use std::collections::VecDeque;

use crate::batch::DataTrack;
use crate::chain::Chain;
use crate::decision::{Decision, GradientAction};
use crate::finding::{Finding, Reading, SignName};
use crate::inspection::Inspection;
use crate::observe::{LayerTrace, Layout, Observation, RunFacts, Step};
use crate::record::{NonFiniteAt, Record};
use crate::rules::RULES;

/// Findings kept; later ones are only counted.
pub const FINDINGS_MAX: usize = 4_096;
/// Actions kept; later ones are only counted.
pub const ACTIONS_MAX: usize = 4_096;
/// Steps after an alarm or an action that are not calm.
const UNCALM_STEPS: u64 = RULES.ladder.uncalm_steps;

/// A jump of the loss that the data made: no trouble while it comes down.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Jump {
    /// Loss up to which it is no trouble.
    pub(crate) loss_ceiling: f64,
    /// The last losses, oldest first.
    pub(crate) losses: VecDeque<f64>,
}

/// A run: its history, the findings of the signs, and the actions of the guard.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Run {
    pub(crate) record: Record,
    findings: Vec<Finding>,
    findings_dropped: u64,
    actions: Vec<(Step, Decision)>,
    actions_dropped: u64,
    /// What the signs said of the latest step.
    readings: Vec<(SignName, Reading)>,
    pub(crate) jump: Option<Jump>,
    /// The record's clock at the latest alarm.
    last_alarm: Option<u64>,
    /// The record's clock at the latest action.
    last_action: Option<u64>,
}

impl Run {
    /// A run of which nothing was seen.
    pub(crate) fn new(layout: Layout, facts: RunFacts) -> Self {
        Self { record: Record::new(layout, facts), ..Self::default() }
    }

    /// Its history.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What the signs found, oldest first; at most [`FINDINGS_MAX`].
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Findings beyond those.
    pub fn findings_dropped(&self) -> u64 {
        self.findings_dropped
    }

    /// What the guard made the integration do, with the steps; at most [`ACTIONS_MAX`].
    pub fn actions(&self) -> &[(Step, Decision)] {
        &self.actions
    }

    /// Actions beyond those.
    pub fn actions_dropped(&self) -> u64 {
        self.actions_dropped
    }

    /// Number of steps at which the guard acted.
    pub fn action_count(&self) -> u64 {
        self.actions.len() as u64 + self.actions_dropped
    }

    /// The first alarm.
    pub fn first_alarm(&self) -> Option<&Finding> {
        // Asked for several times a step, and thousands of strains may be there.
        self.last_alarm?;
        self.findings.iter().find(|finding| finding.is_alarm())
    }

    /// What a sign said of the latest step.
    pub(crate) fn reading(&self, sign: SignName) -> Option<&Reading> {
        self.readings.iter().find(|(name, _)| *name == sign).map(|(_, reading)| reading)
    }

    /// Whether an alarm has come.
    pub fn is_alarmed(&self) -> bool {
        self.last_alarm.is_some()
    }

    /// Whether the first alarm came at the latest step.
    pub(crate) fn alarms_now(&self) -> bool {
        let now = self.record.now().map(|row| row.step);
        self.first_alarm().is_some_and(|alarm| Some(alarm.step) == now)
    }

    /// Whether an alarm came or the guard acted within the last `steps` steps.
    pub(crate) fn is_troubled(&self, steps: u64) -> bool {
        let latest = self.last_alarm.max(self.last_action);
        latest.is_some_and(|at| self.record.clock - at < steps)
    }

    /// Whether no alarm came within the last `steps` steps.
    pub(crate) fn is_quiet(&self, steps: u64) -> bool {
        self.last_alarm.is_none_or(|at| self.record.clock - at >= steps)
    }

    /// Whether a loss lies above the calm ones by more than the rule of departure says, and above a
    /// jump that the data made.
    pub(crate) fn departs(&self, loss: f64) -> bool {
        let ceiling = self.jump.as_ref().map(|jump| jump.loss_ceiling);
        self.record.loss_departure(loss, ceiling) > RULES.departure.spreads
    }

    /// The probes at or after the first alarm, unless parameters may be broken by then: the outputs
    /// of such a pass tell of the update that broke them, and of no layer.
    pub(crate) fn alarm_pass(&self) -> Option<&(Step, LayerTrace)> {
        let pass = self.record.alarm_trace.as_ref();
        pass.filter(|(step, _)| !self.may_be_broken_before(*step))
    }

    /// Whether an update before this step broke a parameter, or was taken from gradients that were
    /// not finite.
    fn may_be_broken_before(&self, step: Step) -> bool {
        let first = self.record.first_nonfinite.filter(|(first, _)| *first < step);
        let Some((first, at)) = first else { return false };
        let was_skipped = |at: Step| {
            self.actions.iter().any(|(step, decision)| {
                *step == at
                    && (decision.gradients == GradientAction::Skip || decision.rewind.is_some())
            })
        };
        let rows = self.record.rows.iter().rev().take_while(|row| row.step >= first);
        let mut before = rows.filter(|row| row.step < step);
        matches!(at, NonFiniteAt::Parameter(_))
            || before.any(|row| row.nonfinite_gradients > 0 && !was_skipped(row.step))
    }

    /// What the integration has found out about the first value that is not finite, if a pass made it and no
    /// alarm came before it: after one, such a value is what the explosion has come to.
    pub(crate) fn broken_by(&self) -> Option<&Inspection> {
        let in_a_pass = |(_, at): &(Step, NonFiniteAt)| !matches!(at, NonFiniteAt::Parameter(_));
        let (step, _) = self.record.first_nonfinite.filter(in_a_pass)?;
        self.first_alarm().filter(|alarm| alarm.step >= step)?;
        self.record.inspection.as_ref()
    }

    /// Whether the latest step was broken by its data, or by the loss function as the first one was.
    pub(crate) fn breaks_outside(&self) -> bool {
        let record = &self.record;
        let is_broken = |track: &DataTrack| track.latest.is_some_and(|stats| !stats.is_finite());
        let inputs = record.batch.inputs.iter().map(|(_, track)| track);
        let by_loss = self.broken_by().and_then(|seen| seen.operation.as_ref());
        inputs.chain([&record.batch.targets]).any(is_broken)
            || by_loss.is_some_and(|operation| operation.module.is_none())
    }

    /// The passes that were probed, the one that shows the most first: at the alarm, the latest calm
    /// one, the first.
    pub(crate) fn passes(&self) -> impl Iterator<Item = &(Step, LayerTrace)> {
        let calm = [&self.record.calm_trace, &self.record.first_trace].into_iter().flatten();
        self.alarm_pass().into_iter().chain(calm)
    }

    /// The chain of gains of the pass that shows the most.
    pub(crate) fn telling_chain(&self) -> Option<Chain> {
        self.passes().next().map(|pass| self.record.chain(pass))
    }

    /// Takes in a step before its update.
    pub(crate) fn take(&mut self, seen: &Observation<'_>) {
        let is_alarmed = self.is_alarmed();
        self.record.take(seen, is_alarmed);
    }

    /// Takes in probes of a step.
    pub(crate) fn take_trace(&mut self, step: Step, trace: &LayerTrace) {
        let is_alarmed = self.is_alarmed();
        self.record.take_trace(step, trace, is_alarmed);
    }

    /// Notes what the signs say of the latest step.
    pub(crate) fn note_readings(&mut self, readings: Vec<(SignName, Reading)>) {
        self.readings = readings;
    }

    /// Notes findings.
    pub(crate) fn note(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            if finding.is_alarm() {
                if self.last_alarm.is_none() {
                    self.record.freeze();
                }
                self.last_alarm = Some(self.record.clock);
            }
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(finding);
            } else {
                self.findings_dropped = self.findings_dropped.saturating_add(1);
            }
        }
    }

    /// Notes what the guard made the integration do.
    pub(crate) fn note_action(&mut self, step: Step, decision: Decision) {
        self.last_action = Some(self.record.clock);
        if self.actions.len() < ACTIONS_MAX {
            self.actions.push((step, decision));
        } else {
            self.actions_dropped = self.actions_dropped.saturating_add(1);
        }
    }

    /// Lets the baselines take in the latest step.
    pub(crate) fn settle(&mut self) {
        let (is_calm, is_alarmed) = (!self.is_troubled(UNCALM_STEPS), self.is_alarmed());
        self.record.settle(is_calm, is_alarmed);
    }

    /// Starts a new segment after a rewind; the baselines stay.
    pub(crate) fn rewind(&mut self) {
        self.record.rewind();
        self.jump = None;
    }

    /// Goes on from a saved run of the same model; the layout stays, and the facts that are known here.
    pub(crate) fn resume(&mut self, mut saved: Run) {
        let here = &mut self.record;
        saved.record.layout = std::mem::take(&mut here.layout);
        saved.record.facts = std::mem::take(&mut here.facts).or(saved.record.facts.clone());
        *self = saved;
    }

    /// Whether a run that was read back holds together: as many tracks as tensors and layers, and
    /// nothing that has happened later than now.
    pub(crate) fn validate(&self) -> bool {
        let past = [self.last_alarm, self.last_action].into_iter().flatten();
        self.record.validate() && past.max().is_none_or(|at| at <= self.record.clock)
    }
}
