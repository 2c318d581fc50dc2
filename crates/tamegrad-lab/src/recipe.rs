//! A recipe: the TOML file that says on which data which model is trained, and how.
//!
//! ```toml
//! name = "healthy-digits"
//! seed = 7
//!
//! [data]
//! source = "digits"
//!
//! [model]
//! kind = "mlp"
//! depth = 3
//! width = 64
//! activation = "relu"
//! init = { scheme = "he" }
//! normalisation = { kind = "batch", place = "before" }
//!
//! [[model.layer]]
//! index = 2
//! activation = "tanh"
//!
//! [optimizer]
//! kind = "sgd"
//! learning_rate = 0.05
//! momentum = 0.9
//!
//! [schedule]
//! warm_up = 100
//! decay = "cosine"
//!
//! [clip]
//! by = "global-norm"
//! limit = 1.0
//!
//! [regularise]
//! l2 = 1e-4
//!
//! [training]
//! batch = 64
//! epochs = 20
//! ```
//!
//! Reading is strict: an unknown key, a wrong type or an impossible value is a [`RecipeError`] that
//! points at line and column and says what is allowed. The structs here are the only description of
//! the format; a new key is a new field.
//!
//! An enum whose variants carry keys of their own is chosen by a tag key (`source`, `kind` or
//! `scheme`) that stands in the same table as those keys. Only [`parse`] knows these tags, another
//! deserializer does not; see `recipe/de.rs`.

mod check;
mod de;
pub mod diff;
pub mod edit;
mod error;
mod number;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::DeTable;

pub use error::RecipeError;

/// All that a training run is made from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run and of its folder: 1 to 100 ASCII letters, digits, `-` and `_`.
    #[serde(deserialize_with = "number::name")]
    pub name: String,
    /// Where all chance comes from: generated data, splits, initial weights, batches. Default 0.
    #[serde(default, deserialize_with = "number::integer::<_, _, 0, { i64::MAX }>")]
    pub seed: u64,
    /// What is learned.
    pub data: Data,
    /// What learns.
    pub model: Model,
    /// How a gradient becomes an update.
    pub optimizer: Optimizer,
    /// How the learning rate changes with the step. Default: not at all.
    #[serde(default)]
    pub schedule: Schedule,
    /// How gradients are limited. Default: they are not.
    pub clip: Option<Clip>,
    /// Penalties on the weights. Default: none.
    #[serde(default)]
    pub regularise: Regularise,
    /// How long and with which loss.
    pub training: Training,
}

impl Recipe {
    /// The loss that is trained: the one the recipe names, or else the usual one for the task
    /// (cross-entropy for classes, mean squared error for values).
    pub fn loss(&self) -> Loss {
        self.training.loss.unwrap_or(match self.data.source.task() {
            Task::Classification => Loss::CrossEntropy,
            Task::Regression => Loss::MeanSquaredError,
        })
    }
}

/// A recipe and the file it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct RecipeFile {
    /// The file as it stands, with its comments: what [`edit::apply`] works on.
    pub text: String,
    /// Where the file is, as given.
    pub path: PathBuf,
    /// What it says.
    pub recipe: Recipe,
}

/// Reads the recipe at `path`.
///
/// # Errors
/// When the file cannot be read, is not UTF-8, or is not a recipe (see [`parse`]).
pub fn read(path: &Path) -> Result<RecipeFile, RecipeError> {
    let bytes = std::fs::read(path).map_err(|error| RecipeError::unreadable(path, &error))?;
    let text = String::from_utf8(bytes).map_err(|error| RecipeError::not_utf8(path, &error))?;
    let recipe = parse(&text, Some(path))?;
    Ok(RecipeFile { text, path: path.to_path_buf(), recipe })
}

/// Parses `text`. `path` is where it came from: errors name it, and the relative paths in `[data]`
/// are resolved against its folder. Without it they stay as written.
///
/// # Errors
/// When `text` is not TOML, has an unknown key, lacks one, or has a value of the wrong type, out of
/// range or at odds with another value. Of several errors one is told.
pub fn parse(text: &str, path: Option<&Path>) -> Result<Recipe, RecipeError> {
    let table = DeTable::parse(text).map_err(|error| RecipeError::syntax(text, path, &error))?;
    let mut recipe: Recipe = de::read(table.get_ref(), None)
        .and_then(|recipe| check::whole(&recipe, table.get_ref()).map(|()| recipe))
        .map_err(|fault| RecipeError::of(text, path, table.get_ref(), fault))?;
    if let Some(folder) = path.and_then(Path::parent) {
        recipe.data.source.resolve(folder);
    }
    Ok(recipe)
}

/// `[data]`: the samples, and what is done to them before training.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Where the samples come from.
    pub source: Source,
    /// What is done to the inputs. Default: nothing.
    #[serde(default)]
    pub scale_input: Scale,
    /// What is done to the targets of a regression; classes are never scaled. Default: nothing.
    #[serde(default)]
    pub scale_target: Scale,
}

