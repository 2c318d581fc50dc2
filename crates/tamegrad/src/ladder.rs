//! The ladder: what is done at run time, the least force first, and when to go up a rung.

use std::collections::VecDeque;

use crate::decision::{Decision, GradientAction, UpdateVerdict};
use crate::finding::{Finding, SignName};
use crate::observe::{Step, TensorId, Update};
use crate::rate_limit::RateLimit;
use crate::record::{Row, TensorTrack};
use crate::rules::{LadderRule, RULES};
use crate::run::Run;

/// The numbers.
const RULE: LadderRule = RULES.ladder;

/// State of the ladder.
///
/// Rungs: (1) a non-finite step is skipped; (2) a spike that alarms, or is tall, is scaled to near its own
/// usual norm before the optimizer's moments see it, and an update that would overthrow a matrix is made
/// anew from gradients scaled down; (3) several actions, an alarm of the loss, or any alarm after the
/// learning rate has risen, lower the rate ([`RateLimit`]); (4) a loss that stays up, or a row of skips,
/// rewinds the run; (5) what is left is a change of structure, which is proposed and never done by itself.
/// A step that the data or the loss function has broken is skipped and does not count towards (3).
/// `explain guard` has the numbers.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Ladder {
    actions: VecDeque<u64>,
    rate: RateLimit,
    cut_at: Option<u64>,
    cut_now: bool,
    skips_in_row: u32,
    scales_in_row: u32,
    accepts: bool,
    loss_up: u32,
    rewinds: u32,
    /// Observations since the start, which rewinds do not turn back.
    clock: u64,
}

impl Ladder {
    /// Whether a ladder that was read from a saved state holds together: nothing has happened later
    /// than now.
    pub(crate) fn validate(&self) -> bool {
        self.actions.iter().chain(&self.cut_at).all(|at| *at <= self.clock)
    }

    /// Decides one step. `snapshots` are the steps of the snapshots at hand, oldest first. Where the
    /// loop itself clips the gradient to a norm that is not tall, what is large but finite is
    /// bounded already: while the updates stay small, neither it nor the loss that goes with it is acted
    /// on.
    pub(crate) fn decide(
        &mut self,
        run: &Run,
        fired: &[Finding],
        snapshots: &[Step],
        clipped_to: Option<f64>,
    ) -> Decision {
        self.clock = self.clock.saturating_add(1);
        self.cut_now = false;
        self.accepts = false;
        self.follow_rate(run, fired);
        if is_harmless(run) {
            let gradients = GradientAction::Skip;
            let learning_rate = self.learning_rate();
            return Decision { gradients, learning_rate, ..Decision::default() };
        }
        let is_bounded = clipped_to.is_some_and(|limit| is_bound(run, limit));
        let gradients = if is_bounded && !is_broken(run) {
            GradientAction::Keep
        } else {
            self.gradient_action(run, fired)
        };
        self.count(run, &gradients);
        if is_bounded && has_small_updates(run) && gradients == GradientAction::Keep {
            return Decision { learning_rate: self.learning_rate(), ..Decision::default() };
        }
        let is_of_loss = |finding: &Finding| finding.sign == SignName::LossFluctuates;
        let loss_alarm = fired.iter().any(|finding| is_of_loss(finding) && finding.is_alarm());
        self.watch_loss(run);
        if self.loss_up >= RULE.loss_up_steps || self.skips_in_row >= RULE.skips {
            if let Some(to) = self.rewind_target(run, snapshots) {
                return self.rewind(run, to);
            }
            if self.skips_in_row >= 2 * RULE.skips {
                return Decision { gradients, stop: true, ..Decision::default() };
            }
        }
        let rested = self.cut_at.is_none_or(|at| self.clock - at >= RULE.rest_steps);
        let is_alarm = fired.iter().any(Finding::is_alarm) && !run.breaks_outside();
        let rate_is_suspect = is_alarm && self.rate_has_risen(run);
        if rested && (self.actions.len() >= RULE.actions || loss_alarm || rate_is_suspect) {
            self.back_off(run, RULE.back_off);
        }
        Decision { gradients, learning_rate: self.learning_rate(), rewind: None, stop: false }
    }

