//! The user's own clipping, applied after the guard has seen the true gradients.

use tamegrad_stats::{TensorStats, global_norm_factor};

use crate::change::Change;

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
