//! Gaussian clouds around random centres, one class each: easy for a healthy run.
//!
//! As `make_blobs` of scikit-learn (Pedregosa et al. 2011, JMLR 12:2825-2830) defines it: centres
//! uniform in the box from -10 to 10, the samples divided evenly among them, the same standard
//! deviation in every coordinate.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::split::{TEST_FRACTION, split};
use super::{DataError, Dataset, Table, Targets, parameter};

/// Half the side of the box that holds the centres.
const BOX: f64 = 10.0;

/// `samples` points, inputs `[features]`, `centers` classes.
pub(super) fn load(
    samples: usize,
    centers: usize,
    features: usize,
    std: f64,
    seed: u64,
) -> Result<Dataset, DataError> {
    parameter::at_least("centers", centers, 2)?;
    parameter::at_least("features", features, 1)?;
    parameter::at_least("samples", samples, centers.max(4))?;
    parameter::table_size(samples, features)?;
    parameter::not_negative("std", std)?;

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let table = table(samples, centers, features, std, &mut rng);
    Ok(split(&table, TEST_FRACTION, &mut rng))
}

fn table(samples: usize, centers: usize, features: usize, std: f64, rng: &mut ChaCha8Rng) -> Table {
    let middle: Vec<f64> = (0..centers * features).map(|_| rng.random_range(-BOX..=BOX)).collect();
    let mut inputs = Vec::with_capacity(samples * features);
    let mut labels = Vec::with_capacity(samples);
    for sample in 0..samples {
        let class = sample % centers;
        for coordinate in &middle[class * features..(class + 1) * features] {
            let error: f64 = rng.sample(StandardNormal);
            inputs.push((coordinate + std * error) as f32);
        }
        labels.push(class as u32);
    }
    let targets = Targets::Classes { labels, classes: centers };
    Table { inputs, input_shape: vec![features], targets }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_spread_each_class_is_one_point_in_the_box() {
        let table = table(10, 4, 3, 0.0, &mut ChaCha8Rng::seed_from_u64(1));
        let labels = vec![0, 1, 2, 3, 0, 1, 2, 3, 0, 1];
        assert_eq!(table.targets, Targets::Classes { labels, classes: 4 });
        let points: Vec<&[f32]> = table.inputs.chunks_exact(3).collect();
        for (index, point) in points.iter().enumerate() {
            assert_eq!(point, &points[index % 4]);
            assert!(point.iter().all(|x| x.abs() <= 10.0), "{point:?}");
        }
        assert!(points[0] != points[1] && points[1] != points[2] && points[2] != points[3]);
    }

    #[test]
    fn the_centres_fill_the_box() {
        let table = table(2000, 2000, 2, 0.0, &mut ChaCha8Rng::seed_from_u64(1));
        let mean = table.inputs.iter().sum::<f32>() / 4000.0;
        let square = table.inputs.iter().map(|x| x * x).sum::<f32>() / 4000.0;
        // Uniform in -10..10: mean 0, mean square 100 / 3.
        assert!(mean.abs() < 0.5 && (square - 100.0 / 3.0).abs() < 2.0, "{mean} {square}");
    }

    #[test]
    fn the_clouds_have_the_standard_deviation_asked_for() {
        let exact = table(2, 2, 3, 0.0, &mut ChaCha8Rng::seed_from_u64(1)).inputs;
        let spread = table(10_000, 2, 3, 1.5, &mut ChaCha8Rng::seed_from_u64(1)).inputs;
        let squares = spread.iter().zip(exact.iter().cycle()).map(|(x, c)| (x - c).powi(2));
        let std = (squares.sum::<f32>() / spread.len() as f32).sqrt();
        assert!((std - 1.5).abs() < 0.03, "{std}");
    }
}
