//! The values of many series over the steps as a grid of cells.

use tamegrad::logs::Sample;

use crate::ramp::{Cell, LEVELS};
use crate::steps::{StepAxis, stretches};

/// What is known of a series in a range of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Nothing,
    Zero,
    Number(f64),
    Broken,
}

impl Value {
    fn of(value: f64) -> Self {
        if !value.is_finite() {
            Self::Broken
        } else if value > 0.0 {
            Self::Number(value)
        } else {
            Self::Zero
        }
    }

    fn rank(self) -> (u8, f64) {
        match self {
            Self::Nothing => (0, 0.0),
            Self::Zero => (1, 0.0),
            Self::Number(value) => (2, value),
            Self::Broken => (3, 0.0),
        }
    }

    /// The one that stands out more: NaN and infinity, then the larger value.
    fn or_worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }
}

/// Cells by row and column, and what their colours mean.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    pub(crate) columns: usize,
    /// Row by row from the top.
    pub(crate) cells: Vec<Cell>,
    /// The values of the first and the last level; `None` without a value above 0.
    pub(crate) range: Option<(f64, f64)>,
    /// Whether some values lie below or above that.
    pub(crate) clipped: (bool, bool),
}

/// Share of the values below and above the colours' range, for one freak value not to take all of it.
const CLIPPED: f64 = 0.005;

impl Grid {
    /// The grid of these series, a row each, in at most `columns_max` columns.
    pub(crate) fn of(rows: &[Vec<&[Sample]>], axis: &StepAxis, columns_max: usize) -> Self {
        let longest = rows.iter().flatten().map(|series| steps_in(series)).max();
        let columns = longest.unwrap_or(1).clamp(1, columns_max.max(1));
        let mut values = vec![Value::Nothing; rows.len() * columns];
        for (row, series) in values.chunks_mut(columns).zip(rows) {
            for samples in series {
                fill(row, samples, axis);
            }
        }
        let (range, clipped) = range(&values);
        let cell = |value: &Value| match value {
            Value::Nothing => Cell::Empty,
            Value::Zero => Cell::Zero,
            Value::Broken => Cell::Broken,
            Value::Number(value) => Cell::Level(level(*value, range)),
        };
        Self { columns, cells: values.iter().map(cell).collect(), range, clipped }
    }

    /// Whether a cell is this.
    pub(crate) fn has(&self, cell: Cell) -> bool {
        self.cells.contains(&cell)
    }
}

fn steps_in(samples: &[Sample]) -> usize {
    let mut steps: Vec<i64> = samples.iter().map(|sample| sample.step).collect();
    steps.sort_unstable();
    steps.dedup();
    steps.len()
}

/// Each column takes the worst of its values, and columns from one value to the next the larger of the two:
/// logs have one record for many steps, and run folders the extremes of many.
fn fill(row: &mut [Value], samples: &[Sample], axis: &StepAxis) {
    let columns = row.len();
    for stretch in stretches(samples) {
        let placed: Vec<(usize, Value)> = stretch
            .iter()
            .filter_map(|s| Some((axis.column(s.step, columns)?, Value::of(s.value))))
            .collect();
        for (column, value) in &placed {
            row[*column] = row[*column].or_worse(*value);
        }
        for pair in placed.windows(2) {
            let [(from, before), (to, after)] = [pair[0], pair[1]];
            if to - from < 2 {
                continue;
            }
            // NaN begins where it was seen.
            let between = match (before, after) {
                (Value::Broken, other) | (other, Value::Broken) => other,
                (before, after) => before.or_worse(after),
            };
            for value in row.iter_mut().take(to).skip(from) {
                *value = value.or_worse(between);
            }
        }
    }
}

fn range(values: &[Value]) -> (Option<(f64, f64)>, (bool, bool)) {
    let number = |value: &Value| match value {
        Value::Number(value) => Some(*value),
        _ => None,
    };
    let mut sorted: Vec<f64> = values.iter().filter_map(number).collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else {
        return (None, (false, false));
    };
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let (low, high) = (at(CLIPPED), at(1.0 - CLIPPED));
    // What is almost the same everywhere shall look so.
    let middle = (low * high).sqrt();
    let (low, high) = (low.min(middle / 10f64.sqrt()), high.max(middle * 10f64.sqrt()));
    (Some((low, high)), (least < low, most > high))
}

fn level(value: f64, range: Option<(f64, f64)>) -> u8 {
    let Some((low, high)) = range else { return 0 };
    let part = (value / low).ln() / (high / low).ln();
    // In range by the clamp; NaN becomes 0.
    (part.clamp(0.0, 1.0) * f64::from(LEVELS - 1)).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Vec<Sample> {
        (0_i64..).zip(values).map(|(step, &value)| Sample { step, value }).collect()
    }

    fn grid(rows: &[Vec<Sample>], columns: usize) -> Grid {
        let axis = StepAxis::of(rows.iter().map(|row| &row[..]));
        let rows: Vec<Vec<&[Sample]>> = rows.iter().map(|row| vec![&row[..]]).collect();
        Grid::of(&rows, &axis, columns)
    }

    #[test]
    fn no_spike_and_no_nan_of_a_single_step_vanishes() {
        let mut values = vec![1.0; 100_000];
        values[31_415] = 1e6;
        let mut broken = vec![1.0; 100_000];
        broken[27_182] = f64::NAN;
        let grid = grid(&[series(&values), series(&broken)], 200);
        assert_eq!(grid.columns, 200);
        let levels: Vec<usize> =
            (0..200).filter(|column| grid.cells[*column] == Cell::Level(LEVELS - 1)).collect();
        assert_eq!(levels, [62]);
        let broken: Vec<usize> =
            (0..200).filter(|column| grid.cells[200 + column] == Cell::Broken).collect();
        assert_eq!(broken, [54]);
    }

    #[test]
    fn few_steps_have_wide_cells_and_gaps_between_neighbours_are_filled() {
        let rows = [series(&[1.0, 0.0, f64::INFINITY]), series(&[10.0, 10.0, 10.0])];
        let few = grid(&rows, 200);
        let wanted = [Cell::Level(0), Cell::Zero, Cell::Broken];
        assert_eq!((few.columns, &few.cells[..3]), (3, &wanted[..]));

        let sparse = |steps: &[(i64, f64)]| -> Vec<Sample> {
            steps.iter().map(|&(step, value)| Sample { step, value }).collect()
        };
        let dense: Vec<f64> = vec![1.0; 40];
        let grid = grid(&[series(&dense), sparse(&[(0, 1.0), (4, 1e3), (39, 1e3)])], 40);
        let row: String = grid.cells[40..]
            .iter()
            .map(|cell| match cell {
                Cell::Empty => '.',
                Cell::Level(0) => '0',
                _ => '#',
            })
            .collect();
        assert_eq!(row, "#".repeat(40), "from 0 to 4 the larger one as well");
    }

    #[test]
    fn before_the_first_and_behind_the_last_value_there_is_nothing() {
        let mut samples = series(&[1.0; 100]);
        samples.retain(|sample| (20..80).contains(&sample.step));
        let grid = grid(&[samples, series(&[1.0; 100])], 100);
        let known: Vec<usize> =
            (0..100).filter(|column| grid.cells[*column] != Cell::Empty).collect();
        assert_eq!(known, (20..80).collect::<Vec<_>>());
    }
}
