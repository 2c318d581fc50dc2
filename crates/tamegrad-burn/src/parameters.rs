//! The trainable tensors of a module: their names, layers and order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use tamegrad::{ActivationKind, LayerId, LayerInfo, Layout, NormalisationKind, TensorInfo};

/// The trainable float tensors of a module in the order in which burn visits them. A tensor that
/// is used in several places stands here once, under its first name.
#[derive(Debug, Clone)]
pub(crate) struct ParameterTable {
    /// Their positions: the numbers of [`tamegrad::TensorId`].
    indices: HashMap<ParamId, usize>,
    /// Names and layers.
    pub(crate) layout: Layout,
    /// Whether there are tensors beside those that are trained, such as running statistics.
    pub(crate) has_buffers: bool,
    /// Whether the model has modules that draw random numbers in a pass.
    pub(crate) draws: bool,
}

impl ParameterTable {
    /// Lists the trainable tensors of a module whose layers are given in order of execution; without
    /// them, a layer is a module that has tensors of its own. A tensor belongs to the layer whose name
    /// is the longest prefix of its own; a time step of a recurrent cell is named `cell@3`, and the
    /// cell's tensors belong to its first time step.
    pub(crate) fn new<M: Module>(module: &M, layers: Option<Vec<LayerInfo>>) -> Self {
        let mut lister = Lister::default();
        module.visit(&mut lister);
        let mut layers = layers.unwrap_or_else(|| lister.modules());
        let mut normalised = vec![Vec::new(); layers.len()];
        let tensors = lister.found.into_iter().map(|found| {
            let layer = layer_of(&found.name, &layers);
            if let Some(LayerId(index)) = layer {
                layers[index].recurrent |= found.is_recurrent;
                layers[index].is_table |= found.is_table;
                normalised[index].push(found.normalisation);
            }
            let Found { name, is_matrix, fan_in, .. } = found;
            TensorInfo { layer, name, is_matrix, fan_in }
        });
        let tensors = tensors.collect();
        for (layer, kinds) in layers.iter_mut().zip(normalised) {
            layer.normalisation = layer.normalisation.or(kinds.iter().copied().flatten().next());
            layer.only_normalises |= !kinds.is_empty() && kinds.iter().all(Option::is_some);
        }
        for (path, name) in lister.activations {
            if let Some(LayerId(index)) = layer_of(&format!("{path}.{name}"), &layers) {
                let kind = growth(&name);
                layers[index].activation.get_or_insert((name.to_lowercase(), kind));
            }
        }
        Self {
            indices: lister.indices,
            layout: Layout { tensors, layers },
            has_buffers: lister.has_buffers,
            draws: lister.draws,
        }
    }

    /// Number of tensors.
    pub(crate) fn len(&self) -> usize {
        self.indices.len()
    }

    /// The position of a parameter; `None` for what is not trained.
    pub(crate) fn index_of(&self, id: ParamId) -> Option<usize> {
        self.indices.get(&id).copied()
    }
}

fn layer_of(tensor: &str, layers: &[LayerInfo]) -> Option<LayerId> {
    let matches = layers.iter().enumerate().filter_map(|(index, layer)| {
        let base = layer.name.split('@').next().unwrap_or(&layer.name);
        let rest = tensor.strip_prefix(base)?;
        rest.starts_with('.').then_some((base.len(), std::cmp::Reverse(index)))
    });
    matches.max().map(|(_, std::cmp::Reverse(index))| LayerId(index))
}

/// burn's modules that draw random numbers in a pass.
const DRAWS: [&str; 3] = ["Struct:Dropout", "Struct:GaussianNoise", "Struct:RRelu"];
/// burn's enum of activations, whose variant is the name of its module.
const ACTIVATION: &str = "Enum:Activation";

/// How one of burn's modules normalises.
fn normalisation(container: &str) -> Option<NormalisationKind> {
    match container {
        "Struct:BatchNorm" => Some(NormalisationKind::Batch),
        "Struct:LayerNorm" | "Struct:GroupNorm" | "Struct:InstanceNorm" | "Struct:RmsNorm" => {
            Some(NormalisationKind::Layer)
        }
        _ => None,
    }
}

/// How one of burn's activations grows.
fn growth(activation: &str) -> ActivationKind {
    match activation {
        "Sigmoid" | "Tanh" | "HardSigmoid" | "Softsign" => ActivationKind::Bounded,
        // A product of two linear maps.
        "SwiGlu" => ActivationKind::Superlinear,
        _ => ActivationKind::Linear,
    }
}

#[derive(Default)]
struct Lister {
    path: Vec<String>,
    /// The types of the structs whose fields these are, such as `Struct:Linear`.
    containers: Vec<String>,
    indices: HashMap<ParamId, usize>,
    found: Vec<Found>,
    has_buffers: bool,
    draws: bool,
    /// The path of each activation, and its name.
    activations: Vec<(String, String)>,
}

/// A trainable tensor.
struct Found {
    name: String,
    is_matrix: bool,
    fan_in: Option<u64>,
    /// Whether it belongs to one of burn's recurrent modules.
    is_recurrent: bool,
    /// Whether it is an embedding.
    is_table: bool,
    /// How its module normalises.
    normalisation: Option<NormalisationKind>,
}

