//! Data sets in memory: where they come from, their train and test parts, scaling and batches.
//!
//! A data set is two [`Table`]s of `f32` numbers. [`load`] makes one from a recipe's [`Source`]: the
//! built-in digits, a file of the user's, or a generator. All chance comes from the seed, so the
//! same source and seed give the same numbers. The order of training rows is a function of
//! (seed, step) in [`Batches`].

mod adding;
mod batches;
mod blobs;
mod circles;
mod csv;
mod digits;
mod error;
mod idx;
mod linear;
mod parameter;
mod polynomial;
mod scaling;
mod split;
mod temporal_order;

pub use batches::Batches;
pub use error::DataError;
pub use scaling::Scaling;

use crate::recipe::Source;
use crate::recipe::memory::Samples;

/// Reads or generates the data of `source`. `seed` decides generated numbers and drawn splits.
///
/// # Errors
/// A file that cannot be read or does not hold what the source says, or a parameter outside its
/// range: see [`DataError`].
pub fn load(source: &Source, seed: u64) -> Result<Dataset, DataError> {
    match source {
        Source::Digits {} => digits::load(),
        Source::Csv { path, target, task, test_fraction } => {
            csv::load(path, target, *task, *test_fraction, seed)
        }
        Source::Idx { images, labels, test_images, test_labels, test_fraction } => {
            let test = (test_images.as_deref(), test_labels.as_deref());
            idx::load(images, labels, test, *test_fraction, seed)
        }
        Source::Circles { samples, noise, factor } => {
            circles::load(*samples, *noise, *factor, seed)
        }
        Source::Blobs { samples, centers, features, std, image } => {
            let mut data = blobs::load(*samples, *centers, *features, *std, seed)?;
            if let Some(image) = image {
                data.train.input_shape = image.to_vec();
                data.test.input_shape = image.to_vec();
            }
            Ok(data)
        }
        Source::Polynomial { samples, coefficients, range, noise, powers } => {
            polynomial::load(*samples, coefficients, *range, *noise, *powers, seed)
        }
        Source::Linear { samples, features, noise } => {
            linear::load(*samples, *features, *noise, seed)
        }
        Source::Adding { samples, length } => adding::load(*samples, *length, seed),
        Source::TemporalOrder { samples, length } => temporal_order::load(*samples, *length, seed),
    }
}

/// A data set: one part to train on and one held out.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The part that the model learns from.
    pub train: Table,
    /// The part that is only measured on.
    pub test: Table,
}

/// Samples in rows: inputs of one shape and a target each.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// All inputs, sample after sample, each laid out row-major: `rows() * input_width()` numbers.
    pub inputs: Vec<f32>,
    /// Shape of one sample: `[features]`, a sequence `[steps, features]` or an image
    /// `[channels, height, width]`.
    pub input_shape: Vec<usize>,
    /// One target a row.
    pub targets: Targets,
}

/// What is to be predicted, a row each.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// A class a row.
    Classes {
        /// Class numbers, each below `classes`.
        labels: Vec<u32>,
        /// Number of classes of the whole data set, also of those that this part lacks.
        classes: usize,
    },
    /// Numbers to predict.
    Values {
        /// `rows * width` numbers, row after row.
        values: Vec<f32>,
        /// Numbers a row.
        width: usize,
    },
}

impl Dataset {
    /// Its sizes.
    pub(crate) fn samples(&self) -> Samples {
        Samples {
            train: self.train.rows(),
            test: self.test.rows(),
            shape: self.train.input_shape.clone(),
            outputs: match &self.train.targets {
                Targets::Classes { classes, .. } => *classes,
                Targets::Values { width, .. } => *width,
            },
        }
    }
}

impl Table {
    /// Number of samples.
    pub fn rows(&self) -> usize {
        self.targets.rows()
    }

    /// Numbers of one sample: the product of the shape.
    pub fn input_width(&self) -> usize {
        self.input_shape.iter().product()
    }

