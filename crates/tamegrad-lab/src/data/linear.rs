//! A linear map of random inputs plus noise, its target in a unit of its own.
//!
//! As `make_regression` of scikit-learn (Pedregosa et al. 2011, JMLR 12:2825-2830) defines it:
//! y = sum over k of w_k x_k, plus Gaussian noise, with x standard normal and w uniform from 0 to
//! 100. The target, of some hundreds, is not scaled, on purpose: see the polynomial.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::split::{TEST_FRACTION, split};
use super::{DataError, Dataset, Table, Targets, parameter};

/// Largest weight of an input.
const WEIGHT_MAX: f64 = 100.0;

/// `samples` rows, inputs `[features]`, one target value each.
pub(super) fn load(
    samples: usize,
    features: usize,
    noise: f64,
    seed: u64,
) -> Result<Dataset, DataError> {
    parameter::at_least("samples", samples, 4)?;
    parameter::at_least("features", features, 1)?;
    parameter::table_size(samples, features)?;
    parameter::not_negative("noise", noise)?;

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let table = table(samples, features, noise, &mut rng);
    Ok(split(&table, TEST_FRACTION, &mut rng))
}

fn table(samples: usize, features: usize, noise: f64, rng: &mut ChaCha8Rng) -> Table {
    let weights: Vec<f64> = (0..features).map(|_| rng.random_range(0.0..=WEIGHT_MAX)).collect();
    let mut inputs = Vec::with_capacity(samples * features);
    let mut values = Vec::with_capacity(samples);
    for _ in 0..samples {
        let x: Vec<f64> = weights.iter().map(|_| rng.sample(StandardNormal)).collect();
        let error: f64 = rng.sample(StandardNormal);
        let y: f64 = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
        inputs.extend(x.into_iter().map(|x| x as f32));
        values.push((y + noise * error) as f32);
    }
    Table { inputs, input_shape: vec![features], targets: Targets::Values { values, width: 1 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_linear_and_has_its_spread() {
        let table = table(4000, 20, 0.0, &mut ChaCha8Rng::seed_from_u64(1));
        let Targets::Values { values, width: 1 } = &table.targets else { panic!("values") };
        // Each weight is uniform from 0 to 100: the mean of its square is 3,333, that of y^2 is 20
        // times as much.
        let square = values.iter().map(|y| f64::from(*y).powi(2)).sum::<f64>() / 4000.0;
        assert!((0.5..2.0).contains(&(square / 66_667.0)), "{square}");
        // Inputs are independent and of variance 1, so the mean of x_k y is w_k, with an error.
        let row = |r: usize| &table.inputs[20 * r..20 * (r + 1)];
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let mean = |k: usize| {
            let of = (0..4000).map(|r| f64::from(row(r)[k]) * f64::from(values[r]));
            of.sum::<f64>() / 4000.0
        };
        let weights: Vec<f32> = (0..20).map(|k| mean(k) as f32).collect();
        let error = (0..4000).map(|r| f64::from(dot(row(r), &weights) - values[r]).powi(2));
        assert!(error.sum::<f64>() / 4000.0 < 0.05 * square, "the weights explain the target");
    }
}
