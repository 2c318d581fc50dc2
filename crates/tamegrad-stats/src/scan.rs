//! The statistics of one tensor, and of a list of tensors from those of its members.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::element::Element;
use crate::histogram::{Bins, Histogram, Sampling, Window};
use crate::isa::Level;
use crate::kernel::{PIECE, Sample, Totals, scan_piece};
use crate::sum::Norm;
use crate::threads::Threads;

/// What one pass over a tensor tells. Norm, maximum and mean are over the finite elements, so they
/// are never NaN; the counts say what is missing from them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TensorStats {
    /// Elements, the non-finite ones included.
    pub len: u64,
    /// Elements that are not a number.
    pub nans: u64,
    /// Elements that are positive or negative infinity.
    pub infs: u64,
    /// Elements that are exactly zero, of either sign.
    pub zeros: u64,
    /// L2 norm of the finite elements. A norm beyond f64, which only f64 values within the square
    /// root of their number of [`f64::MAX`] can have, is given as [`f64::MAX`].
    pub l2: f64,
    /// Largest magnitude among the finite elements.
    pub max_abs: f64,
    /// Mean of the finite elements.
    pub mean: f64,
}

impl TensorStats {
    /// Number of finite elements.
    pub fn finite(&self) -> u64 {
        self.len.saturating_sub(self.nonfinite())
    }

    /// Number of elements that are NaN or infinite.
    pub fn nonfinite(&self) -> u64 {
        self.nans.saturating_add(self.infs)
    }

    /// Whether no element is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        self.nonfinite() == 0
    }

    /// Root mean square of the finite elements, 0 if there are none.
    pub fn rms(&self) -> f64 {
        if self.finite() == 0 { 0.0 } else { self.l2 / (self.finite() as f64).sqrt() }
    }
}

/// The statistics of `values`, read once. All zero for an empty slice.
///
/// The norm of f64 values is within 1e-14 of the true one, relative to it, and that of the other
/// types, whose squares are exact in f64, within 1e-12; both hold from the smallest denormal to the
/// largest finite value. The mean is within 2e-14 of the true one, relative to the mean magnitude.
///
/// The order of summation is fixed by the length alone: sixteen running sums in blocks of 2048
/// elements from the start of the slice, a compensated sum over the 128 blocks of a piece, a binary
/// tree over the pieces. Number of threads, instruction set and alignment change no bit.
pub fn scan<T: Element>(values: &[T]) -> TensorStats {
    let threads = Threads::for_bytes(size_of_val(values));
    scan_tensor(Level::best(), threads, values).0
}

/// The statistics of a whole list from the statistics of its `parts`, in their order: counts add
/// up, the norm is the root of the sum of squared norms, the mean is weighted by finite elements.
///
/// The parts may be tensors or pieces of one tensor. Norm and mean differ from those of one scan
/// over everything by rounding only.
pub fn merge<'a>(parts: impl IntoIterator<Item = &'a TensorStats>) -> TensorStats {
    let mut total = Totals::default();
    for part in parts {
        total.append_stats(part);
        total.squares.add(part.l2);
    }
    total.finish().0
}

/// [`scan`], with the norm also in the form that is right beyond f64.
pub(crate) fn scan_tensor<T: Element>(
    level: Level,
    threads: Threads,
    values: &[T],
) -> (TensorStats, Norm) {
    scan_pieces(threads, values, &|piece| scan_piece(level, piece, None)).finish()
}

/// [`scan_tensor`] with a histogram; `bins` is empty before and after.
pub(crate) fn scan_tensor_with_histogram<T: Element>(
    level: Level,
    threads: Threads,
    values: &[T],
    sampling: Sampling,
    bins: &mut Bins,
    window: &mut Window,
) -> (TensorStats, Norm) {
    if values.len() <= PIECE {
        let sample = Sample { bins, sampling, window: Some(window) };
        return scan_piece(level, values, Some(sample)).finish();
    }
    let histogram = Mutex::new(Histogram::default());
    let totals = scan_pieces(threads, values, &|piece| {
        let mut bins = Bins::new();
        let sample = Sample { bins: &mut bins, sampling, window: None };
        let totals = scan_piece(level, piece, Some(sample));
        // Counts add up to the same in any order. A lock is poisoned by a panic alone.
        bins.add_to(&mut histogram.lock().unwrap_or_else(PoisonError::into_inner));
        totals
    });
    window.fill_from(&histogram.into_inner().unwrap_or_else(PoisonError::into_inner));
    totals.finish()
}