    /// Whether the learning rate was cut at the latest step.
    pub(crate) fn cut_now(&self) -> bool {
        self.cut_now
    }

    /// Whether the level of the latest gradients is to be accepted as the new usual.
    pub(crate) fn accepts_level(&self) -> bool {
        self.accepts
    }

    /// Judges an update, of which `ratio` is the largest |dW|/|W| of a matrix. What would break a parameter
    /// is refused, and so is what raises an alarm at a rate that the run has not borne. While the run is in
    /// trouble, what is larger than where trouble begins is shrunk to that, which needs no history.
    pub(crate) fn judge_update(
        &mut self,
        run: &Run,
        updates: &[Option<Update>],
        ratio: f64,
        alarmed: bool,
    ) -> UpdateVerdict {
        if breaks(updates) {
            return UpdateVerdict::Refuse;
        }
        if alarmed && self.rate_has_risen(run) {
            self.back_off(run, RULE.back_off);
            return UpdateVerdict::Refuse;
        }
        let trouble = RULES.update.live.trouble;
        if run.is_troubled(RULE.trouble_steps) && ratio > trouble {
            UpdateVerdict::Shrink(trouble / ratio)
        } else {
            UpdateVerdict::Take
        }
    }

    /// Judges an update that was made anew from smaller gradients. Where that does not make it smaller (Adam
    /// divides the factor away, and momentum has its own), the rate is lowered as far.
    pub(crate) fn takes_shrunk(
        &mut self,
        run: &Run,
        updates: &[Option<Update>],
        ratio: f64,
    ) -> bool {
        let trouble = RULES.update.live.trouble;
        if breaks(updates) {
            return false;
        }
        if ratio > RULE.still_large * trouble {
            self.back_off(run, (trouble / ratio).min(RULE.back_off));
            return false;
        }
        self.actions.push_back(self.clock);
        true
    }

    /// Notes that the update of a step was refused.
    pub(crate) fn note_refusal(&mut self) {
        self.actions.push_back(self.clock);
        self.skips_in_row = self.skips_in_row.saturating_add(1);
    }

    /// Notes an alarm of an update that could not be taken back.
    pub(crate) fn note_taken_alarm(&mut self, run: &Run) {
        if self.rate_has_risen(run) {
            self.back_off(run, RULE.back_off);
        }
    }

    /// Notes that an update which could not be taken back has broken a parameter: the next broken
    /// step rewinds.
    pub(crate) fn note_broken(&mut self) {
        self.skips_in_row = self.skips_in_row.max(RULE.skips);
    }

    fn gradient_action(&self, run: &Run, fired: &[Finding]) -> GradientAction {
        let record = &run.record;
        if is_broken(run) {
            return GradientAction::Skip;
        }
        // A drift, or norms of some times the usual, with the loss in bounds, is how many a run begins
        // to learn: it is a strain to show, and no step is changed for it.
        let acts = |finding: &&Finding| {
            finding.sign == SignName::GradientSpikes
                && (finding.is_alarm()
                    || is_tall(&record.total, record.now().and_then(|row| row.gradient_norm))
                    || finding.place.tensor().is_some_and(|id| {
                        let track = record.tensors.get(id.0);
                        track.is_some_and(|t| is_tall(t, t.latest.map(|stats| stats.l2)))
                    }))
        };
        match fired.iter().find(acts) {
            Some(_) => scale_spikes(run),
            None => GradientAction::Keep,
        }
    }

    fn count(&mut self, run: &Run, action: &GradientAction) {
        while self.actions.front().is_some_and(|at| self.clock - at > RULE.action_window) {
            self.actions.pop_front();
        }
        // A step whose update was refused counted as a skip already: only a step that goes
        // through ends the row.
        let refused_last = self.actions.back() == Some(&(self.clock - 1));
        match action {
            GradientAction::Keep if refused_last => self.scales_in_row = 0,
            GradientAction::Keep => (self.skips_in_row, self.scales_in_row) = (0, 0),
            GradientAction::Skip => {
                (self.skips_in_row, self.scales_in_row) = (self.skips_in_row.saturating_add(1), 0);
                // A smaller step mends neither data nor a loss function.
                if !run.breaks_outside() {
                    self.actions.push_back(self.clock);
                }
            }
            GradientAction::ScaleAll(_) | GradientAction::Scale(_) => {
                (self.skips_in_row, self.scales_in_row) = (0, self.scales_in_row.saturating_add(1));
                let loss = run.record.now().and_then(|row| row.loss);
                let calm = loss.is_some_and(|loss| !run.departs(loss));
                // A row of scaled steps with a calm loss is one action: a new level, not trouble.
                if self.scales_in_row == 1 || !calm {
                    self.actions.push_back(self.clock);
                }
                self.accepts = self.scales_in_row >= RULE.accept_after && calm;
            }
        }
    }

