//! The diagnosis of a run from its log, which often holds nothing but the loss.
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
mod weights;

use crate::diagnosis::{Diagnosis, Seen, Verdict, summaries};
use crate::evidence::{Measure, Names, Place};
use crate::finding::{Finding, Severity, SignName};
use crate::observe::{Step, TensorId};
use crate::rules::RULES;

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
    /// Other training losses, of other networks or tasks.
    pub other_losses: Vec<&'a [Sample]>,
    /// Parts of [`History::loss`].
    pub parts: Vec<&'a [Sample]>,
    /// Other norms of gradients: of single networks, or groups of parameters.
    pub other_norms: Vec<&'a [Sample]>,
    /// Steps at which the run began again, or went back, though the steps of the log count on.
    pub restarts: Vec<i64>,
    /// Learning rate.
    pub learning_rate: &'a [Sample],
    /// Scale of the loss in mixed precision.
    pub loss_scale: &'a [Sample],
    /// Gradient norm of each tensor, by name.
    pub tensors: Vec<(&'a str, &'a [Sample])>,
    /// A metric on held-out data.
    pub metric: Metric<'a>,
    /// Update ratios |dW|/|W| by what they are of: a weight matrix, or [`ALL_PARAMETERS`].
    pub update_ratios: Vec<(&'a str, &'a [Sample])>,
    /// L2 norm of all parameters.
    pub parameter_norm: &'a [Sample],
}

impl<'a> History<'a> {
    /// All losses that hold something, that of the whole first.
    fn losses(&self) -> impl Iterator<Item = &'a [Sample]> + '_ {
        std::iter::once(self.loss).chain(self.other_losses.iter().copied())
    }

    /// All norms of gradients, in the same way.
    fn norms(&self) -> impl Iterator<Item = &'a [Sample]> + '_ {
        std::iter::once(self.gradient_norm).chain(self.other_norms.iter().copied())
    }
}

/// A metric on held-out data.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metric<'a> {
    /// The measurements.
    pub samples: &'a [Sample],
    /// Whether it is a loss or an error rate, which improves by falling.
    pub is_lower_better: bool,
}

/// The name of the update ratio of the whole network.
pub const ALL_PARAMETERS: &str = "all parameters";

/// A series that is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// A loss: 0 is [`History::loss`], and those from 1 on are [`History::other_losses`].
    Loss(usize),
    /// One of [`History::parts`].
    Part(usize),
    /// A norm, in the same way.
    GradientNorm(usize),
    /// The scale of the loss.
    LossScale,
}

/// A sign that is up somewhere in the log.
#[derive(Debug, Clone, PartialEq)]
struct Alarm {
    sign: SignName,
    /// The series that it is up in.
    of: Judged,
    /// Where it began.
    onset: i64,
    /// The first record that is back at the level before; `None` where the log ends before.
    back: Option<i64>,
    /// What came of it.
    verdict: Verdict,
    evidence: Vec<Measure>,
}

impl Alarm {
    /// One that has not come back.
    fn new(sign: SignName, onset: i64, verdict: Verdict, evidence: Vec<Measure>) -> Self {
        Self { sign, of: Judged::Loss(0), onset, back: None, verdict, evidence }
    }

    /// The same of another series.
    fn of(self, of: Judged) -> Self {
        Self { of, ..self }
    }
}

/// A sign that is up and no explosion by itself: it supports the verdict, and never makes it.
fn strain(sign: SignName, onset: i64, evidence: Vec<Measure>) -> Option<Finding> {
    Some(Finding::new(sign, step(onset), Severity::Strain, evidence))
}

/// Records below which a log without an alarm says nothing.
pub const RECORDS_MIN: usize = RULES.log_records_min;

/// Diagnoses a run from its log. Where the log lacks something, the diagnosis says less.
///
/// ```
/// use tamegrad::Verdict;
/// use tamegrad::logs::{History, Sample, diagnose};
///
/// let value = |step: i64| if step < 40 { 2.0 } else { f64::NAN };
/// let loss: Vec<Sample> = (0..50).map(|step| Sample { step, value: value(step) }).collect();
/// let found = diagnose(&History { loss: &loss, ..History::default() });
/// assert_eq!((found.verdict, found.onset.map(|step| step.0)), (Verdict::Exploded, Some(40)));
/// ```
pub fn diagnose(history: &History<'_>) -> Diagnosis {
    judge(history).0
}

