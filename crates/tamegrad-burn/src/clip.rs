//! The user's own clipping, after the guard has seen the true gradients.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{DType, TensorData};
use tamegrad_stats::TensorStats;

use crate::gradients::edit;
use crate::parameters::ParameterTable;

/// How gradients are clipped. burn's own clipping is not used: its `Norm` is per tensor, turns
/// `[inf, 1]` into `[NaN, 0]` and `[1e20, 1e20]` into `[0, 0]`, and its `Value` hides Inf.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// The L2 norm of the whole gradient (Pascanu 2013).
    GlobalNorm(f64),
    /// The L2 norm of each tensor.
    TensorNorm(f64),
    /// The magnitude of each element.
    Value(f64),
}

impl Clip {
    /// Clips gradients whose statistics are known, and are finite. Says whether anything was
    /// changed; what lies within the limit is not written.
    pub(crate) fn apply<M: Module>(
        self,
        table: &ParameterTable,
        model: &M,
        gradients: &mut GradientsParams,
        stats: &[Option<TensorStats>],
    ) -> bool {
        let factors: Vec<Option<f64>> = match self {
            Clip::GlobalNorm(limit) => {
                let norm = tamegrad_stats::merge(stats.iter().flatten()).l2;
                vec![tamegrad_stats::global_norm_factor(norm, limit); stats.len()]
            }
            Clip::TensorNorm(limit) => stats
                .iter()
                .map(|s| tamegrad_stats::global_norm_factor(s.map_or(0.0, |s| s.l2), limit))
                .collect(),
            Clip::Value(limit) => {
                let above = |s: &TensorStats| s.max_abs > limit;
                stats.iter().map(|s| s.is_some_and(|s| above(&s)).then_some(limit)).collect()
            }
        };
        if factors.iter().all(Option::is_none) {
            return false;
        }
        let by_value = matches!(self, Clip::Value(_));
        edit(table, model, gradients, |index, mut data| {
            match factors[index] {
                Some(limit) if by_value => clamp(&mut data, limit),
                Some(factor) => scale(&mut data, factor),
                None => {}
            }
            ((), Some(data))
        });
        true
    }
}

/// Multiplies a tensor's data in place.
pub(crate) fn scale(data: &mut TensorData, factor: f64) {
    match data.dtype() {
        DType::F64 => data.as_mut_slice::<f64>().map(|v| tamegrad_stats::scale(v, factor)).ok(),
        DType::F32 => data.as_mut_slice::<f32>().map(|v| tamegrad_stats::scale(v, factor)).ok(),
        _ => {
            widened(data, |values| tamegrad_stats::scale(values, factor));
            Some(())
        }
    };
}

fn clamp(data: &mut TensorData, limit: f64) {
    match data.dtype() {
        DType::F64 => data.as_mut_slice::<f64>().map(|v| tamegrad_stats::clip_value(v, limit)).ok(),
        DType::F32 => data.as_mut_slice::<f32>().map(|v| tamegrad_stats::clip_value(v, limit)).ok(),
        _ => {
            widened(data, |values| {
                tamegrad_stats::clip_value(values, limit);
            });
            Some(0)
        }
    };
}

fn widened(data: &mut TensorData, each: impl FnOnce(&mut [f64])) {
    let mut values: Vec<f64> = data.iter::<f64>().collect();
    each(&mut values);
    *data = TensorData::new(values, data.shape().clone()).convert_dtype(data.dtype());
}
