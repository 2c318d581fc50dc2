//! Thinning a series to the columns of a figure by minimum and maximum, so that no spike vanishes.

use std::collections::BTreeSet;

use tamegrad::logs::Sample;

use crate::scale::Scale;
use crate::steps::{StepAxis, stretches};

/// What a value is that has no place on a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OffScale {
    /// Positive or negative infinity.
    Inf,
    /// Not a number.
    Nan,
    /// Zero, on a logarithmic scale.
    Zero,
}

impl OffScale {
    fn of(value: f64) -> Self {
        if value.is_nan() {
            Self::Nan
        } else if value.is_infinite() {
            Self::Inf
        } else {
            Self::Zero
        }
    }
}

/// A series as it is drawn: at most two points a column and stretch.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Envelope {
    /// Points that are joined, in lines between gaps.
    pub(crate) lines: Vec<Vec<Sample>>,
    /// The middle value of each column, in the same lines; empty where no column holds many values.
    pub(crate) middles: Vec<Vec<Sample>>,
    /// Columns in which a value has no place on the scale.
    pub(crate) off: BTreeSet<(OffScale, usize)>,
}

/// Values in a column from which on its middle is drawn as well.
const MIDDLE_MIN: usize = 4;

/// Thins a series to `columns` of the axis: of each column the smallest and the largest value, in their
/// order. A value without a place on the scale breaks the line and marks its column.
pub(crate) fn envelope(
    samples: &[Sample],
    axis: &StepAxis,
    scale: &Scale,
    columns: usize,
) -> Envelope {
    let mut envelope = Envelope::default();
    let mut is_dense = false;
    for stretch in stretches(samples) {
        let mut line = Line::default();
        let by_column =
            stretch.chunk_by(|a, b| axis.column(a.step, columns) == axis.column(b.step, columns));
        for values in by_column {
            let Some(column) = axis.column(values[0].step, columns) else { continue };
            let (on, off): (Vec<&Sample>, Vec<&Sample>) =
                values.iter().partition(|sample| scale.at(sample.value).is_some());
            envelope.off.extend(off.iter().map(|sample| (OffScale::of(sample.value), column)));
            let is_off = |sample: Option<&Sample>| {
                sample.is_none_or(|sample| scale.at(sample.value).is_none())
            };
            if is_off(values.first()) {
                line.end(&mut envelope);
            }
            is_dense |= on.len() >= MIDDLE_MIN;
            line.push(&on);
            if is_off(values.last()) {
                line.end(&mut envelope);
            }
        }
        line.end(&mut envelope);
    }
    if !is_dense {
        envelope.middles.clear();
    }
    envelope
}

/// A line that is being drawn.
#[derive(Default)]
struct Line {
    points: Vec<Sample>,
    middles: Vec<Sample>,
}

impl Line {
    fn push(&mut self, values: &[&Sample]) {
        let by_value = |a: &&&Sample, b: &&&Sample| a.value.total_cmp(&b.value);
        let Some(low) = values.iter().min_by(by_value) else { return };
        // The earliest of equals.
        let high = values.iter().rev().max_by(by_value).unwrap_or(low);
        let (first, second) = if low.step <= high.step { (low, high) } else { (high, low) };
        self.points.push(**first);
        if low.value < high.value {
            self.points.push(**second);
        }
        let mut sorted: Vec<f64> = values.iter().map(|sample| sample.value).collect();
        sorted.sort_by(f64::total_cmp);
        let step = values[values.len() / 2].step;
        self.middles.push(Sample { step, value: sorted[sorted.len() / 2] });
    }

    fn end(&mut self, envelope: &mut Envelope) {
        let Self { points, middles } = std::mem::take(self);
        if !points.is_empty() {
            envelope.lines.push(points);
            envelope.middles.push(middles);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Vec<Sample> {
        (0_i64..).zip(values).map(|(step, &value)| Sample { step, value }).collect()
    }

    fn log_of(samples: &[Sample]) -> Scale {
        Scale::log(samples.iter().map(|sample| sample.value)).expect("a scale")
    }

    #[test]
    fn no_spike_of_a_single_step_vanishes() {
        let mut values: Vec<f64> = (0..100_000).map(|i| 1.0 + 0.1 * f64::from(i % 7)).collect();
        let spikes = [0, 1, 777, 50_000, 50_001, 99_998, 99_999];
        for (index, &step) in spikes.iter().enumerate() {
            values[step] =
                if index % 2 == 0 { 1e3 + step as f64 } else { 1e-3 / (1 + step) as f64 };
        }
        let samples = series(&values);
        let axis = StepAxis::of([&samples[..]]);
        let thin = envelope(&samples, &axis, &log_of(&samples), 400);
        let kept: Vec<Sample> = thin.lines.concat();
        assert!(kept.len() <= 800, "{}", kept.len());
        // A column has room for its largest and its smallest: of 0 and 1 and of their like both stay.
        for step in spikes {
            assert!(kept.contains(&samples[step]), "{step}");
        }
        assert_eq!(thin.middles.concat().len(), 400);
    }

    #[test]
    fn what_has_no_place_breaks_the_line_and_marks_its_column() {
        let samples = series(&[1.0, 2.0, f64::NAN, 3.0, 0.0, f64::INFINITY, 4.0]);
        let axis = StepAxis::of([&samples[..]]);
        let thin = envelope(&samples, &axis, &log_of(&samples), 7);
        let lines: Vec<Vec<f64>> = thin
            .lines
            .iter()
            .map(|line| line.iter().map(|sample| sample.value).collect())
            .collect();
        assert_eq!(lines, [vec![1.0, 2.0], vec![3.0], vec![4.0]]);
        let off: Vec<_> = thin.off.into_iter().collect();
        assert_eq!(off, [(OffScale::Inf, 5), (OffScale::Nan, 2), (OffScale::Zero, 4)]);
        assert_eq!(thin.middles, [] as [Vec<Sample>; 0]);
    }

    #[test]
    fn a_nan_among_the_many_values_of_a_column_leaves_its_mark() {
        let mut values = vec![1.0; 10_000];
        values[1234] = f64::NAN;
        let samples = series(&values);
        let axis = StepAxis::of([&samples[..]]);
        let thin = envelope(&samples, &axis, &log_of(&samples), 100);
        assert_eq!(thin.off.into_iter().collect::<Vec<_>>(), [(OffScale::Nan, 12)]);
    }

    #[test]
    fn what_a_rewind_took_back_stays_a_line_of_its_own() {
        let mut samples = series(&[1.0, 2.0, 3.0, 4.0]);
        samples.extend(series(&[1.5, 2.5, 3.5, 4.5, 5.5])[2..].iter().copied());
        let axis = StepAxis::of([&samples[..]]);
        let thin = envelope(&samples, &axis, &log_of(&samples), 5);
        let steps: Vec<Vec<i64>> =
            thin.lines.iter().map(|line| line.iter().map(|sample| sample.step).collect()).collect();
        assert_eq!(steps, [vec![0, 1, 2, 3], vec![2, 3, 4]]);
    }
}
