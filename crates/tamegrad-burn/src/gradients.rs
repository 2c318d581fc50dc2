//! Statistics of all gradients of a step.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use tamegrad_stats::{ListStats, TensorStats};

use crate::list::TensorList;
use crate::parameters::ParameterTable;

/// Statistics of each parameter's gradient. Used again at every step, it allocates none.
#[derive(Default)]
pub(crate) struct GradientStats {
    /// By [`tamegrad::TensorId`]; `None` where a parameter has no gradient ("absent" is not 0).
    pub(crate) tensors: Vec<Option<TensorStats>>,
    buffers: ListStats,
}

impl GradientStats {
    /// Measures the gradients, which stay as they are.
    pub(crate) fn scan<M: Module>(
        &mut self,
        table: &ParameterTable,
        model: &M,
        gradients: &GradientsParams,
    ) {
        self.tensors.clear();
        self.tensors.resize(table.len(), None);
        let mut collector = Collector {
            table,
            gradients,
            found: vec![false; table.len()],
            indices: Vec::new(),
            list: TensorList::default(),
        };
        model.visit(&mut collector);
        let stats = collector.list.scan(&mut self.buffers);
        for (index, stats) in collector.indices.into_iter().zip(stats) {
            self.tensors[index] = Some(stats);
        }
    }

    /// L2 norm of the finite part of the whole gradient.
    pub(crate) fn norm(&self) -> f64 {
        tamegrad_stats::merge(self.tensors.iter().flatten()).l2
    }

    /// How many parameters have a gradient.
    pub(crate) fn count(&self) -> usize {
        self.tensors.iter().flatten().count()
    }

    /// Whether no parameter has a gradient.
    pub(crate) fn is_absent(&self) -> bool {
        self.tensors.iter().all(Option::is_none)
    }

    /// Whether no gradient has a NaN or an infinity.
    pub(crate) fn is_finite(&self) -> bool {
        self.tensors.iter().flatten().all(TensorStats::is_finite)
    }
}

struct Collector<'a> {
    table: &'a ParameterTable,
    gradients: &'a GradientsParams,
    found: Vec<bool>,
    /// The parameter of each tensor of the list.
    indices: Vec<usize>,
    list: TensorList,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(index) = self.table.index_of(param.id) else { return };
        if std::mem::replace(&mut self.found[index], true) {
            return;
        }
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.indices.push(index);
            self.list.push(gradient);
        }
    }
}

/// The same gradients once more; the tensors are shared until one side changes.
pub(crate) fn copy<M: Module>(
    table: &ParameterTable,
    model: &M,
    gradients: &GradientsParams,
) -> GradientsParams {
    struct Copier<'a>(&'a ParameterTable, &'a GradientsParams, GradientsParams);
    impl ModuleVisitor for Copier<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let is_parameter = self.0.index_of(param.id).is_some();
            if let Some(gradient) = is_parameter.then(|| self.1.get::<D>(param.id)).flatten() {
                self.2.register(param.id, gradient);
            }
        }
    }
    let mut copier = Copier(table, gradients, GradientsParams::new());
    model.visit(&mut copier);
    copier.2
}
