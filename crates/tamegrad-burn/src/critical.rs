//! The critical step size: the smallest multiple of an update that raises the loss of its batch; and
//! the sharpness along the way.

use std::convert::Infallible;

use burn::module::Module;
use burn::tensor::Tensor;
use tamegrad::critical::{self, is_raised, multiples};

use crate::probe::Probes;
use crate::updates;

/// The smallest of the multiples 1/1024, 1/256, ..., 1, 4 of the update from `before` to `after`
/// that raises the loss, by at most nine forward passes on copies; infinite when none of them
/// does. With it the second derivative of the loss by the multiple there, `None` when a loss on the
/// way is not finite.
pub(crate) fn critical_step<M: Module>(
    before: &M,
    after: &M,
    loss: &impl Fn(&M, &Probes) -> Tensor<1>,
) -> (f64, Option<f64>) {
    let ray = Ray::new(before, after, loss);
    let mut tried = 0.0;
    for multiple in multiples(1.0 / 1024.0) {
        tried = multiple;
        if ray.raises(multiple) {
            return (multiple, ray.second_derivative(multiple));
        }
    }
    (f64::INFINITY, ray.second_derivative(tried))
}

/// [`critical::critical_multiple`] by at most 17 forward passes on copies.
pub(crate) fn critical_multiple<M: Module>(
    before: &M,
    after: &M,
    loss: &impl Fn(&M, &Probes) -> Tensor<1>,
) -> Option<f64> {
    let ray = Ray::new(before, after, loss);
    let loss_at = |multiple| Ok::<_, Infallible>(ray.at(multiple));
    let Ok(multiple) = critical::critical_multiple(ray.start, ray.epsilon, loss_at);
    multiple
}

/// The losses along an update.
struct Ray<'a, M, L> {
    before: &'a M,
    after: &'a M,
    loss: &'a L,
    /// Where it starts.
    start: f64,
    /// Distance from 1 to the next number of the loss's type.
    epsilon: f64,
}

impl<'a, M: Module, L: Fn(&M, &Probes) -> Tensor<1>> Ray<'a, M, L> {
    fn new(before: &'a M, after: &'a M, loss: &'a L) -> Self {
        // Not along the update by 0: of one that is not finite that is NaN. The copy has running
        // statistics of its own.
        let model = before.valid().train().no_grad();
        let value = loss(&model, &Probes::unarmed()).inner();
        let epsilon = value.dtype().finfo().map_or(f64::from(f32::EPSILON), |info| info.epsilon);
        let start = value.into_scalar::<f64>();
        Self { before, after, loss, start, epsilon }
    }

    fn at(&self, multiple: f64) -> f64 {
        // Without gradients: burn keeps what a backward pass needs until one is made.
        let model = updates::along(self.before, self.after, multiple).no_grad();
        (self.loss)(&model, &Probes::unarmed()).inner().into_scalar::<f64>()
    }

    fn raises(&self, multiple: f64) -> bool {
        is_raised(self.start, self.epsilon, self.at(multiple))
    }

    /// By the second difference over 0, half of the multiple and the multiple.
    fn second_derivative(&self, multiple: f64) -> Option<f64> {
        let half = 0.5 * multiple;
        let second = self.at(multiple) - 2.0 * self.at(half) + self.start;
        Some(second / (half * half)).filter(|second| second.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{Param, ParamId};
    use burn::tensor::TensorData;

    use crate::default_device;

    #[derive(Module, Debug)]
    struct Net {
        weight: Param<Tensor<1>>,
    }

    fn net(id: ParamId, weight: f64) -> Net {
        let tensor = Tensor::<1>::from_data(TensorData::from([weight]), &default_device());
        Net { weight: Param::initialized(id, tensor.require_grad()) }
    }

    #[test]
    fn a_parabola_has_its_critical_step_and_its_curvature() {
        // The loss a w^2 / 2 from w = 1: a step by u raises it where |u| > 2.
        for (a, u, critical) in
            [(3.0, -0.75, 4.0), (3.0, -40.0, 0.0625), (0.5, -1e-3, f64::INFINITY)]
        {
            let id = ParamId::new();
            let loss = |net: &Net, _: &Probes| net.weight.val().square().sum() * (0.5 * a);
            let (multiple, second) = critical_step(&net(id, 1.0), &net(id, 1.0 + u), &loss);
            assert_eq!(multiple, critical, "{a} {u}");
            let curvature = second.expect("finite") / (u * u);
            assert!((curvature / a - 1.0).abs() < 0.05, "{a} {u}: {curvature}");
        }
    }
}
