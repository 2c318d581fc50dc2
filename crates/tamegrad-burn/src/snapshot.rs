//! A saved state of model and optimizer.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::ModuleOptimizer;
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;

/// A state to come back to. Tensors are shared until one side changes, so taking it copies
/// nothing.
#[derive(Clone)]
pub(crate) struct Snapshot<M: Module> {
    model: M,
    optimizer: ModuleOptimizer,
}

impl<M: Module> Snapshot<M> {
    /// Saves a state. The model is kept as its validation copy: `clone` alone would share the
    /// running statistics of batch norm, which the next forward pass overwrites.
    pub(crate) fn take(model: &M, optimizer: &ModuleOptimizer) -> Self {
        Self { model: model.valid(), optimizer: optimizer.clone() }
    }

    /// The state as it was.
    pub(crate) fn restore(&self) -> (M, ModuleOptimizer) {
        (self.model.clone().train(), self.optimizer.clone())
    }
}

/// The parameters of `model`, with the running statistics of `before`, a validation copy.
pub(crate) fn with_statistics_of<M: Module>(before: &M, model: &M) -> M {
    struct Collector(TensorContainer<ParamId>);
    impl ModuleVisitor for Collector {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(param.id, param.val());
        }
    }
    struct Restorer(TensorContainer<ParamId>);
    impl ModuleMapper for Restorer {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if param.val().is_require_grad() {
                return param;
            }
            match self.0.remove::<Tensor<D>>(&param.id) {
                Some(earlier) => param.map(|_| Tensor::from_inner(earlier)),
                None => param,
            }
        }
    }
    let mut earlier = Collector(TensorContainer::new());
    before.visit(&mut earlier);
    // A clone would share its running statistics with `model`.
    model.valid().train().map(&mut Restorer(earlier.0))
}
