//! Sign: the loss fluctuates wildly, or runs away from where it began.

use super::Sign;
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::finding::{Finding, Reading, Severity, SignName};
use crate::rules::{CALM_CHANGES, RULES};
use crate::run::Run;
use crate::running::Window;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "loss-fluctuates",
    title: "Loss fluctuates wildly",
    what: "The loss jumps up and down by far more than it used to, or climbs far above the level \
           at which training began.",
    why: "Updates that are too large throw the parameters from one side of a valley to the other, \
          each time a little higher. The loss shows this before it turns into NaN.",
    rule: |rules| {
        let (swing, away, departure) = (rules.swing, rules.runaway, rules.departure);
        let jump = rules.jump;
        let fires = format!(
            "Changes from step to step are compared with their own spread (the median absolute \
             deviation of the last {} calm changes) and with the descent (how far the loss has come \
             down so far). They are differences, not ratios, because a loss may cross 0. The sign \
             fires on a swing, when {} of the last {} changes exceed {} spreads and {} of the descent. \
             It also fires, without a warm-up, when the loss is above its start by {} times the \
             start's magnitude in {} of the last {} steps. This raises an alarm, unless the updates of \
             the last {} steps are known to be at most {} of the parameters. A swing raises an alarm if \
             the loss has departed and if it lies {} of the descent above its level. Otherwise it is a \
             strain. A loss has departed when it lies more than {} spreads of the last {} calm losses \
             (at least {} of them are needed; a spread is at least {} of the level) and {} of the \
             descent above their median. ",
            swing.window,
            swing.count,
            swing.among,
            swing.spreads,
            swing.of_descent,
            away.times,
            away.count,
            away.among,
            rules.update.live.recent_steps,
            rules.update.live.trouble,
            swing.of_descent_alarm,
            departure.spreads,
            departure.window,
            departure.losses_min,
            departure.spread_min,
            departure.of_descent,
        );
        let jumps = format!(
            "Where updates are known, a jump away from the calm level in one step is put down to the \
             data (other labels, another task) if these conditions hold. There was no alarm and no \
             action for {} steps. Before the jump, no update or gradient was above {} times its mean \
             (or {} sigma) and no learning rate above {} times the median of the last {} steps. Its \
             own gradient is at most {} times the mean. The values in its batch are at most {} times as \
             large as in the batches before. Until the loss has been back for {} steps, such a jump is \
             no departure as long as the loss stays below {} times its height. For logs, see `explain \
             logs`.",
            jump.calm_steps,
            jump.usual,
            jump.usual_sigmas,
            jump.usual,
            jump.steps,
            jump.gradient,
            rules.data.ratio,
            jump.steps,
            jump.margin,
        );
        fires + &jumps
    },
    example: "The loss was 0.31, 0.30, 0.32; then 0.9, 0.2, 2.8, 0.4, 6.1.",
    remedy: "Lower the learning rate or clip the gradient. To find the layer, look at \
             gradient-spikes and updates-too-large.",
    source: "Median absolute deviation: Hampel, JASA 69 (1974). Differences instead of ratios: \
             needed for policy-gradient losses, which cross zero.",
};

/// State: the calm changes, the last changes, and how often the loss was far above its start.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossFluctuates {
    previous: Option<f64>,
    calm_changes: Window<CALM_CHANGES>,
    wild: std::collections::VecDeque<bool>,
    runaway: std::collections::VecDeque<bool>,
}

