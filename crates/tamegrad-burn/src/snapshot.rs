//! A saved state of model and optimizer.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::ModuleOptimizer;
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;

/// A state to come back to. Tensors are shared until one side changes, so taking it copies
/// nothing.
pub(crate) struct Snapshot<M: Module> {
    model: M,
    /// A clone of a model shares its running statistics, which the next forward pass overwrites.
    buffers: Option<Arc<Buffers>>,
    optimizer: ModuleOptimizer,
}

impl<M: Module> Snapshot<M> {
    /// Saves a state with these buffers, if the model has any.
    pub(crate) fn take(
        model: &M,
        buffers: Option<Arc<Buffers>>,
        optimizer: &ModuleOptimizer,
    ) -> Self {
        Self { model: model.clone(), buffers, optimizer: optimizer.clone() }
    }

    /// The state as it was.
    pub(crate) fn restore(&self) -> (M, ModuleOptimizer) {
        let model = match &self.buffers {
            Some(buffers) => buffers.put_into(&self.model),
            None => self.model.clone(),
        };
        (model, self.optimizer.clone())
    }
}

/// What a forward pass may move beside the parameters: the running statistics of batch norm.
/// Snapshots share them, and burn's container is not [`Sync`] by itself.
pub(crate) struct Buffers(Mutex<TensorContainer<ParamId>>);

impl Buffers {
    /// Those of a model. Parameters that no pass has used are lazy, and stay so: to initialise them
    /// would draw other numbers than the user's run.
    pub(crate) fn of<M: Module>(model: &M) -> Self {
        let (buffers, is_initialized) = Self::collect(model);
        if !is_initialized {
            return buffers;
        }
        // The latest update of a running statistic waits until the next; `valid` takes it in.
        drop(model.valid());
        Self::collect(model).0
    }

    /// The initialised tensors without gradient, and whether all tensors are initialised.
    fn collect<M: Module>(model: &M) -> (Self, bool) {
        struct Collector(TensorContainer<ParamId>, bool);
        impl ModuleVisitor for Collector {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if !param.is_initialized() {
                    self.1 = false;
                    return;
                }
                let value = param.val();
                if !value.is_require_grad() {
                    self.0.register(param.id, value.inner());
                }
            }
        }
        let mut collector = Collector(TensorContainer::new(), true);
        model.visit(&mut collector);
        (Self(Mutex::new(collector.0)), collector.1)
    }

    /// A model with these buffers in place of its own, on the devices of its own: it may have moved
    /// since they were saved.
    pub(crate) fn put_into<M: Module>(&self, model: &M) -> M {
        struct Restorer<'a>(&'a TensorContainer<ParamId>);
        impl ModuleMapper for Restorer<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let is_buffer = !param.val().is_require_grad();
                match is_buffer.then(|| self.0.get::<Tensor<D>>(&param.id)).flatten() {
                    Some(earlier) => {
                        param.map(|own| Tensor::from_inner(earlier.to_device(&own.device())))
                    }
                    None => param,
                }
            }
        }
        // A clone would share its running statistics with `model`.
        let model = model.valid().train();
        model.map(&mut Restorer(&self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
