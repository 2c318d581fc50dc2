//! Statistics of all gradients of a step.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use tamegrad_stats::TensorStats;

use crate::parameters::{ParameterTable, scan_data};

/// Statistics of each parameter's gradient, by [`tamegrad::TensorId`]; `None` where a parameter
/// has no gradient ("absent" is not 0). The gradients are taken out, read and put back, which on
/// a CPU device copies nothing.
pub(crate) fn scan<M: Module>(
    table: &ParameterTable,
    model: &M,
    gradients: &mut GradientsParams,
) -> Vec<Option<TensorStats>> {
    edit(table, model, gradients, |_, data| (scan_data(&data), Some(data)))
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
            let is_parameter = self.0.ids.contains(&param.id);
            if let Some(gradient) = is_parameter.then(|| self.1.get::<D>(param.id)).flatten() {
                self.2.register(param.id, gradient);
            }
        }
    }
    let mut copier = Copier(table, gradients, GradientsParams::new());
    model.visit(&mut copier);
    copier.2
}

/// Takes each gradient out as data, lets `each` look at it and give it back, changed or not
/// (`None`: it is left out). Returns what `each` returned.
pub(crate) fn edit<M: Module, R: Copy>(
    table: &ParameterTable,
    model: &M,
    gradients: &mut GradientsParams,
    each: impl FnMut(usize, burn::tensor::TensorData) -> (R, Option<burn::tensor::TensorData>),
) -> Vec<Option<R>> {
    let mut editor = Editor { table, gradients, each, results: vec![None; table.ids.len()] };
    model.visit(&mut editor);
    editor.results
}

struct Editor<'a, F, R> {
    table: &'a ParameterTable,
    gradients: &'a mut GradientsParams,
    each: F,
    results: Vec<Option<R>>,
}

impl<F, R> ModuleVisitor for Editor<'_, F, R>
where
    F: FnMut(usize, burn::tensor::TensorData) -> (R, Option<burn::tensor::TensorData>),
{
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(index) = self.table.ids.iter().position(|id| *id == param.id) else { return };
        if self.results[index].is_some() {
            return;
        }
        let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
        let device = gradient.device();
        let (result, data) = (self.each)(index, gradient.into_data());
        self.results[index] = Some(result);
        if let Some(data) = data {
            self.gradients.register(param.id, Tensor::<D>::from_data(data, &device));
        }
    }
}