/// `data.source`: where samples come from. The fields are keys of `[data]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// The handwritten digits that come with the program: 8x8 pixels, 10 classes.
    Digits,
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
        range: [f64; 2],
        /// Standard deviation of the noise on `y`; >= 0.
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
            Source::Polynomial { .. } | Source::Adding { .. } => Task::Regression,
            Source::Digits
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
        matches!(self, Source::Digits | Source::Idx { .. })
    }

    /// Makes relative paths start at `folder`.
    fn resolve(&mut self, folder: &Path) {
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

/// `[model]`: what learns.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename = "kind", rename_all = "kebab-case")]
pub enum Model {
    /// Fully connected layers.
    Mlp(Mlp),
    /// Convolutions, then fully connected layers.
    Conv(Conv),
    /// A plain recurrent network.
    Rnn(Rnn),
}

/// `[model]` with `kind = "mlp"`: hidden layers of one width, then a linear output layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mlp {
    /// Number of hidden layers: 1 to 500.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 500>")]
    pub depth: usize,
    /// Units of each hidden layer: 1 to 8192.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 8192>")]
    pub width: usize,
    /// Of each hidden layer. Default relu.
    #[serde(default)]
    pub activation: Activation,
    /// Of each layer's weights. Default he, normal, gain 1.
    #[serde(default)]
    pub init: Init,
    /// Of each hidden layer. Default none.
    #[serde(default)]
    pub normalisation: Normalisation,
    /// Whether each hidden layer after the first adds its input to its output. Default false.
    #[serde(default)]
    pub residual: bool,
    /// `[[model.layer]]`: the hidden layers that differ, each at most once.
    #[serde(default)]
    pub layer: Vec<LayerOverride>,
}

/// `[[model.layer]]`: what one hidden layer has instead of the model's own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerOverride {
    /// Which hidden layer, counted from 0 at the input: below `depth`.
    #[serde(deserialize_with = "number::integer::<_, _, 0, 499>")]
    pub index: usize,
    /// Instead of the model's activation.
    pub activation: Option<Activation>,
    /// Instead of the model's initialisation.
    pub init: Option<Init>,
    /// Instead of the model's normalisation.
    pub normalisation: Option<Normalisation>,
}

/// `[model]` with `kind = "conv"`: convolutions, dense layers, then a linear output layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Output channels of each convolution, 1 to 8192; at least one convolution.
    #[serde(deserialize_with = "number::widths_at_least_one")]
    pub channels: Vec<usize>,
    /// Side of the square kernel in pixels: odd, 1 to 31.
    #[serde(deserialize_with = "number::odd_kernel")]
    pub kernel: usize,
    /// Units of each hidden dense layer after the convolutions, 1 to 8192. Default: no such layer.
    #[serde(default, deserialize_with = "number::widths")]
    pub dense: Vec<usize>,
    /// Of each convolution and hidden dense layer. Default relu.
    #[serde(default)]
    pub activation: Activation,
    /// Of each layer's weights. Default he, normal, gain 1.
    #[serde(default)]
    pub init: Init,
    /// Of each convolution and hidden dense layer. Default none.
    #[serde(default)]
    pub normalisation: Normalisation,
    /// Whether a layer whose input and output have one shape adds the one to the other. Default
    /// false.
    #[serde(default)]
    pub residual: bool,
}

/// `[model]` with `kind = "rnn"`: `h' = activation(W x + U h + b)`, then a linear output layer on
/// the last `h`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rnn {
    /// Units of the state `h`: 1 to 8192.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 8192>")]
    pub hidden: usize,
    /// Of each step. Default tanh.
    #[serde(default = "tanh")]
    pub activation: Activation,
    /// Of `W`, `U` and the output layer. Default xavier, normal, gain 1, which fits tanh.
    #[serde(default = "xavier")]
    pub init: Init,
    /// The recurrent matrix `U` is rescaled so that its largest eigenvalue has this absolute value,
    /// which is above 0. Default: it is not rescaled.
    #[serde(default, deserialize_with = "number::some_positive")]
    pub spectral_radius: Option<f64>,
}

fn tanh() -> Activation {
    Activation::Tanh
}

fn xavier() -> Init {
    Init { scheme: Scheme::Xavier { distribution: Distribution::Normal }, gain: 1.0 }
}