impl Sign for LossFluctuates {
    fn read(&mut self, run: &Run) -> Reading {
        let (record, rule, warm_up) = (&run.record, RULES.swing, RULES.warm_up.live);
        let Some((row, loss)) = record.now().and_then(|row| Some((row, row.loss?))) else {
            return Reading::TooEarly { needs: warm_up };
        };
        if !loss.is_finite() {
            return Reading::Quiet;
        }
        let fired = |evidence, severity| {
            Reading::Fired(Finding::new(SignName::LossFluctuates, row.step, severity, evidence))
        };
        let previous = self.previous.replace(loss);
        if let Some(evidence) = self.runs_away(run, loss) {
            // The start of a loss that crosses 0 (a critic's, a policy's) may be as small as it likes.
            let trouble = RULES.update.live.trouble;
            let moves_little = record.largest_update().is_some_and(|ratio| ratio <= trouble);
            let severity = if moves_little { Severity::Strain } else { Severity::Alarm };
            return fired(evidence, severity);
        }
        let Some(change) = previous.map(|previous| loss - previous) else {
            return Reading::TooEarly { needs: warm_up };
        };
        let known = self.calm_changes.len() as u32;
        if known < warm_up {
            self.calm_changes.push(change);
            return Reading::TooEarly { needs: warm_up - known };
        }
        let spread = self.calm_changes.spread().unwrap_or(0.0);
        let range = record.loss_range();
        let is_wild =
            change.abs() > rule.spreads * spread && change.abs() > rule.of_descent * range;
        remember(&mut self.wild, is_wild, rule.among);
        // Without a spread so far, nothing says how large a change is usual.
        if !is_wild || spread == 0.0 {
            self.calm_changes.push(change);
        }
        let wild = self.wild.iter().filter(|wild| **wild).count();
        if !(is_wild && wild >= rule.count) {
            return Reading::Quiet;
        }
        let middle = record.calm_losses.median().unwrap_or(loss);
        let grave = run.departs(loss) && loss - middle > rule.of_descent_alarm * range;
        let severity = if grave { Severity::Alarm } else { Severity::Strain };
        let evidence = vec![
            Measure::new(Quantity::LossChange, change).against(Reference::Spread, spread),
            Measure::new(Quantity::WildChanges, wild as f64)
                .over(rule.among as u64)
                .against(Reference::Limit, (rule.count - 1) as f64),
            Measure::new(Quantity::LossChange, change).against(Reference::Descent, range),
        ];
        fired(evidence, severity)
    }
}

impl LossFluctuates {
    fn runs_away(&mut self, run: &Run, loss: f64) -> Option<Vec<Measure>> {
        let rule = RULES.runaway;
        let first = run.record.first_losses.iter().next()?;
        let ceiling = run.jump.as_ref().map_or(f64::NEG_INFINITY, |jump| jump.loss_ceiling);
        let limit = (first + rule.times * first.abs()).max(ceiling);
        remember(&mut self.runaway, loss > limit && loss > first, rule.among);
        let above = self.runaway.iter().filter(|above| **above).count();
        (above >= rule.count && loss > limit)
            .then(|| vec![Measure::new(Quantity::Loss, loss).against(Reference::First, first)])
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
    fn a_hinge_loss_that_is_0_but_for_some_batches_is_calm() {
        let hinge = |i: usize| match i {
            0..80 => 1.0 - i as f64 / 80.0,
            _ if i.is_multiple_of(9) || i.is_multiple_of(31) => 0.3,
            _ => 0.0,
        };
        let (findings, _) = run(&mut LossFluctuates::default(), &losses((0..400).map(hinge)));
        assert_eq!(alarms(&findings), Vec::<u64>::new());
    }

    #[test]
    fn a_loss_that_leaves_0_for_good_is_wild() {
        let leaves = |i: usize| if i < 200 { 0.0 } else { 3.0 * ((i % 5) as f64 + 1.0) };
        let given = losses((0..60).map(falling).chain((60..300).map(leaves)));
        let (findings, _) = run(&mut LossFluctuates::default(), &given);
        assert!(findings.iter().any(|finding| finding.step.0 >= 200), "{findings:?}");
    }

    #[test]
    fn too_early_says_how_many_steps_are_missing() {
        let (_, last) = run(&mut LossFluctuates::default(), &losses((0..51).map(falling)));
        assert_eq!(last, Reading::TooEarly { needs: 51 });
    }
}
