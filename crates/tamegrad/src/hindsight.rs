//! A verdict on a run that is over, from what a log holds: often nothing but the loss.
//!
//! The guard judges a step before it is taken and needs one record a step. A log has one record in
//! ten steps, or one an epoch, and can be looked at from its end: so the rules here compare records
//! with their neighbours on both sides, and count in records, not in steps.

mod causes;
mod gradients;
mod learning_rate;
mod loss;
mod metric;
mod precision;
mod tensors;
mod updates;

use crate::causes::CauseName;
use crate::diagnosis::Verdict;
use crate::finding::Evidence;
use crate::finding::SignName;
use crate::remedies::RemedyName;
use crate::running::median;

/// One logged number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The step it was logged at.
    pub step: i64,
    /// The number, NaN and infinity included.
    pub value: f64,
}

/// What a log holds of a run, each in the order of the log; empty where it holds nothing.
#[derive(Debug, Clone, Default)]
pub struct History<'a> {
    /// Training loss.
    pub loss: &'a [Sample],
    /// L2 norm of the whole gradient.
    pub gradient_norm: &'a [Sample],
    /// Learning rate.
    pub learning_rate: &'a [Sample],
    /// Scale of the loss in mixed precision.
    pub loss_scale: &'a [Sample],
    /// Gradient norm of each tensor, by name.
    pub tensors: Vec<(&'a str, &'a [Sample])>,
    /// A metric on held-out data.
    pub metric: Metric<'a>,
    /// Update ratios |dW|/|W| by what they are of: a weight matrix, or all parameters.
    pub update_ratios: Vec<(&'a str, &'a [Sample])>,
    /// L2 norm of all parameters.
    pub parameter_norm: &'a [Sample],
}

/// A metric on held-out data.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metric<'a> {
    /// The measurements.
    pub samples: &'a [Sample],
    /// Whether it is a loss or an error rate, which improves by falling.
    pub is_lower_better: bool,
}

/// A sign that is up somewhere in the log, with the numbers that show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    /// Which sign.
    pub sign: SignName,
    /// Where it began.
    pub onset: i64,
    /// The first record that is back at the level before; `None` where the log ends before.
    pub back: Option<i64>,
    /// What came of it.
    pub verdict: Verdict,
    /// The numbers.
    pub evidence: Vec<Evidence>,
}

/// A sign that is up and no explosion by itself: it supports the verdict, and never makes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Strain {
    /// Which sign.
    pub sign: SignName,
    /// Where it began.
    pub onset: i64,
    /// The numbers.
    pub evidence: Vec<Evidence>,
}

/// A cause that the log supports.
#[derive(Debug, Clone, PartialEq)]
pub struct LogCause {
    /// Which.
    pub name: CauseName,
    /// The numbers.
    pub evidence: Vec<Evidence>,
}

/// A remedy, with the numbers of this log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRemedy {
    /// Which.
    pub name: RemedyName,
    /// What to set, in words.
    pub advice: String,
}

/// Where it began, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct LogOrigin {
    /// The tensor whose gradient norm left its own history first.
    pub tensor: String,
    /// The numbers.
    pub evidence: Vec<Evidence>,
}

/// What a log says of its run.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The step at which it began.
    pub onset: Option<i64>,
    /// The step from which on the run was back at its level.
    pub recovered: Option<i64>,
    /// The signs that are up, the one that decided first.
    pub alarms: Vec<Alarm>,
    /// Further signs that are up, in a healthy run as well.
    pub strains: Vec<Strain>,
    /// Where it began, if the log has single tensors and one stands out.
    pub origin: Option<LogOrigin>,
    /// Why, the best supported first; empty when unknown.
    pub causes: Vec<LogCause>,
    /// What to do, best first.
    pub remedies: Vec<LogRemedy>,
}

/// Records below which a log without an alarm says nothing.
pub const RECORDS_MIN: usize = 3;

/// Judges a run from its log. Where the log lacks something, the judgement says less.
pub fn judge(history: &History<'_>) -> Judgement {
    let found = [
        loss::nonfinite(history),
        precision::scale_collapse(history),
        gradients::nonfinite(history),
        gradients::huge(history),
        loss::explosion(history),
        gradients::growth(history),
        gradients::repeated_spikes(history),
    ];
    let alarms: Vec<Alarm> = found.into_iter().flatten().collect();
    let strains = [
        updates::too_large(history),
        metric::stalls(history),
        learning_rate::falls(history, &alarms),
    ];
    let strains: Vec<Strain> = strains.into_iter().flatten().collect();
    let records = history.loss.len().max(history.gradient_norm.len());
    let Some(first) = alarms.first() else {
        let verdict = if records < RECORDS_MIN { Verdict::TooEarly } else { Verdict::Healthy };
        return Judgement {
            verdict,
            onset: None,
            recovered: None,
            alarms,
            strains,
            origin: None,
            causes: Vec::new(),
            remedies: Vec::new(),
        };
    };
    let causes = causes::weigh(history, &alarms);
    Judgement {
        verdict: first.verdict,
        onset: Some(first.onset),
        recovered: first.back.filter(|_| first.verdict == Verdict::Recovered),
        origin: tensors::origin(history, first.onset),
        remedies: causes::remedies(history, first, &causes),
        causes,
        alarms,
        strains,
    }
}