/// [`diagnose`], and the series that decided.
pub fn judge(history: &History<'_>) -> (Diagnosis, Option<Judged>) {
    let names = names(history);
    let alarms = alarms(history);
    let strains = [
        updates::too_large(history, &names),
        metric::stalls(history),
        learning_rate::falls(history, &alarms),
    ];
    let findings = alarms.iter().map(|alarm| {
        Finding::new(alarm.sign, step(alarm.onset), Severity::Alarm, alarm.evidence.clone())
    });
    let series = history.losses().chain(history.norms());
    let records = series.map(<[Sample]>::len).max().unwrap_or(0);
    let is_early = records < RECORDS_MIN || loss::is_up_early(history.loss);
    let verdict = if is_early { Verdict::TooEarly } else { Verdict::Healthy };
    let quiet = Diagnosis {
        signs: summaries(findings.chain(strains.into_iter().flatten())),
        metric: history.metric.samples.last().map(|sample| sample.value),
        ..Diagnosis::empty(verdict, Seen::Records(records as u64), names)
    };
    let Some(first) = alarms.first() else { return (quiet, None) };
    let origin = tensors::origin(history, first.onset);
    let causes = causes::weigh(history, &alarms);
    let back = first.back.filter(|_| first.verdict == Verdict::Recovered);
    let diagnosis = Diagnosis {
        verdict: first.verdict,
        onset: Some(step(first.onset)),
        recovered: back.map(step),
        decided_by: Some(first.sign),
        remedies: causes::remedies(history, first, origin.as_ref(), &causes),
        origin,
        causes,
        ..quiet
    };
    (diagnosis, Some(first.of))
}

/// The alarms of all series, the one that decides first: what lasts goes before what came back. Of what
/// lasts the first to begin decides, of what came back the surest rule.
fn alarms(history: &History<'_>) -> Vec<Alarm> {
    let mut found: Vec<(usize, Alarm)> = Vec::new();
    for (index, loss) in history.losses().enumerate() {
        let alarms = [(0, loss::nonfinite(loss)), (4, loss::explosion(loss, &history.restarts))];
        // A part of a loss that was away for a while did no harm if the whole was not.
        let counts = |alarm: &Alarm| index == 0 || alarm.verdict != Verdict::Recovered;
        let of_loss = alarms.into_iter().filter_map(|(rule, alarm)| Some((rule, alarm?)));
        found.extend(
            of_loss
                .filter(|(_, alarm)| counts(alarm))
                .map(|(rule, alarm)| (rule, alarm.of(Judged::Loss(index)))),
        );
    }
    for (index, part) in history.parts.iter().enumerate() {
        // What a part does is in the whole as well, but for a NaN that is not added up.
        let alarm = loss::nonfinite(part).filter(|alarm| alarm.verdict != Verdict::Recovered);
        found.extend(alarm.map(|alarm| (0, alarm.of(Judged::Part(index)))));
    }
    found.retain(|(_, alarm)| !weights::have_changed(history, alarm));
    let scale = precision::scale_collapse(history);
    found.extend(scale.map(|alarm| (1, alarm.of(Judged::LossScale))));
    for (index, norm) in history.norms().enumerate() {
        let alarms = [
            (2, gradients::nonfinite(norm, history.loss)),
            (3, gradients::huge(norm, history.loss)),
            (5, gradients::growth(norm, history.loss)),
            (6, gradients::joint_spike(norm, history.loss)),
            (7, gradients::repeated_spikes(norm)),
        ];
        let of_norm = alarms.into_iter().filter_map(|(rule, alarm)| Some((rule, alarm?)));
        found.extend(of_norm.map(|(rule, alarm)| (rule, alarm.of(Judged::GradientNorm(index)))));
    }
    // What lasts is one event: the surest rule says what came of it, the earliest where it began.
    let lasts = |alarm: &Alarm| alarm.verdict != Verdict::Recovered;
    let surest = found.iter().filter(|(_, alarm)| lasts(alarm)).min_by_key(|(rule, _)| *rule);
    let surest = surest.map(|(_, alarm)| alarm.verdict);
    found.sort_by_key(|(rule, alarm)| {
        if lasts(alarm) { (false, alarm.onset, *rule) } else { (true, *rule as i64, *rule) }
    });
    let mut alarms: Vec<Alarm> = found.into_iter().map(|(_, alarm)| alarm).collect();
    if let (Some(first), Some(verdict)) = (alarms.first_mut(), surest) {
        first.verdict = verdict;
    }
    alarms
}

/// A step of a log; those before 0 count as 0.
pub fn step(step: i64) -> Step {
    Step(u64::try_from(step).unwrap_or(0))
}

/// The tensors of gradient norms, then those of update ratios.
fn names(history: &History<'_>) -> Names {
    let mut tensors: Vec<String> = Vec::new();
    let norms = history.tensors.iter().map(|(name, _)| *name);
    let ratios = history.update_ratios.iter().map(|(name, _)| *name);
    for name in norms.chain(ratios.filter(|name| *name != ALL_PARAMETERS)) {
        if !tensors.iter().any(|known| known == name) {
            tensors.push(name.to_owned());
        }
    }
    Names { tensors, ..Names::default() }
}

