//! Sign: updates are too large.

use std::collections::VecDeque;

use super::Sign;
use crate::cadence::UPDATES_EVERY;
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::finding::{Finding, Reading, Severity, SignName};
use crate::observe::TensorId;
use crate::rules::RULES;
use crate::run::Run;
use crate::running::median;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "updates-too-large",
    title: "Updates are too large",
    what: "One step changes a weight matrix by a large part of its own size, or updates grow with \
           a learning rate that keeps growing, or the loss rises under steps larger than before.",
    why: "The gradient is a local slope. A step that replaces a tenth of a matrix leaves the \
          region in which that slope holds, and the next gradient is taken somewhere else.",
    rule: |rules| {
        let (update, drift, outgrown) = (rules.update.live, rules.rate_drift, rules.outgrown);
        let size = format!(
            "The update ratio of a weight matrix is |dW|/|W| (L2 norms); a few thousandths are \
             usual. The sign fires when a ratio is above {} and above {} times its own mean (after \
             {} steps). A ratio above {} (in the first {} steps, above {}) fires at once and \
             raises an alarm. A lower one raises an alarm if the loss departs too; otherwise it is \
             a strain. A matrix whose RMS is below {} / sqrt(fan-in) starts almost at zero (a class \
             token, a hash grid) and is judged only once it has grown. ",
            update.trouble,
            update.times_usual,
            rules.warm_up.live,
            update.overthrow,
            update.first_steps,
            update.first_overthrow,
            update.size_min,
        );
        let grows = format!(
            "The sign also fires when updates drift upward with the learning rate. For this, the rate \
             must be above every rate before and have grown steadily: by {} times in the last {} \
             steps (by {} times in each quarter of them), and by no less than {} of its growth in the \
             {} before (a linear warm-up grows by less and less). The median ratio of the matrices, \
             taken over {} steps, must be above {} and above {} times what it was {} steps ago. A drift \
             is always an alarm, because such a rate ends in an explosion. ",
            drift.rate_growth,
            drift.half,
            drift.quarter_growth,
            drift.steady,
            drift.half,
            drift.end,
            drift.ratio_min,
            drift.ratio_growth,
            2 * drift.half,
        );
        let rises = format!(
            "Finally, it fires when the loss rises under larger steps than the run has tolerated: its \
             average (decay {}, losses winsorised at {} sigma, sigma known after {} losses and averaged \
             with decay {}) is above its best by {} of its own sigmas and by {} of the descent so far, \
             for {} steps in a row, at a learning rate above {} times every rate at which it was at its \
             best, or with updates (averaged with decay {}) {} times as large, at the same rate, as \
             then. That is an alarm. In logs the same rule is applied to the update ratios (without the \
             first {} records of a tensor, against the {} before) and to the norm of all parameters.",
            outgrown.decay,
            outgrown.winsor_sigmas,
            outgrown.sigma_min,
            outgrown.noise_decay,
            outgrown.sigmas,
            outgrown.of_descent,
            outgrown.steps,
            outgrown.rate_times,
            outgrown.update_decay,
            outgrown.update_times,
            rules.log_update_start,
            rules.log_gradient.window,
        );
        size + &grows + &rises
    },
    example: "output.weight: |dW|/|W| = 0.131 at step 111, mean before it 0.00976.",
    remedy: "Lower the learning rate, warm it up, or clip the gradient. With Adam, check whether \
             its second moment lags (see optimizer-state).",
    source: "LARS (You, Gitman, Ginsburg 2017) and AGC (Brock 2021) bound the same ratio.",
};

/// State: the learning rates and median ratios of the last 200 steps, and the highest rate before.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UpdatesTooLarge {
    /// Learning rate and median update ratio of a step, oldest first.
    window: VecDeque<(f64, f64)>,
    highest_rate: f64,
    /// The latest median ratio, and how many steps ago it was measured: not every update is.
    latest: Option<(f64, u64)>,
}

impl Sign for UpdatesTooLarge {
    fn read(&mut self, run: &Run) -> Reading {
        let (record, warm_up) = (&run.record, RULES.warm_up.live);
        if let Some(finding) = outgrown(run) {
            return Reading::Fired(finding);
        }
        match record.tensors.iter().map(|track| track.update.count()).max() {
            Some(count) if count >= warm_up => Reading::Quiet,
            count => Reading::TooEarly { needs: warm_up - count.unwrap_or(0) },
        }
    }