/// The totals of a tensor: a tree over its pieces, whose shape its length decides.
fn scan_pieces<T: Element>(
    threads: Threads,
    values: &[T],
    scan_piece: &(impl Fn(&[T]) -> Totals + Sync),
) -> Totals {
    scan_ranges(threads, 0..values.len(), Totals::append, &|range| scan_piece(&values[range]))
}

/// [`scan_pieces`] for elements that are not in one slice, and for other totals: `scan_piece` is given
/// the range of a piece.
pub(crate) fn scan_ranges<T: Send>(
    threads: Threads,
    range: Range<usize>,
    append: fn(&mut T, T),
    scan_piece: &(impl Fn(Range<usize>) -> T + Sync),
) -> T {
    if range.len() <= PIECE {
        return scan_piece(range);
    }
    let middle = range.start + range.len().div_ceil(PIECE).div_ceil(2) * PIECE;
    let (mut totals, rest) = threads.join(
        || scan_ranges(threads, range.start..middle, append, scan_piece),
        || scan_ranges(threads, middle..range.end, append, scan_piece),
    );
    append(&mut totals, rest);
    totals
}

impl Totals {
    /// Adds all but the norm of a part.
    pub(crate) fn append_stats(&mut self, part: &TensorStats) {
        self.len = self.len.saturating_add(part.len);
        self.nans = self.nans.saturating_add(part.nans);
        self.infs = self.infs.saturating_add(part.infs);
        self.zeros = self.zeros.saturating_add(part.zeros);
        self.max_abs = self.max_abs.max(part.max_abs);
        self.sum.add(part.mean, part.finite() as f64);
    }

