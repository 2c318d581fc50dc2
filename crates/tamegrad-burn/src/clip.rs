//! The user's own clipping, applied after the guard has seen the true gradients.

use burn::module::Module;
use burn::optim::GradientsParams;
use tamegrad_stats::{TensorStats, global_norm_factor};

use crate::change::Change;
use crate::gradients::GradientStats;
use crate::parameters::ParameterTable;

/// How gradients are clipped. burn's own clipping is not used: its `Norm` is per tensor, turns
/// `[inf, 1]` into `[NaN, 0]` and `[1e20, 1e20]` into `[0, 0]`, and its `Value` hides Inf.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Clip {
    /// The L2 norm of the whole gradient (Pascanu 2013).
    GlobalNorm(f64),
    /// The L2 norm of each tensor.
    TensorNorm(f64),
    /// The magnitude of each element.
    Value(f64),
}

impl Clip {
    /// Clips the gradients of a model, and returns the L2 norm of the whole gradient from before; NaN
    /// where it is not finite, and then the gradients stay as they are.
    ///
    /// A guard sees what it is given: with one, use [`Guard::with_clip`](crate::Guard::with_clip), which
    /// clips after the guard has seen the gradients.
    pub fn apply<M: Module>(self, model: &M, gradients: &mut GradientsParams) -> f64 {
        let (table, mut stats) = (ParameterTable::new(model, None), GradientStats::default());
        stats.scan(&table, model, gradients);
        if !stats.is_finite() {
            return f64::NAN;
        }
        self.change(&stats.tensors).apply(&table, model, gradients);
        stats.norm()
    }

    /// What this clip does to gradients whose statistics are known, and are finite. What lies
    /// within the limit is not touched.
    pub(crate) fn change(self, stats: &[Option<TensorStats>]) -> Change {
        match self {
            Clip::GlobalNorm(limit) => {
                let norm = tamegrad_stats::merge(stats.iter().flatten()).l2;
                Change::Scale(vec![global_norm_factor(norm, limit); stats.len()])
            }
            Clip::TensorNorm(limit) => {
                let factor = |stats: &TensorStats| global_norm_factor(stats.l2, limit);
                Change::Scale(stats.iter().map(|s| s.as_ref().and_then(factor)).collect())
            }
            Clip::Value(limit) => {
                let exceeds = |stats: &TensorStats| limit >= 0.0 && stats.max_abs > limit;
                let exceeds = stats.iter().map(|s| s.as_ref().is_some_and(exceeds)).collect();
                Change::Clamp { limit, exceeds }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::LinearConfig;
    use burn::tensor::Tensor;

    use crate::default_device;

    #[test]
    fn a_clip_by_global_norm_keeps_the_direction_and_leaves_what_is_not_finite() {
        let device = default_device();
        let model = LinearConfig::new(1, 1).init(&device);
        let bias = model.bias.as_ref().expect("a bias");
        drop((model.weight.val(), bias.val()));
        let clipped = |weight: f32| {
            let mut gradients = GradientsParams::new();
            gradients.register(model.weight.id, Tensor::<2>::full([1, 1], weight, &device).inner());
            gradients.register(bias.id, Tensor::<1>::full([1], 4.0, &device).inner());
            let norm = Clip::GlobalNorm(1.0).apply(&model, &mut gradients);
            let weight = gradients.get::<2>(model.weight.id).expect("there");
            let bias = gradients.get::<1>(bias.id).expect("there");
            (norm, [weight.into_scalar::<f32>(), bias.into_scalar::<f32>()])
        };
        assert_eq!(clipped(3.0), (5.0, [0.6, 0.8]));
        let (norm, gradients) = clipped(f32::INFINITY);
        assert!(norm.is_nan());
        assert_eq!(gradients, [f32::INFINITY, 4.0]);
    }

    #[test]
    fn what_is_within_the_limit_is_not_touched() {
        let stats = |values: &[f64]| Some(tamegrad_stats::scan(values));
        let stats = [stats(&[3.0]), None, stats(&[-4.0])];
        let none = || Change::Scale(vec![None; 3]);
        let clamp = |limit, exceeds: [bool; 3]| Change::Clamp { limit, exceeds: exceeds.to_vec() };
        let cases = [
            (Clip::GlobalNorm(2.5), Change::Scale(vec![Some(0.5); 3])),
            (Clip::GlobalNorm(5.0), none()),
            (Clip::GlobalNorm(-1.0), none()),
            (Clip::TensorNorm(3.0), Change::Scale(vec![None, None, Some(0.75)])),
            (Clip::Value(3.0), clamp(3.0, [false, false, true])),
            (Clip::Value(4.0), clamp(4.0, [false; 3])),
            (Clip::Value(-1.0), clamp(-1.0, [false; 3])),
        ];
        for (clip, want) in cases {
            assert_eq!(clip.change(&stats), want, "{clip:?}");
        }
    }
}
