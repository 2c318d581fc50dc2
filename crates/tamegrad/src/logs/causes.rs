//! Why, and what to do, as far as a log can say.

use super::{Alarm, History, Sample, step};
use crate::causes::{Cause, CauseName, Ground};
use crate::diagnosis::Verdict;
use crate::evidence::{Measure, Quantity, Reference};
use crate::finding::SignName;
use crate::observe::{Layout, RunFacts};
use crate::origin::Origin;
use crate::remedies::{Case, Proposal, propose_for};
use crate::rules::RULES;
use crate::running::median;

/// The causes that the log supports, the best supported first.
pub(super) fn weigh(history: &History<'_>, alarms: &[Alarm]) -> Vec<Cause> {
    let Some(first) = alarms.first() else { return Vec::new() };
    let found = [learning_rate(history, first.onset), precision(history, alarms), dead(first)];
    found.into_iter().flatten().collect()
}

/// The learning rate jumped up just before.
fn learning_rate(history: &History<'_>, onset: i64) -> Option<Cause> {
    let rule = RULES.rate_cause.logs;
    let rate = history.learning_rate;
    let end = rate.iter().position(|sample| sample.step > onset).unwrap_or(rate.len());
    let near = &rate[end.saturating_sub(rule.within as usize + 1)..end];
    let jump = near
        .windows(2)
        .find(|pair| pair[0].value > 0.0 && pair[1].value >= rule.jump * pair[0].value)?;
    let rate = Measure::new(Quantity::LearningRate, jump[1].value).at_step(step(jump[1].step));
    let evidence = vec![rate.against(Reference::Before, jump[0].value)];
    Some(Cause::new(CauseName::LearningRate, Ground::RateJump, evidence))
}

/// The loss scale collapsed.
fn precision(history: &History<'_>, alarms: &[Alarm]) -> Option<Cause> {
    let collapse = super::precision::scale_collapse(history)?;
    alarms
        .first()
        .filter(|first| first.onset >= collapse.onset)
        .map(|_| Cause::new(CauseName::Precision, Ground::Overflow, collapse.evidence))
}

fn dead(first: &Alarm) -> Option<Cause> {
    (first.verdict == Verdict::Dead)
        .then(|| Cause::new(CauseName::SpikeThenDead, Ground::NoGradient, first.evidence.clone()))
}

/// What to do, best first.
pub(super) fn remedies(
    history: &History<'_>,
    first: &Alarm,
    origin: Option<&Origin>,
    causes: &[Cause],
) -> Vec<Proposal> {
    let rate = history.learning_rate.iter().rev();
    let rate = rate.filter(|sample| {
        sample.step <= first.onset && sample.value > 0.0 && sample.value.is_finite()
    });
    propose_for(&Case {
        layout: &Layout::default(),
        facts: RunFacts::default(),
        origin,
        causes,
        inspection: None,
        usual_rms: None,
        onset: Some(step(first.onset)),
        usual_norm: usual(history.gradient_norm, first.onset),
        learning_rate: rate.map(|sample| sample.value).next(),
        critical_multiple: None,
        broke_at_once: false,
        is_log: true,
        is_broken: first.sign == SignName::LossNonFinite,
    })
}

/// The median of the norms before the onset.
fn usual(norm: &[Sample], onset: i64) -> Option<f64> {
    let before = norm.iter().filter(|sample| sample.step < onset).map(|sample| sample.value);
    median(before).filter(|usual| *usual > 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::check::{calm, samples};
    use super::super::diagnose;
    use super::*;
    use crate::observe::Step;
    use crate::remedies::Change;

    fn causes_of(history: &History<'_>) -> Vec<CauseName> {
        diagnose(history).causes.iter().map(|cause| cause.name).collect()
    }

    #[test]
    fn causes_that_a_log_shows() {
        let loss = samples(&[calm(2.0, 0.1, 40), vec![90.0, 4e3, 9e3, 2e4]].concat());
        let jump = samples(&[vec![1e-3; 40], vec![3e-2; 4]].concat());
        let rate = History { loss: &loss, learning_rate: &jump, ..History::default() };
        assert_eq!(causes_of(&rate), [CauseName::LearningRate]);
        let flat = samples(&[1e-3; 44]);
        assert_eq!(causes_of(&History { learning_rate: &flat, ..rate.clone() }), []);

        let broken = samples(&[f64::NAN; 9]);
        let start = History { loss: &broken, ..History::default() };
        assert_eq!(causes_of(&start), [], "a first record tells of no weights");
    }

    #[test]
    fn remedies_name_the_numbers_of_the_log() {
        let loss = samples(&[calm(2.0, 0.1, 40), vec![90.0, 4e3, 9e3, 2e4]].concat());
        let norm = samples(&[calm(0.5, 0.1, 40), vec![30.0, 90.0, 200.0, 900.0]].concat());
        let rate = samples(&[3e-4; 44]);
        let history = History {
            loss: &loss,
            gradient_norm: &norm,
            learning_rate: &rate,
            ..History::default()
        };
        let changes: Vec<Change> =
            diagnose(&history).remedies.into_iter().map(|r| r.change).collect();
        assert_eq!(
            changes,
            [
                Change::ClipGlobalNorm { max_norm: 1.0 },
                Change::LearningRate { factor: 0.3, from: Some(3e-4) },
                Change::Rewind { before: Step(40) },
            ]
        );
    }

    #[test]
    fn without_a_norm_or_a_rate_the_remedies_say_less() {
        let loss = samples(&[calm(2.0, 0.1, 40), vec![f64::NAN; 4]].concat());
        let history = History { loss: &loss, ..History::default() };
        let changes: Vec<Change> =
            diagnose(&history).remedies.into_iter().map(|r| r.change).collect();
        assert_eq!(
            changes,
            [
                Change::Guard,
                Change::ClipGlobalNorm { max_norm: 1.0 },
                Change::LearningRate { factor: 0.3, from: None },
                Change::Rewind { before: Step(40) },
            ]
        );
    }
}
