//! `[data]` and `[scale]`: where the samples come from, and what is done to them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::number;

/// `[data]`: where samples come from, such as `[data.csv]`, whose keys are the fields.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// The handwritten digits that come with the program: 8x8 pixels, 10 classes.
    Digits {},
    /// A table of numbers with a header row.
    Csv {
        /// The file; relative to the recipe's folder.
        #[serde(deserialize_with = "number::path")]
        path: PathBuf,
        /// Name of the column to be predicted; all others are inputs.
        #[serde(deserialize_with = "number::not_empty_text")]
        target: String,
        /// Whether the target is a class or a value.
        task: Task,
        /// Part of the rows that is held out, between 0 and 1. Default 0.2.
        #[serde(default = "test_fraction", deserialize_with = "number::fraction")]
        test_fraction: f64,
    },
    /// Images and labels in the IDX format of MNIST, plain or gzip-compressed.
    Idx {
        /// The images; relative to the recipe's folder.
        #[serde(deserialize_with = "number::path")]
        images: PathBuf,
        /// The labels, one for each image; relative to the recipe's folder.
        #[serde(deserialize_with = "number::path")]
        labels: PathBuf,
        /// Images held out; given together with `test_labels`, or neither.
        #[serde(default, deserialize_with = "number::some_path")]
        test_images: Option<PathBuf>,
        /// Labels of the images held out.
        #[serde(default, deserialize_with = "number::some_path")]
        test_labels: Option<PathBuf>,
        /// Part of the images that is held out when there are no `test_images`, between 0 and 1.
        /// Default 0.2.
        #[serde(default = "test_fraction", deserialize_with = "number::fraction")]
        test_fraction: f64,
    },
    /// Two circles, one inside the other, to be told apart.
    Circles {
        /// Number of samples, training and test together: 10 to 10,000,000.
        #[serde(deserialize_with = "number::integer::<_, _, 10, 10_000_000>")]
        samples: usize,
        /// Standard deviation of the noise on both coordinates, in radii of the outer circle; >= 0.
        #[serde(deserialize_with = "number::not_negative")]
        noise: f64,
        /// Radius of the inner circle, in radii of the outer one: from 0 to below 1.
        #[serde(deserialize_with = "number::below_one")]
        factor: f64,
    },
    /// Clouds of normally distributed points, to be told apart.
    Blobs {
        /// Number of samples, training and test together: 10 to 10,000,000.
        #[serde(deserialize_with = "number::integer::<_, _, 10, 10_000_000>")]
        samples: usize,
        /// Number of clouds, which are the classes: 1 to 1000, at most `samples`.
        #[serde(deserialize_with = "number::integer::<_, _, 1, 1000>")]
        centers: usize,
        /// Number of coordinates: 1 to 65,536.
        #[serde(deserialize_with = "number::integer::<_, _, 1, 65_536>")]
        features: usize,
        /// Standard deviation of each cloud in each coordinate; >= 0.
        #[serde(deserialize_with = "number::not_negative")]
        std: f64,
        /// Take each point as an image of this shape, `[channels, height, width]`, whose product
        /// is `features`. Default: it is none.
        #[serde(default, deserialize_with = "number::some_image")]
        image: Option<[usize; 3]>,
    },
    /// A polynomial of one variable, to be fitted.
    Polynomial {
        /// Number of samples, training and test together: 10 to 10,000,000.
        #[serde(deserialize_with = "number::integer::<_, _, 10, 10_000_000>")]
        samples: usize,
        /// `c0, c1, ...` of `y = c0 + c1 x + c2 x² + ...`; at least one.
        #[serde(deserialize_with = "number::not_empty_floats")]
        coefficients: Vec<f64>,
        /// Lowest and highest `x`.
        #[serde(deserialize_with = "number::range")]
        range: [f64; 2],
        /// Standard deviation of the noise on `y`; >= 0.
        #[serde(deserialize_with = "number::not_negative")]
        noise: f64,
        /// The inputs are `x, x², ...` up to this power: 1 to 20. Default 1.
        #[serde(default = "one", deserialize_with = "number::integer::<_, _, 1, 20>")]
        powers: usize,
    },
    /// A linear map of normal inputs with weights from 0 to 100, to be fitted.
    Linear {
        /// Number of samples, training and test together: 10 to 10,000,000.
        #[serde(deserialize_with = "number::integer::<_, _, 10, 10_000_000>")]
        samples: usize,
        /// Number of inputs: 1 to 65,536.
        #[serde(deserialize_with = "number::integer::<_, _, 1, 65_536>")]
        features: usize,
        /// Standard deviation of the noise on the target; >= 0.
        #[serde(deserialize_with = "number::not_negative")]
        noise: f64,
    },
    /// The adding problem: a sequence of values, of which two marked ones are to be added.
    Adding {
        /// Number of sequences for training: 10 to 10,000,000.
        #[serde(deserialize_with = "number::integer::<_, _, 10, 10_000_000>")]
        samples: usize,
        /// Steps of each sequence: 2 to 10,000.
        #[serde(deserialize_with = "number::integer::<_, _, 2, 10_000>")]
        length: usize,
    },
    /// The temporal-order problem: which two symbols came, in which order, among distractors.
    TemporalOrder {
        /// Number of sequences for training: 10 to 10,000,000.
        #[serde(deserialize_with = "number::integer::<_, _, 10, 10_000_000>")]
        samples: usize,
        /// Steps of each sequence: 10 (so that both symbols have a place) to 10,000.
        #[serde(deserialize_with = "number::integer::<_, _, 10, 10_000>")]
        length: usize,
    },
}

impl Source {
    /// Whether this source has classes or values to predict.
    pub fn task(&self) -> Task {
        match self {
            Source::Csv { task, .. } => *task,
            Source::Polynomial { .. } | Source::Linear { .. } | Source::Adding { .. } => {
                Task::Regression
            }
            Source::Digits {}
            | Source::Idx { .. }
            | Source::Circles { .. }
            | Source::Blobs { .. }
            | Source::TemporalOrder { .. } => Task::Classification,
        }
    }

    /// Whether a sample is a sequence of steps: what an `rnn` reads.
    pub fn has_sequences(&self) -> bool {
        matches!(self, Source::Adding { .. } | Source::TemporalOrder { .. })
    }

    /// Whether a sample is an image: what a `conv` reads.
    pub fn has_images(&self) -> bool {
        matches!(
            self,
            Source::Digits {} | Source::Idx { .. } | Source::Blobs { image: Some(_), .. }
        )
    }

    /// Makes relative paths start at `folder`.
    pub(super) fn resolve(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| *path = folder.join(&*path);
        match self {
            Source::Csv { path, .. } => resolve(path),
            Source::Idx { images, labels, test_images, test_labels, .. } => {
                [Some(images), Some(labels), test_images.as_mut(), test_labels.as_mut()]
                    .into_iter()
                    .flatten()
                    .for_each(resolve);
            }
            _ => {}
        }
    }
}

fn one() -> usize {
    1
}

fn test_fraction() -> f64 {
    0.2
}

/// What is to be predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One of several classes.
    Classification,
    /// A value.
    Regression,
}

/// `[scale]`: what is done to the samples before training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// What is done to the inputs. Default: nothing.
    #[serde(default)]
    pub input: Scale,
    /// What is done to the targets of a regression; classes are never scaled. Default: nothing.
    #[serde(default)]
    pub target: Scale,
}

/// What is done to inputs or targets before training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Nothing.
    #[default]
    None,
    /// The training part's mean is subtracted, and the result divided by its standard deviation.
    Standard,
}
