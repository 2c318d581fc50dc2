//! What a guard does when burn's `Learner` is launched.

use std::sync::Arc;

use burn::module::Module;
use tamegrad::{GuardConfig, Mode};

use super::Guard;
use crate::clip::Clip;
use crate::parameters::ParameterTable;
use crate::rate::Optimize;
use crate::snapshot::Buffers;

impl<M: Module> Guard<M> {
    /// Looks at the model before the first pass of a training. Since the guard was made, a checkpoint may
    /// have been loaded, with which parameters get the identities of those that were saved, and running
    /// statistics other values.
    pub(crate) fn look_at(&mut self, model: &M) {
        if let Some(table) = &self.table {
            let now = ParameterTable::new(model, Some(table.layout.layers.clone()));
            if now.layout == table.layout {
                self.table = Some(Arc::new(now));
            }
        }
        if self.protects() {
            self.before = Some(Arc::new(Buffers::of(model)));
        }
    }

    /// What it may do.
    pub(crate) fn mode(&self) -> Mode {
        self.core.config().mode
    }

    /// How it clips.
    pub(crate) fn clip(&self) -> Option<Clip> {
        self.clip
    }

    /// Makes updates in this way.
    pub(crate) fn optimize_by(&mut self, optimize: Optimize<M>) {
        self.optimize = optimize;
    }

    /// Only watches from now on.
    pub(crate) fn only_observe(&mut self) {
        let config = GuardConfig { mode: Mode::Observe, ..self.core.config().clone() };
        let layout = self.core.record().layout().clone();
        let saved = std::mem::replace(
            &mut self.core,
            tamegrad::Guard::new(layout, self.facts.clone(), config),
        );
        // The names are the same.
        let _ = self.core.resume(saved);
        self.snapshots.clear();
        self.before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::{GradientsParams, SgdConfig};
    use burn::tensor::Tensor;

    use crate::default_device;

    #[test]
    fn a_guard_that_only_observes_keeps_its_record_and_changes_no_step() {
        let device = default_device();
        let mut model: Linear = LinearConfig::new(2, 1).init(&device);
        let mut sgd = SgdConfig::new().init();
        let mut guard = Guard::protect(&model);
        let mut step = |guard: &mut Guard<Linear>, x: f32| {
            let loss = model.forward(Tensor::<2>::full([4, 2], x, &device)).square().mean();
            let gradients = GradientsParams::from_grads(loss.clone().backward(), &model);
            let loss = loss.into_scalar::<f32>();
            model = guard.step(&mut sgd, 0.01, model.clone(), gradients, loss);
            guard.outcome().is_some_and(|outcome| outcome.updated)
        };
        assert!(step(&mut guard, 1.0));
        assert!(!step(&mut guard, f32::NAN), "protected");
        guard.only_observe();
        assert_eq!((guard.mode(), guard.record().rows().len()), (Mode::Observe, 2));
        assert!(step(&mut guard, f32::NAN));
        assert_eq!(guard.record().now().map(|row| row.step.0), Some(2));
    }
}
