//! `[model]`: the network and its initial weights.

use serde::Deserialize;

use super::number;

/// `[model]`: what learns, such as `[model.mlp]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Fully connected layers.
    Mlp(Mlp),
    /// Convolutions, then fully connected layers.
    Conv(Conv),
    /// A recurrent network.
    Rnn(Rnn),
    /// Self-attention over the steps of a sequence.
    Transformer(Transformer),
}

impl Model {
    /// Its name in a recipe.
    pub fn name(&self) -> &'static str {
        match self {
            Model::Mlp(_) => "mlp",
            Model::Conv(_) => "conv",
            Model::Rnn(_) => "rnn",
            Model::Transformer(_) => "transformer",
        }
    }
}

/// `[model.mlp]`: hidden layers of one width, then a linear output layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mlp {
    /// Number of hidden layers: 0 (a linear model) to 500.
    #[serde(deserialize_with = "number::integer::<_, _, 0, 500>")]
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
    /// Of the output layer's weights. Default lecun, normal, gain 1, whatever `init` is: first
    /// outputs about as large as what comes in.
    pub output_init: Option<Init>,
    /// `[[model.mlp.layer]]`: the hidden layers that differ, each at most once.
    #[serde(default)]
    pub layer: Vec<LayerOverride>,
}

/// `[[model.mlp.layer]]`: what one hidden layer has instead of the model's own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerOverride {
    /// Which hidden layer, counted from 0 at the input: below `depth`.
    #[serde(deserialize_with = "number::integer::<_, _, 0, 499>")]
    pub index: usize,
    /// Instead of the model's width.
    #[serde(default, deserialize_with = "number::some_width")]
    pub width: Option<usize>,
    /// Instead of the model's activation.
    pub activation: Option<Activation>,
    /// Instead of the model's initialisation.
    pub init: Option<Init>,
    /// Instead of the model's normalisation.
    pub normalisation: Option<Normalisation>,
}

/// `[model.conv]`: convolutions, dense layers, then a linear output layer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Output channels of each convolution, 1 to 8192; one to 500 convolutions.
    #[serde(deserialize_with = "number::widths_at_least_one")]
    pub channels: Vec<usize>,
    /// Side of the square kernel in pixels: odd, 1 to 31.
    #[serde(deserialize_with = "number::odd_kernel")]
    pub kernel: usize,
    /// Units of each hidden dense layer after the convolutions, 1 to 8192; up to 500. Default: none.
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

/// `[model.rnn]`: a cell that reads a sequence step by step, then a linear output
/// layer on its last state `h`. The rows of an image are taken as the steps of a sequence.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rnn {
    /// Units of the state `h`: 1 to 8192.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 8192>")]
    pub hidden: usize,
    /// What is done at each step. Default plain.
    #[serde(default)]
    pub cell: Cell,
    /// Of each step of a plain cell; the others have their own. Default tanh.
    #[serde(default = "tanh")]
    pub activation: Activation,
    /// Of `W`, `U` and the output layer. Default xavier, normal, gain 1, which fits tanh.
    #[serde(default = "xavier")]
    pub init: Init,
    /// The recurrent matrix `U` of a plain cell is rescaled so that its largest eigenvalue has this
    /// absolute value, which is above 0. Default: it is not rescaled.
    #[serde(default, deserialize_with = "number::some_positive")]
    pub spectral_radius: Option<f64>,
}

/// `cell`: what is done at each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    /// `h' = activation(W x + U h + b)` (Elman 1990).
    #[default]
    Plain,
    /// With input, forget and output gates (Hochreiter and Schmidhuber 1997; Gers et al. 2000).
    Lstm,
    /// With update and reset gates (Cho et al. 2014).
    Gru,
}

/// `[model.transformer]`: each step of a sequence is mapped to `width` numbers, to
/// which those of its position are added; then blocks of self-attention and a perceptron of one
/// hidden layer of 4 `width` units (Vaswani et al. 2017); the mean over the steps goes to a linear
/// output layer. The rows of an image are taken as the steps of a sequence.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transformer {
    /// Number of blocks: 1 to 200.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 200>")]
    pub depth: usize,
    /// Numbers that a step is mapped to, 1 to 8192: a multiple of `heads`.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 8192>")]
    pub width: usize,
    /// Heads of each attention: 1 to 8192.
    #[serde(deserialize_with = "number::integer::<_, _, 1, 8192>")]
    pub heads: usize,
    /// Of the perceptrons. Default gelu.
    #[serde(default = "gelu")]
    pub activation: Activation,
    /// Of all weights but those of the output layer. Default xavier, normal, gain 1.
    #[serde(default = "xavier")]
    pub init: Init,
    /// Of each half of a block: `before` it (on its input), or `after` its output was added.
    /// Default layer, before.
    #[serde(default = "layer_norm")]
    pub normalisation: Normalisation,
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn layer_norm() -> Normalisation {
    Normalisation { kind: NormalisationKind::Layer, place: Place::Before }
}

fn tanh() -> Activation {
    Activation::Tanh
}

fn xavier() -> Init {
    Init::Xavier { gain: 1.0, distribution: Distribution::Normal }
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

/// `init`: how the first weights are drawn, such as `init.he.gain = 2`. Biases start at 0.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Init {
    /// Variance `2 / inputs` (He et al. 2015).
    He {
        /// Multiplies the scale; > 0. Default 1.
        #[serde(default = "one", deserialize_with = "number::positive")]
        gain: f64,
        /// Default normal.
        #[serde(default)]
        distribution: Distribution,
    },
    /// Variance `2 / (inputs + outputs)` (Glorot and Bengio 2010).
    Xavier {
        /// Multiplies the scale; > 0. Default 1.
        #[serde(default = "one", deserialize_with = "number::positive")]
        gain: f64,
        /// Default normal.
        #[serde(default)]
        distribution: Distribution,
    },
    /// Variance `1 / inputs` (LeCun et al. 1998).
    Lecun {
        /// Multiplies the scale; > 0. Default 1.
        #[serde(default = "one", deserialize_with = "number::positive")]
        gain: f64,
        /// Default normal.
        #[serde(default)]
        distribution: Distribution,
    },
    /// A matrix with orthonormal rows or columns (Saxe et al. 2014), times the gain.
    Orthogonal {
        /// Multiplies the scale; > 0. Default 1.
        #[serde(default = "one", deserialize_with = "number::positive")]
        gain: f64,
    },
    /// Uniform from `gain * low` to `gain * high`: with the defaults `U(-gain, gain)`.
    Uniform {
        /// Multiplies the scale; > 0. Default 1.
        #[serde(default = "one", deserialize_with = "number::positive")]
        gain: f64,
        /// Lower bound before the gain. Default -1.
        #[serde(default = "minus_one", deserialize_with = "number::finite")]
        low: f64,
        /// Upper bound before the gain, above `low`. Default 1.
        #[serde(default = "one", deserialize_with = "number::finite")]
        high: f64,
    },
    /// Normal with mean 0 and standard deviation `gain`.
    Normal {
        /// Multiplies the scale; > 0. Default 1.
        #[serde(default = "one", deserialize_with = "number::positive")]
        gain: f64,
    },
}

impl Default for Init {
    fn default() -> Init {
        Init::He { gain: 1.0, distribution: Distribution::Normal }
    }
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
