//! What the norm of the whole gradient says: NaN and Inf, growth, spikes that come again.

use super::{Alarm, RECORDS_MIN, Sample, last};
use crate::diagnosis::Verdict;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::finding::SignName;
use crate::rules::{LogGradientRule, RULES};
use crate::running::{centre_and_spread, median};

/// The numbers.
const RULE: LogGradientRule = RULES.log_gradient;
/// Records that make a history.
const WINDOW_MIN: usize = RULES.warm_up.logs as usize;

/// Gradient norms that are NaN or Inf again and again, or at the end of the log. One alone is a step
/// that mixed precision leaves out.
pub(super) fn nonfinite(norm: &[Sample], loss: &[Sample]) -> Option<Alarm> {
    let broken: Vec<&Sample> = norm.iter().filter(|sample| !sample.value.is_finite()).collect();
    let first = broken.first()?;
    let ending = norm.iter().rev().take_while(|sample| !sample.value.is_finite()).count();
    // Nothing shows that the run went on after these.
    let went_on = loss.last().is_some_and(|last| {
        last.value.is_finite() && norm.last().is_some_and(|norm| last.step > norm.step)
    });
    let ends_in_nan = norm.last().is_some_and(|last| last.value.is_nan()) && !went_on;
    let is_often = broken.len() >= RULE.broken
        && (ending > 0 || broken.len() as f64 > RULE.broken_part * norm.len() as f64);
    // The mean over many steps is Inf if mixed precision left out one of them.
    let is_mean = broken.iter().all(|sample| !sample.value.is_nan()) && is_calm(loss, first.step);
    if !is_often && !ends_in_nan || is_mean {
        return None;
    }
    let onset = if is_often { first.step } else { norm[norm.len() - ending].step };
    let count = Measure::new(Quantity::NonFiniteRecords, broken.len() as f64).at(Place::Gradients);
    let evidence = vec![count.against(Reference::Total, norm.len() as f64)];
    Some(Alarm::new(SignName::LossNonFinite, onset, Verdict::Exploded, evidence))
}

/// Whether the loss from a step on is finite and ends no higher than it was.
fn is_calm(loss: &[Sample], from: i64) -> bool {
    let since: Vec<f64> = loss.iter().filter(|s| s.step >= from).map(|s| s.value).collect();
    let (begin, end) = (since.get(..since.len().min(3)), median(last(&since, 3).iter().copied()));
    let begin = begin.and_then(|begin| median(begin.iter().copied()));
    since.len() >= RECORDS_MIN
        && since.iter().all(|value| value.is_finite())
        && begin.zip(end).is_some_and(|(begin, end)| end <= begin)
}

/// A norm hundreds of times its usual together with a loss that more than doubles, and both come back:
/// a spike, though it may be a single record.
pub(super) fn joint_spike(norm: &[Sample], loss: &[Sample]) -> Option<Alarm> {
    let rule = RULES.log_joint_spike;
    let measured = measure(norm);
    let at = (0..norm.len()).find(|at| {
        rule.is_spike(measured[*at].factor, measured[*at].sigmas)
            && loss_leaps(loss, norm[*at].step)
    })?;
    let lesser = RULES.log_lesser_spike;
    let back = (at + 1..norm.len())
        .find(|later| !measured[*later].is_above(RULE.growth_begin, lesser.sigmas));
    let evidence = vec![
        norm_of(norm[at].value).against(Reference::Usual, measured[at].usual),
        Measure::new(Quantity::GradientSpikes, 1.0),
    ];
    let verdict = if back.is_some() { Verdict::Recovered } else { Verdict::Exploding };
    let alarm = Alarm::new(SignName::GradientSpikes, norm[at].step, verdict, evidence);
    Some(Alarm { back: back.map(|at| norm[at].step), ..alarm })
}

/// Whether the loss at a step, or at the record after it, is more than twice all that came shortly before.
fn loss_leaps(loss: &[Sample], at: i64) -> bool {
    let begin = loss.iter().position(|sample| sample.step >= at).unwrap_or(loss.len());
    let before = &loss[begin.saturating_sub(WINDOW_MIN)..begin];
    let highest = before.iter().map(|sample| sample.value).fold(0.0, f64::max);
    let now = loss[begin..].iter().take(2).map(|sample| sample.value);
    before.len() >= 5
        && highest > 0.0
        && now.into_iter().any(|value| value > RULE.loss_leap * highest)
}

/// A norm that no healthy run was seen with, where the loss does not fall all the same.
pub(super) fn huge(norm: &[Sample], loss: &[Sample]) -> Option<Alarm> {
    let absurd = RULES.high_gradient.logs.absurd;
    let at = norm.iter().find(|s| s.value.is_finite() && s.value > absurd)?;
    let loss: Vec<f64> = loss.iter().filter(|s| s.step >= at.step).map(|s| s.value).collect();
    let falls = loss.len() >= 10
        && median(last(&loss, 3).iter().copied())
            < median(loss[..3].iter().map(|x| RULE.loss_falls * x));
    let evidence = vec![norm_of(at.value).against(Reference::Limit, absurd)];
    let alarm = Alarm::new(SignName::GradientSpikes, at.step, Verdict::Exploding, evidence);
    (!falls).then_some(alarm)
}

