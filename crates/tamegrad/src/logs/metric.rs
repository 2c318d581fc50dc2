//! What a held-out metric of a log says: it does not improve, or it deteriorates.

use super::{History, Sample, last, step, strain};
use crate::evidence::{Measure, Quantity, Reference};
use crate::finding::{Finding, SignName};
use crate::rules::{MetricRule, RULES};
use crate::running::median;

/// The numbers, which are those of a live run.
const RULE: MetricRule = RULES.metric;

/// A metric that ends behind its best, or that never left where it began. The rule is that of the
/// sign [`crate::signs::MetricStalls`], looked at from the end: a metric that came back is none.
pub(super) fn stalls(history: &History<'_>) -> Option<Finding> {
    let measured = last_run(history.metric.samples);
    if measured.len() < RULE.measurements_min as usize {
        return None;
    }
    deterioration(history, measured).or_else(|| stall(history, measured))
}

/// The measurements of the last run of a log: a step back to the start begins another.
fn last_run(samples: &[Sample]) -> &[Sample] {
    let first = samples.first().map_or(0, |sample| sample.step);
    let begin = samples
        .windows(2)
        .rposition(|pair| pair[1].step < pair[0].step.min(first.saturating_add(1)));
    samples.get(begin.map_or(0, |at| at + 1)..).unwrap_or_default()
}

fn deterioration(history: &History<'_>, measured: &[Sample]) -> Option<Finding> {
    let better = |a: f64, b: f64| if history.metric.is_lower_better { a < b } else { a > b };
    let unit = unit(history, measured);
    let mut best = f64::NAN;
    let mut first = f64::NAN;
    let mut below: Option<usize> = None;
    for (at, sample) in measured.iter().enumerate() {
        let value = sample.value;
        if first.is_nan() && value.is_finite() {
            (first, best) = (value, value);
        }
        if better(value, best) {
            best = value;
        }
        let lost = (best - value).abs();
        let limit = ((best - first).abs() * RULE.lost_of_gained).max(RULE.lost_of_unit * unit);
        // NaN falls on the side of the sign.
        let is_home = lost < limit;
        below = if is_home { None } else { below.or(Some(at)) };
    }
    let begin = below.filter(|begin| measured.len() - begin >= RULE.in_a_row as usize)?;
    let now = measured.last()?;
    let metric = Measure::new(Quantity::Metric, now.value).at_step(step(now.step));
    let evidence = if best.is_nan() { metric } else { metric.against(Reference::Best, best) };
    strain(SignName::MetricStalls, measured.get(begin)?.step, vec![evidence])
}

fn stall(history: &History<'_>, measured: &[Sample]) -> Option<Finding> {
    let (first, now) = (measured.first()?, measured.last()?);
    let is_lower_better = history.metric.is_lower_better;
    let values = measured.iter().map(|sample| sample.value);
    let best = values.reduce(if is_lower_better { f64::min } else { f64::max })?;
    let unit = unit(history, measured);
    let gained = (best - first.value) * if is_lower_better { -1.0 } else { 1.0 };
    let since = |sample: &Sample| now.step.saturating_sub(sample.step);
    let quarter = since(history.loss.first().unwrap_or(first)) / 4;
    let is_long = since(first) >= quarter.max(RULE.steps_min as i64);
    // How low a loss can get is not known. Where the training loss still falls, something is learned.
    let has_converged = if is_lower_better {
        training_loss_falls(history.loss)
    } else {
        best >= RULE.converged * unit
    };
    let best = Measure::new(Quantity::BestMetric, best).against(Reference::First, first.value);
    let stalls = gained < RULE.gain_min * unit && is_long && !has_converged;
    strain(SignName::MetricStalls, first.step, vec![best]).filter(|_| stalls)
}

/// What a metric is measured in: its first value where it is a loss; 1 or 100 for parts of a whole;
/// for anything else the range that was seen.
fn unit(history: &History<'_>, measured: &[Sample]) -> f64 {
    let values = || measured.iter().map(|sample| sample.value).filter(|value| value.is_finite());
    if history.metric.is_lower_better {
        return values().next().map_or(1.0, f64::abs);
    }
    let (low, high) = values().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
    match (low, high) {
        _ if low >= 0.0 && high <= 1.0 => 1.0,
        _ if low >= 0.0 && high <= 100.0 => 100.0,
        _ => high - low,
    }
}