    /// The statistics, with the norm also in the form that is right beyond f64.
    pub(crate) fn finish(self) -> (TensorStats, Norm) {
        let norm = self.squares.root();
        let mut stats = TensorStats {
            len: self.len,
            nans: self.nans,
            infs: self.infs,
            zeros: self.zeros,
            l2: norm.to_f64(),
            max_abs: self.max_abs,
            mean: 0.0,
        };
        if stats.finite() > 0 {
            let mean = self.sum.mean(stats.finite() as f64);
            // Rounding can take the mean above the largest magnitude: 0.1 three times is one case.
            stats.mean = mean.clamp(-stats.max_abs, stats.max_abs);
        }
        (stats, norm)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernel::BLOCK;
    use half::{bf16, f16};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Statistics by the plainest means: everything divided by the largest magnitude, squares as
    /// exact pairs (product and its rounding error), Neumaier's sum.
    fn reference<T: Element>(values: &[T]) -> TensorStats {
        let finite: Vec<f64> =
            values.iter().map(|x| x.to_f64()).filter(|x| x.is_finite()).collect();
        let max_abs = finite.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
        let (down, up) = unit_scale(max_abs);
        let scaled = || finite.iter().map(|x| x * down.0 * down.1);
        let squares = scaled().flat_map(|x| [x * x, x.mul_add(x, -(x * x))]);
        let count = finite.len().max(1) as f64;
        TensorStats {
            len: values.len() as u64,
            nans: values.iter().filter(|x| x.to_f64().is_nan()).count() as u64,
            infs: values.iter().filter(|x| x.to_f64().is_infinite()).count() as u64,
            zeros: finite.iter().filter(|x| **x == 0.0).count() as u64,
            l2: (neumaier(squares).sqrt() * up.0 * up.1).min(f64::MAX),
            max_abs,
            mean: neumaier(scaled()) / count * up.0 * up.1,
        }
    }

    /// Factors, powers of two in two steps each, that take `max_abs` near 1 and back.
    fn unit_scale(max_abs: f64) -> ((f64, f64), (f64, f64)) {
        let exponent = if max_abs > 0.0 { max_abs.log2().floor() as i32 } else { 0 };
        let (half, rest) = (exponent / 2, exponent - exponent / 2);
        let power = |n: i32| 2f64.powi(n);
        ((power(-half), power(-rest)), (power(half), power(rest)))
    }

    fn neumaier(values: impl Iterator<Item = f64>) -> f64 {
        let (mut sum, mut lost) = (0.0_f64, 0.0);
        for x in values {
            let next = sum + x;
            lost += if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
            sum = next;
        }
        sum + lost
    }

    /// Whether `got` is `want` within `relative`, or within one step of the denormals.
    fn close(got: f64, want: f64, relative: f64) -> bool {
        (got - want).abs() <= relative * want.abs() || (got - want).abs() <= 5e-324
    }

    fn check<T: Element>(values: &[T], relative: f64) -> Result<(), TestCaseError> {
        let (got, want) = (scan(values), reference(values));
        let counts = |s: &TensorStats| (s.len, s.nans, s.infs, s.zeros, s.max_abs);
        prop_assert_eq!(counts(&got), counts(&want));
        prop_assert!(close(got.l2, want.l2, relative), "l2 {:e}, want {:e}", got.l2, want.l2);
        // A mean can cancel, so its error is measured against the mean of the magnitudes.
        let magnitudes: Vec<f64> = values.iter().map(|x| x.to_f64().abs()).collect();
        let mean_error = (got.mean / 2.0 - want.mean / 2.0).abs();
        let mean_limit = (reference(&magnitudes).mean * 2e-14).max(5e-324);
        prop_assert!(mean_error <= mean_limit, "mean {:e}, want {:e}", got.mean, want.mean);
        check_levels(values)
    }

    /// Every instruction set gives the same to the bit, on one thread and on several.
    fn check_levels<T: Element>(values: &[T]) -> Result<(), TestCaseError> {
        let want = scan(values);
        for level in Level::all() {
            for threads in [Threads::One, Threads::Many] {
                let (got, _) = scan_tensor(level, threads, values);
                prop_assert_eq!(bits(&got), bits(&want), "{:?}, {:?}", level, threads);
            }
        }
        Ok(())
    }

    pub(crate) fn bits(stats: &TensorStats) -> [u64; 7] {
        let TensorStats { len, nans, infs, zeros, l2, max_abs, mean } = *stats;
        [len, nans, infs, zeros, l2.to_bits(), max_abs.to_bits(), mean.to_bits()]
    }

    fn check_cut<T: Element>(values: &[T], cuts: &[usize]) -> Result<(), TestCaseError> {
        let mut bounds: Vec<usize> = cuts.iter().map(|c| c % (values.len() + 1)).collect();
        bounds.extend([0, values.len()]);
        bounds.sort_unstable();
        let parts: Vec<TensorStats> =
            bounds.windows(2).map(|ends| scan(&values[ends[0]..ends[1]])).collect();
        let (got, want) = (merge(&parts), scan(values));
        let counts = |s: &TensorStats| (s.len, s.nans, s.infs, s.zeros, s.max_abs);
        prop_assert_eq!(counts(&got), counts(&want));
        let steps = 5e-324 * parts.len() as f64;
        prop_assert!(
            close(got.l2, want.l2, 1e-15) || (got.l2 - want.l2).abs() <= steps,
            "l2 {:e}, want {:e}",
            got.l2,
            want.l2
        );
        // A part's mean is rounded, at worst to a step of the denormals.
        let mean_error = (got.mean / 2.0 - want.mean / 2.0).abs();
        prop_assert!(mean_error <= (want.max_abs * 1e-14).max(5e-324));
        Ok(())
    }

    /// Any bit pattern (denormals, NaN, infinity, all exponents), ordinary values, extremes.
    fn any_f64() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => any::<u64>().prop_map(f64::from_bits),
            4 => -10.0..10.0_f64,
            2 => (0..1_u64 << 52).prop_map(f64::from_bits),
            1 => prop::sample::select(
                vec![f64::MAX, f64::MIN, 5e-324, 0.0, -0.0, f64::NAN, f64::INFINITY],
            ),
        ]
    }

    fn any_f32() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => any::<u32>().prop_map(f32::from_bits),
            4 => -10.0..10.0_f32,
            2 => (0..1_u32 << 23).prop_map(f32::from_bits),
            1 => prop::sample::select(
                vec![f32::MAX, f32::MIN, 1e-45, 0.0, -0.0, f32::NAN, f32::INFINITY],
            ),
        ]
    }

    proptest! {
        #[test]
        fn f64_agrees_with_the_reference(values in vec(any_f64(), 0..200)) {
            check(&values, 1e-14)?;
        }

        #[test]
        fn f64_of_one_range_agrees_with_the_reference(
            values in vec(-1.0..1.0_f64, 0..200), exponent in -1074..1024_i32,
        ) {
            let (half, rest) = (exponent / 2, exponent - exponent / 2);
            let scaled: Vec<f64> = values.iter()
                .map(|x| x * 2f64.powi(half) * 2f64.powi(rest)).collect();
            check(&scaled, 1e-14)?;
        }

        #[test]
        fn f32_agrees_with_the_reference(values in vec(any_f32(), 0..200)) {
            check(&values, 1e-12)?;
        }

        #[test]
        fn f16_agrees_with_the_reference(bits in vec(any::<u16>(), 0..200)) {
            check(&bits.iter().map(|&b| f16::from_bits(b)).collect::<Vec<_>>(), 1e-12)?;
        }

        #[test]
        fn bf16_agrees_with_the_reference(bits in vec(any::<u16>(), 0..200)) {
            check(&bits.iter().map(|&b| bf16::from_bits(b)).collect::<Vec<_>>(), 1e-12)?;
        }

        #[test]
        fn a_cut_list_merges_to_the_whole(
            wide in vec(any_f64(), 0..200), narrow in vec(any_f32(), 0..200),
            bits in vec(any::<u16>(), 0..200), cuts in vec(any::<usize>(), 0..12),
        ) {
            check_cut(&wide, &cuts)?;
            check_cut(&narrow, &cuts)?;
            check_cut(&bits.iter().map(|&b| f16::from_bits(b)).collect::<Vec<_>>(), &cuts)?;
            check_cut(&bits.iter().map(|&b| bf16::from_bits(b)).collect::<Vec<_>>(), &cuts)?;
        }
    }

    #[test]
    fn known_statistics() {
        let stats = |len, nans, infs, zeros, l2, max_abs, mean| TensorStats {
            len,
            nans,
            infs,
            zeros,
            l2,
            max_abs,
            mean,
        };
        let inf = f64::INFINITY;
        let cases: [(&[f64], TensorStats); 11] = [
            (&[], TensorStats::default()),
            (&[-3.0], stats(1, 0, 0, 0, 3.0, 3.0, -3.0)),
            (&[0.0, -0.0], stats(2, 0, 0, 2, 0.0, 0.0, 0.0)),
            (&[3.0, -4.0, 0.0], stats(3, 0, 0, 1, 5.0, 4.0, -1.0 / 3.0)),
            (&[inf, 1.0, 2.0], stats(3, 0, 1, 0, 5f64.sqrt(), 2.0, 1.5)),
            (&[f64::NAN, -inf], stats(2, 1, 1, 0, 0.0, 0.0, 0.0)),
            (&[f64::NAN, 3.0, 4.0, inf, 0.0], stats(5, 1, 1, 1, 5.0, 4.0, 7.0 / 3.0)),
            (&[3e200, 4e200], stats(2, 0, 0, 0, 5e200, 4e200, 3.5e200)),
            (&[3e-200, 4e-200], stats(2, 0, 0, 0, 5e-200, 4e-200, 3.5e-200)),
            (&[f64::MAX; 4], stats(4, 0, 0, 0, f64::MAX, f64::MAX, f64::MAX)),
            (&[5e-324; 4], stats(4, 0, 0, 0, 1e-323, 5e-324, 5e-324)),
        ];
        for (values, want) in cases {
            let got = scan(values);
            let counts = |s: &TensorStats| (s.len, s.nans, s.infs, s.zeros, s.max_abs);
            assert_eq!(counts(&got), counts(&want), "{values:?}");
            assert!(close(got.l2, want.l2, 3e-16), "{values:?}: {got:?}");
            assert!(close(got.mean, want.mean, 3e-16), "{values:?}: {got:?}");
        }
    }

    #[test]
    fn f32_values_whose_squares_f32_cannot_hold() {
        for (value, len) in [(1e20_f32, 1000), (3e19, 4), (1e-30, 1000), (1e-40, 9), (f32::MAX, 9)]
        {
            let stats = scan(&vec![value; len]);
            let want = f64::from(value) * (len as f64).sqrt();
            assert!(close(stats.l2, want, 1e-15), "{value:e}: {:e}, want {want:e}", stats.l2);
            assert!(close(stats.rms(), f64::from(value), 1e-15));
            assert!(close(stats.mean, f64::from(value), 1e-15));
        }
    }

    #[test]
    fn mixed_magnitudes_lose_nothing() {
        let mut values = vec![1e-9_f64; 1_000_000];
        values[0] = 1.0;
        let want = (1.0 + 999_999.0 * 1e-18_f64).sqrt();
        assert!(close(scan(&values).l2, want, 1e-15));
        assert!(close(scan(&values).mean, (1.0 + 999_999.0 * 1e-9) / 1e6, 2e-14));
    }

    #[test]
    fn lengths_round_every_width_at_every_alignment() {
        let lengths = (0..40).chain([63, 64, 65, 127, 128, 129]);
        let lengths = lengths.chain([BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7]);
        let wave = |i: usize| (i as f64 * 0.7).sin() * 100.0;
        let wide: Vec<f64> = (0..4 * BLOCK).map(wave).collect();
        let single: Vec<f32> = wide.iter().map(|&x| x as f32).collect();
        let half: Vec<f16> = wide.iter().map(|&x| Element::from_f64(x)).collect();
        let brain: Vec<bf16> = wide.iter().map(|&x| Element::from_f64(x)).collect();
        for len in lengths {
            for offset in [0, 1, 3, 7] {
                let range = offset..offset + len;
                check(&wide[range.clone()], 1e-14).unwrap();
                check(&single[range.clone()], 1e-14).unwrap();
                check(&half[range.clone()], 1e-14).unwrap();
                check(&brain[range], 1e-14).unwrap();
            }
        }
    }

    #[test]
    fn lengths_round_the_piece() {
        let values: Vec<f32> = (0..3 * PIECE + 9).map(|i| (i as f32 * 0.7).sin() * 1e18).collect();
        for len in [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1, 3 * PIECE + 9] {
            check(&values[..len], 1e-14).unwrap();
        }
    }

    #[test]
    fn what_is_not_finite_is_found_wherever_it_is() {
        let mut values = vec![0.5_f32; 3 * BLOCK];
        for place in [0, 1, 15, 16, BLOCK - 1, BLOCK, 2 * BLOCK + 77, 3 * BLOCK - 1] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                values[place] = bad;
                check(&values, 1e-14).unwrap();
                assert_eq!(scan(&values).nonfinite(), 1, "{bad} at {place}");
                values[place] = 0.5;
            }
        }
    }

    #[test]
    fn a_million_elements_of_each_range() {
        let wave = |i: usize| (i as f64 * 0.37).sin();
        for scale in [1e-310, 1e-200, 1.0, 1e200, 1e300] {
            let values: Vec<f64> = (0..1_000_000).map(|i| wave(i) * scale).collect();
            check(&values, 1e-14).unwrap();
            check_cut(&values, &[1, 4096, 77_777, 999_999]).unwrap();
        }
        let values: Vec<f32> = (0..1_000_000).map(|i| (wave(i) * 1e30) as f32).collect();
        check(&values, 1e-14).unwrap();
    }

    #[test]
    fn merging_nothing_and_parts_beyond_f64() {
        assert_eq!(merge([]), TensorStats::default());
        let parts = [scan(&[1e308_f64]), scan(&[1e308_f64, -1e308]), scan(&[f64::NAN])];
        let whole = merge(&parts);
        assert_eq!((whole.len, whole.nans, whole.max_abs), (4, 1, 1e308));
        assert!(close(whole.l2, 3f64.sqrt() * 1e308, 1e-15));
        assert!(close(whole.mean, 1e308 / 3.0, 1e-15));
    }

    #[test]
    fn the_mean_of_equal_values_is_their_value() {
        for (value, len) in [(0.1, 3), (-0.1, 3), (1.3, 13), (1.7, 41)] {
            assert_eq!(scan(&vec![value; len]).mean, value, "{value} {len} times");
        }
    }

    #[test]
    fn derived_figures() {
        let stats = scan(&[f16::NAN, f16::INFINITY, f16::from_f32(3.0), f16::from_f32(-3.0)]);
        assert_eq!((stats.finite(), stats.nonfinite(), stats.is_finite()), (2, 2, false));
        assert!(close(stats.rms(), 3.0, 1e-15));
        assert!(scan(&[1.0_f32]).is_finite());
        assert_eq!(scan::<f32>(&[]).rms(), 0.0);
    }
}
