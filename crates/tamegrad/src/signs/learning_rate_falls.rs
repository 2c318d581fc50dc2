//! Sign: the learning rate has to come down a lot.

use super::Sign;
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::finding::{Finding, Reading, Severity, SignName};
use crate::observe::Step;
use crate::record::CriticalStep;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "learning-rate-falls",
    title: "The learning rate has to come down a lot",
    what: "The run goes on only because its learning rate was cut: by hand, by a scheduler that \
           reacts (ReduceLROnPlateau), or by the guard.",
    why: "A learning rate that has to fall by a factor of ten or a hundred to keep the loss finite \
          mirrors gradients that have grown by as much.",
    rule: |rules| {
        let (cut, logs) = (rules.cut.live, rules.cut.logs);
        format!(
            "A cut leaves less than {} of the rate in one step and is more than {} times as large \
             as the change one step before, so smooth decay is not a cut. The sign fires when a \
             cut comes within {} steps after another alarm, or when {} or more cuts leave at most \
             {} of the rate within a quarter of the run ({} steps where its length is not known). \
             It also fires when the critical step size is {} or less. This is the smallest multiple of the proposed update that raises the \
             loss of its own batch; it is measured once, at an alarm. Planned step decay (a factor \
             of 10, two or three times, spread over the run) does not fire. In logs the sign fires \
             on a cut within {} records after an alarm, on a run resumed at a lower rate, or on {} \
             or more cuts, at intervals that differ by more than {}, that leave at most {} of the rate.",
            cut.left,
            cut.abrupt,
            cut.after_alarm,
            cut.count,
            cut.left_in_all,
            cut.within,
            cut.critical,
            logs.after_alarm,
            logs.count,
            rules.log_cut_even,
            logs.left_in_all,
        )
    },
    example: "Step 512: gradient spike; step 530: learning rate cut from 0.1 to 0.02.",
    remedy: "Find out what made the gradients grow (see the origin and the cause) rather than \
             train on at a rate at which the network learns little.",
    source: "Cohen 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of \
             Stability: the largest stable rate is 2 divided by the sharpness.",
};

/// State: the last rate, the cuts, and whether the critical step size was told.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LearningRateFalls {
    previous: Option<f64>,
    last_fall: f64,
    cuts: Vec<(Step, f64)>,
    told_critical: bool,
}

impl LearningRateFalls {
    /// The measured form: the critical step size, when it is 1 or less, once.
    fn critical(&mut self, run: &Run) -> Option<Finding> {
        let record = &run.record;
        let CriticalStep { step, multiple, sharpness } =
            record.critical_step.filter(|_| !self.told_critical)?;
        self.told_critical = true;
        let limit = RULES.cut.live.critical;
        let rate = record.rows.iter().rev().find(|row| row.step == step)?.learning_rate;
        let sharp = sharpness.zip(rate).filter(|(_, rate)| *rate > 0.0).map(|(sharpness, rate)| {
            // Above 2 / rate a step of plain descent raises the loss.
            Measure::new(Quantity::Sharpness, sharpness).against(Reference::Limit, 2.0 / rate)
        });
        let critical =
            Measure::new(Quantity::CriticalMultiple, multiple).against(Reference::Limit, limit);
        let evidence = [critical].into_iter().chain(sharp).collect();
        let name = SignName::LearningRateFalls;
        (multiple <= limit).then(|| Finding::new(name, step, Severity::Strain, evidence))
    }
}