/// Whether the last tenth of a training loss is below the first.
fn training_loss_falls(loss: &[Sample]) -> bool {
    let values: Vec<f64> = loss.iter().map(|sample| sample.value).collect();
    let part = (values.len() / 10).max(3);
    let begin = median(values.iter().take(part).copied());
    let end = median(last(&values, part).iter().copied());
    begin.zip(end).is_some_and(|(begin, end)| begin - end >= RULE.gain_min * begin.abs())
}

#[cfg(test)]
mod tests {
    use super::super::check::strain;
    use super::super::{Metric, diagnose};
    use super::*;
    use crate::diagnosis::Verdict;

    /// The onset of the strain for measurements at every 100 steps.
    fn onset(values: &[f64], is_lower_better: bool, loss: &[f64]) -> Option<i64> {
        let every = |values: &[f64], steps: usize| -> Vec<Sample> {
            let sample = |(i, &value)| Sample { step: (i * steps) as i64, value };
            values.iter().enumerate().map(sample).collect()
        };
        let (samples, loss) = (every(values, 100), every(loss, 10));
        let metric = Metric { samples: &samples, is_lower_better };
        let history = History { metric, loss: &loss, ..History::default() };
        // A metric alone is no explosion.
        assert!(matches!(diagnose(&history).verdict, Verdict::Healthy | Verdict::TooEarly));
        strain(&history)
    }

    #[test]
    fn what_a_metric_says() {
        let nan = f64::NAN;
        // (what, measurements, whether lower is better, onset)
        let cases: [(&str, &[f64], bool, Option<i64>); 12] = [
            ("decline", &[0.1, 0.62, 0.88, 0.31, 0.10], false, Some(300)),
            ("decline that came back", &[0.1, 0.62, 0.88, 0.31, 0.3, 0.86], false, None),
            ("one bad measurement at the end", &[0.1, 0.62, 0.88, 0.87, 0.3], false, None),
            ("never learns", &[0.1, 0.11, 0.10, 0.10], false, Some(0)),
            ("in per cent", &[10.0, 11.0, 10.0, 10.0], false, Some(0)),
            ("converged", &[0.96, 0.97, 0.97, 0.965, 0.97], false, None),
            ("NaN", &[0.1, 0.8, nan, nan], false, Some(200)),
            ("NaN all along", &[nan, nan, nan], true, Some(0)),
            ("a loss that falls", &[3.0, 2.0, 1.5, 1.4], true, None),
            ("a loss that rises again", &[3.0, 1.0, 1.9, 2.1], true, Some(200)),
            ("rewards", &[-200.0, -50.0, 120.0, 110.0, 118.0], false, None),
            ("too few", &[0.9, 0.1], false, None),
        ];
        for (what, values, is_lower_better, want) in cases {
            assert_eq!(onset(values, is_lower_better, &[]), want, "{what}");
        }
    }

    #[test]
    fn a_flat_held_out_loss_counts_where_the_training_loss_is_flat_too() {
        let flat = [2.3, 2.31, 2.3, 2.3, 2.29];
        assert_eq!(onset(&flat, true, &[2.3; 40]), Some(0));
        let falling: Vec<f64> = (0..40).map(|i| 2.3 - 0.01 * f64::from(i)).collect();
        assert_eq!(onset(&flat, true, &falling), None);
    }

    #[test]
    fn the_last_of_several_runs_counts() {
        let run = |values: [f64; 4]| {
            let sample = |(i, value)| Sample { step: 100 * i as i64, value };
            values.into_iter().enumerate().map(sample).collect::<Vec<Sample>>()
        };
        let (bad, good) = (run([0.1, 0.8, 0.2, 0.1]), run([0.1, 0.5, 0.7, 0.8]));
        for (runs, want) in [([bad.clone(), good.clone()], None), ([good, bad], Some(200))] {
            let samples = runs.concat();
            let metric = Metric { samples: &samples, is_lower_better: false };
            let strain = stalls(&History { metric, ..History::default() });
            assert_eq!(strain.map(|strain| strain.step.0), want);
        }
    }
}
