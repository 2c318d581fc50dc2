//! The optimizer's step at a learning rate that the guard has lowered.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use crate::updates::along;

/// How the optimizer is applied to a model, with burn's `Learner` by a method of the model.
pub(crate) type Optimize<M> = fn(M, &mut ModuleOptimizer, ModuleLearningRate, GradientsParams) -> M;

/// A step at `factor` times the learning rate.
///
/// burn has no way to scale the rates of parameter groups. Where they differ, the step is taken at the
/// given rates and the update is scaled, which is the same for every optimizer whose update is
/// proportional to its rate.
pub(crate) fn scaled<M: Module>(
    optimize: Optimize<M>,
    optimizer: &mut ModuleOptimizer,
    rate: &ModuleLearningRate,
    factor: f64,
    model: &M,
    gradients: GradientsParams,
) -> M {
    if factor == 1.0 {
        return optimize(model.clone(), optimizer, rate.clone(), gradients);
    }
    if is_one(rate, model) {
        return optimize(model.clone(), optimizer, (rate.base() * factor).into(), gradients);
    }
    let after = optimize(model.clone(), optimizer, rate.clone(), gradients);
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::lr_scheduler::constant::ConstantLr;
    use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
    use burn::module::ParamGroup;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::SgdConfig;

    use crate::default_device;

    #[test]
    fn every_group_steps_by_its_part_of_its_own_rate() {
        let device = default_device();
        let model: Linear = LinearConfig::new(1, 1).init(&device);
        let bias = |model: &Linear| model.bias.as_ref().expect("a bias").clone();
        let moved = |rate: &ModuleLearningRate, factor: f64| {
            let mut gradients = GradientsParams::new();
            gradients.register(model.weight.id, Tensor::<2>::full([1, 1], 2.0, &device).inner());
            gradients.register(bias(&model).id, Tensor::<1>::full([1], 2.0, &device).inner());
            let mut sgd = SgdConfig::new().init();
            let optimize: Optimize<Linear> =
                |model, sgd, rate, gradients| sgd.step(rate, model, gradients);
            let after = scaled(optimize, &mut sgd, rate, factor, &model, gradients);
            let weight = model.weight.val() - after.weight.val();
            let bias = bias(&model).val() - bias(&after).val();
            [weight.into_scalar::<f32>(), bias.into_scalar::<f32>()]
        };
        let one = ModuleLearningRate::from(0.5);
        let mut groups = ModuleLrScheduler::new(ConstantLr::from(0.5))
            .with_group(ParamGroup::from_path("bias"), ConstantLr::from(0.125));
        let groups = groups.step();
        for (rate, factor, want) in [
            (&one, 1.0, [1.0, 1.0]),
            (&one, 0.25, [0.25, 0.25]),
            (&groups, 1.0, [1.0, 0.25]),
            (&groups, 0.25, [0.25, 0.0625]),
        ] {
            let got = moved(rate, factor);
            let error = got.iter().zip(want).map(|(got, want)| (got - want).abs());
            assert!(error.fold(0.0, f32::max) < 1e-6, "{factor}: {got:?}, want {want:?}");
        }
    }
}
