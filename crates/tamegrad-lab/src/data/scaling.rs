//! Standardisation: mean 0 and standard deviation 1, measured on the training part only.

use super::{Dataset, Table, Targets};

/// The shift and the unit of each column: scaled = (original - mean) / std.
///
/// Columns are the numbers of a sample. A sequence `[steps, features]` has `features` columns,
/// each over all steps, because a recurrent network reads every step with the same weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Mean of each column over the finite training values; 0 where there is none.
    pub mean: Vec<f64>,
    /// Standard deviation (divided by the count) of each column over the finite training values,
    /// in the column's unit; 1 for a constant column. An error in scaled units times this is the
    /// error in original units; a squared error takes its square.
    pub std: Vec<f64>,
}

impl Scaling {
    /// Turns original values into scaled ones. `values` holds whole rows.
    pub fn apply(&self, values: &mut [f32]) {
        let columns = self.mean.iter().zip(&self.std).cycle();
        for (value, (mean, std)) in values.iter_mut().zip(columns) {
            *value = ((f64::from(*value) - mean) / std) as f32;
        }
    }

    /// Measures `columns` columns. Only finite values count: a NaN or an infinity stays the one
    /// bad value that it is and does not spread over its column.
    fn measure(values: &[f32], columns: usize) -> Scaling {
        let mut sums = vec![0.0; columns];
        let mut counts = vec![0.0; columns];
        for_finite(values, columns, |column, x| {
            sums[column] += x;
            counts[column] += 1.0;
        });
        let mean: Vec<f64> =
            sums.iter().zip(&counts).map(|(sum, n)| sum / f64::max(*n, 1.0)).collect();

        let mut squares = vec![0.0; columns];
        for_finite(values, columns, |column, x| squares[column] += (x - mean[column]).powi(2));
        let std = squares.iter().zip(&counts).map(|(&square, n)| match square {
            // Exact: f64 sums up to 2^29 equal f32 values without rounding.
            0.0 => 1.0,
            _ => (square / n).sqrt(),
        });
        Scaling { std: std.collect(), mean }
    }
}

/// Calls `visit` with the column and the value of each finite value.
fn for_finite(values: &[f32], columns: usize, mut visit: impl FnMut(usize, f64)) {
    for row in values.chunks_exact(columns.max(1)) {
        for (column, &x) in row.iter().enumerate().filter(|(_, x)| x.is_finite()) {
            visit(column, f64::from(x));
        }
    }
}

impl Dataset {
    /// Scales each input column to mean 0 and standard deviation 1 of the training part, and the
    /// test part by the same numbers. Constant columns are only shifted.
    pub fn standardise_inputs(&mut self) -> Scaling {
        let scaling = Scaling::measure(&self.train.inputs, input_columns(&self.train));
        scaling.apply(&mut self.train.inputs);
        scaling.apply(&mut self.test.inputs);
        scaling
    }

    /// Scales the targets in the same way and returns the scaling, so that predictions and errors
    /// can be told in original units. Classes are left alone: `None`.
    pub fn standardise_targets(&mut self) -> Option<Scaling> {
        let Targets::Values { values, width } = &mut self.train.targets else { return None };
        let scaling = Scaling::measure(values, *width);
        scaling.apply(values);
        if let Targets::Values { values, .. } = &mut self.test.targets {
            scaling.apply(values);
        }
        Some(scaling)
    }
}

fn input_columns(table: &Table) -> usize {
    match table.input_shape.as_slice() {
        [_steps, features] => *features,
        _ => table.input_width(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(shape: &[usize], train: &[f32], test: &[f32]) -> Dataset {
        let width: usize = shape.iter().product();
        let table = |inputs: &[f32]| Table {
            inputs: inputs.to_vec(),
            input_shape: shape.to_vec(),
            targets: Targets::Classes { labels: vec![0; inputs.len() / width], classes: 2 },
        };
        Dataset { train: table(train), test: table(test) }
    }

    #[test]
    fn inputs_take_mean_and_std_of_the_training_part() {
        // Columns (1, 3, 1, 3, 2) and the constant 0.1.
        let train = [1.0, 0.1, 3.0, 0.1, 1.0, 0.1, 3.0, 0.1, 2.0, 0.1];
        let mut data = dataset(&[2], &train, &[6.0, 2.1]);
        let scaling = data.standardise_inputs();
        assert_eq!(scaling.mean, [2.0, f64::from(0.1f32)]);
        assert_eq!(scaling.std, [0.8f64.sqrt(), 1.0]);
        let unit = (1.0 / 0.8f64.sqrt()) as f32;
        assert_eq!(data.train.inputs, [-unit, 0.0, unit, 0.0, -unit, 0.0, unit, 0.0, 0.0, 0.0]);
        assert_eq!(data.test.inputs, [(4.0 / 0.8f64.sqrt()) as f32, 2.1 - 0.1]);
    }

    #[test]
    fn an_image_scales_by_pixel_and_a_sequence_by_feature() {
        let train = [0.0, 10.0, 4.0, 30.0, 0.0, 30.0, 4.0, 10.0];
        let mut image = dataset(&[1, 2, 2], &train, &train);
        assert_eq!(image.standardise_inputs().mean, [0.0, 20.0, 4.0, 20.0]);
        let mut sequence = dataset(&[2, 2], &train, &train);
        let scaling = sequence.standardise_inputs();
        assert_eq!((scaling.mean, scaling.std), (vec![2.0, 20.0], vec![2.0, 10.0]));
        assert_eq!(sequence.test.inputs, [-1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, -1.0]);
    }

    #[test]
    fn values_that_are_not_finite_stay_where_they_are() {
        let mut data =
            dataset(&[1], &[1.0, f32::NAN, 3.0, f32::INFINITY, f32::NEG_INFINITY], &[f32::NAN]);
        let scaling = data.standardise_inputs();
        assert_eq!((scaling.mean, scaling.std), (vec![2.0], vec![1.0]));
        let train = &data.train.inputs;
        assert_eq!((train[0], train[2]), (-1.0, 1.0));
        assert_eq!((train[3], train[4]), (f32::INFINITY, f32::NEG_INFINITY));
        assert!(train[1].is_nan() && data.test.inputs[0].is_nan());

        let mut nothing = dataset(&[1], &[f32::NAN], &[7.0]);
        nothing.standardise_inputs();
        assert_eq!(nothing.test.inputs, [7.0]);
    }

    #[test]
    fn targets_scale_by_the_training_part_and_classes_do_not() {
        let mut data = dataset(&[1], &[0.0, 1.0], &[2.0]);
        assert_eq!(data.standardise_targets(), None);
        assert_eq!(data.train.targets, Targets::Classes { labels: vec![0, 0], classes: 2 });

        data.train.targets = Targets::Values { values: vec![1e6, -5.0, 3e6, -5.0], width: 2 };
        data.test.targets = Targets::Values { values: vec![4e6, -4.0], width: 2 };
        let scaling = data.standardise_targets().unwrap();
        assert_eq!((&scaling.mean, &scaling.std), (&vec![2e6, -5.0], &vec![1e6, 1.0]));
        assert_eq!(
            data.train.targets,
            Targets::Values { values: vec![-1.0, 0.0, 1.0, 0.0], width: 2 }
        );
        assert_eq!(data.test.targets, Targets::Values { values: vec![2.0, 1.0], width: 2 });
        assert_eq!(data.train.inputs, [0.0, 1.0]);
    }
}