/// The place of a tensor among the names.
fn tensor(names: &Names, name: &str) -> Place {
    let known = names.tensors.iter().position(|known| known == name);
    known.map_or(Place::Run, |index| Place::Tensor(TensorId(index)))
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

    /// The step of the first strain.
    pub(crate) fn strain(history: &History<'_>) -> Option<i64> {
        strains(&diagnose(history)).first().map(|(_, step)| *step)
    }

    /// The strains with their steps, in the order of the signs.
    pub(crate) fn strains(found: &Diagnosis) -> Vec<(SignName, i64)> {
        let findings = found.signs.iter().flat_map(|sign| &sign.findings);
        let strains = findings.filter(|finding| !finding.is_alarm());
        strains.map(|finding| (finding.sign, finding.step.0 as i64)).collect()
    }

    /// The verdict and the onset of a run with these losses and gradient norms.
    pub(crate) fn verdict(loss: &[f64], norm: &[f64]) -> (Verdict, Option<i64>) {
        let (loss, norm) = (samples(loss), samples(norm));
        let history = History { loss: &loss, gradient_norm: &norm, ..History::default() };
        let found = diagnose(&history);
        (found.verdict, found.onset.map(|step| step.0 as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::check::{calm, samples, strains, verdict};
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
            ([i64::MIN, -1, 0, i64::MAX], vec![(SignName::MetricStalls, 0)]),
            ([i64::MAX, i64::MIN, -1, i64::MAX], vec![(SignName::MetricStalls, 0)]),
        ];
        for (steps, want) in cases {
            let (loss, metric) = (at(steps, [2.0; 4]), at(steps, [0.1, 0.11, 0.11, 0.11]));
            let rate = at(steps, [0.1, 0.05, 0.05, 0.001]);
            let metric = Metric { samples: &metric, is_lower_better: false };
            let history =
                History { loss: &loss, learning_rate: &rate, metric, ..History::default() };
            assert_eq!(strains(&diagnose(&history)), want, "{steps:?}");
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
        let found = diagnose(&history);
        assert_eq!((found.verdict, found.onset), (Verdict::Exploded, Some(Step(40))));
        assert_eq!(found.decided_by, Some(SignName::LossNonFinite));
        assert_eq!(found.alarm().map(|alarm| alarm.step), Some(Step(40)));
        let spikes = found.signs.iter().find(|sign| sign.sign == SignName::GradientSpikes);
        assert!(spikes.is_some_and(|sign| sign.count > 0), "{:?}", found.signs);
        assert!(!found.remedies.is_empty());
    }

    #[test]
    fn every_loss_and_norm_is_judged_and_the_one_that_decided_is_told() {
        let quiet = samples(&calm(1.0, 0.05, 40));
        let nan = samples(&[calm(1.0, 0.05, 20), vec![f64::NAN; 20]].concat());
        let away = samples(&[calm(1.0, 0.05, 25), vec![900.0; 15]].concat());
        let spike = samples(&[calm(1.0, 0.05, 25), vec![900.0], calm(1.0, 0.05, 14)].concat());
        let check = |history: History<'_>| {
            let history = History { loss: &quiet, gradient_norm: &quiet, ..history };
            let (found, by) = judge(&history);
            (found.verdict, found.onset.map(|step| step.0), by)
        };
        let none = History::default;
        let healthy = (Verdict::Healthy, None, None);
        let exploded = |by| (Verdict::Exploded, Some(20), Some(by));
        let exploding = |by| (Verdict::Exploding, Some(25), Some(by));
        let losses = vec![&quiet[..], &nan];
        assert_eq!(check(History { other_losses: losses, ..none() }), exploded(Judged::Loss(2)));
        let losses = vec![&away[..]];
        assert_eq!(check(History { other_losses: losses, ..none() }).1, Some(25));
        assert_eq!(check(History { other_losses: vec![&spike], ..none() }), healthy);
        // What a part does is in the whole, but for a NaN.
        assert_eq!(check(History { parts: vec![&away], ..none() }), healthy);
        assert_eq!(check(History { parts: vec![&nan], ..none() }), exploded(Judged::Part(0)));
        let growing: Vec<f64> = (1..16).map(|i| 7f64.powi(i)).collect();
        let growing = samples(&[calm(1.0, 0.05, 25), growing].concat());
        let found = check(History { other_norms: vec![&quiet, &growing], ..none() });
        assert_eq!(found, exploding(Judged::GradientNorm(2)));
    }
}
