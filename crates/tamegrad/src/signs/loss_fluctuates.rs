//! Sign: the loss fluctuates wildly, or runs away from where it began.

use super::Sign;
use crate::doc::Doc;
use crate::finding::{Evidence, Finding, Severity};
use crate::finding::{Reading, SignName};
use crate::record::Record;
use crate::running::Window;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "loss-fluctuates",
    title: "Loss fluctuates wildly",
    what: "The loss jumps up and down by far more than it used to, or climbs far above the level \
           at which training began.",
    why: "Updates that are too large throw the parameters from one side of a valley to the other, \
          each time a little higher. The loss shows it before it turns into NaN.",
    rule: "Changes from step to step are held against their own history (median absolute \
           deviation of the last 100 calm changes) and against what the loss has come down so \
           far. Fires when 3 of the last 20 changes exceed 8 spreads and a tenth of that descent; \
           or when the loss is above its start by 2 times its start's magnitude in 3 of the last \
           5 steps (no warm-up is needed for that), which is an alarm unless the updates of the \
           last 20 steps are known to be at most 0.1 of the parameters. Otherwise an alarm \
           when the loss lies above its calm level by 4 spreads and half of that descent, else a \
           strain. Differences, not ratios: losses may cross 0. Where updates are known, a jump \
           from the calm level in one step is the data's (other labels, another task) when no \
           update or gradient before it was above twice its mean (or 3 sigma) and no learning rate \
           above twice the usual, its own gradient is within 20 times the mean and its batch \
           within 4 times the sizes of those before. It is no departure, up to 1.5 times its height, until the loss is back.",
    example: "The loss was 0.31, 0.30, 0.32; then 0.9, 0.2, 2.8, 0.4, 6.1.",
    remedy: "Lower the learning rate or clip the gradient; look at gradient-spikes and \
             updates-too-large for the layer.",
    source: "Median absolute deviation: Hampel, JASA 69 (1974). Differences in place of ratios: \
             needed for policy-gradient losses, which cross zero.",
};

/// Up to this largest update, relative to the parameters, a loss that climbs does not explode: the start
/// of a loss that crosses 0 (a critic's, a policy's) may be as small as it likes.
const SMALL_UPDATE: f64 = 0.1;
const SPREADS: f64 = 8.0;
const OF_RANGE: f64 = 0.1;
const OF_RANGE_GRAVE: f64 = 0.5;
const WINDOW: usize = 20;
const WILD_MIN: usize = 3;

/// State: the calm changes, the last changes, and how often the loss was far above its start.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossFluctuates {
    previous: Option<f64>,
    calm_changes: Window<100>,
    wild: std::collections::VecDeque<bool>,
    runaway: std::collections::VecDeque<bool>,
}

impl Sign for LossFluctuates {
    fn name(&self) -> SignName {
        SignName::LossFluctuates
    }

    fn read(&mut self, record: &Record) -> Reading {
        let Some((row, loss)) = record.now().and_then(|row| Some((row, row.loss?))) else {
            return Reading::TooEarly { needs: crate::record::WARM_UP_STEPS };
        };
        if !loss.is_finite() {
            return Reading::Quiet;
        }
        let fired = |evidence, severity| {
            let sign = SignName::LossFluctuates;
            Reading::Fired(Finding {
                sign,
                step: row.step,
                severity,
                tensor: None,
                layer: None,
                evidence,
            })
        };
        let previous = self.previous.replace(loss);
        if let Some(evidence) = self.runs_away(record, loss) {
            let moves_little = record.largest_update().is_some_and(|ratio| ratio <= SMALL_UPDATE);
            let severity = if moves_little { Severity::Strain } else { Severity::Alarm };
            return fired(evidence, severity);
        }
        let Some(change) = previous.map(|previous| loss - previous) else {
            return Reading::TooEarly { needs: crate::record::WARM_UP_STEPS };
        };
        let known = self.calm_changes.len() as u32;
        if known < crate::record::WARM_UP_STEPS {
            self.calm_changes.push(change);
            return Reading::TooEarly { needs: crate::record::WARM_UP_STEPS - known };
        }
        let spread = self.calm_changes.spread().unwrap_or(0.0);
        let range = record.loss_range();
        let is_wild = change.abs() > SPREADS * spread && change.abs() > OF_RANGE * range;
        remember(&mut self.wild, is_wild, WINDOW);
        if !is_wild {
            self.calm_changes.push(change);
        }
        let wild = self.wild.iter().filter(|wild| **wild).count();
        if !(is_wild && wild >= WILD_MIN) {
            return Reading::Quiet;
        }
        let middle = record.calm_losses.median().unwrap_or(loss);
        let grave = record.departs(loss) && loss - middle > OF_RANGE_GRAVE * range;
        let severity = if grave { Severity::Alarm } else { Severity::Strain };
        let evidence = vec![
            Evidence::against("change of the loss", change, "usual spread of its changes", spread),
            Evidence::against("changes beyond it in the last 20", wild as f64, "allowed", 2.0),
            Evidence::against("change of the loss", change, "descent of the loss so far", range),
        ];
        fired(evidence, severity)
    }
}

