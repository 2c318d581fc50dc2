//! What the learning rate of a log says: it had to come down, and not by plan.

use super::{Alarm, History, Sample};
use crate::evidence::{Measure, Quantity, Reference};
use crate::finding::{Finding, SignName};
use crate::rules::{CutRule, RULES};

/// The numbers.
const RULE: CutRule = RULES.cut.logs;
/// Gaps between cuts that are equal but for this part are those of a plan.
const EVEN: f64 = RULES.log_cut_even;

/// A learning rate that was cut soon after an alarm, that is lower where the run was taken up again,
/// or that was cut again and again at no regular distance, as a scheduler does that reacts.
pub(super) fn falls(history: &History<'_>, alarms: &[Alarm]) -> Option<Finding> {
    let rate = history.learning_rate;
    let cuts = cuts(rate);
    restart(rate)
        .or_else(|| alarms.iter().find_map(|alarm| answer(rate, &cuts, alarm.onset)))
        .or_else(|| many(rate, &cuts))
}

/// The records at which the rate is cut.
fn cuts(rate: &[Sample]) -> Vec<usize> {
    let fall = |at: usize| rate[at - 1].value - rate[at].value;
    let is_cut = |at: &usize| {
        let (before, now) = (rate[at - 1], rate[*at]);
        let last_fall = if *at > 1 { fall(at - 1).abs() } else { 0.0 };
        now.step > before.step
            && now.value > 0.0
            && now.value < RULE.left * before.value
            && fall(*at) > RULE.abrupt * last_fall
    };
    (1..rate.len()).filter(is_cut).collect()
}

/// A step back, but not to the start, from which the run goes on at a lower rate.
fn restart(rate: &[Sample]) -> Option<Finding> {
    let first = rate.first()?.step;
    let lower = |at: usize| {
        let now = rate[at];
        if !(now.step < rate[at - 1].step && now.step > first && now.value > 0.0) {
            return None;
        }
        // The rate that the step had before the run was taken back to it.
        let before = rate[..at].iter().rev().find(|sample| sample.step <= now.step)?;
        (now.value < RULE.left * before.value).then_some((now, before.value))
    };
    let (now, before) = (1..rate.len()).find_map(lower)?;
    let rate = Measure::new(Quantity::LearningRate, now.value);
    strain(now, vec![rate.against(Reference::First, before)])
}

/// A cut soon after an alarm.
fn answer(rate: &[Sample], cuts: &[usize], onset: i64) -> Option<Finding> {
    let begin = rate.iter().position(|sample| sample.step >= onset)?;
    let at = *cuts.iter().find(|at| **at >= begin && (**at - begin) as u64 <= RULE.after_alarm)?;
    let evidence = vec![
        Measure::new(Quantity::LearningRate, rate[at].value)
            .against(Reference::Before, rate[at - 1].value),
        Measure::new(Quantity::RecordsSinceAlarm, (at - begin) as f64),
    ];
    strain(rate[at], evidence)
}

/// Cuts that bring the rate down by ten times, with plateaus of uneven length between them.
fn many(rate: &[Sample], cuts: &[usize]) -> Option<Finding> {
    // A rate that has risen again begins anew: cycles, and the next run of a log.
    let rises = |at: &usize| rate[*at].value > rate[at - 1].value;
    let newest = (1..rate.len()).rev().find(rises).unwrap_or(0);
    let cuts: Vec<usize> = cuts.iter().copied().filter(|at| *at > newest).collect();
    let (&first, &end) = (cuts.first()?, cuts.last()?);
    let total = rate[end].value / rate[first - 1].value;
    let fall = |at: usize| rate[at - 1].value - rate[at].value;
    let plateaus = first..=end;
    let is_smooth = plateaus.filter(|at| fall(*at) > 0.0).count() > cuts.len();
    // Equal falls are those of a straight line that was printed with few digits.
    let is_line = are_even(cuts.iter().map(|at| fall(*at)));
    let is_plan =
        are_even(cuts.windows(2).map(|pair| rate[pair[1]].step as f64 - rate[pair[0]].step as f64));
    if cuts.len() < RULE.count || total > RULE.left_in_all || is_smooth || is_line || is_plan {
        return None;
    }
    let evidence = vec![
        Measure::new(Quantity::LearningRate, rate[end].value)
            .against(Reference::Before, rate[first - 1].value),
        Measure::new(Quantity::LearningRateCuts, cuts.len() as f64),
    ];
    strain(rate[first], evidence)
}

