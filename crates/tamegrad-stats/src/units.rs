//! Clipping by unit: each row of a gradient beside the same row of its weights.

use std::fmt;

use crate::clip::{Clip, clip_tensor_norm};
use crate::element::Element;
use crate::scan::{TensorStats, scan};
use crate::threads::{GRAIN_BYTES, Threads};

/// The two constants of clipping by unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnitLimits {
    /// Largest allowed ratio of a unit's gradient norm to its weight norm.
    pub lambda: f64,
    /// Floor of the weight norm, so that units that start at zero can move.
    pub eps: f64,
}

impl Default for UnitLimits {
    /// Lambda 0.01, eps 1e-3: the values of Brock et al. 2021 for large batches.
    fn default() -> Self {
        Self { lambda: 0.01, eps: 1e-3 }
    }
}

/// What a clip by unit did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnitClip {
    /// Number of units, the rows of the matrix.
    pub units: u64,
    /// Units that were scaled; the others were not written.
    pub clipped: u64,
    /// The smallest factor applied, 1 if none was.
    pub smallest_factor: f64,
}

/// Why a clip by unit wrote nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitError {
    /// Gradient and weights are not two matrices of the same shape with rows of `cols` elements.
    Shape {
        /// Elements of the gradient.
        gradient: usize,
        /// Elements of the weights.
        weights: usize,
        /// Elements of a row, as asked.
        cols: usize,
    },
    /// The gradient has non-finite elements.
    NonFiniteGradient {
        /// The first row that has one.
        row: usize,
        /// Elements of the whole gradient that are not a number.
        nans: u64,
        /// Elements of the whole gradient that are infinite.
        infs: u64,
    },
    /// The weights have non-finite elements, so their norms say nothing.
    NonFiniteWeights {
        /// The first row that has one.
        row: usize,
        /// Elements of the whole weights that are not a number.
        nans: u64,
        /// Elements of the whole weights that are infinite.
        infs: u64,
    },
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { gradient, weights, cols } => write!(
                f,
                "no clip by unit: got a gradient of {gradient} and weights of {weights} elements, \
                 want the same number in both and a multiple of the row length {cols}"
            ),
            Self::NonFiniteGradient { row, nans, infs } => write!(
                f,
                "no clip by unit: the gradient has {nans} NaN and {infs} infinite elements, \
                 the first in row {row}; hint: skip this step"
            ),
            Self::NonFiniteWeights { row, nans, infs } => write!(
                f,
                "no clip by unit: the weights have {nans} NaN and {infs} infinite elements, \
                 the first in row {row}; hint: go back to a snapshot with finite weights"
            ),
        }
    }
}

impl std::error::Error for UnitError {}

/// Adaptive gradient clipping: scales each unit whose gradient is large beside its weights,
/// G_i <- lambda max(|W_i|, eps) / |G_i| G_i where |G_i| / max(|W_i|, eps) > lambda.
///
/// `gradient` and `weights` are matrices `[rows, cols]`, stored by rows; a row is a unit, that is
/// all weights into one output. A layer that stores `[inputs, outputs]` has to be transposed; a
/// convolution `[out, in, kernel...]` has `cols = in * kernel...`. The output layer should be left
/// out (same source). A lambda that is NaN or negative is no limit.
///
/// # Errors
/// [`UnitError`] if the shapes do not fit or an element is not finite; nothing is written then.
///
/// Source: Brock, De, Smith, Simonyan, "High-performance large-scale image recognition without
/// normalization", 2021, equation 3.
pub fn clip_units<G: Element, W: Element>(
    gradient: &mut [G],
    weights: &[W],
    cols: usize,
    limits: UnitLimits,
) -> Result<UnitClip, UnitError> {
    if gradient.is_empty() && weights.is_empty() {
        return Ok(UnitClip { units: 0, clipped: 0, smallest_factor: 1.0 });
    }
    if gradient.len() != weights.len() || cols == 0 || !gradient.len().is_multiple_of(cols) {
        let (gradient, weights) = (gradient.len(), weights.len());
        return Err(UnitError::Shape { gradient, weights, cols });
    }
    if let Some((row, TensorStats { nans, infs, .. })) = first_nonfinite_row(gradient, cols) {
        return Err(UnitError::NonFiniteGradient { row, nans, infs });
    }
    if let Some((row, TensorStats { nans, infs, .. })) = first_nonfinite_row(weights, cols) {
        return Err(UnitError::NonFiniteWeights { row, nans, infs });
    }
    let threads = Threads::for_bytes(size_of_val(gradient) + size_of_val(weights));
    Ok(clip_rows(threads, gradient, weights, cols, limits))
}