    fn watch_loss(&mut self, run: &Run) {
        let Some(loss) = run.record.now().and_then(|row| row.loss) else { return };
        self.loss_up = if run.departs(loss) {
            self.loss_up.saturating_add(1)
        } else {
            self.loss_up.saturating_sub(1)
        };
    }

    fn rewind_target(&self, run: &Run, snapshots: &[Step]) -> Option<Step> {
        let record = &run.record;
        let now = record.now()?.step.0;
        let far_enough = |step: &&Step| step.0.saturating_add(RULE.rewind_steps) <= now;
        let target = snapshots.iter().rev().find(far_enough).or(snapshots.first())?;
        let was_calm = record.calm_losses.len() >= RULES.departure.losses_min;
        (was_calm && self.rewinds < RULE.rewinds && target.0 < now).then_some(*target)
    }

    fn rewind(&mut self, run: &Run, to: Step) -> Decision {
        self.rewinds = self.rewinds.saturating_add(1);
        (self.loss_up, self.skips_in_row, self.scales_in_row) = (0, 0, 0);
        self.back_off(run, RULE.after_rewind);
        let learning_rate = self.learning_rate();
        Decision { gradients: GradientAction::Skip, learning_rate, rewind: Some(to), stop: false }
    }

    fn back_off(&mut self, run: &Run, left: f64) {
        self.actions.clear();
        let is_new = self.cut_at.is_none_or(|at| self.clock - at > RULE.action_window);
        self.rate.cut(left, &run.record.borne, is_new);
        self.cut_at = Some(self.clock);
        self.cut_now = true;
    }

    /// Lets the limit of the learning rate follow the run.
    fn follow_rate(&mut self, run: &Run, fired: &[Finding]) {
        let Some(row) = run.record.now() else { return };
        let is_calm = !fired.iter().any(Finding::is_alarm)
            && !row.is_broken()
            && !row.loss.is_some_and(|loss| run.departs(loss));
        self.rate.follow(row, is_calm);
    }

    /// Whether the learning rate is far above what the run has borne.
    fn rate_has_risen(&self, run: &Run) -> bool {
        run.record.borne.has_risen(Some(self.rate.rate()))
    }

    /// The factor on the learning rate.
    pub(crate) fn learning_rate(&self) -> f64 {
        self.rate.factor()
    }
}

/// Whether an update makes a parameter that is not finite.
fn breaks(updates: &[Option<Update>]) -> bool {
    updates.iter().flatten().any(|update| update.nonfinite > 0)
}

/// Whether the step has a loss or gradients that are not finite.
fn is_broken(run: &Run) -> bool {
    run.record.now().is_some_and(Row::is_broken)
}

/// Whether the loss is not finite and every gradient is exactly 0: a mean over nothing, as of a batch
/// whose labels are all ignored. There is nothing to learn from the step, and nothing is wrong with the
/// run.
fn is_harmless(run: &Run) -> bool {
    run.record.now().is_some_and(|row| {
        row.loss.is_some_and(|loss| !loss.is_finite())
            && row.nonfinite_gradients == 0
            && row.gradient_norm == Some(0.0)
    })
}

/// Whether a clip at this norm keeps the gradient from being tall. Without a history any clip does.
fn is_bound(run: &Run, limit: f64) -> bool {
    let usual = &run.record.total.gradient;
    usual.count() == 0 || limit.ln() - usual.mean() <= RULE.tall_ratio.ln()
}

