//! The scale of the signal and of the gradient, layer by layer: as data, and as columns of blocks.

use tamegrad::Preflight;

use crate::number::number;
use crate::style::{Style, Tone};
use crate::text::pad;

const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Lines of a chart.
const HEIGHT: usize = 5;
/// Widest column.
const COLUMN_MAX: usize = 3;
/// Decades that an axis spans at least: what is flat shall look flat.
const DECADES_MIN: f64 = 1.0;

/// What is drawn: the network's input, if it was probed, and its layers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// Names in order of execution.
    pub(crate) names: Vec<String>,
    /// RMS of each output.
    pub(crate) signal: Vec<Option<f64>>,
    /// L2 norm of the gradient of the loss with respect to each output.
    pub(crate) gradient: Vec<Option<f64>>,
    /// Whether a gain of the layer is unusual.
    pub(crate) marked: Vec<bool>,
}

impl Series {
    pub(crate) fn of(seen: &Preflight) -> Self {
        let links = seen.chain.iter().flat_map(|chain| &chain.links);
        let input = || seen.input.into_iter();
        let layers = || seen.layers.iter();
        let name = |layer| seen.layout.layer_name(layer).to_owned();
        Self {
            names: input()
                .map(|_| "input".to_owned())
                .chain(layers().map(|l| name(l.layer)))
                .collect(),
            signal: input()
                .map(|i| Some(i.0))
                .chain(layers().map(|l| Some(l.output_rms)))
                .collect(),
            gradient: input().map(|i| i.1).chain(layers().map(|l| l.gradient_norm)).collect(),
            marked: input().map(|_| false).chain(links.map(|link| link.is_marked())).collect(),
        }
    }
}

/// Decades from the smallest to the largest of the values that have a logarithm; `None` when none
/// has.
pub(crate) fn decades<'a>(values: impl Iterator<Item = &'a Option<f64>>) -> Option<(f64, f64)> {
    let logs = values.flatten().map(|value| value.log10()).filter(|log| log.is_finite());
    let (low, high) = logs
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| (low.min(log), high.max(log)));
    let missing = (DECADES_MIN - (high - low)).max(0.0);
    (low <= high).then_some((low - missing / 2.0, high + missing / 2.0))
}

/// One value a layer as columns on a logarithmic scale, `×` where it is not finite, and a last
/// line with the first and the last name and `^` below the marked layers:
///
/// ```text
/// 3e7 |    ▂█
///     |  ▃▇██
/// 1.2 |▁▄████
///      input^output
/// ```
///
/// More layers than there is room for share columns, which show the largest of theirs. No lines
/// when nothing is known.
pub(crate) fn columns(series: &Series, values: &[Option<f64>], style: &Style) -> Vec<String> {
    let Some((low, high)) = decades(values.iter()) else { return Vec::new() };
    let labels = [number(10f64.powf(high)), number(10f64.powf(low))];
    let margin = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let room = style.line().saturating_sub(margin + 3).max(1);
    let count = values.len().min(room);
    let width = (room / count).clamp(1, COLUMN_MAX);
    let bounds = |column: usize| column * values.len() / count..(column + 1) * values.len() / count;
    let columns: Vec<Column> =
        (0..count).map(|column| Column::of(&values[bounds(column)], low, high)).collect();
    let mut lines: Vec<String> = (0..HEIGHT)
        .map(|line| {
            let label = match line {
                0 => labels[0].as_str(),
                _ if line + 1 == HEIGHT => labels[1].as_str(),
                _ => "",
            };
            let bars = columns.iter().map(|column| column.cell(HEIGHT - 1 - line, width, style));
            format!("{label:>margin$} |{}", bars.collect::<String>())
        })
        .collect();
    let is_marked = |column| series.marked[bounds(column)].contains(&true);
    let marks = (0..count).map(|column| pad(if is_marked(column) { "^" } else { "" }, width));
    let marks: String = marks.collect();
    let indent = " ".repeat(margin + 2);
    if marks.contains('^') {
        lines.push(format!("{indent}{}", style.paint(Tone::Strain, marks.trim_end())));
    }
    let (first, last) = (series.names.first(), series.names.last());
    if let Some((first, last)) = first.zip(last.filter(|_| values.len() > 1)) {
        let gap = (count * width).saturating_sub(last.chars().count());
        lines.push(format!("{indent}{} {last}", pad(first, gap.saturating_sub(1))));
    }
    lines
}

