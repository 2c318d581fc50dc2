//! Cause: a learning rate that is too high, or a jump of it.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::finding::SignName;
use crate::observe::Step;
use crate::origin::Origin;
use crate::rules::RULES;
use crate::run::Run;
use crate::running::median;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "learning-rate",
    title: "Learning rate too high",
    what: "The step is longer than the region in which the gradient is a good guide, because the \
           rate is too high from the start, was ramped up, or jumped.",
    why: "In a quadratic valley of curvature c, gradient descent diverges above a rate of 2/c: \
          each step overshoots by more than the last. The layers' gains can look normal all the \
          while.",
    rule: |rules| {
        let rule = rules.rate_cause.live;
        format!(
            "Supported when the rate is negative, when it jumps by {} times or more within the {} steps before the \
             alarm (in logs, within {} records), or rises by {} times or more over the {} steps \
             before it. A warm-up (a rate that rises in most of the first {} steps) counts as \
             neither. With less support: the \
             median of the largest update ratios of the last {} steps is above {}, or \
             updates-too-large fires in the first {} steps.",
            rule.jump,
            rule.within,
            rules.rate_cause.logs.within,
            rule.ramp,
            rule.over,
            rule.over,
            rule.updates,
            rules.update.live.trouble,
            rule.first_steps,
        )
    },
    example: "Learning rate raised from 0.05 to 1.5 at step 400; alarm at step 401.",
    remedy: "Lower the rate, or warm up to it.",
    source: "LeCun, Simard, Pearlmutter 1993; Cohen 2021 (edge of stability).",
};

/// Weighs the rate's own history, or else the updates before the alarm.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    risen(run).or_else(|| {
        let evidence = large_updates(run)?;
        Some(Cause::new(CauseName::LearningRate, Ground::LargeUpdates, evidence))
    })
}

/// Weighs the rate's own history up to the alarm, or to the end of a run without one.
pub(super) fn risen(run: &Run) -> Option<Cause> {
    let (record, rule) = (&run.record, RULES.rate_cause.live);
    let end = record.now()?.step;
    let alarm = run.first_alarm().map_or(end, |alarm| alarm.step);
    let cause = |ground, evidence| Some(Cause::new(CauseName::LearningRate, ground, evidence));
    let rates: Vec<(u64, f64)> = record
        .rows
        .iter()
        .filter(|row| row.segment == 0 && row.step <= alarm)
        .filter_map(|row| Some((row.step.0, row.learning_rate?)))
        .collect();
    if let Some((step, rate)) = rates.iter().find(|(_, rate)| *rate < 0.0) {
        let rate = Measure::new(Quantity::LearningRate, *rate).at_step(Step(*step));
        return cause(Ground::RateJump, vec![rate.against(Reference::Limit, 0.0)]);
    }
    let rises = rates.windows(2).filter(|pair| pair[1].1 > pair[0].1).count();
    let warm_up = alarm.0 < rule.over && 2 * rises > rates.len().saturating_sub(1);
    let jump = rates
        .windows(2)
        .filter(|pair| alarm.0.saturating_sub(pair[1].0) <= rule.within)
        .find(|pair| pair[0].1 > 0.0 && pair[1].1 >= rule.jump * pair[0].1);
    if let Some([(_, before), (_, after)]) = jump.filter(|_| !warm_up) {
        let rate = Measure::new(Quantity::LearningRate, *after);
        return cause(Ground::RateJump, vec![rate.against(Reference::Before, *before)]);
    }
    let within =
        |steps: u64| rates.iter().filter(move |(at, _)| alarm.0.saturating_sub(*at) <= steps);
    if let Some((_, before)) = within(rule.over).next()
        && let Some((_, now)) = rates.last()
        && *before > 0.0
        && *now >= rule.ramp * before
        && !warm_up
    {
        let rate = Measure::new(Quantity::LearningRate, *now).over(rule.over.min(alarm.0));
        return cause(Ground::RateRamp, vec![rate.against(Reference::Before, *before)]);
    }
    None
}

/// Update ratios that were in trouble before or at the alarm, from the rows and the sign.
fn large_updates(run: &Run) -> Option<Vec<Measure>> {
    let (record, trouble) = (&run.record, RULES.update.live.trouble);
    let alarm = run.first_alarm()?.step;
    let before = record.rows.iter().filter(|row| row.segment == 0 && row.step < alarm);
    let ratios: Vec<f64> = before.filter_map(|row| row.update_ratio).collect();
    let recent = &ratios[ratios.len().saturating_sub(RULES.rate_cause.live.updates)..];
    let usual = median(recent.iter().copied());
    if let Some(ratio) = usual.filter(|ratio| *ratio > trouble) {
        let ratio = Measure::new(Quantity::UpdateRatio, ratio).over(recent.len() as u64);
        return Some(vec![ratio.against(Reference::Limit, trouble)]);
    }
    let early = run.findings().iter().find(|finding| {
        finding.sign == SignName::UpdatesTooLarge
            && finding.step.0 <= alarm.0
            && finding.step.0 < RULES.rate_cause.live.first_steps
    });
    early.map(|finding| finding.evidence.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{Layout, Observation, RunFacts};

    /// The ground of the cause in a run with these rates that alarms at its last step.
    fn ground_of(steps: u64, rate: impl Fn(u64) -> f64) -> Option<Ground> {
        let run = alarmed(Layout::default(), RunFacts::default(), steps, |step| Observation {
            learning_rate: Some(rate(step)),
            ..Observation::default()
        });
        weigh(&run, None).map(|cause| cause.ground)
    }

    #[test]
    fn a_jump_a_ramp_and_neither() {
        let jump = |step: u64| if step < 195 { 0.01 } else { 0.3 };
        let ramp = |step: u64| 0.01 * 1.01f64.powi(step as i32);
        let constant = |_: u64| 0.01;
        type Rate<'a> = &'a dyn Fn(u64) -> f64;
        let rates: [(&str, Rate<'_>, Option<Ground>); 3] = [
            ("jump", &jump, Some(Ground::RateJump)),
            ("ramp", &ramp, Some(Ground::RateRamp)),
            ("constant", &constant, None),
        ];
        for (name, rate, ground) in rates {
            assert_eq!(ground_of(200, rate), ground, "{name}");
        }
    }

    #[test]
    fn a_rate_below_zero_goes_uphill() {
        let past_its_end = |step: u64| 0.1 * (1.0 - step as f64 / 70.0);
        assert_eq!(ground_of(70, past_its_end), None);
        assert_eq!(ground_of(90, past_its_end), Some(Ground::RateJump));
    }

    #[test]
    fn warming_up_is_no_jump() {
        assert_eq!(ground_of(10, |step| 0.001 * step as f64), None);
        assert_eq!(ground_of(3, |step| 10.0 * (step + 1) as f64), None, "an alarm on the way");
        let cosine = |step: u64| 1e-3 * (1.0 - (step as f64 / 200.0).cos());
        assert_eq!(ground_of(90, cosine), None);
        let jump = |step: u64| if step < 8 { 0.01 } else { 0.3 };
        assert_eq!(ground_of(10, jump), Some(Ground::RateJump), "a jump in the first steps");
    }
}