fn are_even(values: impl Iterator<Item = f64>) -> bool {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
    high - low <= EVEN * high
}

fn strain(at: Sample, evidence: Vec<Measure>) -> Option<Finding> {
    super::strain(SignName::LearningRateFalls, at.step, evidence)
}

#[cfg(test)]
mod tests {
    use super::super::check::{calm, samples, strain};
    use super::super::diagnose;
    use super::*;
    use crate::diagnosis::Verdict;

    /// Steps at which a rate of 0.1 is cut to a part of it.
    fn cut_at(steps: &[usize], factor: f64) -> Vec<f64> {
        let rate = |at| 0.1 * factor.powi(steps.iter().filter(|step| at >= **step).count() as i32);
        (0..200).map(rate).collect()
    }

    #[test]
    fn plans_are_no_sign_and_a_reaction_is() {
        let cosine = |i: usize| 0.05 * (1.0 + (i as f64 / 200.0 * std::f64::consts::PI).cos());
        let printed = |value: f64| (1e4 * value).round() / 1e4;
        let warm_up = |i: usize| (i as f64 / 20.0).min((200 - i) as f64 / 180.0);
        let of = |rate: &dyn Fn(usize) -> f64| (0..200).map(rate).collect::<Vec<f64>>();
        // (what, rates, onset)
        let cases: [(&str, Vec<f64>, Option<i64>); 9] = [
            ("constant", vec![1e-3; 200], None),
            ("cosine", of(&cosine), None),
            ("warm-up and a line", of(&warm_up), None),
            ("the same, printed with four digits", of(&|i| printed(4e-4 * warm_up(i))), None),
            ("exponential", of(&|i| 0.1 * 0.9f64.powi(i as i32)), None),
            ("milestones", cut_at(&[100, 150], 0.1), None),
            ("halved at regular distances", cut_at(&[30, 60, 90, 120, 150], 0.5), None),
            ("halved when the loss stood still", cut_at(&[31, 50, 90, 101, 170], 0.5), Some(31)),
            ("cycles", of(&|i| cosine(i % 50)), None),
        ];
        for (what, rates, onset) in cases {
            let (rate, loss) = (samples(&rates), samples(&calm(2.0, 0.1, 200)));
            let history = History { learning_rate: &rate, loss: &loss, ..History::default() };
            assert_eq!(diagnose(&history).verdict, Verdict::Healthy, "{what}");
            assert_eq!(strain(&history), onset, "{what}");
        }
    }

    #[test]
    fn a_cut_after_an_alarm_answers_it() {
        let spike = [900.0, 40.0, 2.1];
        let loss = samples(&[&calm(2.0, 0.1, 40)[..], &spike, &calm(2.0, 0.1, 157)].concat());
        for (at, onset) in [(45, Some(45)), (120, None), (30, None)] {
            let rate = samples(&cut_at(&[at], 0.2));
            let history = History { loss: &loss, learning_rate: &rate, ..History::default() };
            assert_eq!(diagnose(&history).verdict, Verdict::Recovered);
            assert_eq!(strain(&history), onset, "{at}");
        }
    }

    #[test]
    fn a_run_taken_up_again_at_a_lower_rate_is_told_from_another_run() {
        let run = |steps: std::ops::Range<i64>, value: f64| {
            steps.map(move |step| Sample { step, value }).collect::<Vec<Sample>>()
        };
        let onset = |rate: &[Sample]| {
            falls(&History { learning_rate: rate, ..History::default() }, &[])
                .map(|strain| strain.step.0)
        };
        assert_eq!(onset(&[run(0..90, 0.1), run(60..99, 0.02)].concat()), Some(60));
        assert_eq!(onset(&[run(0..90, 0.1), run(60..99, 0.1)].concat()), None);
        assert_eq!(onset(&[run(0..90, 0.1), run(0..99, 0.02)].concat()), None);
    }
}
