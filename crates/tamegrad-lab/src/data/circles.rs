//! Two concentric circles in the plane: the smallest problem that no linear model solves.
//!
//! As `make_circles` of scikit-learn (Pedregosa et al. 2011, JMLR 12:2825-2830) defines it: the
//! outer circle has radius 1 and class 0, the inner has radius `factor` and class 1, points are
//! evenly spaced in angle, half of them on each, and both coordinates get Gaussian noise.

use std::f64::consts::TAU;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::split::{TEST_FRACTION, split};
use super::{DataError, Dataset, Table, Targets, parameter};

/// `samples` points (an odd one goes to the inner circle), inputs `[2]`.
pub(super) fn load(
    samples: usize,
    noise: f64,
    factor: f64,
    seed: u64,
) -> Result<Dataset, DataError> {
    parameter::at_least("samples", samples, 4)?;
    parameter::table_size(samples, 2)?;
    parameter::not_negative("noise", noise)?;
    let want = || "at least 0 and below 1".to_owned();
    let hint = "it is the radius of the inner circle; the outer has radius 1";
    let inside = (0.0..1.0).contains(&factor);
    parameter::require(inside, "factor", || factor.to_string(), want, hint)?;

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let table = table(samples, noise, factor, &mut rng);
    Ok(split(&table, TEST_FRACTION, &mut rng))
}

fn table(samples: usize, noise: f64, factor: f64, rng: &mut ChaCha8Rng) -> Table {
    let outer = samples / 2;
    let mut inputs = Vec::with_capacity(samples * 2);
    let mut labels = Vec::with_capacity(samples);
    for (class, count, radius) in [(0, outer, 1.0), (1, samples - outer, factor)] {
        for index in 0..count {
            let angle = TAU * index as f64 / count as f64;
            for coordinate in [angle.cos(), angle.sin()] {
                let error: f64 = rng.sample(StandardNormal);
                inputs.push((radius * coordinate + noise * error) as f32);
            }
            labels.push(class);
        }
    }
    Table { inputs, input_shape: vec![2], targets: Targets::Classes { labels, classes: 2 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance of each point from the origin, with its class.
    fn radii(samples: usize, noise: f64, factor: f64) -> Vec<(f64, u32)> {
        let table = table(samples, noise, factor, &mut ChaCha8Rng::seed_from_u64(1));
        let Targets::Classes { labels, classes: 2 } = table.targets else { panic!("classes") };
        let points = table.inputs.chunks_exact(2);
        points.map(|p| f64::from(p[0]).hypot(f64::from(p[1]))).zip(labels).collect()
    }

    #[test]
    fn without_noise_the_class_is_the_radius() {
        for (samples, factor) in [(100, 0.8), (7, 0.0)] {
            let points = radii(samples, 0.0, factor);
            assert_eq!(points.iter().filter(|(_, class)| *class == 0).count(), samples / 2);
            for (radius, class) in points {
                let want = if class == 0 { 1.0 } else { factor };
                assert!((radius - want).abs() < 1e-6, "class {class} at {radius}");
            }
        }
    }

    #[test]
    fn points_are_evenly_spaced_in_angle() {
        let table = table(8, 0.0, 0.5, &mut ChaCha8Rng::seed_from_u64(1));
        let want = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0, 0.5, 0.0, 0.0, 0.5];
        for (got, want) in table.inputs.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{:?}", table.inputs);
        }
    }

    #[test]
    fn noise_has_the_standard_deviation_asked_for() {
        // Across the circle the error is that of one coordinate, to first order in the noise.
        let points = radii(20_000, 0.03, 0.5);
        let squares = points.iter().map(|(radius, class)| {
            let want = if *class == 0 { 1.0 } else { 0.5 };
            (radius - want).powi(2)
        });
        let std = (squares.sum::<f64>() / points.len() as f64).sqrt();
        assert!((std - 0.03).abs() < 0.001, "{std}");
    }
}
