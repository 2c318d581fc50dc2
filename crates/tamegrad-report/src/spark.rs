//! Sparklines: a series as a line of small bars, with a line below that marks the onset.

use crate::number::count;
use crate::style::{Style, Tone};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// What stands for a bucket with NaN or Inf.
const NOT_FINITE: char = '×';
/// Largest over smallest value from which the bars are on a logarithmic scale.
const LOG_RANGE: f64 = 100.0;

/// A series as bars, at most `width` wide: `▁▁▂▁×`, the largest of each bucket, `×` where a value
/// is NaN or Inf. The points are `(step, value)` in the order of the run. The scale is
/// logarithmic when [`is_log`] says so. With an onset a second line points at its bucket. The
/// lines have no line break at their end; without points or width there is none.
pub fn sparkline(
    points: &[(u64, f64)],
    onset: Option<u64>,
    width: usize,
    style: &Style,
) -> Vec<String> {
    let buckets = width.min(points.len());
    if buckets == 0 {
        return Vec::new();
    }
    let heights = heights(points);
    let bars = (0..buckets).map(|bucket| {
        let part = &heights
            [start(bucket, buckets, points.len())..start(bucket + 1, buckets, points.len())];
        bar(part)
    });
    let mut lines = vec![painted(bars, style)];
    let at = onset.and_then(|step| Some((step, points.iter().position(|(s, _)| *s >= step)?)));
    lines.extend(at.map(|(step, index)| {
        let buckets_to = (0..buckets).rev().find(|b| start(*b, buckets, points.len()) <= index);
        mark(buckets_to.unwrap_or(0), step, width)
    }));
    lines
}

/// Whether the bars of these values are on a logarithmic scale: all finite values are 0 or above,
/// and the largest is more than a hundred times the smallest above 0.
pub fn is_log(values: impl Iterator<Item = f64>) -> bool {
    let finite: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    let positive = || finite.iter().copied().filter(|value| *value > 0.0);
    let smallest = positive().fold(f64::INFINITY, f64::min);
    let largest = positive().fold(0.0, f64::max);
    finite.iter().all(|value| *value >= 0.0) && largest > LOG_RANGE * smallest
}

/// Where a bucket's points begin.
fn start(bucket: usize, buckets: usize, points: usize) -> usize {
    bucket * points / buckets
}

/// The values from 0 to 1, `None` for NaN and Inf.
fn heights(points: &[(u64, f64)]) -> Vec<Option<f64>> {
    let log = is_log(points.iter().map(|(_, value)| *value));
    let scaled: Vec<Option<f64>> = points
        .iter()
        .map(|(_, value)| value.is_finite().then(|| if log { value.ln() } else { *value }))
        .collect();
    // The logarithm of 0 is below every bar.
    let levels = || scaled.iter().flatten().copied().filter(|value| value.is_finite());
    let low = levels().fold(f64::INFINITY, f64::min);
    let high = levels().fold(f64::NEG_INFINITY, f64::max);
    // Halved, for the range of the largest values does not fit into f64.
    let range = high / 2.0 - low / 2.0;
    let height = |value: f64| if range > 0.0 { (value / 2.0 - low / 2.0) / range } else { 0.0 };
    scaled.into_iter().map(|value| value.map(|v| height(v).clamp(0.0, 1.0))).collect()
}

fn bar(heights: &[Option<f64>]) -> char {
    let mut largest = 0.0;
    for height in heights {
        let Some(height) = height else { return NOT_FINITE };
        largest = f64::max(largest, *height);
    }
    // Rounding shall not take a value below the bar that it stands on the edge of.
    BARS[((largest * 8.0 + 1e-9) as usize).min(7)]
}

fn painted(bars: impl Iterator<Item = char>, style: &Style) -> String {
    bars.map(|bar| match bar {
        NOT_FINITE => style.paint(Tone::Alarm, "×"),
        bar => bar.to_string(),
    })
    .collect()
}

/// The line that points at a column, its words on the side where there is room.
fn mark(column: usize, step: u64, width: usize) -> String {
    let words = format!("onset at step {}", count(step));
    let before = words.chars().count() + 1;
    if column + 1 + before > width && column >= before {
        format!("{}{words} ^", " ".repeat(column - before))
    } else {
        format!("{}^ {words}", " ".repeat(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(values: &[f64], onset: Option<u64>, width: usize) -> Vec<String> {
        let points: Vec<_> = values.iter().enumerate().map(|(i, v)| (i as u64, *v)).collect();
        sparkline(&points, onset, width, &Style::plain(80))
    }

    #[test]
    fn bars_of_cases() {
        let nan = f64::NAN;
        let inf = f64::INFINITY;
        for (name, values, width, bars) in [
            ("a ramp", vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8, "▁▂▃▄▅▆▇█"),
            ("the largest of each bucket", vec![0.0, 0.0, 7.0, 0.0, 0.0, 0.0], 3, "▁█▁"),
            ("flat", vec![3.0; 4], 10, "▁▁▁▁"),
            ("powers of ten are a ramp", vec![1.0, 10.0, 100.0, 1e3, 1e4], 5, "▁▃▅▇█"),
            ("a range of 100 is linear", vec![1.0, 10.0, 100.0], 3, "▁▁█"),
            ("zeros on a logarithmic scale", vec![0.0, 1.0, 1e4], 3, "▁▁█"),
            ("below zero is linear", vec![-1.0, 1e4], 2, "▁█"),
            ("NaN and Inf", vec![1.0, nan, 2.0, inf], 4, "▁×█×"),
            ("a bucket with NaN", vec![1.0, nan, 2.0, 2.0], 2, "×█"),
            ("only NaN", vec![nan, nan], 2, "××"),
            ("the whole range of f64", vec![-f64::MAX, f64::MAX], 2, "▁█"),
        ] {
            assert_eq!(lines(&values, None, width), [bars], "{name}");
        }
    }

    #[test]
    fn the_onset_is_marked_below_its_bucket() {
        let flat = [1.0; 40];
        for (onset, width, line) in [
            (0, 40, "^ onset at step 0".to_owned()),
            (5, 40, format!("{}^ onset at step 5", " ".repeat(5))),
            (38, 40, format!("{}onset at step 38 ^", " ".repeat(21))),
            (38, 20, format!("{}onset at step 38 ^", " ".repeat(2))),
            (38, 4, "   ^ onset at step 38".to_owned()),
        ] {
            assert_eq!(lines(&flat, Some(onset), width)[1], line, "step {onset} in {width}");
        }
        assert_eq!(lines(&flat, Some(40), 40).len(), 1, "an onset outside the series");
    }

    #[test]
    fn nothing_to_draw() {
        assert_eq!(lines(&[], Some(1), 10), Vec::<String>::new());
        assert_eq!(lines(&[1.0], None, 0), Vec::<String>::new());
    }
}