/// A gradient norm that grows from record to record, with a loss that rises.
pub(super) fn growth(norm: &[Sample], loss: &[Sample]) -> Option<Alarm> {
    let (growth, early, lesser) =
        (RULES.log_growth, RULES.log_early_growth, RULES.log_lesser_spike);
    let measured = measure_from(norm, RECORDS_MIN);
    let mut begin = None;
    for (at, now) in measured.iter().enumerate() {
        let is_up = now.is_above(RULE.growth_begin, growth.sigmas);
        let rises = at > 0 && norm[at].value > norm[at - 1].value;
        begin = match (is_up, begin) {
            (true, Some(begin)) if rises => Some(begin),
            (true, _) => Some(at),
            (false, _) => None,
        };
        let Some(first) = begin.filter(|first| at > *first) else { continue };
        let reacts =
            at - first >= RULE.growth_records || loss_reacts(loss, norm[first].step, norm[at].step);
        let growth = if at < WINDOW_MIN { early } else { growth };
        if growth.is_spike(now.factor, now.sigmas) && reacts {
            let is_home = |m: &Measured| !m.is_above(RULE.growth_begin, lesser.sigmas);
            let back = (at + 1..norm.len()).find(|later| is_home(&measured[*later]));
            let verdict = if back.is_some() { Verdict::Recovered } else { Verdict::Exploding };
            let evidence = vec![
                norm_of(norm[at].value).against(Reference::Usual, now.usual),
                Measure::new(Quantity::RisingRecords, (at - first + 1) as f64),
            ];
            let alarm = Alarm::new(SignName::GradientSpikes, norm[first].step, verdict, evidence);
            return Some(Alarm { back: back.map(|at| norm[at].step), ..alarm });
        }
    }
    None
}

/// Whether a loss from one step to another is above all that is usual before.
fn loss_reacts(loss: &[Sample], from: i64, to: i64) -> bool {
    let begin = loss.iter().position(|sample| sample.step >= from).unwrap_or(loss.len());
    let before: Vec<f64> = loss[..begin].iter().map(|sample| sample.value).collect();
    let (level, spread) = centre_and_spread(last(&before, RULE.window));
    let limit = level + RULE.loss_sigmas * spread.max(RULE.loss_spread_min * level.abs());
    let during = loss[begin..].iter().take_while(|sample| sample.step <= to);
    before.len() >= RECORDS_MIN && during.into_iter().any(|sample| !(sample.value < limit))
}

/// Spikes of the gradient norm that come again, though the loss bears them.
pub(super) fn repeated_spikes(norm: &[Sample]) -> Option<Alarm> {
    let measured = measure(norm);
    let (rule, lesser) = (RULES.spike.logs, RULES.log_lesser_spike);
    let is_spike = |at: &usize| rule.is_spike(measured[*at].factor, measured[*at].sigmas);
    let spikes: Vec<usize> = (0..norm.len()).filter(is_spike).collect();
    if spikes.len() < RULES.log_spikes {
        return None;
    }
    let highest = spikes.iter().map(|at| norm[*at].value).fold(0.0, f64::max);
    let is_first = |at: &usize| {
        lesser.is_spike(measured[*at].factor, measured[*at].sigmas)
            && norm[*at].value >= RULE.first_of_highest * highest
    };
    let first = (0..norm.len()).find(is_first).or(spikes.first().copied())?;
    let last = *spikes.last()?;
    let evidence = vec![
        norm_of(norm[first].value).against(Reference::Usual, measured[first].usual),
        Measure::new(Quantity::GradientSpikes, spikes.len() as f64),
    ];
    let sign = SignName::GradientSpikes;
    let alarm = Alarm::new(sign, norm[first].step, Verdict::Recovered, evidence);
    Some(Alarm { back: norm.get(last + 1).map(|sample| sample.step), ..alarm })
}

/// A norm of the whole gradient.
fn norm_of(value: f64) -> Measure {
    Measure::new(Quantity::GradientNorm, value).at(Place::Gradients)
}

/// A norm beside its usual.
#[derive(Debug, Clone, Copy)]
struct Measured {
    usual: f64,
    /// How many times the usual.
    factor: f64,
    /// Sigmas of the logarithm above the usual.
    sigmas: f64,
}

/// Where there is no history.
const UNKNOWN: Measured = Measured { usual: f64::NAN, factor: 0.0, sigmas: 0.0 };

impl Measured {
    fn is_above(&self, factor: f64, sigmas: f64) -> bool {
        self.factor > factor && self.sigmas > sigmas
    }
}

/// Each norm beside the median of the [`LogGradientRule::window`] records before it, all on a logarithmic scale.
fn measure(norm: &[Sample]) -> Vec<Measured> {
    measure_from(norm, WINDOW_MIN)
}

