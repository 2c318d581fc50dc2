//! What an integration reports about one training step: an [`Observation`], and its [`Layout`].

pub use tamegrad_stats::Update;
use tamegrad_stats::{TensorStats, merge};

use crate::rules::RULES;

/// The number of a training step; the first is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Step(pub u64);

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A parameter tensor: its place in [`Layout::tensors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TensorId(pub usize);

/// A layer: its place in [`Layout::layers`], which is the order of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerId(pub usize);

/// How fast an activation function grows with its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ActivationKind {
    /// Bounded output: tanh, sigmoid.
    Bounded,
    /// At most linear growth: relu, gelu, selu, the identity.
    Linear,
    /// Faster than linear: exp, x^2. A large input gives a far larger output.
    Superlinear,
}

/// How a layer normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum NormalisationKind {
    /// Not at all.
    None,
    /// Over the batch.
    Batch,
    /// Over the features of one sample.
    Layer,
}

/// What an integration knows about a layer. What it does not know is `None`, and is never guessed.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerInfo {
    /// The module's dotted path, such as `layers.17`.
    pub name: String,
    /// Name of the activation function and how it grows.
    pub activation: Option<(String, ActivationKind)>,
    /// How the layer normalises.
    pub normalisation: Option<NormalisationKind>,
    /// Whether a skip connection bypasses the layer.
    pub residual: Option<bool>,
    /// Whether this is one time step of a recurrent cell (which shares its weights with the others).
    pub recurrent: bool,
    /// Whether its matrix is a table whose rows are looked up, as in an embedding: its rows may have any
    /// size.
    pub is_table: bool,
    /// Whether it only normalises. Such a layer scales any input to the same size, so its gains say
    /// nothing about weights.
    pub only_normalises: bool,
}

impl LayerInfo {
    /// A layer of which only the name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            activation: None,
            normalisation: None,
            residual: None,
            recurrent: false,
            is_table: false,
            only_normalises: false,
        }
    }

    /// Whether its activation is known to grow faster than linearly.
    pub(crate) fn is_superlinear(&self) -> bool {
        self.activation.as_ref().is_some_and(|(_, kind)| *kind == ActivationKind::Superlinear)
    }
}

/// What an integration knows about a parameter tensor.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TensorInfo {
    /// The parameter's dotted path, such as `layers.17.linear.weight`.
    pub name: String,
    /// The layer that it belongs to, if the integration knows.
    pub layer: Option<LayerId>,
    /// Whether it is a weight matrix or kernel (two or more dimensions). The update ratio of biases
    /// and norm scales says little, because they start at 0 or 1.
    pub is_matrix: bool,
    /// Inputs of one of its output units; `None` where the integration does not know.
    pub fan_in: Option<u64>,
}

impl TensorInfo {
    /// Whether an update can be compared with the tensor's size: it is a matrix, and not one that starts
    /// almost at zero. Such a matrix is built up by its first updates, each many times its size, and is
    /// judged once it has grown. An update that leaves NaN or Inf in a matrix is judged whatever its
    /// size.
    pub fn is_judged_by(&self, update: &Update) -> bool {
        let rms = update.weight_norm / (update.len.max(1) as f64).sqrt();
        let least = |fan_in: u64| RULES.update.live.size_min / (fan_in.max(1) as f64).sqrt();
        let has_size = self.fan_in.is_none_or(|fan_in| !(rms < least(fan_in)));
        self.is_matrix && (update.nonfinite > 0 || has_size)
    }

    /// What a matrix makes of the RMS of a signal of independent elements, by its size before an update;
    /// `None` without a fan-in.
    pub(crate) fn gain(&self, update: &Update) -> Option<f64> {
        let rms = update.weight_norm / (update.len.max(1) as f64).sqrt();
        Some(rms * (self.fan_in.filter(|_| self.is_matrix)? as f64).sqrt())
    }
}

/// The tensors and layers of a model, in a fixed order.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Layout {
    /// Parameter tensors.
    pub tensors: Vec<TensorInfo>,
    /// Layers in order of execution, the input's side first.
    pub layers: Vec<LayerInfo>,
}

impl Layout {
    /// The name of a layer, or `?` for one that is not in the layout.
    pub fn layer_name(&self, id: LayerId) -> &str {
        self.layers.get(id.0).map_or("?", |layer| &layer.name)
    }

    /// The name of a tensor, or `?` for one that is not in the layout.
    pub fn tensor_name(&self, id: TensorId) -> &str {
        self.tensors.get(id.0).map_or("?", |tensor| &tensor.name)
    }

    /// Whether a saved layout names the same tensors and layers, in the same order.
    pub(crate) fn same_names(&self, saved: &Layout) -> Result<(), OtherModel> {
        let tensors = |layout: &Layout| -> Vec<String> {
            layout.tensors.iter().map(|tensor| tensor.name.clone()).collect()
        };
        let layers = |layout: &Layout| -> Vec<String> {
            layout.layers.iter().map(|layer| layer.name.clone()).collect()
        };
        first_difference("tensor", &tensors(saved), &tensors(self))
            .or_else(|| first_difference("layer", &layers(saved), &layers(self)))
            .map_or(Ok(()), Err)
    }

    /// Whether a layer is a time step of a recurrent cell.
    pub(crate) fn is_recurrent(&self, id: LayerId) -> bool {
        self.layers.get(id.0).is_some_and(|layer| layer.recurrent)
    }

    /// The layer of this name, of a module that is called several times the first.
    pub(crate) fn layer_named(&self, name: &str) -> Option<LayerId> {
        let is_of = |layer: &LayerInfo| layer.name.split('@').next() == Some(name);
        self.layers.iter().position(is_of).map(LayerId)
    }

    /// The layers that have a weight matrix, other than a table whose rows are looked up.
    pub(crate) fn with_matrices(&self) -> impl Iterator<Item = LayerId> {
        let layers = self.layers.iter().enumerate().filter(|(_, layer)| !layer.is_table);
        let has_matrix = |id| self.tensors.iter().any(|of| of.is_matrix && of.layer == Some(id));
        layers.map(|(index, _)| LayerId(index)).filter(move |id| has_matrix(*id))
    }

    /// The layer that a tensor belongs to.
    pub fn layer_of(&self, id: TensorId) -> Option<LayerId> {
        self.tensors.get(id.0).and_then(|tensor| tensor.layer)
    }
}

/// A saved state belongs to a model whose tensors or layers have other names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherModel {
    place: String,
    got: String,
    want: String,
}

impl std::fmt::Display for OtherModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the saved guard watched another model: {}: got {}, want {}; load the state that was \
             saved with this model, or start with a new guard",
            self.place, self.got, self.want
        )
    }
}

impl std::error::Error for OtherModel {}

fn first_difference(what: &str, saved: &[String], here: &[String]) -> Option<OtherModel> {
    if saved.len() != here.len() {
        let (got, want) = (saved.len().to_string(), here.len().to_string());
        return Some(OtherModel { place: format!("{what}s"), got, want });
    }
    let index = saved.iter().zip(here).position(|(saved, here)| saved != here)?;
    let quoted = |names: &[String]| format!("`{}`", names[index]);
    let place = format!("{what} {index}");
    Some(OtherModel { place, got: quoted(saved), want: quoted(here) })
}

/// Facts about the whole run, as far as the integration knows them.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RunFacts {
    /// Number of steps that the run is planned to take.
    pub planned_steps: Option<u64>,
    /// Number of samples in a batch.
    pub batch_size: Option<u64>,
    /// RMS of the regression targets; `None` for classes.
    pub target_rms: Option<f64>,
    /// RMS of the inputs.
    pub input_rms: Option<f64>,
    /// Largest finite value of the dtype that the model computes in.
    pub dtype_max: Option<f64>,
    /// The loss of the best constant answer, or a number that it is not above: the logarithm of the number
    /// of classes for a mean cross-entropy.
    pub constant_loss: Option<f64>,
}

impl RunFacts {
    /// These facts, and `other`'s where these are unknown.
    pub fn or(self, other: RunFacts) -> RunFacts {
        RunFacts {
            planned_steps: self.planned_steps.or(other.planned_steps),
            batch_size: self.batch_size.or(other.batch_size),
            target_rms: self.target_rms.or(other.target_rms),
            input_rms: self.input_rms.or(other.input_rms),
            dtype_max: self.dtype_max.or(other.dtype_max),
            constant_loss: self.constant_loss.or(other.constant_loss),
        }
    }
}

/// One of the batch's inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NamedInput<'a> {
    /// Its name, the same at every step, such as that of the model's argument.
    pub name: &'a str,
    /// Its statistics.
    pub stats: TensorStats,
}

/// What probes at a layer saw in one forward and backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerSample {
    /// Statistics of the layer's output.
    pub output: TensorStats,
    /// Statistics of the gradient of the loss with respect to that output; `None` where no
    /// gradient came back.
    pub delta: Option<TensorStats>,
    /// Statistics of the layer's own input, if that is not the output of the layer before it in the
    /// order of execution: after a branch, a skip connection, a function between modules. Statistics
    /// without elements mean that the layer has no float input (an embedding of ids). `None` means
    /// that its input is the output of the layer before it.
    pub input: Option<TensorStats>,
    /// Statistics of the gradient of the loss with respect to that input, through this layer alone: if
    /// other layers use the same tensor, its whole gradient is not a factor of this layer.
    pub input_delta: Option<TensorStats>,
}

impl LayerSample {
    /// A sample of a layer whose input is the output of the layer before it.
    pub fn new(output: TensorStats, delta: Option<TensorStats>) -> Self {
        Self { output, delta, ..Self::default() }
    }

    /// Whether the layer's input is its own.
    pub fn branches(&self) -> bool {
        self.input.is_some() || self.input_delta.is_some()
    }
}

/// The probes of a whole pass.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerTrace {
    /// The network's input, with the gradient of the loss with respect to it.
    pub input: Option<LayerSample>,
    /// One sample per layer, in the order of [`Layout::layers`].
    pub layers: Vec<LayerSample>,
}

impl LayerTrace {
    /// The first layer whose output is not finite.
    pub fn first_nonfinite_output(&self) -> Option<LayerId> {
        self.layers.iter().position(|layer| !layer.output.is_finite()).map(LayerId)
    }

    /// What a layer was given: its own input, the output of the layer before it, or the network's input.
    pub(crate) fn given_to(&self, id: LayerId) -> Option<TensorStats> {
        let before = || match id.0.checked_sub(1) {
            Some(before) => self.layers.get(before).map(|layer| layer.output),
            None => self.input.map(|input| input.output),
        };
        self.layers.get(id.0)?.input.or_else(before)
    }
}

/// One training step before its update, as numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observation<'a> {
    /// The step's number.
    pub step: Step,
    /// Training loss of the batch.
    pub loss: Option<f64>,
    /// Metric on held-out data, if it was measured at this step; higher is better.
    pub metric: Option<f64>,
    /// Learning rate of the next update.
    pub learning_rate: Option<f64>,
    /// Gradient statistics by [`TensorId`]; `None` if a parameter had no gradient. Empty if the
    /// integration does not see individual tensors.
    pub gradients: &'a [Option<TensorStats>],
    /// L2 norm of the whole gradient, for integrations that see nothing finer; otherwise it follows
    /// from `gradients`.
    pub gradient_norm: Option<f64>,
    /// The norm to which the loop itself clips this step's gradient before the optimizer sees it.
    pub clipped_to: Option<f64>,
    /// Probes of this pass, if they were armed.
    pub trace: Option<&'a LayerTrace>,
    /// The batch's inputs; empty if the integration does not see them.
    pub inputs: &'a [NamedInput<'a>],
    /// The batch's regression targets; `None` for classes.
    pub targets: Option<TensorStats>,
    /// [`RunFacts::constant_loss`], where the batch shows it.
    pub constant_loss: Option<f64>,
}

impl Observation<'_> {
    /// All gradients together; `None` if none is known.
    pub(crate) fn whole_gradient(&self) -> Option<TensorStats> {
        let mut known = self.gradients.iter().flatten().peekable();
        known.peek().is_some().then(|| merge(known))
    }

    /// The L2 norm of the whole gradient.
    pub(crate) fn whole_norm(&self) -> Option<f64> {
        self.gradient_norm.or_else(|| self.whole_gradient().map(|stats| stats.l2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(fan_in: u64) -> TensorInfo {
        let (name, layer) = ("fc.weight".to_owned(), None);
        TensorInfo { name, layer, is_matrix: true, fan_in: Some(fan_in) }
    }

    /// An update of a tensor of 100 elements of this RMS.
    fn of(rms: f64) -> Update {
        Update { change_norm: 1.0, weight_norm: 10.0 * rms, len: 100, nonfinite: 0 }
    }

    #[test]
    fn usual_initialisations_have_a_size() {
        let gpt2 = |blocks: f64| 0.02 / (2.0 * blocks).sqrt();
        let glorot = |inputs: f64, outputs: f64| (2.0 / (inputs + outputs)).sqrt();
        for (name, fan_in, rms) in [
            ("He", 12_288, (2.0 / 12_288f64).sqrt()),
            ("Glorot", 512, glorot(512.0, 512.0)),
            ("Glorot, a head of 50,257 words", 768, glorot(768.0, 50_257.0)),
            ("Glorot, 500 units of one input", 1, glorot(1.0, 500.0)),
            ("PyTorch's Linear", 20, (1.0 / 60f64).sqrt()),
            ("PyTorch's Embedding", 768, 1.0),
            ("BERT", 768, 0.02),
            ("GPT-2, the end of a block", 4 * 768, gpt2(12.0)),
            ("GPT-2 of 4 blocks of 128", 128, gpt2(4.0)),
            ("GPT-3, the end of an attention", 12_288, gpt2(96.0)),
            ("GPT-3, the end of a block", 4 * 12_288, gpt2(96.0)),
            ("ConvNeXt, 7 x 7 of one channel", 49, 0.02),
            ("DCGAN, 4 x 4 of 3 channels", 48, 0.02),
            ("muP, a hidden matrix", 8192, (1.0 / 8192f64).sqrt()),
            ("muP, a narrow readout", 256, 1.0 / 256.0),
        ] {
            assert!(matrix(fan_in).is_judged_by(&of(rms)), "{name}: {rms} of {fan_in}");
        }
    }

    #[test]
    fn what_begins_almost_at_zero_has_none_until_it_has_grown() {
        for (name, fan_in, rms) in [
            ("a class token", 192, 1e-6),
            ("a hash grid", 2, (1e-8 / 3f64).sqrt()),
            ("an embedding", 16, 1e-4),
            ("a wide embedding", 12_288, 1e-4),
            ("the last layer of a policy", 64, 0.01 / 8.0),
            ("muP, a wide readout", 4096, 1.0 / 4096.0),
            ("zeros", 64, 0.0),
        ] {
            let info = matrix(fan_in);
            let grown = 0.06 / (fan_in as f64).sqrt();
            let judged = [rms, grown].map(|rms| info.is_judged_by(&of(rms)));
            assert_eq!(judged, [false, true], "{name}");
            let unknown = TensorInfo { fan_in: None, ..info.clone() };
            assert!(unknown.is_judged_by(&of(rms)), "{name}, of a fan-in not known");
            let bias = TensorInfo { is_matrix: false, ..info.clone() };
            assert!(!bias.is_judged_by(&of(grown)), "{name}, if it were a bias");
            let broken = Update { nonfinite: 1, ..of(rms) };
            assert!(info.is_judged_by(&broken), "{name}, broken");
        }
    }
}