fn clip_rows<G: Element, W: Element>(
    threads: Threads,
    gradient: &mut [G],
    weights: &[W],
    cols: usize,
    limits: UnitLimits,
) -> UnitClip {
    let rows = gradient.len() / cols;
    if threads == Threads::Many && rows > 1 && size_of_val(gradient) > GRAIN_BYTES {
        let (upper, lower) = gradient.split_at_mut(rows / 2 * cols);
        let (upper_weights, lower_weights) = weights.split_at(rows / 2 * cols);
        let (a, b) = threads.join(
            || clip_rows(threads, upper, upper_weights, cols, limits),
            || clip_rows(threads, lower, lower_weights, cols, limits),
        );
        return UnitClip {
            units: a.units + b.units,
            clipped: a.clipped + b.clipped,
            smallest_factor: a.smallest_factor.min(b.smallest_factor),
        };
    }
    let mut done = UnitClip { units: rows as u64, clipped: 0, smallest_factor: 1.0 };
    for (unit, weights) in gradient.chunks_mut(cols).zip(weights.chunks(cols)) {
        let limit = limits.lambda * scan(weights).l2.max(limits.eps);
        if let Clip::Clipped { factor, .. } = clip_tensor_norm(unit, limit) {
            done.clipped += 1;
            done.smallest_factor = done.smallest_factor.min(factor);
        }
    }
    done
}

/// The first row with a non-finite element and the statistics of the whole; `None` without any.
fn first_nonfinite_row<T: Element>(values: &[T], cols: usize) -> Option<(usize, TensorStats)> {
    let stats = scan(values);
    if stats.is_finite() {
        return None;
    }
    let bad = values.iter().position(|x| x.is_nan() || x.is_infinite())?;
    Some((bad / cols, stats))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::tests::{INF, NAN, bits};

    #[test]
    fn clip_by_unit() {
        let limits = UnitLimits { lambda: 0.1, eps: 1.0 };
        // weight norms 50, 5 and 0, so the limits are 5, 0.5 and, from eps, 0.1
        let weights = [30.0_f32, 40.0, 3.0, 4.0, 0.0, 0.0];
        let mut gradient = [3.0_f64, 4.0, 3.0, 4.0, 0.0, -0.4];
        let done = clip_units(&mut gradient, &weights, 2, limits).unwrap();
        assert_eq!((done.units, done.clipped, done.smallest_factor), (3, 2, 0.1));
        let want = [3.0, 4.0, 0.3, 0.4, 0.0, -0.1];
        for (got, want) in gradient.iter().zip(want) {
            assert!((got - want).abs() < 1e-15, "{gradient:?}");
        }
        let once = gradient.map(|x| x * 0.999);
        let mut again = once;
        let done = clip_units(&mut again, &weights, 2, limits).unwrap();
        assert_eq!((done.clipped, done.smallest_factor), (0, 1.0));
        assert_eq!(bits(&again), bits(&once));
    }

    #[test]
    fn defaults_of_the_clip_by_unit() {
        let mut gradient = [1.0_f64, 1.0];
        clip_units(&mut gradient, &[2.0_f64, 0.0], 1, UnitLimits::default()).unwrap();
        assert!((gradient[0] - 0.02).abs() < 1e-17 && (gradient[1] - 1e-5).abs() < 1e-20);
    }

    #[test]
    fn a_clip_by_unit_that_cannot_be_done_writes_nothing() {
        let shape = |gradient, weights, cols| UnitError::Shape { gradient, weights, cols };
        // (gradient, weights, cols, error)
        let cases: [(&[f64], &[f64], usize, UnitError); 6] = [
            (&[9.0, 9.0], &[1.0], 1, shape(2, 1, 1)),
            (&[9.0, 9.0, 9.0], &[1.0; 3], 2, shape(3, 3, 2)),
            (&[9.0], &[1.0], 0, shape(1, 1, 0)),
            (&[], &[1.0], 1, shape(0, 1, 1)),
            (
                &[9.0, 9.0, NAN, INF],
                &[1.0; 4],
                2,
                UnitError::NonFiniteGradient { row: 1, nans: 1, infs: 1 },
            ),
            (
                &[9.0; 4],
                &[1.0, 1.0, 1.0, INF],
                2,
                UnitError::NonFiniteWeights { row: 1, nans: 0, infs: 1 },
            ),
        ];
        for (before, weights, cols, want) in cases {
            let mut gradient = before.to_vec();
            let got = clip_units(&mut gradient, weights, cols, UnitLimits::default());
            assert_eq!(got, Err(want));
            assert_eq!(bits(&gradient), bits(before), "{want}");
        }
        let nothing = clip_units::<f32, f32>(&mut [], &[], 0, UnitLimits::default()).unwrap();
        assert_eq!((nothing.units, nothing.clipped), (0, 0));
    }

    #[test]
    fn errors_say_got_want_and_what_next() {
        let shape = UnitError::Shape { gradient: 3, weights: 4, cols: 2 }.to_string();
        assert_eq!(
            shape,
            "no clip by unit: got a gradient of 3 and weights of 4 elements, \
             want the same number in both and a multiple of the row length 2"
        );
        let gradient = UnitError::NonFiniteGradient { row: 7, nans: 1, infs: 2 }.to_string();
        assert!(gradient.contains("1 NaN and 2 infinite") && gradient.contains("row 7"));
    }
}