impl LossFluctuates {
    fn runs_away(&mut self, record: &Record, loss: f64) -> Option<Vec<Evidence>> {
        let first = record.first_losses.iter().next()?;
        let borne = record.jump.as_ref().map_or(f64::NEG_INFINITY, |jump| jump.bears);
        let limit = (first + 2.0 * first.abs()).max(borne);
        remember(&mut self.runaway, loss > limit && loss > first, 5);
        let above = self.runaway.iter().filter(|above| **above).count();
        (above >= 3 && loss > limit)
            .then(|| vec![Evidence::against("loss", loss, "loss at the start", first)])
    }
}

fn remember(window: &mut std::collections::VecDeque<bool>, value: bool, capacity: usize) {
    if window.len() == capacity {
        window.pop_front();
    }
    window.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signs::check::{Given, alarms, noise, run};

    fn losses(values: impl IntoIterator<Item = f64>) -> Vec<Given> {
        values.into_iter().map(|loss| Given { loss: Some(loss), ..Given::default() }).collect()
    }

    fn falling(i: usize) -> f64 {
        2.3 * (-(i as f64) / 60.0).exp() + 0.1 + 0.05 * noise(i)
    }

    #[test]
    fn quiet_on_noise_that_falls_and_on_a_single_jump() {
        let mut one_jump = losses((0..400).map(falling));
        one_jump[300].loss = Some(3.0);
        for given in [losses((0..400).map(falling)), one_jump] {
            let (findings, last) = run(&mut LossFluctuates::default(), &given);
            assert_eq!((findings, last), (vec![], Reading::Quiet));
        }
    }

    #[test]
    fn fires_when_it_swings() {
        let swings = (0..400).map(|i| if i < 300 || i % 3 > 0 { falling(i) } else { 2.5 });
        let (findings, _) = run(&mut LossFluctuates::default(), &losses(swings));
        assert_eq!(findings.first().map(|f| f.step.0), Some(303), "300 up, 301 down, 303 up");
    }

    #[test]
    fn fires_in_the_warm_up_when_the_loss_runs_away() {
        let runaway = losses([2.3, 2.4, 2.2, 30.0, 900.0, 1e4]);
        let (findings, _) = run(&mut LossFluctuates::default(), &runaway);
        assert_eq!(alarms(&findings), [5]);
    }

    #[test]
    fn a_loss_that_drifts_from_near_zero_while_updates_are_small_is_no_alarm() {
        let drifting = |ratio: f64| -> Vec<Given> {
            let loss = |i: usize| 0.01 + 0.5 * (i as f64 / 15.0).sin();
            let given = |i| Given { loss: Some(loss(i)), ratios: vec![ratio], ..Given::default() };
            (0..40).map(given).collect()
        };
        let (small, _) = run(&mut LossFluctuates::default(), &drifting(0.01));
        assert!(!small.is_empty() && alarms(&small).is_empty());
        let (large, _) = run(&mut LossFluctuates::default(), &drifting(0.5));
        assert!(!alarms(&large).is_empty());
    }

    #[test]
    fn a_loss_that_crosses_zero_is_no_reason() {
        let crossing = losses((0..300).map(|i| 0.02 * noise(i) - 0.0001 * i as f64));
        assert_eq!(run(&mut LossFluctuates::default(), &crossing).0, []);
    }

    #[test]
    fn too_early_says_how_many_steps_are_missing() {
        let (_, last) = run(&mut LossFluctuates::default(), &losses((0..51).map(falling)));
        assert_eq!(last, Reading::TooEarly { needs: 51 });
    }
}