    fn read_update(&mut self, run: &Run) -> Reading {
        let (record, rule) = (&run.record, RULES.update.live);
        let Some(row) = record.now() else { return Reading::Quiet };
        let is_first = record.clock <= rule.first_steps;
        let overthrow = if is_first { rule.first_overthrow } else { rule.overthrow };
        let too_large = record.tensors.iter().enumerate().filter_map(|(index, track)| {
            let update = track.latest_update.filter(|update| update.nonfinite == 0)?;
            let ratio = update.ratio();
            let usual = track.update.mean().exp();
            let settled = track.update.count() >= RULES.warm_up.live;
            let in_trouble = ratio > rule.trouble && ratio > rule.times_usual * usual;
            let fires = ratio > overthrow || (settled && in_trouble);
            let is_judged = record.layout.tensors[index].is_judged_by(&update);
            (is_judged && fires).then_some((index, ratio, usual))
        });
        let largest = too_large.max_by(|a, b| a.1.total_cmp(&b.1));
        let drift = self.drift(run);
        let Some((index, ratio, usual)) = largest else {
            return drift.map_or(Reading::Quiet, |evidence| {
                Reading::Fired(Finding::new(
                    SignName::UpdatesTooLarge,
                    row.step,
                    Severity::Alarm,
                    evidence,
                ))
            });
        };
        let departs = row.loss.is_some_and(|loss| run.departs(loss));
        let grave = ratio > overthrow || departs;
        let place = Place::Tensor(TensorId(index));
        let settled = record.tensors[index].update.count() > 0;
        let (reference, limit) =
            if settled { (Reference::Usual, usual) } else { (Reference::Limit, rule.trouble) };
        let ratio = Measure::new(Quantity::UpdateRatio, ratio).at(place).against(reference, limit);
        let severity = if grave { Severity::Alarm } else { Severity::Strain };
        let found = Finding::new(SignName::UpdatesTooLarge, row.step, severity, vec![ratio]);
        Reading::Fired(found.at(place))
    }
}

/// A loss that has risen under steps larger than those that the run has borne.
fn outgrown(run: &Run) -> Option<Finding> {
    let found = run.record.borne.outgrown()?;
    let evidence = vec![
        Measure::new(Quantity::Loss, found.loss).against(Reference::Best, found.best_loss),
        Measure::new(found.quantity, found.value).against(Reference::Before, found.borne),
    ];
    let step = run.record.now()?.step;
    Some(Finding::new(SignName::UpdatesTooLarge, step, Severity::Alarm, evidence))
}