impl Sign for LearningRateFalls {
    fn read(&mut self, run: &Run) -> Reading {
        if let Some(finding) = self.critical(run) {
            return Reading::Fired(finding);
        }
        let (record, rule) = (&run.record, RULES.cut.live);
        let Some((row, rate)) = record.now().and_then(|row| Some((row, row.learning_rate?))) else {
            return Reading::TooEarly { needs: 2 };
        };
        let Some(previous) = self.previous.replace(rate) else {
            return Reading::TooEarly { needs: 1 };
        };
        let fall = previous - rate;
        let last_fall = std::mem::replace(&mut self.last_fall, fall);
        if !(rate < rule.left * previous && fall > rule.abrupt * last_fall.abs()) {
            return Reading::Quiet;
        }
        let quarter = record.facts.planned_steps.map_or(rule.within, |steps| (steps / 4).max(1));
        self.cuts.retain(|(step, _)| row.step.0.saturating_sub(step.0) <= quarter);
        self.cuts.push((row.step, rate / previous));
        let total: f64 = self.cuts.iter().map(|(_, factor)| factor).product();
        let alarm = run
            .findings()
            .iter()
            .rev()
            .find(|finding| finding.is_alarm() && finding.sign != SignName::LearningRateFalls);
        let since_alarm = alarm.map(|alarm| row.step.0.saturating_sub(alarm.step.0));
        let forced = since_alarm.is_some_and(|steps| steps <= rule.after_alarm);
        let many = self.cuts.len() >= rule.count && total <= rule.left_in_all;
        if !(forced || many) {
            return Reading::Quiet;
        }
        let mut evidence =
            vec![Measure::new(Quantity::LearningRate, rate).against(Reference::Before, previous)];
        if let Some(steps) = since_alarm.filter(|_| forced) {
            evidence.push(Measure::new(Quantity::StepsSinceAlarm, steps as f64));
        }
        if many {
            let left = Measure::new(Quantity::LearningRateLeft, total);
            evidence.push(left.against(Reference::Limit, rule.left_in_all));
        }
        Reading::Fired(Finding::new(
            SignName::LearningRateFalls,
            row.step,
            Severity::Strain,
            evidence,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Layout, Observation, RunFacts};
    use crate::signs::check::{Given, run};

    fn rates(rate: impl Fn(usize) -> f64) -> Vec<Given> {
        (0..1000).map(|i| Given { learning_rate: Some(rate(i)), ..Given::default() }).collect()
    }

    #[test]
    fn planned_schedules_are_quiet_and_a_row_of_cuts_is_not() {
        let cosine = |i: usize| 0.1 * (1.0 + (i as f64 / 1000.0 * std::f64::consts::PI).cos());
        let step_decay = |i: usize| match i {
            0..400 => 0.1,
            400..800 => 0.01,
            _ => 0.001,
        };
        let halved_often = |i: usize| 0.1 * 0.5f64.powi((i / 50).min(8) as i32);
        for (name, given, fires) in [
            ("cosine", rates(cosine), false),
            ("step decay", rates(step_decay), false),
            ("halved every 50 steps", rates(halved_often), true),
        ] {
            let (findings, _) = run(&mut LearningRateFalls::default(), &given);
            assert_eq!(!findings.is_empty(), fires, "{name}: {findings:?}");
        }
    }

    #[test]
    fn the_critical_step_size_is_told_once_when_the_update_itself_raises_the_loss() {
        for (multiple, fires) in [(0.25, 1), (1.0, 1), (4.0, 0)] {
            let mut run = Run::new(Layout::default(), RunFacts::default());
            let (step, learning_rate, sharpness) = (Step(7), Some(0.1), Some(80.0));
            run.take(&Observation { step, learning_rate, ..Observation::default() });
            run.record.critical_step = Some(CriticalStep { step, multiple, sharpness });
            let mut sign = LearningRateFalls::default();
            let told: Vec<_> = (0..3).filter_map(|_| sign.read(&run).fired()).collect();
            assert_eq!(told.len(), fires, "{multiple}");
            let sharp = Measure::new(Quantity::Sharpness, 80.0).against(Reference::Limit, 20.0);
            assert!(told.iter().all(|finding| finding.evidence[1..] == [sharp]), "{told:?}");
        }
    }

    #[test]
    fn a_cut_after_an_alarm_is_forced() {
        for (cut_at, fires) in [(70, true), (300, false)] {
            let mut run = Run::new(Layout::default(), RunFacts::default());
            let mut sign = LearningRateFalls::default();
            let mut fired = false;
            for step in 0..=300 {
                let rate = if step < cut_at { 0.1 } else { 0.02 };
                let (step, learning_rate) = (Step(step), Some(rate));
                run.take(&Observation { step, learning_rate, ..Observation::default() });
                if step == Step(20) {
                    let (sign, severity) = (SignName::GradientSpikes, Severity::Alarm);
                    run.note([Finding::new(sign, step, severity, vec![])]);
                }
                fired |= sign.read(&run).fired().is_some();
            }
            assert_eq!(fired, fires, "alarm at 20, cut at {cut_at}");
        }
    }
}
