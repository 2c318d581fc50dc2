//! Statistics as Python sees them: a tuple of seven numbers.

use tamegrad_stats::TensorStats;

/// Elements, NaN, Inf, zeros, L2 norm, largest magnitude, mean; the last three of the finite
/// elements.
pub(crate) type Numbers = (u64, u64, u64, u64, f64, f64, f64);

/// The tuple of statistics.
pub(crate) fn numbers(stats: &TensorStats) -> Numbers {
    let TensorStats { len, nans, infs, zeros, l2, max_abs, mean } = *stats;
    (len, nans, infs, zeros, l2, max_abs, mean)
}

/// The statistics of a tuple.
pub(crate) fn stats((len, nans, infs, zeros, l2, max_abs, mean): Numbers) -> TensorStats {
    TensorStats { len, nans, infs, zeros, l2, max_abs, mean }
}

/// Statistics of a tensor of which each element is multiplied by `factor`.
pub(crate) fn scaled(stats: TensorStats, factor: f64) -> TensorStats {
    TensorStats {
        l2: stats.l2 * factor.abs(),
        max_abs: stats.max_abs * factor.abs(),
        mean: stats.mean * factor,
        ..stats
    }
}