/// Whether no update of late has been large enough for trouble.
fn has_small_updates(run: &Run) -> bool {
    run.record.largest_update().is_none_or(|ratio| ratio <= RULES.update.live.trouble)
}

/// Whether a norm is far above what is usual for its track: the rule of a spike.
fn is_spike(track: &TensorTrack, norm: Option<f64>) -> bool {
    let rule = RULES.spike.live;
    norm.filter(|norm| *norm > 0.0).is_some_and(|norm| {
        track.gradient.z(norm.ln()) > rule.sigmas
            && norm.ln() - track.gradient.mean() > rule.ratio.ln()
    })
}

/// Whether a spike is so far above the usual that it is scaled even where no loss departs.
fn is_tall(track: &TensorTrack, norm: Option<f64>) -> bool {
    is_spike(track, norm)
        && norm.is_some_and(|norm| norm.ln() - track.gradient.mean() > RULE.tall_ratio.ln())
}

/// Scales the tensors that spike, or all of them when many do, to some sigmas above their mean.
fn scale_spikes(run: &Run) -> GradientAction {
    let record = &run.record;
    let target = |track: &TensorTrack, norm: f64| {
        let limit = (track.gradient.mean() + RULE.scaled_to * track.gradient.sigma()).exp();
        (track.gradient.count() > 0 && norm > limit).then(|| limit / norm)
    };
    let total = record.now().and_then(|row| row.gradient_norm);
    let settled = record.total.gradient.count() >= RULES.warm_up.live;
    let scale_all = || total.and_then(|norm| target(&record.total, norm));
    if !settled {
        return scale_all().map_or(GradientAction::Keep, GradientAction::ScaleAll);
    }
    let spiking: Vec<(TensorId, f64)> = record
        .tensors
        .iter()
        .enumerate()
        .filter_map(|(index, track)| {
            let norm = track.latest.filter(|stats| stats.l2 > 0.0)?.l2;
            let spikes = is_spike(track, Some(norm));
            Some((TensorId(index), target(track, norm).filter(|_| spikes)?))
        })
        .collect();
    if spiking.is_empty() || spiking.len() as f64 >= RULE.spiking * record.tensors.len() as f64 {
        return scale_all().map_or(GradientAction::Keep, GradientAction::ScaleAll);
    }
    GradientAction::Scale(spiking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_data_breaks_lowers_no_rate() {
        use crate::guard::{Guard, Mode};
        use crate::inspection::{Inspection, Operation, OperationKind};
        use crate::observe::{Layout, NamedInput, Observation, RunFacts};
        use crate::signs::check::stats;
        for (input, module, is_lowered) in
            [(f64::NAN, None, false), (1.0, None, false), (1.0, Some("fc1".to_owned()), true)]
        {
            let mut guard =
                Guard::new(Layout::default(), RunFacts::default(), Mode::Protect.into());
            for step in 0..40 {
                let is_bad = step % 8 == 7;
                let x = stats(if is_bad { input } else { 1.0 });
                let seen = Observation {
                    loss: Some(if is_bad { f64::NAN } else { 1.0 }),
                    gradient_norm: Some(if is_bad { f64::NAN } else { 1.0 }),
                    inputs: &[NamedInput { name: "x", stats: x }],
                    ..crate::signs::check::seen(step, 1.0, &[])
                };
                guard.observe(&seen, &[]);
                let log = Operation::new(OperationKind::Log);
                let operation = Some(Operation { module: module.clone(), ..log });
                if is_bad && input.is_finite() {
                    guard.observe_inspection(Inspection { operation, ..Inspection::default() });
                }
            }
            let lowered = guard.learning_rate_factor() < 1.0;
            assert_eq!(lowered, is_lowered, "{input} {module:?}");
        }
    }

    #[test]
    fn what_has_happened_later_than_now_does_not_hold_together() {
        let ladder = |actions: &[u64], cut_at| Ladder {
            clock: 9,
            actions: actions.iter().copied().collect(),
            cut_at,
            ..Ladder::default()
        };
        assert!(ladder(&[3, 9], Some(9)).validate());
        assert!(!ladder(&[3, 10], None).validate());
        assert!(!ladder(&[], Some(10)).validate());
    }
}