impl Lister {
    /// The modules that have tensors of their own.
    fn modules(&self) -> Vec<LayerInfo> {
        let mut names: Vec<&str> = Vec::new();
        for found in &self.found {
            if let Some((module, _)) = found.name.rsplit_once('.')
                && !names.contains(&module)
            {
                names.push(module);
            }
        }
        names.into_iter().map(LayerInfo::named).collect()
    }
}

/// Inputs of one output unit of a weight of this shape: burn's `Linear` has `[inputs, outputs]`, its
/// convolutions `[outputs, inputs, kernel..]`. A row of an embedding is as wide as what it feeds.
fn fan_in(shape: &[usize], container: Option<&str>) -> Option<u64> {
    let inputs: usize = match (shape, container) {
        ([_, width], Some("Struct:Embedding")) => *width,
        ([inputs, _], _) => *inputs,
        ([_, inputs @ ..], _) if inputs.len() > 1 => inputs.iter().product(),
        _ => return None,
    };
    Some(inputs as u64)
}

impl ModuleVisitor for Lister {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.draws |= DRAWS.contains(&container_type);
        if container_type == ACTIVATION {
            self.activations.push((self.path.join("."), name.to_owned()));
        }
        self.containers.push(container_type.to_owned());
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.containers.pop();
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // What no pass has used is not initialised: to do so would draw other numbers than the user's
        // run. Running statistics of batch norm are visited as well, but take no gradient.
        if !param.is_initialized() {
            return;
        }
        if !param.val().is_require_grad() {
            self.has_buffers = true;
            return;
        }
        if let Entry::Vacant(entry) = self.indices.entry(param.id) {
            entry.insert(self.found.len());
            let container = self.containers.last().map(String::as_str);
            let fan_in = fan_in(&param.val().dims(), container);
            let is_recurrent = |container: &String| {
                ["Rnn", "Gru", "Lstm"].iter().any(|kind| container.ends_with(kind))
            };
            self.found.push(Found {
                name: self.path.join("."),
                is_matrix: D >= 2,
                fan_in,
                is_recurrent: self.containers.iter().any(is_recurrent),
                is_table: container == Some("Struct:Embedding"),
                normalisation: container.and_then(normalisation),
            });
        }
    }
}

/// A 128-bit hash (xxh3, as 32 hexadecimal digits) of all float tensors of a module, running
/// statistics included, in the order in which burn visits them. Equal weights have equal hashes;
/// -0 and 0 differ.
pub fn weights_hash<M: Module>(module: &M) -> String {
    struct Hasher(xxhash_rust::xxh3::Xxh3);
    impl ModuleVisitor for Hasher {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.update(param.val().into_data().as_bytes());
        }
    }
    let mut hasher = Hasher(xxhash_rust::xxh3::Xxh3::new());
    // A validation copy has its running statistics synchronised.
    module.valid().visit(&mut hasher);
    format!("{:032x}", hasher.0.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::activation::{Activation, ActivationConfig};
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};

    #[derive(Module, Debug)]
    struct Net {
        words: Embedding,
        image: Conv2d,
        head: Linear,
    }

    #[derive(Module, Debug)]
    struct Block {
        norm: LayerNorm,
        linear: Linear,
        activation: Activation,
    }

    #[test]
    fn a_layer_has_the_norm_and_the_activation_that_its_modules_tell() {
        let device = crate::default_device();
        let block = Block {
            norm: LayerNormConfig::new(4).init(&device),
            linear: LinearConfig::new(4, 4).init(&device),
            activation: ActivationConfig::Tanh.init(&device),
        };
        drop(block.valid());
        let known = |layers: Option<Vec<LayerInfo>>| -> Vec<_> {
            let layers = ParameterTable::new(&block, layers).layout.layers;
            let all = layers.into_iter();
            all.map(|layer| {
                (layer.name, layer.normalisation, layer.only_normalises, layer.activation)
            })
            .collect()
        };
        let norm = Some(NormalisationKind::Layer);
        let alone =
            [("norm".to_owned(), norm, true, None), ("linear".to_owned(), None, false, None)];
        assert_eq!(known(None), alone);
        #[derive(Module, Debug)]
        struct Net {
            block: Block,
        }
        let net = Net { block: block.clone() };
        let layers = ParameterTable::new(&net, Some(vec![LayerInfo::named("block")])).layout.layers;
        assert_eq!((layers[0].normalisation, layers[0].only_normalises), (norm, false));
        assert_eq!(layers[0].activation, Some(("tanh".to_owned(), ActivationKind::Bounded)));
    }

    #[test]
    fn a_fan_in_is_the_inputs_of_one_unit_however_burn_lays_a_weight_out() {
        let device = crate::default_device();
        let net = Net {
            words: EmbeddingConfig::new(50, 8).init(&device),
            image: Conv2dConfig::new([3, 16], [5, 5]).init(&device),
            head: LinearConfig::new(20, 4).init(&device),
        };
        assert_eq!(ParameterTable::new(&net, Some(Vec::new())).len(), 0, "none is used yet");
        drop(net.valid());
        let table = ParameterTable::new(&net, Some(Vec::new()));
        let seen: Vec<_> = table.layout.tensors.iter().map(|t| (&t.name[..], t.fan_in)).collect();
        assert_eq!(
            seen,
            [
                ("words.weight", Some(8)),
                ("image.weight", Some(75)),
                ("image.bias", None),
                ("head.weight", Some(20)),
                ("head.bias", None),
            ]
        );
    }
}
