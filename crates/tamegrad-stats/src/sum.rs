//! Sums that neither overflow, underflow nor lose digits: compensated sum, sum of squares, norm.

/// Magnitudes above this go to the accumulator for large values, scaled down.
pub(crate) const LARGE: f64 = power_of_two(450);
/// Magnitudes below this go to the accumulator for small values, scaled up.
const SMALL: f64 = power_of_two(-450);
/// The exponent of the scaling of both.
const SHIFT: i32 = 700;
const UP: f64 = power_of_two(SHIFT);
const DOWN: f64 = power_of_two(-SHIFT);

/// A sum that carries its rounding error along (TwoSum: Knuth, TAOCP vol. 2, 4.2.2; summation:
/// Ogita, Rump and Oishi 2005, algorithm 4.4). As accurate as if summed in twice the precision.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Compensated {
    sum: f64,
    error: f64,
}

impl Compensated {
    #[inline(always)]
    pub(crate) fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        let part = sum - self.sum;
        self.error += (self.sum - (sum - part)) + (x - part);
        self.sum = sum;
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.add(other.sum);
        self.error += other.error;
    }

    pub(crate) fn value(self) -> f64 {
        self.sum + self.error
    }
}

/// The sum of squares of f64 values in three ranges of magnitude, after Blue ("A portable Fortran
/// program to find the Euclidean norm of a vector", 1978) as in LAPACK 3.10 `lassq`.
///
/// The ranges are narrower than LAPACK's, so that no square comes near the limits of f64 and no
/// number of elements that fits in memory can overflow a sum. Squares of f32 and of the halves are
/// exact and always in the middle range.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Squares {
    small: Compensated,
    middle: Compensated,
    large: Compensated,
}

impl Squares {
    /// Adds the square of a finite `magnitude`, which is not negative.
    pub(crate) fn add(&mut self, magnitude: f64) {
        if magnitude > LARGE {
            self.large.add((magnitude * DOWN) * (magnitude * DOWN));
        } else if magnitude < SMALL {
            self.small.add((magnitude * UP) * (magnitude * UP));
        } else {
            self.middle.add(magnitude * magnitude);
        }
    }

    /// Adds a sum of squares of ordinary values.
    #[inline(always)]
    pub(crate) fn add_squares(&mut self, squares: f64) {
        self.middle.add(squares);
    }

    /// Adds the square of a norm, which may be beyond what f64 can hold.
    pub(crate) fn add_norm(&mut self, norm: Norm) {
        if norm.exponent == SHIFT {
            self.large.add(norm.significand * norm.significand);
        } else {
            self.add(norm.to_f64());
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.small.append(other.small);
        self.middle.append(other.middle);
        self.large.append(other.large);
    }

    /// The square root of the sum.
    pub(crate) fn root(self) -> Norm {
        let (small, middle, large) = (self.small.value(), self.middle.value(), self.large.value());
        // Beside large values the small ones are below the last digit: a share under 2^-1700.
        if large > 0.0 {
            Norm { significand: (large + middle * DOWN * DOWN).sqrt(), exponent: SHIFT }
        } else if middle > 0.0 {
            Norm { significand: (middle + small * DOWN * DOWN).sqrt(), exponent: 0 }
        } else {
            Norm { significand: small.sqrt(), exponent: -SHIFT }
        }
    }
}

/// An L2 norm, `significand * 2^exponent`: that of several f64 near their maximum is beyond f64.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Norm {
    significand: f64,
    exponent: i32,
}

impl Norm {
    /// The norm as f64, [`f64::MAX`] where it is beyond.
    pub(crate) fn to_f64(self) -> f64 {
        (self.significand * power_of_two(self.exponent)).min(f64::MAX)
    }

    /// `limit / norm`, for a limit below the norm, as the product of two factors. The second is 1
    /// unless the quotient is so small that one f64 would drop digits of it.
    pub(crate) fn factors(self, limit: f64) -> (f64, f64) {
        let factor = if self.exponent == SHIFT {
            limit / self.significand * DOWN
        } else {
            limit / self.to_f64()
        };
        if factor >= f64::MIN_POSITIVE || limit == 0.0 {
            (factor, 1.0)
        } else {
            (DOWN, limit * UP / self.significand * power_of_two(-self.exponent))
        }
    }
}

/// The sum of finite f64 values, also where a partial sum is beyond f64.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum {
    ordinary: Compensated,
    large: Compensated,
}

impl Sum {
    /// Adds `x * count`; `count` is a number of elements.
    pub(crate) fn add(&mut self, x: f64, count: f64) {
        if x.abs() > LARGE {
            self.large.add(x * DOWN * count);
        } else {
            self.ordinary.add(x * count);
        }
    }

    /// Adds a sum of ordinary values.
    #[inline(always)]
    pub(crate) fn add_ordinary(&mut self, x: f64) {
        self.ordinary.add(x);
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.ordinary.append(other.ordinary);
        self.large.append(other.large);
    }

    /// The sum divided by `count`, which is at least 1; infinite if rounding takes it beyond f64.
    pub(crate) fn mean(self, count: f64) -> f64 {
        if self.large.value() == 0.0 {
            self.ordinary.value() / count
        } else {
            let mut sum = self.large;
            sum.add(self.ordinary.value() * DOWN);
            sum.value() / count * UP
        }
    }
}

/// `2^n` for `n` from -1022 to 1023.
const fn power_of_two(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compensated_sum_keeps_what_a_plain_one_drops() {
        let values = [1.0, 1e100, 1.0, -1e100];
        let mut sum = Compensated::default();
        values.iter().for_each(|&x| sum.add(x));
        assert_eq!(values.iter().sum::<f64>(), 0.0);
        assert_eq!(sum.value(), 2.0);
    }

    #[test]
    fn norms_across_the_ranges() {
        let e = power_of_two;
        // (magnitudes, norm)
        let cases: [(&[f64], f64); 10] = [
            (&[], 0.0),
            (&[e(449) * 3.0, e(449) * 4.0], e(449) * 5.0),
            (&[e(1000) * 3.0, e(1000) * 4.0], e(1000) * 5.0),
            (&[e(-1000) * 3.0, e(-1000) * 4.0], e(-1000) * 5.0),
            (&[e(447) * 12.0, e(447) * 5.0], e(447) * 13.0),
            (&[e(-453) * 12.0, e(-453) * 5.0], e(-453) * 13.0),
            (&[f64::MAX], f64::MAX),
            (&[f64::MAX, f64::MAX], f64::MAX),
            (&[1.0, 5e-324], 1.0),
            (&[5e-324; 4], 1e-323),
        ];
        for (magnitudes, want) in cases {
            let mut squares = Squares::default();
            magnitudes.iter().for_each(|&x| squares.add(x));
            assert_eq!(squares.root().to_f64(), want, "{magnitudes:?}");
        }
    }

    #[test]
    fn means_beyond_the_largest_partial_sum() {
        let mean = |values: &[f64]| {
            let mut sum = Sum::default();
            values.iter().for_each(|&x| sum.add(x, 1.0));
            sum.mean(values.len() as f64)
        };
        assert_eq!(mean(&[1e308, 1e308, -1e308, 1e308]), 5e307);
        assert_eq!(mean(&[1e308, 1.0, -1e308, 2.0]), 0.75);
        assert_eq!(mean(&[1e-323, 1e-323]), 1e-323);
    }
}