    /// Copies the inputs and targets of the given rows, in the given order: a batch.
    ///
    /// # Panics
    /// If a row number is not below [`Table::rows`].
    pub fn gather(&self, rows: &[u32]) -> (Vec<f32>, Targets) {
        let inputs = gather_rows(&self.inputs, self.input_width(), rows);
        let targets = match &self.targets {
            Targets::Classes { labels, classes } => {
                Targets::Classes { labels: gather_rows(labels, 1, rows), classes: *classes }
            }
            Targets::Values { values, width } => {
                Targets::Values { values: gather_rows(values, *width, rows), width: *width }
            }
        };
        (inputs, targets)
    }
}

impl Targets {
    /// Number of samples that have a target here.
    pub fn rows(&self) -> usize {
        match self {
            Targets::Classes { labels, .. } => labels.len(),
            Targets::Values { values, width } => values.len() / (*width).max(1),
        }
    }
}

fn gather_rows<T: Copy>(from: &[T], width: usize, rows: &[u32]) -> Vec<T> {
    let mut out = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        let start = row as usize * width;
        out.extend_from_slice(&from[start..start + width]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_copies_the_rows_in_the_order_asked() {
        let classes = Table {
            inputs: vec![0.0, 1.0, 10.0, 11.0, 20.0, 21.0],
            input_shape: vec![2],
            targets: Targets::Classes { labels: vec![7, 8, 9], classes: 10 },
        };
        let values = Table {
            inputs: vec![0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0],
            input_shape: vec![1, 2, 2],
            targets: Targets::Values { values: vec![0.5, 0.6, 1.5, 1.6], width: 2 },
        };
        assert_eq!((classes.rows(), classes.input_width()), (3, 2));
        assert_eq!((values.rows(), values.input_width()), (2, 4));

        assert_eq!(
            classes.gather(&[2, 0, 2]),
            (
                vec![20.0, 21.0, 0.0, 1.0, 20.0, 21.0],
                Targets::Classes { labels: vec![9, 7, 9], classes: 10 }
            )
        );
        assert_eq!(
            values.gather(&[1]),
            (vec![10.0, 11.0, 12.0, 13.0], Targets::Values { values: vec![1.5, 1.6], width: 2 })
        );
        assert_eq!(values.gather(&[]), (vec![], Targets::Values { values: vec![], width: 2 }));
    }

    fn circles(samples: usize, noise: f64, factor: f64) -> Source {
        Source::Circles { samples, noise, factor }
    }

    fn blobs(samples: usize, centers: usize, features: usize, std: f64) -> Source {
        Source::Blobs { samples, centers, features, std, image: None }
    }

    fn polynomial(samples: usize, coefficients: &[f64], range: [f64; 2], noise: f64) -> Source {
        let coefficients = coefficients.to_vec();
        Source::Polynomial { samples, coefficients, range, noise, powers: 1 }
    }

    /// (source, rows of train, rows of test, shape of a sample)
    fn generated() -> Vec<(Source, usize, usize, Vec<usize>)> {
        let mut images = blobs(10, 2, 12, 1.5);
        if let Source::Blobs { image, .. } = &mut images {
            *image = Some([3, 2, 2]);
        }
        let mut squares = polynomial(1000, &[1.0, 0.0, 2.0], [-3.0, 3.0], 0.1);
        if let Source::Polynomial { powers, .. } = &mut squares {
            *powers = 2;
        }
        vec![
            (Source::Digits {}, 1438, 359, vec![1, 8, 8]),
            (circles(1000, 0.03, 0.8), 700, 300, vec![2]),
            (blobs(1000, 4, 3, 1.5), 700, 300, vec![3]),
            (images, 7, 3, vec![3, 2, 2]),
            (Source::Linear { samples: 1000, features: 3, noise: 0.1 }, 700, 300, vec![3]),
            (squares, 700, 300, vec![2]),
            (Source::Adding { samples: 1000, length: 20 }, 1000, 200, vec![20, 2]),
            (Source::TemporalOrder { samples: 1000, length: 20 }, 1000, 200, vec![20, 6]),
        ]
    }

    #[test]
    fn each_source_gives_its_shapes() {
        for (source, train, test, shape) in generated() {
            let data = load(&source, 1).unwrap();
            for (part, rows) in [(&data.train, train), (&data.test, test)] {
                assert_eq!(part.rows(), rows, "{source:?}");
                assert_eq!(part.input_shape, shape, "{source:?}");
                assert_eq!(part.inputs.len(), rows * part.input_width(), "{source:?}");
                assert!(part.inputs.iter().all(|x| x.is_finite()), "{source:?}");
            }
        }
    }

    #[test]
    fn the_sizes_are_known_before_anything_is_generated() {
        for (source, ..) in generated() {
            assert_eq!(source.samples(), Some(load(&source, 1).unwrap().samples()), "{source:?}");
        }
    }

    #[test]
    fn the_seed_decides_every_generator_and_leaves_the_digits_alone() {
        for (source, ..) in generated() {
            let first = load(&source, 1).unwrap();
            assert_eq!(first, load(&source, 1).unwrap(), "{source:?}");
            let other = load(&source, 2).unwrap();
            assert_eq!(first == other, source == Source::Digits {}, "{source:?}");
        }
    }

    #[test]
    fn impossible_parameters_say_got_and_want() {
        let huge = usize::MAX;
        let cases = [
            (circles(3, 0.1, 0.5), "samples", "got 3, want at least 4"),
            (circles(huge, 0.1, 0.5), "samples", "want at most 1073741824 numbers"),
            (circles(9, -0.1, 0.5), "noise", "got -0.1, want a number from 0"),
            (circles(9, f64::NAN, 0.5), "noise", "got NaN, want a number from 0"),
            (circles(9, 0.1, 1.0), "factor", "got 1, want at least 0 and below 1"),
            (blobs(9, 1, 2, 1.0), "centers", "got 1, want at least 2"),
            (blobs(9, 10, 2, 1.0), "samples", "got 9, want at least 10"),
            (blobs(9, 2, 0, 1.0), "features", "got 0, want at least 1"),
            (blobs(9, 2, huge, 1.0), "samples", "want at most 1073741824 numbers"),
            (blobs(9, 2, 2, f64::INFINITY), "std", "got inf, want a number from 0"),
            (polynomial(9, &[], [0.0, 1.0], 0.0), "coefficients", "got 0, want at least 1"),
            (polynomial(9, &[f64::NAN], [0.0, 1.0], 0.0), "coefficients", "got NaN, want"),
            (polynomial(9, &[1.0], [1.0, 1.0], 0.0), "range", "got [1.0, 1.0], want"),
            (polynomial(9, &[1.0], [f64::MIN, f64::MAX], 0.0), "range", "want"),
            (polynomial(0, &[1.0], [0.0, 1.0], 0.0), "samples", "got 0, want at least 4"),
            (polynomial(9, &[1.0], [0.0, 1.0], -1.0), "noise", "got -1, want"),
            (Source::Linear { samples: 9, features: 0, noise: 0.0 }, "features", "got 0, want"),
            (Source::Adding { samples: 0, length: 9 }, "samples", "got 0, want at least 1"),
            (Source::Adding { samples: 9, length: 1 }, "length", "got 1, want at least 2"),
            (Source::Adding { samples: huge, length: 9 }, "samples", "want at most 1073741824"),
            (Source::TemporalOrder { samples: 0, length: 10 }, "samples", "want at least 1"),
            (Source::TemporalOrder { samples: 9, length: 9 }, "length", "want at least 10"),
            (Source::TemporalOrder { samples: 9, length: huge }, "samples", "want at most"),
        ];
        for (source, name, message) in cases {
            let error = load(&source, 1).expect_err(&format!("{source:?}"));
            let text = error.to_string();
            assert!(
                matches!(&error, DataError::Parameter { name: got, .. } if *got == name),
                "{source:?}: {error:?}"
            );
            assert!(text.contains(message) && text.contains("; hint: "), "{text}");
        }
    }
}
