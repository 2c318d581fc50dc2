//! The L2 norm that a histogram lets one estimate: `sqrt(sum count * mid^2)` over its bins.

/// Bins read of one histogram; writers use 30 to 1500.
pub(crate) const BINS_MAX: usize = 65_536;

/// The norm of the values that the bins `(low, high, count)` hold, as if each value lay in the
/// middle of its bin; `None` where the bins hold nothing.
pub(crate) fn l2_norm(bins: impl Iterator<Item = (f64, f64, f64)>) -> Option<f64> {
    let (mut squares, mut is_empty) = (0.0, true);
    // A count that is no number or not above 0 holds nothing.
    for (low, high, count) in bins.filter(|&(_, _, count)| count > 0.0) {
        let middle = low / 2.0 + high / 2.0;
        squares += count * middle * middle;
        is_empty = false;
    }
    (!is_empty).then(|| squares.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_of_bins() {
        let norm = |bins: &[(f64, f64, f64)]| l2_norm(bins.iter().copied());
        assert_eq!(norm(&[]), None);
        assert_eq!(norm(&[(1.0, 2.0, 0.0), (1.0, 2.0, f64::NAN)]), None);
        // Two values of -2 and one of 1: sqrt(4 + 4 + 1).
        assert_eq!(norm(&[(-3.0, -1.0, 2.0), (0.5, 1.5, 1.0)]), Some(3.0));
        assert_eq!(norm(&[(-1.0, 1.0, 5.0)]), Some(0.0));
        assert_eq!(norm(&[(1.0, f64::INFINITY, 1.0)]), Some(f64::INFINITY));
    }
}
