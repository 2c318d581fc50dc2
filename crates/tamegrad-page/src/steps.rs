//! The axis of steps, which all figures of a run share.

use tamegrad::logs::Sample;

use crate::scale::{Tick, nice_ticks};

/// Turns back to an earlier step up to which each stretch of a series is drawn by itself.
const REWINDS_MAX: usize = 16;

/// The steps from the left edge to the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepAxis {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl StepAxis {
    /// The axis on which all of these series have room; steps from 0 to 1 where there is none.
    pub(crate) fn of<'a>(series: impl IntoIterator<Item = &'a [Sample]>) -> Self {
        let steps = series.into_iter().flatten().map(|sample| sample.step);
        let range = steps.fold(None, |range: Option<(i64, i64)>, step| {
            let (first, last) = range.unwrap_or((step, step));
            Some((first.min(step), last.max(step)))
        });
        let (first, last) = range.unwrap_or((0, 1));
        Self { first, last: last.max(first.saturating_add(1)) }
    }

    /// Where a step is, from 0 at the left to 1 at the right; also beyond.
    pub(crate) fn at(&self, step: i64) -> f64 {
        // In floats, for their difference may leave the range of integers.
        (step as f64 - self.first as f64) / (self.last as f64 - self.first as f64)
    }

    /// The column of a step, of so many over the whole axis; `None` outside.
    pub(crate) fn column(&self, step: i64, columns: usize) -> Option<usize> {
        let part = self.at(step);
        (0.0..=1.0).contains(&part).then(|| ((part * columns as f64) as usize).min(columns - 1))
    }

    /// Marks at round steps, at most `count` of them or one more.
    pub(crate) fn ticks(&self, count: usize) -> Vec<Tick> {
        let (first, last) = (self.first as f64, self.last as f64);
        let ticks = nice_ticks(first, last, count, 1.0).into_iter();
        ticks.map(|(step, label)| Tick { at: (step - first) / (last - first), label }).collect()
    }
}

/// A series in stretches of ascending steps: a smaller step after a larger one, after a rewind or in a
/// resumed run, begins the next. A series that turns back very often is sorted.
pub(crate) fn stretches(samples: &[Sample]) -> Vec<Vec<Sample>> {
    let turns = samples.windows(2).filter(|pair| pair[1].step < pair[0].step).count();
    if turns > REWINDS_MAX {
        let mut sorted = samples.to_vec();
        sorted.sort_by_key(|sample| sample.step);
        return vec![sorted];
    }
    samples.chunk_by(|a, b| a.step <= b.step).map(<[Sample]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(steps: &[i64]) -> Vec<Sample> {
        steps.iter().map(|&step| Sample { step, value: 1.0 }).collect()
    }

    #[test]
    fn columns_cover_the_axis_and_nothing_else() {
        let axis = StepAxis::of([&samples(&[100, 300])[..], &samples(&[200])]);
        let columns = [99, 100, 149, 150, 300, 301].map(|step| axis.column(step, 4));
        assert_eq!(columns, [None, Some(0), Some(0), Some(1), Some(3), None]);
        assert_eq!(StepAxis::of([]), StepAxis { first: 0, last: 1 });
        let whole = StepAxis::of([&samples(&[i64::MIN, i64::MAX])[..]]);
        assert_eq!(whole.column(0, 10), Some(5));
    }

    #[test]
    fn ticks_are_round_steps() {
        let labels = |first, last, count| -> Vec<String> {
            StepAxis { first, last }.ticks(count).into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(labels(0, 1000, 5), ["0", "200", "400", "600", "800", "1,000"]);
        assert_eq!(labels(0, 3, 8), ["0", "1", "2", "3"]);
        assert_eq!(labels(1_999_000, 2_000_100, 3), ["1,999,000", "1,999,500", "2,000,000"]);
    }

    #[test]
    fn a_rewind_begins_a_new_stretch() {
        let lens = |steps: &[i64]| -> Vec<usize> {
            stretches(&samples(steps)).iter().map(Vec::len).collect()
        };
        assert_eq!(lens(&[0, 1, 2, 2, 1, 2, 3]), [4, 3]);
        let often: Vec<i64> = (0..100).map(|step| step % 2).collect();
        assert_eq!(lens(&often), [100]);
    }
}