/// Centre and robust spread of values: the median and 1.4826 times the median distance from it.
fn centre_and_spread(values: &[f64]) -> (f64, f64) {
    let centre = median(values.iter().copied()).unwrap_or(0.0);
    let distance = median(values.iter().map(|value| (value - centre).abs())).unwrap_or(0.0);
    (centre, 1.4826 * distance)
}

/// The last `count` of the values, or all.
fn last(values: &[f64], count: usize) -> &[f64] {
    &values[values.len().saturating_sub(count)..]
}

/// Tests of the rules: runs as data.
#[cfg(test)]
pub(crate) mod check {
    use super::*;

    /// Samples at steps 0, 1, ...
    pub(crate) fn samples(values: &[f64]) -> Vec<Sample> {
        values.iter().enumerate().map(|(i, &value)| Sample { step: i as i64, value }).collect()
    }

    /// `count` values round `level` with a repeating wobble of `spread`, scripted, not drawn.
    pub(crate) fn calm(level: f64, spread: f64, count: usize) -> Vec<f64> {
        let wobble = [0.0, 1.0, -0.6, 0.3, -1.0, 0.7, -0.2];
        (0..count).map(|i| level + spread * wobble[i % wobble.len()]).collect()
    }

    /// The verdict and the onset of a run with these losses and gradient norms.
    pub(crate) fn verdict(loss: &[f64], norm: &[f64]) -> (Verdict, Option<i64>) {
        let (loss, norm) = (samples(loss), samples(norm));
        let history = History { loss: &loss, gradient_norm: &norm, ..History::default() };
        let judgement = judge(&history);
        (judgement.verdict, judgement.onset)
    }
}

#[cfg(test)]
mod tests {
    use super::check::{calm, samples, verdict};
    use super::*;

    #[test]
    fn few_records_are_too_early_and_calm_ones_healthy() {
        assert_eq!(verdict(&[1.0, 0.9], &[]), (Verdict::TooEarly, None));
        assert_eq!(verdict(&calm(2.0, 0.1, 60), &calm(0.5, 0.2, 60)), (Verdict::Healthy, None));
        assert_eq!(verdict(&[], &[]), (Verdict::TooEarly, None));
    }

    /// In builds with overflow checks, as tests are, a sum beyond the range panics.
    #[test]
    fn steps_at_the_ends_of_their_range_are_borne() {
        let at = |steps: [i64; 4], values: [f64; 4]| -> Vec<Sample> {
            steps.into_iter().zip(values).map(|(step, value)| Sample { step, value }).collect()
        };
        let cases = [
            ([i64::MIN, -1, 0, i64::MAX], vec![(SignName::MetricStalls, i64::MIN)]),
            ([i64::MAX, i64::MIN, -1, i64::MAX], vec![(SignName::MetricStalls, i64::MIN)]),
        ];
        for (steps, strains) in cases {
            let (loss, metric) = (at(steps, [2.0; 4]), at(steps, [0.1, 0.11, 0.11, 0.11]));
            let rate = at(steps, [0.1, 0.05, 0.05, 0.001]);
            let metric = Metric { samples: &metric, is_lower_better: false };
            let judgement =
                judge(&History { loss: &loss, learning_rate: &rate, metric, ..History::default() });
            let found = judgement.strains.iter().map(|strain| (strain.sign, strain.onset));
            assert_eq!(found.collect::<Vec<_>>(), strains, "{steps:?}");
        }
    }

    /// The published chronicle of BLOOM-176B, after a calm history made for it.
    #[test]
    fn bloom_alarms_at_its_third_step() {
        let norms = [0.242, 0.947, 2.39, 15.9, 145.0, 960.0];
        let losses = [2.199, 2.220, 2.595, 2.242, 2.345, 5.098];
        let (calm_norm, calm_loss) = (calm(0.24, 0.02, 60), calm(2.2, 0.02, 60));
        for seen in 3..=6 {
            let norm = [&calm_norm[..], &norms[..seen]].concat();
            let loss = [&calm_loss[..], &losses[..seen]].concat();
            let (got, onset) = verdict(&loss, &norm);
            assert_eq!(got, Verdict::Exploding, "after {seen} steps");
            // step 31214 is record 60
            assert!(matches!(onset, Some(61 | 62)), "{onset:?} after {seen} steps");
        }
        let norm = [&calm_norm[..], &norms[..2]].concat();
        let loss = [&calm_loss[..], &losses[..2]].concat();
        assert_eq!(verdict(&loss, &norm).0, Verdict::Healthy);
    }

    #[test]
    fn the_first_rule_decides_and_the_others_are_listed() {
        let loss =
            samples(&[calm(2.0, 0.1, 40), vec![300.0, 4e4, 5e9, f64::NAN, f64::NAN]].concat());
        let norm =
            samples(&[calm(0.5, 0.1, 40), vec![80.0, 3e3, 2e9, f64::NAN, f64::NAN]].concat());
        let history = History { loss: &loss, gradient_norm: &norm, ..History::default() };
        let judgement = judge(&history);
        assert_eq!((judgement.verdict, judgement.onset), (Verdict::Exploded, Some(40)));
        let signs: Vec<SignName> = judgement.alarms.iter().map(|alarm| alarm.sign).collect();
        assert_eq!(signs[0], SignName::LossNonFinite);
        assert!(signs.contains(&SignName::GradientSpikes), "{signs:?}");
        assert!(!judgement.remedies.is_empty());
    }
}
