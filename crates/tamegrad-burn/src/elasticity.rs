//! How much the loss of the first pass depends on the scale of the weights.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor};

use crate::parameters::ParameterTable;

/// [`tamegrad::Observation::loss_elasticity`]; `None` where it is not a number.
pub(crate) fn elasticity<M: Module>(
    table: &ParameterTable,
    model: &M,
    gradients: &GradientsParams,
    loss: f64,
) -> Option<f64> {
    struct Products<'a> {
        table: &'a ParameterTable,
        gradients: &'a GradientsParams,
        largest: Option<f64>,
    }
    impl ModuleVisitor for Products<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let is_matrix = D >= 2 && self.table.index_of(param.id).is_some();
            let gradient = is_matrix.then(|| self.gradients.get::<D>(param.id)).flatten();
            let Some(gradient) = gradient else { return };
            let weight = param.val().inner().cast(FloatDType::F32);
            let sum = (weight * gradient.cast(FloatDType::F32)).sum().into_scalar::<f32>();
            // A NaN stays: it is larger than any number.
            let sum = f64::from(sum.abs());
            self.largest = self.largest.into_iter().chain([sum]).max_by(f64::total_cmp);
        }
    }
    let mut products = Products { table, gradients, largest: None };
    model.visit(&mut products);
    products.largest.map(|sum| sum / loss.abs()).filter(|ratio| ratio.is_finite())
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
            let found = elasticity(&table, &model, &gradients, value).expect("finite");
            assert!(low <= found && found <= high, "{scale} {target}: {found}");
        }
    }
}
