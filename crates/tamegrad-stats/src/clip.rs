//! Clipping and scaling in place: by value, by norm over a list or one tensor, by unit.

use std::fmt;

use crate::element::Element;
use crate::scan::{TensorStats, scan, scan_with_norm};
use crate::sum::{Norm, Squares};

/// What a clip by norm did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// The norm is within the limit; nothing was written.
    Inactive {
        /// L2 norm of what was measured.
        norm: f64,
    },
    /// Every element was multiplied by `factor`.
    Clipped {
        /// L2 norm before the clip.
        norm: f64,
        /// The limit divided by the norm.
        factor: f64,
    },
    /// There are non-finite elements; nothing was written. Multiplied, one infinity would turn into
    /// NaN and every other element into 0.
    NonFinite {
        /// Position in the list of the first tensor that has one.
        index: usize,
        /// Elements of the whole list that are not a number.
        nans: u64,
        /// Elements of the whole list that are infinite.
        infs: u64,
    },
}

/// Scales all `tensors` by one factor so that their common L2 norm, over all elements of all of
/// them, is at most `max_norm`: g <- g min(1, c / |g|).
///
/// A `max_norm` that is NaN or negative is no limit. The norm of the result is `max_norm` up to the
/// rounding of the element type.
///
/// Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
/// 2013, algorithm 1.
pub fn clip_global_norm<T: Element>(tensors: &mut [&mut [T]], max_norm: f64) -> Clip {
    let mut squares = Squares::default();
    let (mut first, mut nans, mut infs) = (None, 0, 0);
    for (index, tensor) in tensors.iter().enumerate() {
        let (stats, norm) = scan_with_norm(tensor);
        squares.add_norm(norm);
        if !stats.is_finite() {
            first = first.or(Some(index));
            nans += stats.nans;
            infs += stats.infs;
        }
    }
    if let Some(index) = first {
        return Clip::NonFinite { index, nans, infs };
    }
    let root = squares.root();
    let norm = root.to_f64();
    if global_norm_factor(norm, max_norm).is_none() {
        return Clip::Inactive { norm };
    }
    let mut factor = 1.0;
    for tensor in tensors {
        factor = shrink(tensor, root, max_norm);
    }
    Clip::Clipped { norm, factor }
}

/// Scales one tensor so that its own L2 norm is at most `max_norm`; otherwise as
/// [`clip_global_norm`], with `index` 0.
pub fn clip_tensor_norm<T: Element>(values: &mut [T], max_norm: f64) -> Clip {
    clip_global_norm(&mut [values], max_norm)
}

/// The factor min(1, c / |g|) of a clip by norm, or `None` where it is inactive and nothing should
/// be written: `norm <= max_norm`.
///
/// `None` also where there is no factor to speak of: a `norm` that is not finite (multiplying by it
/// would poison what it touches), a `max_norm` that is NaN or negative.
///
/// Source: Pascanu et al. 2013, as [`clip_global_norm`].
pub fn global_norm_factor(norm: f64, max_norm: f64) -> Option<f64> {
    let active = norm.is_finite() && max_norm >= 0.0 && norm > max_norm;
    active.then(|| max_norm / norm)
}

/// Brings every finite element into `[-limit, limit]` and gives the number of elements changed.
///
/// `limit` is first rounded to the element type. A limit that is NaN or negative is no limit.
/// Non-finite elements stay as they are, so that the next scan still shows them.
pub fn clip_value<T: Element>(values: &mut [T], limit: f64) -> u64 {
    let bound = T::from_f64(limit).to_f64();
    if bound.is_nan() || bound < 0.0 {
        return 0;
    }
    let mut changed = 0;
    for value in values {
        let x = value.to_f64();
        if x.is_finite() && x.abs() > bound {
            *value = T::from_f64(bound.copysign(x));
            changed += 1;
        }
    }
    changed
}

/// Multiplies every finite element by `factor`, in f64, rounded once to the element type.
///
/// Non-finite elements stay as they are: infinity times 0 would be NaN. A factor of 1 and one that
/// is not finite write nothing. A factor of at most 1 in magnitude makes no element infinite; with
/// a larger one an element beyond [`Element::MAX`] becomes infinite, as in any arithmetic.
pub fn scale<T: Element>(values: &mut [T], factor: f64) {
    if factor == 1.0 || !factor.is_finite() {
        return;
    }
    for value in values {
        let x = value.to_f64();
        if x.is_finite() {
            *value = T::from_f64(x * factor);
        }
    }
}

/// Brings `values`, which are part of something of the given `norm`, to `limit`; gives the factor.
fn shrink<T: Element>(values: &mut [T], norm: Norm, limit: f64) -> f64 {
    let (first, second) = norm.factors(limit);
    scale(values, first);
    scale(values, second);
    first * second
}

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
    let mut done = UnitClip { units: 0, clipped: 0, smallest_factor: 1.0 };
    if gradient.is_empty() && weights.is_empty() {
        return Ok(done);
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
    for (unit, weights) in gradient.chunks_mut(cols).zip(weights.chunks(cols)) {
        done.units += 1;
        let limit = limits.lambda * scan(weights).l2.max(limits.eps);
        if let Clip::Clipped { factor, .. } = clip_tensor_norm(unit, limit) {
            done.clipped += 1;
            done.smallest_factor = done.smallest_factor.min(factor);
        }
    }
    Ok(done)
}