/// The function after a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `max(0, x)`
    #[default]
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x` times the normal distribution function of `x` (Hendrycks and Gimpel 2016).
    Gelu,
    /// The self-normalising exponential linear unit (Klambauer et al. 2017).
    Selu,
    /// `x`
    Linear,
    /// `exp(x)`: overflows by nature.
    Exp,
}

/// `init`: how the first weights are drawn. Biases start at 0.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// What the scale depends on.
    pub scheme: Scheme,
    /// Multiplies the scheme's own scale; > 0. Default 1.
    #[serde(default = "one", deserialize_with = "number::positive")]
    pub gain: f64,
}

impl Default for Init {
    fn default() -> Init {
        Init { scheme: Scheme::He { distribution: Distribution::Normal }, gain: 1.0 }
    }
}

/// `init.scheme`: what the scale of the first weights depends on. The fields are keys of `init`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Scheme {
    /// Variance `2 / inputs` (He et al. 2015).
    He {
        /// Default normal.
        #[serde(default)]
        distribution: Distribution,
    },
    /// Variance `2 / (inputs + outputs)` (Glorot and Bengio 2010).
    Xavier {
        /// Default normal.
        #[serde(default)]
        distribution: Distribution,
    },
    /// Variance `1 / inputs` (LeCun et al. 1998).
    Lecun {
        /// Default normal.
        #[serde(default)]
        distribution: Distribution,
    },
    /// A matrix with orthonormal rows or columns (Saxe et al. 2014), times the gain.
    Orthogonal,
    /// Uniform from `gain * low` to `gain * high`: with the defaults `U(-gain, gain)`.
    Uniform {
        /// Lower bound before the gain. Default -1.
        #[serde(default = "minus_one")]
        low: f64,
        /// Upper bound before the gain, above `low`. Default 1.
        #[serde(default = "one")]
        high: f64,
    },
    /// Normal with mean 0 and standard deviation `gain`.
    Normal,
}

fn one() -> f64 {
    1.0
}

fn minus_one() -> f64 {
    -1.0
}

/// The distribution of which a scheme sets the variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Normal, mean 0.
    #[default]
    Normal,
    /// Uniform, mean 0.
    Uniform,
}

/// `normalisation`: of a layer's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Over what.
    pub kind: NormalisationKind,
    /// Before or after the activation. Default before.
    #[serde(default)]
    pub place: Place,
}

/// `normalisation.kind`: over what is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalisationKind {
    /// Not at all.
    #[default]
    None,
    /// Over the samples of the batch (Ioffe and Szegedy 2015).
    Batch,
    /// Over the units of the layer (Ba et al. 2016).
    Layer,
}

/// `normalisation.place`: where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Between the weights and the activation.
    #[default]
    Before,
    /// After the activation.
    After,
}

/// `[optimizer]`: how a gradient becomes an update.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Which rule.
    pub kind: OptimizerKind,
    /// Step size before the schedule; > 0.
    #[serde(deserialize_with = "number::positive")]
    pub learning_rate: f64,
    /// Decoupled weight decay (Loshchilov and Hutter 2019), for every kind: each step takes
    /// `learning_rate * weight_decay` of each weight away; >= 0. Default 0.
    #[serde(default, deserialize_with = "number::not_negative")]
    pub weight_decay: f64,
}

/// `optimizer.kind`: the rule. The fields are keys of `[optimizer]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerKind {
    /// Gradient descent.
    Sgd {
        /// Part of the last update that is kept: from 0 to below 1. Default 0.
        #[serde(default, deserialize_with = "number::below_one")]
        momentum: f64,
    },
    /// Adam (Kingma and Ba 2015).
    Adam {
        /// Decay of the mean of gradients: from 0 to below 1. Default 0.9.
        #[serde(default = "beta1", deserialize_with = "number::below_one")]
        beta1: f64,
        /// Decay of the mean of squared gradients: from 0 to below 1. Default 0.999.
        #[serde(default = "beta2", deserialize_with = "number::below_one")]
        beta2: f64,
        /// Added to the denominator; > 0. Default 1e-8.
        #[serde(default = "epsilon", deserialize_with = "number::positive")]
        epsilon: f64,
    },
    /// AdamW (Loshchilov and Hutter 2019): Adam, usually with `weight_decay`.
    Adamw {
        /// Decay of the mean of gradients: from 0 to below 1. Default 0.9.
        #[serde(default = "beta1", deserialize_with = "number::below_one")]
        beta1: f64,
        /// Decay of the mean of squared gradients: from 0 to below 1. Default 0.999.
        #[serde(default = "beta2", deserialize_with = "number::below_one")]
        beta2: f64,
        /// Added to the denominator; > 0. Default 1e-8.
        #[serde(default = "epsilon", deserialize_with = "number::positive")]
        epsilon: f64,
    },
    /// RMSprop (Tieleman and Hinton 2012).
    Rmsprop {
        /// Decay of the mean of squared gradients: from 0 to below 1. Default 0.99.
        #[serde(default = "alpha", deserialize_with = "number::below_one")]
        alpha: f64,
        /// Part of the last update that is kept: from 0 to below 1. Default 0.
        #[serde(default, deserialize_with = "number::below_one")]
        momentum: f64,
        /// Added to the denominator; > 0. Default 1e-8.
        #[serde(default = "epsilon", deserialize_with = "number::positive")]
        epsilon: f64,
    },
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn alpha() -> f64 {
    0.99
}

fn epsilon() -> f64 {
    1e-8
}

/// `[schedule]`: how the learning rate changes with the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Steps over which it rises linearly from 0; 0 to 1,000,000,000. Default 0.
    #[serde(default, deserialize_with = "number::integer::<_, _, 0, 1_000_000_000>")]
    pub warm_up: u64,
    /// What it does afterwards. Default constant.
    #[serde(default)]
    pub decay: Decay,
}

/// `schedule.decay`: the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Stays.
    #[default]
    Constant,
    /// Falls to 0 at the last step along half a cosine (Loshchilov and Hutter 2017).
    Cosine,
}

/// `[clip]`: how gradients are limited before the update.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// What is limited.
    pub by: ClipBy,
    /// The limit, in units of the gradient; > 0.
    #[serde(deserialize_with = "number::positive")]
    pub limit: f64,
}

/// `clip.by`: what is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClipBy {
    /// The norm over all tensors (Pascanu et al. 2013).
    GlobalNorm,
    /// The norm of each tensor by itself.
    TensorNorm,
    /// Each element's absolute value.
    Value,
}

