//! How much the loss of a pass depends on the scale of each weight matrix.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor};

use crate::parameters::ParameterTable;

/// For [`tamegrad::Guard::observe_elasticities`].
pub(crate) fn elasticities<M: Module>(
    table: &ParameterTable,
    model: &M,
    gradients: &GradientsParams,
    loss: f64,
) -> Vec<Option<f64>> {
    struct Products<'a> {
        table: &'a ParameterTable,
        gradients: &'a GradientsParams,
        loss: f64,
        found: Vec<Option<f64>>,
    }
    impl ModuleVisitor for Products<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let matrix = self.table.index_of(param.id).filter(|_| D >= 2);
            let gradient = matrix.and_then(|_| self.gradients.get::<D>(param.id));
            let Some((index, gradient)) = matrix.zip(gradient) else { return };
            let weight = param.val().inner().cast(FloatDType::F32);
            let sum = (weight * gradient.cast(FloatDType::F32)).sum().into_scalar::<f32>();
            let elasticity = (f64::from(sum) / self.loss).abs();
            self.found[index] = Some(elasticity).filter(|elasticity| elasticity.is_finite());
        }
    }
    let mut products = Products { table, gradients, loss, found: vec![None; table.len()] };
    model.visit(&mut products);
    products.found
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};

    use crate::default_device;

    #[test]
    fn outputs_that_are_too_large_drive_the_loss_and_targets_that_are_do_not() {
        let device = default_device();
        let x = Tensor::<2>::from_data([[1.0f32, -0.5], [0.25, 2.0], [-1.0, 1.0]], &device);
        for (scale, target, low, high) in
            [(1000.0, 1.0, 1.9, 2.1), (1.0, 1e5, 0.0, 1e-3), (1.0, 0.0, 1.999, 2.001)]
        {
            let weight = Tensor::<2>::from_data([[0.7f32], [-0.4]], &device) * scale;
            let mut model: Linear = LinearConfig::new(2, 1).with_bias(false).init(&device);
            model.weight = model.weight.map(|_| weight.detach().require_grad());
            let loss = (model.forward(x.clone()) - target).square().mean();
            let value = f64::from(loss.clone().into_scalar::<f32>());
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let table = ParameterTable::new(&model, None);
            let found = elasticities(&table, &model, &gradients, value)[0].expect("finite");
            assert!(low <= found && found <= high, "{scale} {target}: {found}");
        }
    }
}