/// What a column shows.
enum Column {
    /// Nothing is known.
    Empty,
    /// A value that is not finite.
    NotFinite,
    /// So many eighths of a line.
    Bar(usize),
}

impl Column {
    fn of(values: &[Option<f64>], low: f64, high: f64) -> Self {
        let known = values.iter().flatten();
        if known.clone().any(|value| !value.is_finite()) {
            return Self::NotFinite;
        }
        match known.copied().reduce(f64::max) {
            None => Self::Empty,
            Some(0.0) => Self::Bar(0),
            Some(largest) => {
                let part = (largest.log10() - low) / (high - low);
                // The least of all is a line too, for nothing is what 0 looks like.
                Self::Bar(((part * (HEIGHT * 8) as f64).round() as usize).clamp(1, HEIGHT * 8))
            }
        }
    }

    /// What stands in a line, counted from the bottom.
    fn cell(&self, line: usize, width: usize, style: &Style) -> String {
        let cell = match self {
            Self::Empty => ' ',
            Self::NotFinite => '×',
            Self::Bar(eighths) => EIGHTHS[eighths.saturating_sub(8 * line).min(8)],
        };
        let cells = cell.to_string().repeat(width);
        if matches!(self, Self::NotFinite) { style.paint(Tone::Alarm, &cells) } else { cells }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: &[Option<f64>], marked: &[usize], width: usize) -> Vec<String> {
        let series = Series {
            names: (0..values.len()).map(|i| format!("fc{i}")).collect(),
            signal: values.to_vec(),
            gradient: Vec::new(),
            marked: (0..values.len()).map(|i| marked.contains(&i)).collect(),
        };
        columns(&series, values, &Style::plain(width))
    }

    #[test]
    fn a_power_of_ten_has_the_same_height_everywhere() {
        let values = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5].map(Some);
        assert_eq!(
            drawn(&values, &[2, 3], 40),
            [
                "100,000 |               ███",
                "        |            ██████",
                "        |         █████████",
                "        |      ████████████",
                "      1 |▁▁▁███████████████",
                "               ^  ^",
                "         fc0            fc5",
            ]
        );
    }

    #[test]
    fn unknown_zero_and_broken_values_look_different() {
        let values = [None, Some(0.0), Some(1.0), Some(1e5), Some(f64::NAN)];
        let lines = drawn(&values, &[], 40);
        assert_eq!(lines[0], "100,000 |         ███×××");
        assert_eq!(lines[4], "      1 |      ▁▁▁███×××");
        assert_eq!(lines[5], "         fc0         fc4");
        assert_eq!(drawn(&[None, Some(f64::INFINITY)], &[], 40), [] as [&str; 0]);
    }

    #[test]
    fn a_flat_chain_looks_flat_and_many_layers_share_columns() {
        let lines = drawn(&[Some(1.0), Some(1.1)], &[], 40);
        assert!(lines[2].contains('▄') || lines[2].contains('▅'), "{lines:?}");
        let mut values = vec![Some(1.0); 1000];
        values[700] = Some(1e6);
        let lines = drawn(&values, &[700], 60);
        assert!(lines.iter().all(|line| line.chars().count() <= 60), "{lines:?}");
        let column = lines[0].chars().position(|c| c == '█').expect("the peak is seen");
        assert_eq!(lines[5].chars().position(|c| c == '^'), Some(column), "{lines:?}");
    }
}
