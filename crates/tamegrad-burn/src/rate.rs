//! The optimizer's step at a learning rate that the guard has lowered.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use crate::updates::along;

/// A step at `factor` times the learning rate.
///
/// burn has no way to scale the rates of parameter groups. Where they differ, the step is taken at the
/// given rates and the update is scaled, which is the same for every optimizer whose update is
/// proportional to its rate.
pub(crate) fn scaled<M: Module>(
    optimizer: &mut ModuleOptimizer,
    rate: &ModuleLearningRate,
    factor: f64,
    model: &M,
    gradients: GradientsParams,
) -> M {
    if factor == 1.0 {
        return optimizer.step(rate.clone(), model.clone(), gradients);
    }
    if is_one(rate, model) {
        return optimizer.step(rate.base() * factor, model.clone(), gradients);
    }
    let after = optimizer.step(rate.clone(), model.clone(), gradients);
    along(model, &after, factor)
}

/// Whether all parameters of a model have the same rate.
fn is_one<M: Module>(rate: &ModuleLearningRate, model: &M) -> bool {
    struct Rates<'a> {
        rate: &'a ModuleLearningRate,
        path: Vec<String>,
        is_one: bool,
    }
    impl ModuleVisitor for Rates<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let rate = self.rate.lr_from_param(param.id, Some(&self.path.join(".")));
            self.is_one &= rate == self.rate.base();
        }
    }
    let mut rates = Rates { rate, path: Vec::new(), is_one: true };
    model.visit(&mut rates);
    rates.is_one
}