/// [`measure`], where so many records make a history.
fn measure_from(norm: &[Sample], window_min: usize) -> Vec<Measured> {
    let mut logs: Vec<f64> = Vec::new();
    norm.iter()
        .map(|sample| {
            if !(sample.value.is_finite() && sample.value > 0.0) {
                return UNKNOWN;
            }
            let log = sample.value.ln();
            let window = last(&logs, RULE.window);
            let (centre, spread) = centre_and_spread(window);
            let too_few = window.len() < window_min;
            logs.push(log);
            if too_few {
                return UNKNOWN;
            }
            Measured {
                usual: centre.exp(),
                factor: (log - centre).exp(),
                sigmas: (log - centre) / spread.max(RULE.sigma_floor),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::{calm, verdict};
    use super::*;

    #[test]
    fn what_a_gradient_norm_says() {
        let base = calm(0.5, 0.1, 60);
        let loss = calm(2.0, 0.05, 200);
        let then = |more: &[f64]| [&base[..], more].concat();
        let nan = f64::NAN;
        let spike = |height: f64| [&[height][..], &calm(0.5, 0.1, 30)].concat();
        // (what, norms, verdict, onset)
        let cases: [(&str, Vec<f64>, Verdict, Option<i64>); 8] = [
            ("one skipped step", then(&[nan, 0.5, 0.4, 0.5]), Verdict::Healthy, None),
            ("nan in all records", vec![nan; 5], Verdict::Exploded, Some(0)),
            ("nan to the end", then(&[nan, nan, nan]), Verdict::Exploded, Some(60)),
            ("huge at once", vec![3.8e12, 4e12], Verdict::Exploding, Some(0)),
            ("one spike", then(&spike(9.0)), Verdict::Healthy, None),
            (
                "spikes that come again",
                then(&[spike(9.0), spike(12.0), spike(9.0)].concat()),
                Verdict::Recovered,
                Some(60),
            ),
            ("growth", then(&[2.0, 6.0, 30.0, 200.0, 1500.0]), Verdict::Exploding, Some(60)),
            ("heavy tail", calm(1.0, 0.99, 90), Verdict::Healthy, None),
        ];
        for (what, norms, want, onset) in cases {
            let loss = if norms.len() < 10 { &loss[..norms.len()] } else { &loss[..] };
            assert_eq!(verdict(loss, &norms), (want, onset), "{what}");
        }
    }

    #[test]
    fn growth_with_a_loss_that_reacts_is_seen_at_its_second_record() {
        let norm = [&calm(0.24, 0.02, 60)[..], &[0.95, 2.4]].concat();
        let calm_loss = calm(2.2, 0.02, 61);
        let quiet = [&calm_loss[..], &[2.2]].concat();
        let reacts = [&calm_loss[..], &[2.6]].concat();
        assert_eq!(verdict(&quiet, &norm), (Verdict::Healthy, None));
        assert_eq!(verdict(&reacts, &norm), (Verdict::Exploding, Some(60)));
    }

    #[test]
    fn norms_that_are_no_numbers_at_the_end_or_in_means() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let norm = |last: &[f64]| [&calm(0.5, 0.1, 30), last].concat();
        let loss =
            |count: usize| -> Vec<f64> { (0..count).map(|i| 2.0 - 0.01 * i as f64).collect() };
        // (what, losses, norms, verdict, onset)
        type Case = (&'static str, Vec<f64>, Vec<f64>, Verdict, Option<i64>);
        let cases: [Case; 5] = [
            ("in the last record", loss(30), norm(&[nan]), Verdict::Exploded, Some(30)),
            ("before the last loss", loss(33), norm(&[nan]), Verdict::Healthy, None),
            ("Inf in the last record", loss(30), norm(&[inf]), Verdict::Healthy, None),
            ("Inf in each mean", loss(8), vec![inf; 8], Verdict::Healthy, None),
            (
                "Inf and a loss that rises",
                vec![2.0, 2.1, 2.3, 2.6, 2.9],
                vec![inf; 5],
                Verdict::Exploded,
                Some(0),
            ),
        ];
        for (what, losses, norms, want, onset) in cases {
            assert_eq!(verdict(&losses, &norms), (want, onset), "{what}");
        }
    }

    #[test]
    fn a_spike_of_norm_and_loss_together_counts_once() {
        let spike = |height: f64, level: f64| {
            [&calm(level, 0.05 * level, 40)[..], &[height], &calm(level, 0.05 * level, 20)].concat()
        };
        let (norm, loss) = (spike(300.0, 0.5), spike(5.5, 2.0));
        assert_eq!(verdict(&loss, &norm), (Verdict::Recovered, Some(40)));
        assert_eq!(verdict(&spike(2.4, 2.0), &norm), (Verdict::Healthy, None));
        assert_eq!(verdict(&loss, &spike(5.0, 0.5)), (Verdict::Healthy, None));
    }

    #[test]
    fn growth_in_a_short_log_has_to_be_large() {
        let loss = [8.5, 8.4, 8.3, 8.3, 8.6, 8.9];
        let norm = [1.7, 1.6, 1.7, 1.8, 14.0, 110.0];
        assert_eq!(verdict(&loss, &norm), (Verdict::Exploding, Some(4)));
        assert_eq!(verdict(&loss, &[1.7, 1.6, 1.7, 1.8, 6.0, 14.0]), (Verdict::Healthy, None));
    }
}
