//! The trainable tensors of a module: their names, layers and order.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use tamegrad::{LayerId, LayerInfo, Layout, TensorInfo};
use tamegrad_stats::TensorStats;

/// The trainable float tensors of a module in the order in which burn visits them. A tensor that
/// is used in several places stands here once, under its first name.
#[derive(Debug, Clone)]
pub(crate) struct ParameterTable {
    /// Their ids, by [`tamegrad::TensorId`].
    pub(crate) ids: Vec<ParamId>,
    /// Names and layers.
    pub(crate) layout: Layout,
}

impl ParameterTable {
    /// Lists the trainable tensors of a module whose layers are given in order of execution. A
    /// tensor belongs to the layer whose name is the longest prefix of its own; a time step of a
    /// recurrent cell is named `cell@3`, and the cell's tensors belong to its first time step.
    pub(crate) fn new<M: Module>(module: &M, layers: Vec<LayerInfo>) -> Self {
        let mut lister = Lister { path: Vec::new(), found: Vec::new() };
        module.visit(&mut lister);
        let tensors = lister.found.iter().map(|(_, name, rank)| TensorInfo {
            name: name.clone(),
            layer: layer_of(name, &layers),
            is_matrix: *rank >= 2,
        });
        let tensors = tensors.collect();
        let ids = lister.found.iter().map(|(id, _, _)| *id).collect();
        Self { ids, layout: Layout { tensors, layers } }
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

struct Lister {
    path: Vec<String>,
    found: Vec<(ParamId, String, usize)>,
}

impl ModuleVisitor for Lister {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Running statistics of batch norm are visited as well, but take no gradient.
        let is_known = self.found.iter().any(|(id, _, _)| *id == param.id);
        if param.val().is_require_grad() && !is_known {
            self.found.push((param.id, self.path.join("."), D));
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

/// Statistics of a tensor's data in whichever float type it is.
pub(crate) fn scan_data(data: &TensorData) -> TensorStats {
    match data.dtype() {
        DType::F32 => data.as_slice::<f32>().map(tamegrad_stats::scan),
        DType::F64 => data.as_slice::<f64>().map(tamegrad_stats::scan),
        _ => {
            let wide: Vec<f64> = data.iter::<f64>().collect();
            Ok(tamegrad_stats::scan(&wide))
        }
    }
    .unwrap_or_default()
}
