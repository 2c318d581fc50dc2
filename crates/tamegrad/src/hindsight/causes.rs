//! Why, and what to do, as far as a log can say.

use super::{Alarm, History, LogCause, LogRemedy, Sample};
use crate::causes::CauseName;
use crate::diagnosis::Verdict;
use crate::finding::Evidence;
use crate::finding::SignName;
use crate::remedies::{RemedyName, two_digits};
use crate::running::median;

/// A learning rate that jumped by so much near the onset is the cause.
const RATE_JUMP: f64 = 3.0;
/// Records before the onset in which the rate may have jumped.
const RATE_RECORDS: usize = 5;
/// An explosion within so many records of the start is one of the initial state.
const START_RECORDS: usize = 3;

/// The causes that the log supports, the best supported first.
pub(super) fn weigh(history: &History<'_>, alarms: &[Alarm]) -> Vec<LogCause> {
    let Some(first) = alarms.first() else { return Vec::new() };
    let found = [
        learning_rate(history, first.onset),
        precision(history, alarms),
        initialisation(history, first),
        dead(first),
    ];
    found.into_iter().flatten().collect()
}

/// The learning rate jumped up just before.
fn learning_rate(history: &History<'_>, onset: i64) -> Option<LogCause> {
    let rate = history.learning_rate;
    let end = rate.iter().position(|sample| sample.step > onset).unwrap_or(rate.len());
    let near = &rate[end.saturating_sub(RATE_RECORDS + 1)..end];
    let jump = near
        .windows(2)
        .find(|pair| pair[0].value > 0.0 && pair[1].value >= RATE_JUMP * pair[0].value)?;
    Some(LogCause {
        name: CauseName::LearningRate,
        evidence: vec![Evidence::against(
            format!("learning rate at step {}", jump[1].step),
            jump[1].value,
            "before",
            jump[0].value,
        )],
    })
}

/// The loss scale collapsed.
fn precision(history: &History<'_>, alarms: &[Alarm]) -> Option<LogCause> {
    let collapse = super::precision::scale_collapse(history)?;
    alarms
        .first()
        .filter(|first| first.onset >= collapse.onset)
        .map(|_| LogCause { name: CauseName::Precision, evidence: collapse.evidence })
}

/// It was so from the first records on.
fn initialisation(history: &History<'_>, first: &Alarm) -> Option<LogCause> {
    let records = if history.loss.is_empty() { history.gradient_norm } else { history.loss };
    let at = records.iter().position(|sample| sample.step >= first.onset)?;
    let begins = records.first().filter(|sample| sample.step <= 1)?;
    (at < START_RECORDS).then(|| LogCause {
        name: CauseName::Initialisation,
        evidence: vec![Evidence::of(
            format!("records before the alarm, from step {} on", begins.step),
            at as f64,
        )],
    })
}

fn dead(first: &Alarm) -> Option<LogCause> {
    (first.verdict == Verdict::Dead)
        .then(|| LogCause { name: CauseName::SpikeThenDead, evidence: first.evidence.clone() })
}

/// What to do, best first: what treats the cause, then what bounds the next event.
pub(super) fn remedies(
    history: &History<'_>,
    first: &Alarm,
    causes: &[LogCause],
) -> Vec<LogRemedy> {
    let mut list: Vec<LogRemedy> = Vec::new();
    let mut add = |name: RemedyName, advice: String| {
        if list.iter().all(|remedy| remedy.name != name) {
            list.push(LogRemedy { name, advice });
        }
    };
    for cause in causes {
        match cause.name {
            CauseName::LearningRate => {
                add(RemedyName::WarmUp, "reach the new learning rate in steps".into());
                add(RemedyName::LowerLearningRate, "stay below the rate that it jumped to".into());
            }
            CauseName::Precision => {
                let advice =
                    "every step overflows whatever the loss scale: go on from a checkpoint \
                              at a lower rate, or train in bf16"
                        .to_owned();
                add(RemedyName::LowerLearningRate, advice);
            }
            CauseName::Initialisation => {
                add(
                    RemedyName::Reinitialise,
                    "draw the weights by the rule of the activation".into(),
                );
                add(
                    RemedyName::ScaleTarget,
                    "if it is a regression: standardise the targets".into(),
                );
                add(RemedyName::WarmUp, "start with a small learning rate".into());
            }
            CauseName::SpikeThenDead => {
                add(
                    RemedyName::ScaleTarget,
                    "if it is a regression: standardise the targets".into(),
                );
            }
            _ => {}
        }
    }
    if first.sign == SignName::LossNonFinite {
        let advice = "leave out steps whose gradients are not finite, moments untouched";
        add(RemedyName::SkipStep, advice.into());
    }
    add(RemedyName::ClipGlobalNorm, clip_advice(history.gradient_norm, first.onset));
    add(RemedyName::LowerLearningRate, rate_advice(history.learning_rate, first.onset));
    let advice = format!("go on from a checkpoint before step {}, past its batches", first.onset);
    add(RemedyName::Rewind, advice);
    list
}

fn clip_advice(norm: &[Sample], onset: i64) -> String {
    let before = norm.iter().filter(|sample| sample.step < onset).map(|sample| sample.value);
    match median(before).filter(|usual| *usual > 0.0) {
        Some(usual) => format!(
            "clip the gradient by its global norm at {}, twice its usual",
            two_digits(2.0 * usual)
        ),
        None => "clip the gradient by its global norm, and log the norm to see where".into(),
    }
}

fn rate_advice(rate: &[Sample], onset: i64) -> String {
    let at = rate.iter().rev().find(|sample| sample.step <= onset && sample.value > 0.0);
    match at {
        Some(at) => {
            format!("lower the learning rate, {} at the onset, to a third", two_digits(at.value))
        }
        None => "lower the learning rate to a third".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{calm, samples};
    use super::super::judge;
    use super::*;

    fn causes_of(history: &History<'_>) -> Vec<CauseName> {
        judge(history).causes.iter().map(|cause| cause.name).collect()
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
        assert_eq!(causes_of(&start), [CauseName::Initialisation]);
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
        let advice: Vec<(RemedyName, String)> =
            judge(&history).remedies.into_iter().map(|r| (r.name, r.advice)).collect();
        assert_eq!(
            advice,
            [
                (
                    RemedyName::ClipGlobalNorm,
                    "clip the gradient by its global norm at 1, twice its usual".to_owned()
                ),
                (
                    RemedyName::LowerLearningRate,
                    "lower the learning rate, 0.0003 at the onset, to a third".to_owned()
                ),
                (
                    RemedyName::Rewind,
                    "go on from a checkpoint before step 40, past its batches".to_owned()
                ),
            ]
        );
    }
}