impl UpdatesTooLarge {
    /// Takes the step into the window, and says whether updates drift upward with the rate.
    fn drift(&mut self, run: &Run) -> Option<Vec<Measure>> {
        let (record, rule) = (&run.record, RULES.rate_drift);
        let half = rule.half;
        let rate = record.now()?.learning_rate?;
        let matrices = record.tensors.iter().zip(&record.layout.tensors);
        let measured = median(
            matrices
                .filter_map(|(track, info)| Some((track.latest_update?, info)))
                .filter(|(update, info)| info.is_judged_by(update))
                .map(|(update, _)| update.ratio()),
        );
        let held = self.latest.map(|(ratio, steps)| (ratio, steps + 1));
        self.latest = measured.map(|ratio| (ratio, 0)).or(held);
        let (ratio, _) = self.latest.filter(|(_, steps)| *steps < UPDATES_EVERY)?;
        if self.window.len() == 2 * half + 1
            && let Some((oldest, _)) = self.window.pop_front()
        {
            self.highest_rate = self.highest_rate.max(oldest);
        }
        self.window.push_back((rate, ratio));
        if self.window.len() <= 2 * half {
            return None;
        }
        let (then, between) = (self.window[0].0, self.window[half].0);
        let quarters = || (0..4).map(|part| half + part * half / 4);
        let keeps_growing = quarters()
            .all(|at| self.window[at + half / 4].0 >= rule.quarter_growth * self.window[at].0);
        let grows = keeps_growing
            && rate >= rule.rate_growth * between
            && rate * then >= rule.steady * between * between
            && rate > self.highest_rate;
        let before =
            median(self.window.iter().take(RULES.rate_drift.end).map(|(_, ratio)| *ratio))?;
        let now =
            median(self.window.iter().rev().take(RULES.rate_drift.end).map(|(_, ratio)| *ratio))?;
        (grows && now >= rule.ratio_min && now >= rule.ratio_growth * before).then(|| {
            vec![
                Measure::new(Quantity::MedianUpdateRatio, now)
                    .over(2 * half as u64)
                    .against(Reference::Before, before),
                Measure::new(Quantity::LearningRate, rate)
                    .over(half as u64)
                    .against(Reference::Before, between),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signs::check::{Given, alarms, noise, run, steps, tensors};

    fn run_with(ratio_at_150: f64) -> Vec<Given> {
        let ratio = |i: usize| if i == 150 { ratio_at_150 } else { 0.003 * (1.0 + 0.5 * noise(i)) };
        (0..200)
            .map(|i| Given { loss: Some(1.0), ratios: vec![0.003, ratio(i)], ..Given::default() })
            .collect()
    }

    #[test]
    fn fires_on_trouble_and_alarms_on_overthrow() {
        for (ratio, strains_at, alarms_at) in
            [(0.05, vec![], vec![]), (0.3, vec![150], vec![]), (2.5, vec![150], vec![150])]
        {
            let (findings, _) = run(&mut UpdatesTooLarge::default(), &run_with(ratio));
            assert_eq!(steps(&findings), strains_at, "{ratio}");
            assert_eq!(alarms(&findings), alarms_at, "{ratio}");
            assert!(tensors(&findings).iter().all(|t| *t == Some(TensorId(1))), "{ratio}");
        }
    }

    #[test]
    fn an_overthrow_in_the_warm_up_counts() {
        for (ratio, fires) in [(40.0, vec![0]), (1.5, vec![])] {
            let given = [Given { ratios: vec![0.01, ratio], ..Given::default() }];
            assert_eq!(alarms(&run(&mut UpdatesTooLarge::default(), &given).0), fires, "{ratio}");
        }
    }

    #[test]
    fn ten_per_cent_that_is_usual_for_a_tensor_is_no_news() {
        let given = vec![Given { ratios: vec![0.12], ..Given::default() }; 200];
        assert_eq!(run(&mut UpdatesTooLarge::default(), &given), (vec![], Reading::Quiet));
    }

    /// The first alarm of a run with these learning rates, whose updates are in proportion.
    fn first_alarm(steps: usize, rate: impl Fn(usize) -> f64) -> Option<u64> {
        first_alarm_of(steps, &rate, &rate)
    }

    fn first_alarm_of(
        steps: usize,
        rate: impl Fn(usize) -> f64,
        ratio: impl Fn(usize) -> f64,
    ) -> Option<u64> {
        let given: Vec<Given> = (0..steps)
            .map(|i| Given {
                learning_rate: Some(rate(i)),
                ratios: (0..3).map(|k| ratio(i) * (1.0 + 0.3 * noise(3 * i + k))).collect(),
                ..Given::default()
            })
            .collect();
        alarms(&run(&mut UpdatesTooLarge::default(), &given).0).first().copied()
    }

    #[test]
    fn a_rate_that_hardly_grows_is_no_drift_however_the_updates_grow() {
        // 0.34% and 0.5% a step are 1.4 and 1.65 in 100 steps.
        for (growth, alarmed) in [(1.0034f64, false), (1.005, true)] {
            let rate = |i: usize| 0.003 * growth.powi(i as i32);
            let alarm = first_alarm_of(400, rate, |i| rate(i) * growth.powi(i as i32));
            assert_eq!(alarm.is_some(), alarmed, "{growth}: {alarm:?}");
        }
    }

    #[test]
    fn updates_that_grow_with_a_rate_that_keeps_growing_are_an_alarm() {
        let ramp = |i: usize| 0.003 * 1.01f64.powi(i.saturating_sub(300) as i32);
        let alarm = first_alarm(700, ramp).expect("an alarm");
        assert!((385..410).contains(&alarm), "{alarm}");
        let slow = |i: usize| 0.003 * 1.005f64.powi(i.saturating_sub(300) as i32);
        let alarm = first_alarm(700, slow).expect("an alarm");
        assert!((395..500).contains(&alarm), "{alarm}");
    }

    #[test]
    fn a_ramp_is_seen_where_every_eighth_update_is_measured() {
        let rate = |i: usize| 0.003 * 1.01f64.powi(i.saturating_sub(300) as i32);
        let mut given: Vec<Given> = (0..700)
            .map(|i| Given {
                learning_rate: Some(rate(i)),
                ratios: vec![rate(i)],
                ..Given::default()
            })
            .collect();
        let thin_out = |given: &mut [Given], every: usize| {
            let seen = |(i, step): (usize, &mut Given)| {
                if i >= 128 && i % every != 0 {
                    step.ratios.clear()
                }
            };
            given.iter_mut().enumerate().for_each(seen);
        };
        thin_out(&mut given, 8);
        let alarm = alarms(&run(&mut UpdatesTooLarge::default(), &given).0).first().copied();
        assert!(alarm.is_some_and(|alarm| (385..418).contains(&alarm)), "{alarm:?}");
        // Of what was measured long ago nothing is known.
        thin_out(&mut given, 1000);
        assert_eq!(alarms(&run(&mut UpdatesTooLarge::default(), &given).0), [0_u64; 0]);
    }

    #[test]
    fn warm_ups_restarts_and_steps_of_a_schedule_are_none() {
        let warm_up = |long: f64| move |i: usize| 0.01 * ((i + 1) as f64 / long).min(1.0);
        for long in [10.0, 100.0, 400.0, 1500.0] {
            assert_eq!(first_alarm(2000, warm_up(long)), None, "{long}");
        }
        let restarts =
            |i: usize| 0.01 * (0.01 + (std::f64::consts::PI * i as f64 / 300.0).cos().abs());
        assert_eq!(first_alarm(2000, restarts), None);
        assert_eq!(first_alarm(2000, |i| if i < 500 { 0.002 } else { 0.004 }), None);
        let tiny = |i: usize| 1e-6 * 1.01f64.powi(i as i32);
        assert_eq!(first_alarm(600, tiny), None, "updates of a thousandth are no matter");
    }
}