/// `[regularise]`: penalties on the weights, added to the loss.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regularise {
    /// Factor of the sum of absolute weights; >= 0. Default 0.
    #[serde(default, deserialize_with = "number::not_negative")]
    pub l1: f64,
    /// Factor of the sum of squared weights; >= 0. Default 0.
    #[serde(default, deserialize_with = "number::not_negative")]
    pub l2: f64,
}

/// `[training]`: how long and with which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Samples of each step: 1 to 1,000,000.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 1_000_000>")]
    pub batch: usize,
    /// Passes over the training part: 1 to 1,000,000.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 1_000_000>")]
    pub epochs: u64,
    /// What is made small. Default: by the task, see [`Recipe::loss`].
    pub loss: Option<Loss>,
}

/// `training.loss`: what is made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Of the softmax of the outputs; for classes only.
    CrossEntropy,
    /// Mean over samples and outputs; classes are one-hot.
    MeanSquaredError,
    /// Sum over samples and outputs, so that the gradient grows with the batch; classes are one-hot.
    SumSquaredError,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = r#"name = "a"
data = { source = "digits" }
model = { kind = "mlp", depth = 3, width = 8 }
optimizer = { kind = "sgd", learning_rate = 0.1 }
training = { batch = 8, epochs = 2 }
"#;

    /// The short recipe with one line replaced or, for a section that it lacks, added.
    fn with(line: &str) -> String {
        let key = line.split([' ', '.', ']']).next().unwrap_or_default();
        let others = SHORT.lines().filter(|other| !other.starts_with(&format!("{key} ")));
        let mut text: Vec<&str> = others.collect();
        text.push(line);
        text.join("\n")
    }

    #[test]
    fn the_short_recipe_has_the_defaults() {
        let he = Init { scheme: Scheme::He { distribution: Distribution::Normal }, gain: 1.0 };
        let none = Normalisation { kind: NormalisationKind::None, place: Place::Before };
        let want = Recipe {
            name: "a".into(),
            seed: 0,
            data: Data {
                source: Source::Digits,
                scale_input: Scale::None,
                scale_target: Scale::None,
            },
            model: Model::Mlp(Mlp {
                depth: 3,
                width: 8,
                activation: Activation::Relu,
                init: he,
                normalisation: none,
                residual: false,
                layer: vec![],
            }),
            optimizer: Optimizer {
                kind: OptimizerKind::Sgd { momentum: 0.0 },
                learning_rate: 0.1,
                weight_decay: 0.0,
            },
            schedule: Schedule { warm_up: 0, decay: Decay::Constant },
            clip: None,
            regularise: Regularise { l1: 0.0, l2: 0.0 },
            training: Training { batch: 8, epochs: 2, loss: None },
        };
        assert_eq!(parse(SHORT, None), Ok(want));
    }

    #[test]
    fn the_example_of_the_documentation_is_read() {
        let source = include_str!("recipe.rs");
        let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
        let example: Vec<&str> = lines
            .skip_while(|line| *line != " ```toml")
            .skip(1)
            .take_while(|l| *l != " ```")
            .collect();
        let recipe = parse(&example.join("\n"), None).unwrap();
        assert_eq!(recipe.seed, 7);
        assert_eq!(recipe.schedule, Schedule { warm_up: 100, decay: Decay::Cosine });
        assert_eq!(recipe.clip, Some(Clip { by: ClipBy::GlobalNorm, limit: 1.0 }));
        assert_eq!(recipe.optimizer.kind, OptimizerKind::Sgd { momentum: 0.9 });
        let Model::Mlp(mlp) = recipe.model else { panic!("not an mlp") };
        assert_eq!(mlp.normalisation.kind, NormalisationKind::Batch);
        assert_eq!((mlp.layer[0].index, mlp.layer[0].activation), (2, Some(Activation::Tanh)));
    }

    #[test]
    fn each_optimizer_has_its_keys() {
        let cases = [
            ("kind = \"sgd\", momentum = 0.9", OptimizerKind::Sgd { momentum: 0.9 }),
            (
                "kind = \"adam\", beta1 = 0.5",
                OptimizerKind::Adam { beta1: 0.5, beta2: 0.999, epsilon: 1e-8 },
            ),
            (
                "beta2 = 0.5, kind = \"adamw\", epsilon = 1e-4",
                OptimizerKind::Adamw { beta1: 0.9, beta2: 0.5, epsilon: 1e-4 },
            ),
            (
                "kind = \"rmsprop\", momentum = 0",
                OptimizerKind::Rmsprop { alpha: 0.99, momentum: 0.0, epsilon: 1e-8 },
            ),
        ];
        for (keys, kind) in cases {
            let text =
                with(&format!("optimizer = {{ {keys}, learning_rate = 1, weight_decay = 0.5 }}"));
            let want = Optimizer { kind, learning_rate: 1.0, weight_decay: 0.5 };
            assert_eq!(parse(&text, None).map(|recipe| recipe.optimizer), Ok(want));
        }
    }

    #[test]
    fn each_source_has_its_keys_and_task() {
        use Loss::{CrossEntropy, MeanSquaredError};
        let cases = [
            (r#"source = "digits", scale_input = "standard""#, Source::Digits, CrossEntropy),
            (
                r#"path = "t.csv", source = "csv", target = "y", task = "regression""#,
                Source::Csv {
                    path: "t.csv".into(),
                    target: "y".into(),
                    task: Task::Regression,
                    test_fraction: 0.2,
                },
                MeanSquaredError,
            ),
            (
                r#"source = "idx", images = "i", labels = "l", test_images = "ti", test_labels = "tl""#,
                Source::Idx {
                    images: "i".into(),
                    labels: "l".into(),
                    test_images: Some("ti".into()),
                    test_labels: Some("tl".into()),
                    test_fraction: 0.2,
                },
                CrossEntropy,
            ),
            (
                r#"source = "circles", samples = 100, noise = 0.1, factor = 0.5"#,
                Source::Circles { samples: 100, noise: 0.1, factor: 0.5 },
                CrossEntropy,
            ),
            (
                r#"source = "blobs", samples = 100, centers = 3, features = 2, std = 1"#,
                Source::Blobs { samples: 100, centers: 3, features: 2, std: 1.0 },
                CrossEntropy,
            ),
            (
                r#"source = "polynomial", samples = 1_000, coefficients = [1, -2.5], range = [-3, 3], noise = 0"#,
                Source::Polynomial {
                    samples: 1000,
                    coefficients: vec![1.0, -2.5],
                    range: [-3.0, 3.0],
                    noise: 0.0,
                },
                MeanSquaredError,
            ),
            (
                r#"source = "adding", samples = 10, length = 50"#,
                Source::Adding { samples: 10, length: 50 },
                MeanSquaredError,
            ),
            (
                r#"source = "temporal-order", samples = 10, length = 50"#,
                Source::TemporalOrder { samples: 10, length: 50 },
                CrossEntropy,
            ),
        ];
        for (keys, source, loss) in cases {
            let recipe = parse(&with(&format!("data = {{ {keys} }}")), None).unwrap();
            assert_eq!((recipe.loss(), recipe.data.source), (loss, source));
        }
    }

    #[test]
    fn each_model_has_its_keys() {
        let text = with(r#"model = { kind = "conv", channels = [8, 16], kernel = 3 }"#);
        let want = Model::Conv(Conv {
            channels: vec![8, 16],
            kernel: 3,
            dense: vec![],
            activation: Activation::Relu,
            init: Init::default(),
            normalisation: Normalisation::default(),
            residual: false,
        });
        assert_eq!(parse(&text, None).map(|recipe| recipe.model), Ok(want));

        let text = with(r#"data = { source = "adding", samples = 10, length = 50 }"#).replace(
            r#"kind = "mlp", depth = 3, width = 8"#,
            r#"kind = "rnn", hidden = 5, spectral_radius = 1.5, init = { low = -2, scheme = "uniform", gain = 3 }"#,
        );
        let want = Model::Rnn(Rnn {
            hidden: 5,
            activation: Activation::Tanh,
            init: Init { scheme: Scheme::Uniform { low: -2.0, high: 1.0 }, gain: 3.0 },
            spectral_radius: Some(1.5),
        });
        assert_eq!(parse(&text, None).map(|recipe| recipe.model), Ok(want));
    }

    /// Text, line, column, part of the message, part of the help.
    fn check(cases: &[(&str, usize, usize, &str, &str)]) {
        for (text, line, column, message, help) in cases {
            let Err(error) = parse(text, None) else { panic!("no error in\n{text}") };
            assert_eq!((error.line, error.column), (*line, *column), "{error} in\n{text}");
            assert!(error.message.contains(message), "{error}, want {message} in\n{text}");
            assert!(error.help.contains(help), "{error}, want {help} in\n{text}");
            assert!(!help.is_empty() || error.help.is_empty(), "{error} in\n{text}");
        }
    }

    /// As [`check`], for the last line of an else right recipe, which is line 5 or, for a section
    /// that the short recipe lacks, line 6.
    fn check_line(cases: &[(&str, usize, &str, &str)]) {
        for (line, column, message, help) in cases {
            let text = with(line);
            check(&[(&text, text.lines().count(), *column, message, help)]);
        }
    }

    #[test]
    fn unknown_keys_are_told_with_those_allowed() {
        check_line(&[
            ("speed = 1", 1, "unknown key `speed` at the top level", "allowed: name, seed, data"),
            ("modle = 1", 1, "unknown key `modle` at the top level", "did you mean `model`?"),
            (
                r#"model = { kind = "mlp", depth = 3, widht = 8 }"#,
                36,
                "unknown key `widht` in [model]",
                "allowed: kind, depth, width, activation, init, normalisation, residual, layer; \
                 did you mean `width`?",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, hidden = 3 }"#,
                47,
                "key `hidden` in [model] does not belong to kind = \"mlp\"",
                "it belongs to rnn; allowed: kind, depth",
            ),
            (
                r#"model = { knd = "mlp", depth = 3, width = 8 }"#,
                11,
                "unknown key `knd` in [model]",
                "did you mean `kind`?",
            ),
            (
                r#"optimizer = { kind = "sgd", learning_rate = 0.1, beta1 = 0.9 }"#,
                50,
                "key `beta1` in [optimizer] does not belong to kind = \"sgd\"",
                "it belongs to adam, adamw; allowed: kind, learning_rate, weight_decay, momentum",
            ),
            (
                r#"optimizer = { kind = "adam", lerning_rate = 0.1 }"#,
                30,
                "unknown key `lerning_rate` in [optimizer]",
                "did you mean `learning_rate`?",
            ),
            (
                r#"data = { source = "digits", samples = 3 }"#,
                29,
                "key `samples` in [data] does not belong to source = \"digits\"",
                "it belongs to circles, blobs, polynomial, adding, temporal-order; allowed: source",
            ),
            (
                r#"data = { scale-input = "none", source = "digits" }"#,
                10,
                "unknown key `scale-input` in [data]",
                "did you mean `scale_input`?",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, init = { scheme = "he", low = 1 } }"#,
                71,
                "key `low` in [model.init] does not belong to scheme = \"he\"",
                "it belongs to uniform; allowed: scheme, gain, distribution",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 1, gain = 2 }] }"#,
                69,
                "unknown key `gain` in [[model.layer]]",
                "allowed: index, activation, init, normalisation",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, normalisation = { kind = "batch", x = 1 } }"#,
                81,
                "unknown key `x` in [model.normalisation]",
                "allowed: kind, place",
            ),
            (
                "clip = { by = \"value\", limit = 1, norm = 2 }",
                35,
                "unknown key `norm`",
                "by, limit",
            ),
        ]);
    }

    #[test]
    fn unknown_names_are_told_with_those_allowed() {
        check_line(&[
            (
                r#"model = { kind = "mpl", depth = 3, width = 8 }"#,
                18,
                r#"unknown value "mpl" for `kind` in [model]"#,
                "allowed: mlp, conv, rnn; did you mean `mlp`?",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, activation = 'Relu' }"#,
                60,
                "unknown value 'Relu' for `activation` in [model]",
                "did you mean `relu`?",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 0 }, { index = 1, activation = "swish" }] }"#,
                97,
                r#"unknown value "swish" for `activation` in [[model.layer]]"#,
                "allowed: relu, tanh, sigmoid, gelu, selu, linear, exp",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, init = { scheme = "glorot" } }"#,
                65,
                r#"unknown value "glorot" for `scheme` in [model.init]"#,
                "allowed: he, xavier, lecun, orthogonal, uniform, normal",
            ),
            (
                r#"data = { source = "mnist" }"#,
                19,
                r#"unknown value "mnist" for `source` in [data]"#,
                "allowed: digits, csv, idx",
            ),
            (
                r#"optimizer = { kind = 3, learning_rate = 0.1 }"#,
                22,
                "unknown value 3 for `kind` in [optimizer]",
                "allowed: sgd, adam, adamw, rmsprop",
            ),
            (
                r#"clip = { by = "global_norm", limit = 1 }"#,
                15,
                "unknown value \"global_norm\"",
                "did you mean `global-norm`?",
            ),
        ]);
    }

    #[test]
    fn wrong_types_and_ranges_are_told() {
        check_line(&[
            ("name = \"a b\"", 8, "got \"a b\" for `name`, want 1 to 100 ASCII letters", ""),
            ("name = \"\"", 8, "got \"\" for `name`", ""),
            ("name = 3", 8, "got 3 for `name`, want a text", "write texts in quotes"),
            ("seed = -1", 8, "got -1 for `seed`, want a whole number from 0", ""),
            ("seed = 99999999999999999999", 8, "want a whole number from 0", ""),
            ("model = 3", 9, "want a table with kind = one of mlp, conv, rnn", ""),
            ("clip = 3", 8, "got 3 for `clip`, want a table with the keys by, limit", ""),
            ("schedule = { warm_up = 1.5 }", 24, "got 1.5 for `warm_up` in [schedule]", ""),
            (
                "schedule = { warm_up = 10.0 }",
                24,
                "want a whole number from 0 to 1000000000",
                "without point",
            ),
            (
                r#"model = { kind = "mlp", depth = 0, width = 8 }"#,
                33,
                "got 0 for `depth` in [model], want a whole number from 1 to 500",
                "",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = "8" }"#,
                44,
                "got \"8\" for `width` in [model], want a whole number from 1 to 8192",
                "write numbers without quotes",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, residual = "yes" }"#,
                58,
                "got \"yes\" for `residual` in [model], want true or false",
                "without quotes",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, init = { scheme = "he", gain = 0 } }"#,
                78,
                "got 0 for `gain` in [model.init], want a number above 0",
                "",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 0 }, { index = -1 }] }"#,
                81,
                "got -1 for `index` in [[model.layer]]",
                "",
            ),
            (
                r#"model = { kind = "conv", channels = [8, 0], kernel = 3 }"#,
                41,
                "got 0 for `channels[1]` in [model], want a whole number from 1 to 8192",
                "",
            ),
            (
                r#"model = { kind = "conv", channels = [], kernel = 3 }"#,
                37,
                "got [] for `channels` in [model], want an array of at least one",
                "",
            ),
            (
                r#"model = { kind = "conv", channels = [8], kernel = 4 }"#,
                51,
                "got 4 for `kernel` in [model], want an odd whole number from 1 to 31",
                "",
            ),
            (
                r#"optimizer = { kind = "sgd", learning_rate = 0 }"#,
                45,
                "got 0 for `learning_rate` in [optimizer], want a number above 0",
                "",
            ),
            (
                r#"optimizer = { kind = "sgd", learning_rate = nan }"#,
                45,
                "got nan for `learning_rate` in [optimizer], want a number above 0",
                "nan and inf are not allowed",
            ),
            (
                r#"optimizer = { kind = "sgd", learning_rate = 1, momentum = 1.0 }"#,
                59,
                "got 1.0 for `momentum` in [optimizer], want a number from 0 to below 1",
                "",
            ),
            (
                r#"optimizer = { kind = "sgd", learning_rate = 1, weight_decay = 1e999 }"#,
                63,
                "got 1e999 for `weight_decay` in [optimizer], want a number from 0",
                "",
            ),
            (
                r#"data = { source = "polynomial", samples = 10, coefficients = [1, inf], range = [0, 1], noise = 0 }"#,
                66,
                "got inf for `coefficients[1]` in [data], want a finite number",
                "nan and inf",
            ),
            (
                r#"data = { source = "polynomial", samples = 10, coefficients = [1], range = [0], noise = 0 }"#,
                75,
                "got [0] for `range` in [data], want an array of length 2",
                "",
            ),
            (
                r#"data = { source = "polynomial", samples = 10, coefficients = [1], range = [0, 1, 2], noise = 0 }"#,
                75,
                "got [0, 1, 2] for `range` in [data], want an array of length 2",
                "",
            ),
            (
                r#"data = { source = "csv", path = "", target = "y", task = "regression" }"#,
                33,
                "got \"\" for `path` in [data], want a text that is not empty",
                "",
            ),
            (
                r#"data = { source = "csv", path = "p", target = "y", task = "regression", test_fraction = 1 }"#,
                89,
                "got 1 for `test_fraction` in [data], want a number above 0 and below 1",
                "",
            ),
            ("regularise = { l1 = -0.1 }", 21, "got -0.1 for `l1` in [regularise]", ""),
            ("regularise = { l2 = -2, l1 = -1 }", 21, "got -2 for `l2` in [regularise]", ""),
            ("training = { batch = 0, epochs = 1 }", 22, "got 0 for `batch` in [training]", ""),
        ]);
    }

    #[test]
    fn missing_keys_are_told_at_their_section() {
        let sections =
            "name = \"a\"\n[data]\nsource = \"digits\"\n  [model]\nkind = \"mlp\"\ndepth = 3\n";
        let layer = with("[[model.layer]]\nactivation = \"relu\"")
            .replace("model = { kind = \"mlp\", depth = 3, width = 8 }\n", "")
            + "\n[model]\nkind = \"mlp\"\ndepth = 3\nwidth = 8\n";
        check(&[
            ("", 1, 1, "missing key `name` at the top level", "want a text"),
            (
                sections,
                4,
                3,
                "missing key `width` in [model]",
                "want a whole number from 1 to 8192",
            ),
            (&layer, 5, 1, "missing key `index` in [[model.layer]]", "whole number from 0 to 499"),
            (
                &SHORT.replace("training", "# training"),
                1,
                1,
                "missing section [training]",
                "want a table with the keys batch, epochs, loss",
            ),
            (
                &SHORT.replace("model =", "# model ="),
                1,
                1,
                "missing section [model]",
                "want a table with kind = one of mlp, conv, rnn",
            ),
        ]);
        check_line(&[
            ("data = {}", 8, "missing key `source` in [data]", "want one of digits, csv"),
            (
                "model = { depth = 3 }",
                9,
                "missing key `kind` in [model]",
                "want one of mlp, conv, rnn",
            ),
            ("clip = { limit = 1 }", 8, "missing key `by` in [clip]", "want one of global-norm"),
            (
                r#"model = { kind = "conv", kernel = 3 }"#,
                9,
                "missing key `channels` in [model]",
                "want an array",
            ),
            (
                r#"optimizer = { kind = "sgd" }"#,
                13,
                "missing key `learning_rate` in [optimizer]",
                "want a number above 0",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, init = { gain = 2 } }"#,
                54,
                "missing key `scheme` in [model.init]",
                "want one of he, xavier",
            ),
            (
                r#"data = { source = "blobs", samples = 10, centers = 2, std = 1 }"#,
                8,
                "missing key `features` in [data]",
                "want a whole number from 1 to 65536",
            ),
        ]);
    }

    #[test]
    fn values_at_odds_are_told() {
        let regression = with(
            r#"data = { source = "polynomial", samples = 10, coefficients = [1], range = [0, 1], noise = 0 }"#,
        );
        check(&[(
            &regression.replace("epochs = 2", "epochs = 2, loss = \"cross-entropy\""),
            4,
            44,
            "with data that has no classes",
            "mean-squared-error",
        )]);
        check_line(&[
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 3 }] }"#,
                66,
                "got 3 for `index` in [[model.layer]], want below depth = 3",
                "count from 0",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, layer = [{ index = 1 }, { index = 1 }] }"#,
                81,
                "a second time",
                "into one [[model.layer]]",
            ),
            (
                r#"model = { kind = "mlp", depth = 3, width = 8, init = { scheme = "uniform", low = 2 } }"#,
                54,
                "got low = 2.0 and high = 1.0 in [model.init], want low below high",
                "without them",
            ),
            (
                r#"model = { kind = "rnn", hidden = 3 }"#,
                18,
                "data that has no sequences",
                "\"adding\" or \"temporal-order\"",
            ),
            (
                r#"data = { source = "idx", images = "i", labels = "l", test_labels = "t" }"#,
                68,
                "`test_labels` without `test_images`",
                "add `test_images`",
            ),
            (
                r#"data = { source = "blobs", samples = 10, centers = 11, features = 2, std = 1 }"#,
                52,
                "got 11 for `centers` in [data], want at most samples = 10",
                "",
            ),
            (
                r#"data = { source = "polynomial", samples = 10, coefficients = [1], range = [1, 1], noise = 0 }"#,
                75,
                "got [1.0, 1.0] for `range`",
                "",
            ),
        ]);
        let conv = with(r#"data = { source = "circles", samples = 10, noise = 0, factor = 0 }"#)
            .replace(
                "kind = \"mlp\", depth = 3, width = 8",
                "kind = \"conv\", channels = [1], kernel = 1",
            );
        check(&[(&conv, 2, 18, "data that has no images", "\"digits\" or \"idx\"")]);
    }

    #[test]
    fn broken_toml_is_told() {
        check(&[
            ("name = \n", 1, 8, "not TOML: ", "`key = value`"),
            ("name = \"a\"\nname = \"b\"\n", 2, 1, "not TOML: duplicate key", "`key = value`"),
            ("µ = \"a\nb = 1", 1, 1, "not TOML: ", "`key = value`"),
        ]);
    }

    #[test]
    fn line_ends_and_byte_order_mark_do_not_move_places() {
        let text = with("regularise = { l1 = -1 }");
        for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
            check(&[(&text, 6, 21, "got -1 for `l1` in [regularise]", "")]);
        }
    }

    /// Whatever is wrong with a text, the place told is in it, and editing it does not panic.
    #[test]
    fn damaged_recipes_are_told_within_the_text() {
        let whole =
            with("[[model.layer]]\nindex = 1 # µ\n[clip]\nby = \"value\"\nlimit = 1\n# end\n")
                .replace("model = { kind = \"mlp\", depth = 3, width = 8 }\n", "")
                + "[model]\nkind = \"mlp\"\ndepth = 3\nwidth = 8\ninit = { scheme = \"he\" }\n";
        assert_eq!(parse(&whole, None).map(|recipe| recipe.name), Ok("a".into()));
        let edits =
            [("clip", edit::EditValue::Remove), ("model.layer[2].x", edit::EditValue::Bool(true))]
                .map(|(key, value)| edit::Edit { key: key.into(), value });
        let mut damaged: Vec<String> = Vec::new();
        for (at, letter) in whole.char_indices() {
            let (before, after) = (&whole[..at], &whole[at + letter.len_utf8()..]);
            damaged.push(before.to_owned());
            for other in ["", "\"", "[", "]", "{", "}", "=", ".", "-", "\n", "#", "µ", "9"] {
                damaged.push(format!("{before}{other}{after}"));
            }
        }
        let mut errors = 0;
        for text in damaged {
            if let Err(error) = parse(&text, None) {
                errors += 1;
                assert!(error.span.end <= text.len(), "{error} in\n{text}");
                let line = text.split('\n').nth(error.line - 1).unwrap_or_default();
                assert!((1..=line.chars().count() + 1).contains(&error.column), "{error}\n{text}");
            }
            if let Ok(edited) = edit::apply(&text, &edits) {
                assert!(edited.parse::<toml::Table>().is_ok(), "{edited}\nfrom\n{text}");
            }
        }
        assert!(errors > 1000, "only {errors} errors");
    }

    #[test]
    fn errors_show_file_line_and_column() {
        let text = with(r#"model = { kind = "mlp", depth = 3, widht = 8 }"#);
        let error = parse(&text, Some(Path::new("recipes/x.toml"))).unwrap_err();
        assert_eq!(&text[error.span.clone()], "widht");
        assert_eq!(
            error.to_string(),
            "recipes/x.toml:5:36: unknown key `widht` in [model]; allowed: kind, depth, width, \
             activation, init, normalisation, residual, layer; did you mean `width`?"
        );
        assert!(parse(&text, None).unwrap_err().to_string().starts_with("5:36: unknown key"));
    }

    #[test]
    fn files_are_read_and_their_paths_resolved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        let elsewhere = folder.path().join("elsewhere");
        let idx = format!(
            r#"data = {{ source = "idx", images = "i", labels = "sub/l", test_images = {elsewhere:?}, test_labels = "tl" }}"#
        );
        std::fs::write(&path, with(&idx)).unwrap();
        let file = read(&path).unwrap();
        assert_eq!((file.text, file.path), (with(&idx), path.clone()));
        let want = Source::Idx {
            images: folder.path().join("i"),
            labels: folder.path().join("sub/l"),
            test_images: Some(elsewhere),
            test_labels: Some(folder.path().join("tl")),
            test_fraction: 0.2,
        };
        assert_eq!(file.recipe.data.source, want);

        std::fs::write(&path, b"name = \"a\"\n# \xff\n").unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!((error.line, error.column), (2, 3));
        assert_eq!(&*error.message, "got the byte 0xff, want UTF-8");

        let missing = folder.path().join("none.toml");
        let error = read(&missing).unwrap_err().to_string();
        let start = format!("{}: cannot read the recipe: ", missing.display());
        assert!(error.starts_with(&start), "{error}");
    }
}
