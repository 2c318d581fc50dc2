//! A saved state of model and optimizer.

use burn::module::Module;
use burn::optim::ModuleOptimizer;

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
