//! A noisy polynomial of one input, given as it is or with its powers; its target in the polynomial's own unit.
//!
//! y = sum over k of c_k x^k, plus Gaussian noise, with x uniform in a range: polynomial
//! regression as in Bishop (2006), Pattern Recognition and Machine Learning, section 1.1, with
//! coefficients instead of his sine. The target is not scaled, on purpose: a target of large
//! values gives a squared error whose gradient explodes, and scaling is the remedy to show. A y
//! too large for `f32` becomes an infinity and stays one.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::split::{TEST_FRACTION, split};
use super::{DataError, Dataset, Table, Targets, parameter};

/// `samples` points, inputs `[powers]` (x, x^2, ...), one target value each; `coefficients[k]`
/// belongs to x^k.
pub(super) fn load(
    samples: usize,
    coefficients: &[f64],
    range: [f64; 2],
    noise: f64,
    powers: usize,
    seed: u64,
) -> Result<Dataset, DataError> {
    parameter::at_least("samples", samples, 4)?;
    parameter::at_least("powers", powers, 1)?;
    parameter::table_size(samples, powers)?;
    parameter::at_least("coefficients", coefficients.len(), 1)?;
    for value in coefficients {
        let want = || "finite numbers".to_owned();
        let hint = "the first is the constant, the next belongs to x, then to x^2";
        parameter::require(value.is_finite(), "coefficients", || value.to_string(), want, hint)?;
    }
    // The width must be finite as well, or no uniform x can be drawn.
    let width = range[1] - range[0];
    let want = || "[lowest, highest], finite, the lowest first".to_owned();
    let got = || format!("{range:?}");
    let hint = "for example [-3.0, 3.0]";
    parameter::require(width.is_finite() && width > 0.0, "range", got, want, hint)?;
    parameter::not_negative("noise", noise)?;

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let table = table(samples, coefficients, range, noise, powers, &mut rng);
    Ok(split(&table, TEST_FRACTION, &mut rng))
}

fn table(
    samples: usize,
    coefficients: &[f64],
    [low, high]: [f64; 2],
    noise: f64,
    powers: usize,
    rng: &mut ChaCha8Rng,
) -> Table {
    let mut inputs = Vec::with_capacity(samples * powers);
    let mut values = Vec::with_capacity(samples);
    for _ in 0..samples {
        let x = rng.random_range(low..=high);
        let error: f64 = rng.sample(StandardNormal);
        inputs.extend((1..=powers as i32).map(|power| x.powi(power) as f32));
        values.push((polynomial(coefficients, x) + noise * error) as f32);
    }
    Table { inputs, input_shape: vec![powers], targets: Targets::Values { values, width: 1 } }
}

/// Horner's rule.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(
        samples: usize,
        coefficients: &[f64],
        range: [f64; 2],
        noise: f64,
    ) -> Vec<(f32, f32)> {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let table = table(samples, coefficients, range, noise, 1, rng);
        let Targets::Values { values, width: 1 } = table.targets else { panic!("values") };
        table.inputs.into_iter().zip(values).collect()
    }

    #[test]
    fn polynomial_sums_coefficient_times_power() {
        // coefficients, x, y
        let cases: [(&[f64], f64, f64); 4] = [
            (&[7.0], 3.0, 7.0),
            (&[1.0, 2.0], 3.0, 7.0),
            (&[1.0, -2.0, 3.0], 2.0, 9.0),
            (&[0.0, 0.0, 0.0, 5.0], -10.0, -5000.0),
        ];
        for (coefficients, x, y) in cases {
            assert_eq!(polynomial(coefficients, x), y);
        }
    }

    #[test]
    fn without_noise_the_target_is_the_polynomial_unscaled() {
        let points = points(500, &[100.0, 0.0, 1000.0], [-3.0, 5.0], 0.0);
        for &(x, y) in &points {
            assert!((-3.0..=5.0).contains(&x), "{x}");
            let want = 100.0 + 1000.0 * x * x;
            assert!((y - want).abs() <= 1e-5 * want, "{x} {y}");
        }
        // Mean of a uniform x over -3..5 is 1, its largest y is about 25,100.
        let mean = points.iter().map(|p| p.0).sum::<f32>() / 500.0;
        assert!((mean - 1.0).abs() < 0.3, "{mean}");
        assert!(points.iter().any(|p| p.1 > 20_000.0));
    }

    #[test]
    fn the_inputs_are_the_powers_of_x() {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let table = table(50, &[0.0, 1.0], [-3.0, 3.0], 0.0, 3, rng);
        assert_eq!((table.input_shape, table.inputs.len()), (vec![3], 150));
        for powers in table.inputs.chunks(3) {
            let x = powers[0];
            assert!((powers[1] - x * x).abs() < 1e-5 && (powers[2] - x * x * x).abs() < 1e-4);
        }
    }

    #[test]
    fn noise_has_the_standard_deviation_asked_for() {
        let points = points(20_000, &[2.0], [0.0, 1.0], 0.5);
        let squares = points.iter().map(|(_, y)| (y - 2.0).powi(2)).sum::<f32>();
        let std = (squares / 20_000.0).sqrt();
        assert!((std - 0.5).abs() < 0.01, "{std}");
    }

    #[test]
    fn a_target_beyond_f32_is_an_infinity() {
        let points = points(4, &[1e300], [0.0, 1.0], 0.0);
        assert!(points.iter().all(|p| p.1 == f32::INFINITY));
    }
}