/// The first row with a non-finite element and the statistics of the whole; `None` without any.
fn first_nonfinite_row<T: Element>(values: &[T], cols: usize) -> Option<(usize, TensorStats)> {
    let bad = values.iter().position(|x| x.is_nan() || x.is_infinite())?;
    Some((bad / cols, scan(values)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn factor_of_a_clip_by_norm() {
        // (norm, limit, factor)
        let cases = [
            (10.0, 1.0, Some(0.1)),
            (1.0, 1.0, None),
            (0.5, 1.0, None),
            (0.0, 0.0, None),
            (2.0, 0.0, Some(0.0)),
            (2.0, INF, None),
            (2.0, NAN, None),
            (2.0, -1.0, None),
            (NAN, 1.0, None),
            (INF, 1.0, None),
        ];
        for (norm, limit, want) in cases {
            assert_eq!(global_norm_factor(norm, limit), want, "norm {norm}, limit {limit}");
        }
    }

    #[test]
    fn clip_by_norm() {
        // (before, limit, after, norm): after = before means that nothing was written
        let big = 2f64.powi(600);
        let cases: [(&[f64], f64, &[f64], f64); 8] = [
            (&[3.0, 4.0], 1.0, &[0.6, 0.8], 5.0),
            (&[3.0, -4.0], 5.0, &[3.0, -4.0], 5.0),
            (&[0.0, -0.0], 1.0, &[0.0, -0.0], 0.0),
            (&[], 1.0, &[], 0.0),
            (&[3.0, 4.0], 0.0, &[0.0, 0.0], 5.0),
            (&[3.0, 4.0], NAN, &[3.0, 4.0], 5.0),
            (&[3.0, 4.0], -1.0, &[3.0, 4.0], 5.0),
            (&[3.0 * big, 4.0 * big], big, &[0.6 * big, 0.8 * big], 5.0 * big),
        ];
        for (before, limit, after, norm) in cases {
            let mut values = before.to_vec();
            let clip = clip_tensor_norm(&mut values, limit);
            if bits(before) == bits(after) {
                assert_eq!(clip, Clip::Inactive { norm }, "{before:?} to {limit}");
                assert_eq!(bits(&values), bits(after), "{before:?} to {limit}");
            } else {
                assert_eq!(clip, Clip::Clipped { norm, factor: limit / norm });
                for (got, want) in values.iter().zip(after) {
                    assert!((got - want).abs() <= 1e-15 * want, "{before:?}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn one_norm_over_the_list() {
        let (mut a, mut b, mut c) = ([6.0_f32, 0.0], [8.0_f32], []);
        let clip = clip_global_norm(&mut [&mut a, &mut b, &mut c], 5.0);
        assert_eq!(clip, Clip::Clipped { norm: 10.0, factor: 0.5 });
        assert_eq!((a, b), ([3.0, 0.0], [4.0]));
        assert_eq!(clip_global_norm::<f32>(&mut [], 1.0), Clip::Inactive { norm: 0.0 });
    }

    #[test]
    fn a_nonfinite_list_is_reported_and_left_alone() {
        let (mut a, mut b, mut c) = (vec![1.0], vec![INF, 1.0, 2.0], vec![NAN, -INF]);
        let clip = clip_global_norm(&mut [&mut a, &mut b, &mut c], 1.0);
        assert_eq!(clip, Clip::NonFinite { index: 1, nans: 1, infs: 2 });
        assert_eq!((bits(&a), bits(&b)), (bits(&[1.0]), bits(&[INF, 1.0, 2.0])));
        assert_eq!(bits(&c), bits(&[NAN, -INF]));
    }

    #[test]
    fn huge_gradients_are_clipped_not_silenced() {
        let mut values = [3e19_f32; 4];
        let Clip::Clipped { norm, .. } = clip_tensor_norm(&mut values, 1.0) else {
            panic!("inactive")
        };
        assert!((norm / 6e19 - 1.0).abs() < 1e-7, "{norm:e}");
        assert_eq!(values, [0.5; 4]);

        // The norm is beyond f64, the factor below its normal range.
        for (limit, want) in [(1.0, 0.5), (1e-20, 5e-21), (1e100, 5e99)] {
            let mut values = [f64::MAX; 4];
            assert!(matches!(clip_tensor_norm(&mut values, limit), Clip::Clipped { .. }));
            for x in values {
                assert!((x / want - 1.0).abs() < 1e-15, "{x:e}, want {want:e}");
            }
        }
    }

    #[test]
    fn clip_by_value() {
        // (before, limit, after, changed)
        let cases: [(&[f64], f64, &[f64], u64); 6] = [
            (&[3.0, -4.0, 0.5, -0.0], 1.0, &[1.0, -1.0, 0.5, -0.0], 2),
            (&[1.0, -1.0], 1.0, &[1.0, -1.0], 0),
            (&[NAN, INF, -INF, 2.0], 1.0, &[NAN, INF, -INF, 1.0], 1),
            (&[3.0, -4.0], 0.0, &[0.0, -0.0], 2),
            (&[3.0], NAN, &[3.0], 0),
            (&[3.0], -1.0, &[3.0], 0),
        ];
        for (before, limit, after, changed) in cases {
            let mut values = before.to_vec();
            assert_eq!(clip_value(&mut values, limit), changed, "{before:?} to {limit}");
            assert_eq!(bits(&values), bits(after), "{before:?} to {limit}");
        }
        // 0.3 rounds up in f16.
        let mut values = [f16::MAX, f16::from_f32(0.05)];
        assert_eq!(clip_value(&mut values, 0.3), 1);
        assert_eq!(values, [f16::from_f32(0.3), f16::from_f32(0.05)]);
        assert_eq!(clip_value(&mut values, 0.3), 0, "the rounded limit is not clipped again");
        assert_eq!(clip_value(&mut [bf16::MAX], 1e300), 0);
    }

    #[test]
    fn scaling() {
        // (before, factor, after)
        let cases: [(&[f64], f64, &[f64]); 6] = [
            (&[2.0, -4.0], 0.5, &[1.0, -2.0]),
            (&[INF, NAN, 1.0], 0.0, &[INF, NAN, 0.0]),
            (&[2.0, NAN], 1.0, &[2.0, NAN]),
            (&[2.0], NAN, &[2.0]),
            (&[2.0], INF, &[2.0]),
            (&[1e308], 10.0, &[INF]),
        ];
        for (before, factor, after) in cases {
            let mut values = before.to_vec();
            scale(&mut values, factor);
            assert_eq!(bits(&values), bits(after), "{before:?} times {factor}");
        }
    }

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

    /// After the clip the norm is the limit, or, if it was within, every bit is as before.
    fn check<T: Element>(
        tensors: &[Vec<T>],
        limit: f64,
        rounding: f64,
        bits: fn(T) -> u64,
    ) -> Result<(), TestCaseError> {
        let all_bits = |list: &[Vec<T>]| list.concat().into_iter().map(bits).collect::<Vec<_>>();
        let mut clipped = tensors.to_vec();
        let mut slices: Vec<&mut [T]> = clipped.iter_mut().map(Vec::as_mut_slice).collect();
        let clip = clip_global_norm(&mut slices, limit);
        let (before, after) = (scan(&tensors.concat()), scan(&clipped.concat()));
        match clip {
            Clip::NonFinite { nans, infs, index } => {
                prop_assert_eq!((nans, infs), (before.nans, before.infs));
                prop_assert_eq!(
                    Some(index),
                    tensors.iter().position(|tensor| !scan(tensor).is_finite())
                );
                prop_assert_eq!(all_bits(tensors), all_bits(&clipped));
            }
            Clip::Inactive { norm } => {
                prop_assert!(before.is_finite() && norm <= limit);
                prop_assert_eq!(all_bits(tensors), all_bits(&clipped));
            }
            Clip::Clipped { norm, factor } => {
                if norm < f64::MAX && factor >= f64::MIN_POSITIVE {
                    prop_assert_eq!(global_norm_factor(norm, limit), Some(factor));
                }
                prop_assert!(before.is_finite() && norm > limit && after.is_finite());
                let error = (after.l2 - limit).abs();
                prop_assert!(error <= rounding * limit, "norm {:e} for {:e}", after.l2, limit);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn f64_lists_come_to_the_limit(
            tensors in vec(vec(any::<f64>(), 0..20), 0..5), limit in -100.0..300.0_f64,
        ) {
            check(&tensors, 10f64.powf(limit), 1e-14, f64::to_bits)?;
        }

        #[test]
        fn f32_lists_come_to_the_limit(
            tensors in vec(vec(any::<f32>(), 0..20), 0..5), limit in -20.0..38.0_f64,
        ) {
            check(&tensors, 10f64.powf(limit), 1e-6, |x: f32| x.to_bits().into())?;
        }

        #[test]
        fn lists_with_nonfinite_elements_are_left_alone(
            bits in vec(vec(any::<u16>(), 0..40), 0..5),
        ) {
            let f16s: Vec<Vec<f16>> =
                bits.iter().map(|b| b.iter().map(|&b| f16::from_bits(b)).collect()).collect();
            let bf16s: Vec<Vec<bf16>> =
                bits.iter().map(|b| b.iter().map(|&b| bf16::from_bits(b)).collect()).collect();
            check(&f16s, 1.0, 0.01, |x| x.to_bits().into())?;
            check(&bf16s, 1.0, 0.05, |x| x.to_bits().into())?;
        }
    }
}
