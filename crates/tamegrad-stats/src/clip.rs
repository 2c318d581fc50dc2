//! Clipping and scaling in place: by value, by norm over a list or of each tensor.

use crate::element::{Edited, Element};
use crate::isa::Level;
use crate::kernel::{clamp_piece, scale_piece};
use crate::list::{Edit, ListStats, TensorMut, edit_list, edit_slice, scan_views};
use crate::scan::scan_tensor;
use crate::sum::Norm;
use crate::threads::Threads;

/// What a clip by norm did.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
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

/// What a clip of each tensor by its own norm did.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub enum TensorClips {
    /// All elements are finite; the tensors above the limit were scaled, the others not written.
    Done {
        /// Number of tensors that were scaled.
        clipped: u64,
        /// The smallest factor applied, 1 if none was.
        smallest_factor: f64,
    },
    /// There are non-finite elements; nothing was written.
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
/// Two passes over memory where the clip is active, one where it is not; `stats` is left with the
/// statistics before the clip. The factor is one f64, and each product is rounded once to the
/// element type. A `max_norm` that is NaN or negative is no limit. The norm of the result is
/// `max_norm` up to the rounding of the element type.
///
/// Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
/// 2013, algorithm 1.
pub fn clip_global_norm(
    tensors: &mut [TensorMut<'_>],
    max_norm: f64,
    stats: &mut ListStats,
) -> Clip {
    scan_views(Level::best(), tensors, None, stats);
    if let Some(index) = stats.first_nonfinite() {
        let total = stats.total();
        return Clip::NonFinite { index, nans: total.nans, infs: total.infs };
    }
    let norm = stats.total().l2;
    if global_norm_factor(norm, max_norm).is_none() {
        return Clip::Inactive { norm };
    }
    let factors = stats.total_norm().factors(max_norm);
    edit_list(tensors, &Scale { level: Level::best(), all_finite: true, factors: |_| factors });
    Clip::Clipped { norm, factor: factors.0 * factors.1 }
}

/// Scales each of the `tensors` so that its own L2 norm is at most `max_norm`; otherwise as
/// [`clip_global_norm`].
pub fn clip_tensor_norms(
    tensors: &mut [TensorMut<'_>],
    max_norm: f64,
    stats: &mut ListStats,
) -> TensorClips {
    scan_views(Level::best(), tensors, None, stats);
    if let Some(index) = stats.first_nonfinite() {
        let total = stats.total();
        return TensorClips::NonFinite { index, nans: total.nans, infs: total.infs };
    }
    let (mut clipped, mut smallest_factor) = (0, 1.0_f64);
    for (stats, norm) in stats.tensors().iter().zip(stats.norms()) {
        if global_norm_factor(stats.l2, max_norm).is_some() {
            let factors = norm.factors(max_norm);
            smallest_factor = smallest_factor.min(factors.0 * factors.1);
            clipped += 1;
        }
    }
    if clipped > 0 {
        let norms = stats.norms();
        let factors = |index: usize| factors_to(norms[index], max_norm);
        edit_list(tensors, &Scale { level: Level::best(), all_finite: true, factors });
    }
    TensorClips::Done { clipped, smallest_factor }
}

/// Scales one tensor so that its L2 norm is at most `max_norm`; otherwise as [`clip_global_norm`],
/// with `index` 0.
pub fn clip_tensor_norm<T: Element>(values: &mut [T], max_norm: f64) -> Clip {
    let threads = Threads::for_bytes(size_of_val(values));
    let (stats, norm) = scan_tensor(Level::best(), threads, values);
    if !stats.is_finite() {
        return Clip::NonFinite { index: 0, nans: stats.nans, infs: stats.infs };
    }
    if global_norm_factor(stats.l2, max_norm).is_none() {
        return Clip::Inactive { norm: stats.l2 };
    }
    let factors = norm.factors(max_norm);
    edit_slice(values, &Scale { level: Level::best(), all_finite: true, factors: |_| factors });
    Clip::Clipped { norm: stats.l2, factor: factors.0 * factors.1 }
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

/// What a clip by value did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ValueClip {
    /// Elements that were beyond the limit, and are now at it.
    pub changed: u64,
    /// Elements that are NaN or infinite. They stay as they are: a NaN has no nearest value, and an
    /// infinity brought to the limit would hide what happened.
    pub nonfinite: u64,
}

impl From<Edited> for ValueClip {
    fn from(edited: Edited) -> Self {
        Self { changed: edited.changed, nonfinite: edited.nonfinite }
    }
}

/// Brings every finite element into `[-limit, limit]`.
///
/// `limit` is first rounded to the element type. A limit that is NaN or negative is no limit, and
/// then nothing is looked at. Stretches of 256 elements that need no change are not written.
pub fn clip_value<T: Element>(values: &mut [T], limit: f64) -> ValueClip {
    let clamp = Clamp { level: Level::best(), limit };
    if clamp.wants(0) { edit_slice(values, &clamp).into() } else { ValueClip::default() }
}

/// [`clip_value`] for every tensor of a list.
pub fn clip_values(tensors: &mut [TensorMut<'_>], limit: f64) -> ValueClip {
    edit_list(tensors, &Clamp { level: Level::best(), limit }).into()
}

/// Multiplies every finite element by `factor`, in f64, rounded once to the element type.
///
/// Non-finite elements stay as they are: infinity times 0 would be NaN. A factor of 1 and one that
/// is not finite write nothing. A factor of at most 1 in magnitude makes no element infinite; with
/// a larger one an element beyond [`Element::MAX`] becomes infinite, as in any arithmetic.
pub fn scale<T: Element>(values: &mut [T], factor: f64) {
    let factors = |_| (factor, 1.0);
    edit_slice(values, &Scale { level: Level::best(), all_finite: false, factors });
}

/// [`scale`] for a list, each tensor by the factor at its place; those beyond the end of `factors`
/// are not written.
pub fn scale_list(tensors: &mut [TensorMut<'_>], factors: &[f64]) {
    let factors = |index| (factors.get(index).copied().unwrap_or(1.0), 1.0);
    edit_list(tensors, &Scale { level: Level::best(), all_finite: false, factors });
}

/// The two factors that bring a tensor of the given `norm` to `max_norm`, both 1 if it is within.
fn factors_to(norm: Norm, max_norm: f64) -> (f64, f64) {
    match global_norm_factor(norm.to_f64(), max_norm) {
        Some(_) => norm.factors(max_norm),
        None => (1.0, 1.0),
    }
}

/// Multiplication of the finite elements by two factors in turn, which depend on the tensor.
struct Scale<F> {
    level: Level,
    /// Whether that is known of every element.
    all_finite: bool,
    factors: F,
}

impl<F: Fn(usize) -> (f64, f64) + Sync> Edit for Scale<F> {
    fn wants(&self, index: usize) -> bool {
        (self.factors)(index) != (1.0, 1.0)
    }

    fn edit<T: Element>(&self, index: usize, values: &mut [T]) -> Edited {
        let (first, second) = (self.factors)(index);
        for factor in [first, second] {
            if factor != 1.0 && factor.is_finite() {
                scale_piece(self.level, values, factor, self.all_finite);
            }
        }
        Edited { changed: values.len() as u64, nonfinite: 0 }
    }
}

/// Bringing finite elements into `[-limit, limit]`.
struct Clamp {
    level: Level,
    limit: f64,
}

impl Edit for Clamp {
    fn wants(&self, _: usize) -> bool {
        self.limit >= 0.0
    }

    fn edit<T: Element>(&self, _: usize, values: &mut [T]) -> Edited {
        clamp_piece(self.level, values, T::from_f64(self.limit))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::scan::scan;
    use half::{bf16, f16};
    use proptest::collection::vec;
    use proptest::prelude::*;

    pub(crate) const NAN: f64 = f64::NAN;
    pub(crate) const INF: f64 = f64::INFINITY;

    pub(crate) fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    fn clip_all<T>(tensors: &mut [&mut [T]], max_norm: f64) -> Clip
    where
        for<'a> TensorMut<'a>: From<&'a mut [T]>,
    {
        let mut tensors: Vec<TensorMut<'_>> =
            tensors.iter_mut().map(|values| TensorMut::from(&mut **values)).collect();
        clip_global_norm(&mut tensors, max_norm, &mut ListStats::default())
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
        let clip = clip_all(&mut [&mut a, &mut b, &mut c], 5.0);
        assert_eq!(clip, Clip::Clipped { norm: 10.0, factor: 0.5 });
        assert_eq!((a, b), ([3.0, 0.0], [4.0]));
        assert_eq!(clip_all::<f32>(&mut [], 1.0), Clip::Inactive { norm: 0.0 });
    }

    #[test]
    fn a_nonfinite_list_is_reported_and_left_alone() {
        let (mut a, mut b, mut c) = (vec![1.0], vec![INF, 1.0, 2.0], vec![NAN, -INF]);
        let clip = clip_all(&mut [&mut a, &mut b, &mut c], 1.0);
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
            let clip = clip_value(&mut values, limit);
            let nonfinite = before.iter().filter(|x| !x.is_finite()).count() as u64;
            let looked = limit >= 0.0;
            let nonfinite = if looked { nonfinite } else { 0 };
            assert_eq!(clip, ValueClip { changed, nonfinite }, "{before:?} to {limit}");
            assert_eq!(bits(&values), bits(after), "{before:?} to {limit}");
        }
        // 0.3 rounds up in f16.
        let mut values = [f16::MAX, f16::from_f32(0.05)];
        assert_eq!(clip_value(&mut values, 0.3).changed, 1);
        assert_eq!(values, [f16::from_f32(0.3), f16::from_f32(0.05)]);
        assert_eq!(
            clip_value(&mut values, 0.3).changed,
            0,
            "the rounded limit is not clipped again"
        );
        assert_eq!(clip_value(&mut [bf16::MAX], 1e300), ValueClip::default());
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
    fn each_tensor_by_its_own_norm() {
        let (mut a, mut b) = ([6.0_f32, 8.0], [0.3_f64, 0.4]);
        let big = 2f64.powi(1023);
        let mut c = [1.5 * big, 1.5 * big];
        let mut stats = ListStats::default();
        let mut clip = |c: &mut [f64], limit| {
            let list = &mut [TensorMut::F32(&mut a), TensorMut::F64(&mut b), TensorMut::F64(c)];
            clip_tensor_norms(list, limit, &mut stats)
        };
        let done = clip(&mut c, 5.0);
        let TensorClips::Done { clipped, smallest_factor } = done else { panic!("{done:?}") };
        assert_eq!(clipped, 2);
        assert!(smallest_factor > 0.0 && smallest_factor < 1e-307, "{smallest_factor:e}");
        assert!(c.iter().all(|x| (x / 12.5_f64.sqrt() - 1.0).abs() < 1e-15), "{c:?}");
        assert_eq!(clip(&mut c, 6.0), TensorClips::Done { clipped: 0, smallest_factor: 1.0 });
        assert_eq!(
            clip(&mut [INF, NAN], 1.0),
            TensorClips::NonFinite { index: 2, nans: 1, infs: 1 }
        );
        assert_eq!((a, bits(&b)), ([3.0, 4.0], bits(&[0.3, 0.4])));
    }

    #[test]
    fn lists_of_all_types() {
        let half = |x: f32| f16::from_f32(x);
        let (mut a, mut b, mut c) = ([1.0_f32, -3.0], [half(4.0)], [bf16::from_f32(0.5)]);
        let mut list = [TensorMut::F32(&mut a), TensorMut::F16(&mut b), TensorMut::Bf16(&mut c)];
        assert_eq!(clip_values(&mut list, 2.0), ValueClip { changed: 2, nonfinite: 0 });
        scale_list(&mut list, &[0.5, 1.0]);
        assert_eq!((a, b, c), ([0.5, -1.0], [half(2.0)], [bf16::from_f32(0.5)]));
    }

    /// Long enough for several threads: what is done in pieces is what is done at once.
    #[test]
    fn large_tensors_are_edited_in_pieces() {
        let values: Vec<f32> = (0..700_001).map(|i| (i as f32 * 0.37).sin()).collect();
        let (mut clipped, mut scaled) = (values.clone(), values.clone());
        let changed = clip_value(&mut clipped, 0.5).changed;
        scale(&mut scaled, 0.3);
        let is_beyond = |x: f32| x.abs() > 0.5;
        assert_eq!(changed, values.iter().filter(|x| is_beyond(**x)).count() as u64);
        for ((x, clipped), scaled) in values.iter().zip(clipped).zip(scaled) {
            assert_eq!(clipped, x.clamp(-0.5, 0.5));
            assert_eq!(scaled, (f64::from(*x) * 0.3) as f32);
        }
    }

    /// Every instruction set does the same to the bit as one element after another.
    fn check_levels<T: Element + PartialEq>(
        values: &[T],
        factor: f64,
        limit: f64,
        bits: fn(T) -> u64,
    ) -> Result<(), TestCaseError> {
        let is_finite = |x: T| !x.is_nan() && !x.is_infinite();
        let want_scaled = values
            .iter()
            .map(|&x| bits(if is_finite(x) { T::from_f64(x.to_f64() * factor) } else { x }));
        let bound = T::from_f64(limit);
        let clipped = |x: T| T::from_f64(x.to_f64().clamp(-bound.to_f64(), bound.to_f64()));
        let want_clipped = values.iter().map(|&x| bits(if is_finite(x) { clipped(x) } else { x }));
        let (want_scaled, want_clipped) =
            (want_scaled.collect::<Vec<_>>(), want_clipped.collect::<Vec<_>>());
        for level in Level::all() {
            let (mut scaled, mut clipped) = (values.to_vec(), values.to_vec());
            scale_piece(level, &mut scaled, factor, false);
            clamp_piece(level, &mut clipped, bound);
            prop_assert_eq!(scaled.into_iter().map(bits).collect::<Vec<_>>(), &want_scaled[..]);
            prop_assert_eq!(clipped.into_iter().map(bits).collect::<Vec<_>>(), &want_clipped[..]);
        }
        Ok(())
    }

    /// After the clip the norm is the limit, or, if it was within, every bit is as before.
    fn check<T: Element>(
        tensors: &[Vec<T>],
        limit: f64,
        rounding: f64,
        bits: fn(T) -> u64,
    ) -> Result<(), TestCaseError>
    where
        for<'a> TensorMut<'a>: From<&'a mut [T]>,
    {
        let all_bits = |list: &[Vec<T>]| list.concat().into_iter().map(bits).collect::<Vec<_>>();
        let mut clipped = tensors.to_vec();
        let mut slices: Vec<&mut [T]> = clipped.iter_mut().map(Vec::as_mut_slice).collect();
        let clip = clip_all(&mut slices, limit);
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
        fn every_instruction_set_scales_and_clips_alike(
            wide in vec(any::<u64>(), 0..600), single in vec(any::<u32>(), 0..600),
            half in vec(any::<u16>(), 0..600), factor in -2.0..2.0_f64, limit in 0.0..10.0_f64,
        ) {
            let wide: Vec<f64> = wide.iter().map(|&b| f64::from_bits(b)).collect();
            let single: Vec<f32> = single.iter().map(|&b| f32::from_bits(b)).collect();
            check_levels(&wide, factor, limit, f64::to_bits)?;
            check_levels(&single, factor, limit, |x| x.to_bits().into())?;
            let f16s: Vec<f16> = half.iter().map(|&b| f16::from_bits(b)).collect();
            let bf16s: Vec<bf16> = half.iter().map(|&b| bf16::from_bits(b)).collect();
            check_levels(&f16s, factor, limit, |x| x.to_bits().into())?;
            check_levels(&bf16s, factor, limit, |x| x.to_bits().into())?;
        }

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
