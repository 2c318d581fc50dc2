//! The size of an update: the change of a tensor against the tensor, in full or by a sample.
//!
//! An update takes a tensor W to W + dW. What is wanted are |dW| and |W|, both L2 norms over all
//! elements, whatever the shape. [`update_of`] reads both states and forms the change a block at a
//! time, never as a tensor of its own.
//!
//! To read all parameters at every step costs a small network several per cent of its step, so
//! [`update_by_sample`] and [`TensorSample`] look at a part: of each stratum of 64 stretches of 64
//! elements they read one stretch, drawn anew for every seed. A tensor of 1024 elements or fewer is
//! read whole, and a larger one has eight strata or more. Each stretch counts as often as its
//! stratum has stretches, which leaves the estimates of |dW|^2 and |W|^2 without bias (stratified
//! sampling with the estimator of Horvitz and Thompson, 1952). Of 65,536 elements 1024 are looked
//! at: of values that are spread evenly the norm is within some 2% (one sigma), of an update that
//! lies in a third of the rows within some 17%. An update that lies in a few elements may be missed
//! or overrated; [`may_mislead`] tells from the gradient when that is to be expected.
//!
//! ```
//! use tamegrad_stats::{TensorRef, TensorSample, sample_seed, update_of};
//!
//! let before: Vec<f32> = (0..100_000).map(|i| (i as f32 * 0.7).sin()).collect();
//! let after: Vec<f32> = before.iter().map(|w| 0.99 * w).collect();
//! let (before, after) = (TensorRef::F32(&before), TensorRef::F32(&after));
//!
//! let exact = update_of(before, after).expect("one type and length");
//! assert!((exact.ratio() - 0.01).abs() < 1e-6);
//!
//! // Where the optimizer writes over the parameters, the sample is taken before it does.
//! let mut sample = TensorSample::default();
//! sample.take(before, sample_seed(0, 0));
//! let estimate = sample.update_to(after).expect("one length");
//! assert!((estimate.ratio() - 0.01).abs() < 1e-4);
//! ```

use std::ops::Range;

use crate::element::Element;
use crate::isa::Level;
use crate::kernel::{BLOCK, Totals, scan_piece};
use crate::list::{TensorRef, with_values};
use crate::scan::{TensorStats, scan, scan_ranges};
use crate::threads::Threads;

/// Elements that are looked at together. What costs is to go to a place that is in no cache, not to
/// read on from there.
const STRETCH: usize = 64;
/// Stretches of which one is looked at, in a large tensor.
const STRATUM: usize = 64;
/// Strata of a tensor that is just large enough to be sampled.
const STRATA_MIN: usize = 8;
/// A tensor of at most this many elements is looked at whole.
const WHOLE: usize = 1024;
/// Largest square of a gradient by its mean square, above which it counts as concentrated.
const CREST: f64 = 512.0;

/// An update of one tensor: the step that the optimizer took or means to take.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Update {
    /// L2 norm of the change, |dW|.
    pub change_norm: f64,
    /// L2 norm of the tensor before it, |W|.
    pub weight_norm: f64,
    /// Number of elements.
    pub len: u64,
    /// Elements that are NaN or infinite after the update.
    pub nonfinite: u64,
}

impl Update {
    /// The update by the statistics of the change, of the tensor before it and of the tensor after
    /// it, where the largest finite value of the type that the change was formed in is `type_max`.
    ///
    /// Two finite values can differ by more than their type holds; then the norm of the change is
    /// given as |W| before plus |W| after, which it cannot exceed: the bound falls on the side of
    /// the alarm.
    pub fn of_stats(
        change: &TensorStats,
        before: &TensorStats,
        after: &TensorStats,
        type_max: f64,
    ) -> Self {
        let overflowed = change.infs > 0 && before.max_abs + after.max_abs > type_max;
        Self {
            change_norm: if overflowed { before.l2 + after.l2 } else { change.l2 },
            weight_norm: before.l2,
            len: after.len,
            nonfinite: after.nonfinite(),
        }
    }

    /// The update ratio |dW|/|W|, with |W| at least 0.001 an element (RMS), so that a tensor of
    /// zeros has a finite ratio (the same floor as in Brock 2021, section 4). Infinite for an
    /// update that leaves elements that are not finite.
    pub fn ratio(&self) -> f64 {
        let floor = 1e-3 * (self.len as f64).sqrt();
        if self.nonfinite > 0 {
            f64::INFINITY
        } else {
            self.change_norm / self.weight_norm.max(floor)
        }
    }
}

/// Runs `$body` with the slices of two tensors of one type and length; `None` for others.
macro_rules! with_pair {
    ($before:expr, $after:expr, ($old:ident, $new:ident) => $body:expr) => {
        match ($before, $after) {
            (TensorRef::F32($old), TensorRef::F32($new)) if $old.len() == $new.len() => Some($body),
            (TensorRef::F64($old), TensorRef::F64($new)) if $old.len() == $new.len() => Some($body),
            (TensorRef::F16($old), TensorRef::F16($new)) if $old.len() == $new.len() => Some($body),
            (TensorRef::Bf16($old), TensorRef::Bf16($new)) if $old.len() == $new.len() => {
                Some($body)
            }
            _ => None,
        }
    };
}

/// The update from one state of a tensor to another, elements in the same order; `None` when type
/// or length differ.
///
/// Each difference is formed in f64, so it is exact or rounded once, and the norms are within 1e-12
/// of the true ones, relative to them. Elements that are not finite before or after are no part of
/// the norms they would make infinite. The result does not depend on the number of threads.
pub fn update_of(before: TensorRef<'_>, after: TensorRef<'_>) -> Option<Update> {
    with_pair!(before, after, (old, new) => measured(old, new))
}

fn measured<T: Element>(before: &[T], after: &[T]) -> Update {
    let threads = Threads::for_bytes(2 * size_of_val(after));
    let sums = measure_pieces(Level::best(), threads, before, after);
    let (change, before) = (sums.change.finish().0, sums.weight.finish().0);
    // A difference is finite only where both values are.
    let after = if change.is_finite() {
        TensorStats { len: after.len() as u64, ..TensorStats::default() }
    } else {
        scan(after)
    };
    Update::of_stats(&change, &before, &after, f64::MAX)
}

/// The totals of a change, and of the tensor before it.
#[derive(Default)]
struct PairTotals {
    change: Totals,
    weight: Totals,
}

impl PairTotals {
    fn append(&mut self, other: Self) {
        self.change.append(other.change);
        self.weight.append(other.weight);
    }
}

/// A tree over the pieces, whose shape the length decides.
fn measure_pieces<T: Element>(
    level: Level,
    threads: Threads,
    before: &[T],
    after: &[T],
) -> PairTotals {
    scan_ranges(threads, 0..after.len(), PairTotals::append, &|range: Range<usize>| {
        measure_piece(level, &before[range.clone()], &after[range])
    })
}

fn measure_piece<T: Element>(level: Level, before: &[T], after: &[T]) -> PairTotals {
    let mut totals = PairTotals::default();
    let mut change = [0.0; BLOCK];
    for (old, new) in before.chunks(BLOCK).zip(after.chunks(BLOCK)) {
        for ((change, old), new) in change.iter_mut().zip(old).zip(new) {
            *change = new.to_f64() - old.to_f64();
        }
        totals.append(PairTotals {
            change: scan_piece(level, &change[..new.len()], None),
            weight: scan_piece(level, old, None),
        });
    }
    totals
}

/// The update from one state of a tensor to another by a sample, both in the same order; `None`
/// when type or length differ. `seed` decides which elements are looked at: see [`sample_seed`].
///
/// Elements of the sample that are not finite are no part of the norms, and count as often as the
/// others of their stratum. A tensor that is looked at whole is told exactly.
pub fn update_by_sample(before: TensorRef<'_>, after: TensorRef<'_>, seed: u64) -> Option<Update> {
    with_pair!(before, after, (old, new) => {
        let places = Places::drawn(new.len(), seed);
        estimate(new.len(), || places.iter().map(|(at, times)| (&old[at.clone()], &new[at], times)))
    })
}

/// Whether a tensor of this length is sampled, and not looked at whole.
pub fn is_sampled(len: usize) -> bool {
    len > WHOLE
}

/// Whether a sample may miss or overrate the update that this gradient makes, in a tensor whose type
/// has this largest finite value:
///
/// - the gradient is not finite, or so large that the update or the optimizer's moments could
///   overflow;
/// - it is concentrated: more than 7/8 of it zeros (an embedding of which few rows move), or its
///   largest square above 512 times the mean square.
///
/// What is left to chance is an update that is concentrated though its gradient is not. With its
/// change in n stretches of a tensor it is missed at one step with probability (63/64)^n at most, and
/// at k steps with the k-th power of that.
pub fn may_mislead(gradient: &TensorStats, type_max: f64) -> bool {
    let mean_square = gradient.l2 * gradient.l2 / gradient.len.max(1) as f64;
    !gradient.is_finite()
        || gradient.max_abs > type_max.sqrt() / 4.0
        || gradient.max_abs * gradient.max_abs > CREST * mean_square
        || (gradient.zeros > gradient.len / 8 * 7 && gradient.zeros < gradient.len)
}

/// The seed of a tensor's sample at a step: other places at every step, and in every tensor.
pub fn sample_seed(step: u64, tensor: u64) -> u64 {
    mixed(step).wrapping_add(tensor)
}

/// A number that looks drawn (Steele, Lea and Flood 2014: SplitMix64).
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a sample of a tensor held before an update, where the update is made in place.
///
/// Used again, it allocates only for a longer sample.
#[derive(Debug, Clone, Default)]
pub struct TensorSample {
    places: Places,
    /// The elements at these places, one after another.
    values: Vec<f64>,
}

impl TensorSample {
    /// Takes the sample of a tensor that [`update_by_sample`] would look at with this seed.
    pub fn take(&mut self, tensor: TensorRef<'_>, seed: u64) {
        self.keep(tensor, Places::drawn(tensor.len(), seed));
    }

    /// Takes all elements, at eight bytes each: the update is told exactly then.
    pub fn take_whole(&mut self, tensor: TensorRef<'_>) {
        self.keep(tensor, Places::whole(tensor.len()));
    }

    fn keep(&mut self, tensor: TensorRef<'_>, places: Places) {
        self.places = places;
        self.values.clear();
        for (at, _) in self.places.iter() {
            with_values!(TensorRef, tensor, values => {
                self.values.extend(values[at].iter().map(|value| value.to_f64()));
            });
        }
    }

    /// The update since the sample was taken, as [`update_by_sample`] tells it; `None` when the
    /// tensor has another length now.
    pub fn update_to(&self, tensor: TensorRef<'_>) -> Option<Update> {
        let len = tensor.len();
        (len == self.places.len).then(|| {
            with_values!(TensorRef, tensor, values => estimate(len, || {
                let mut rest = &self.values[..];
                self.places.iter().map(move |(at, times)| {
                    let (old, left) = rest.split_at(at.len());
                    rest = left;
                    (old, &values[at], times)
                })
            }))
        })
    }
}

/// Which elements of a tensor are looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    /// Elements of the tensor.
    len: usize,
    /// Elements that are looked at together.
    stretch: usize,
    /// Elements of which one stretch is looked at.
    stratum: usize,
    seed: u64,
}

impl Places {
    fn drawn(len: usize, seed: u64) -> Self {
        if !is_sampled(len) {
            return Self::whole(len);
        }
        let stretches = (len / STRETCH / STRATA_MIN).clamp(1, STRATUM);
        Self { len, stretch: STRETCH, stratum: stretches * STRETCH, seed }
    }

    fn whole(len: usize) -> Self {
        Self { len, stretch: len, stratum: len, seed: 0 }
    }

    /// The stretches in their order, and how many of its stratum each stands for.
    fn iter(self) -> impl Iterator<Item = (Range<usize>, f64)> {
        let Self { len, stretch, stratum, seed } = self;
        (0..len).step_by(stratum.max(1)).enumerate().map(move |(number, start)| {
            let end = len.min(start + stratum);
            let stretches = (end - start).div_ceil(stretch);
            let drawn = mixed(seed ^ ((number as u64) << 32)) >> 32;
            let first = start + ((drawn * stretches as u64) >> 32) as usize * stretch;
            (first..end.min(first + stretch), stretches as f64)
        })
    }
}

/// The update of a tensor of `len` elements by stretches before and after it, each with how many it
/// stands for.
fn estimate<'a, A: Element, B: Element, I>(len: usize, stretches: impl Fn() -> I) -> Update
where
    I: Iterator<Item = (&'a [A], &'a [B], f64)>,
{
    let (mut change, mut weight, mut nonfinite) = (0.0, 0.0, 0.0);
    for (old, new, times) in stretches() {
        let (of_change, of_weight) = squares(old, new);
        change += times * of_change;
        weight += times * of_weight;
    }
    // A NaN or an infinity before or after leaves none of the sums finite.
    if !f64::is_finite(change + weight) {
        (change, weight) = (0.0, 0.0);
        for (old, new, times) in stretches() {
            for (old, new) in old.iter().zip(new).map(|(old, new)| (old.to_f64(), new.to_f64())) {
                let is_kept = old.is_finite() && new.is_finite();
                change += if is_kept { times * (new - old) * (new - old) } else { 0.0 };
                weight += if old.is_finite() { times * old * old } else { 0.0 };
                nonfinite += if new.is_finite() { 0.0 } else { times };
            }
        }
    }
    Update {
        change_norm: change.sqrt(),
        weight_norm: weight.sqrt(),
        len: len as u64,
        nonfinite: nonfinite as u64,
    }
}

/// Sums of (new - old)^2 and old^2.
#[inline(always)]
fn squares<A: Element, B: Element>(before: &[A], after: &[B]) -> (f64, f64) {
    const LANES: usize = 8;
    let (mut change, mut weight) = ([0.0; LANES], [0.0; LANES]);
    let mut add = |lane: usize, old: f64, new: f64| {
        change[lane] += (new - old) * (new - old);
        weight[lane] += old * old;
    };
    let (before, rest_before) = before.as_chunks::<LANES>();
    let (after, rest_after) = after.as_chunks::<LANES>();
    for (old, new) in before.iter().zip(after) {
        for lane in 0..LANES {
            add(lane, old[lane].to_f64(), new[lane].to_f64());
        }
    }
    for (lane, (old, new)) in rest_before.iter().zip(rest_after).enumerate() {
        add(lane, old.to_f64(), new.to_f64());
    }
    (change.iter().sum(), weight.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::PIECE;
    use half::{bf16, f16};

    const LEN: usize = 256 * 256 + 37;

    fn wave(index: usize, pace: f64) -> f64 {
        (index as f64 * pace).sin()
    }

    fn values<T: Element>(len: usize, value: impl Fn(usize) -> f64) -> Vec<T> {
        (0..len).map(|index| T::from_f64(value(index))).collect()
    }

    /// By differences in f64 and Neumaier's sum of their squares, elements that are not finite left
    /// out.
    fn reference<T: Element>(before: &[T], after: &[T]) -> Update {
        let norm = |values: &mut dyn Iterator<Item = f64>| {
            let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
            for square in values.filter(|value| value.is_finite()).map(|value| value * value) {
                let next = sum + square;
                lost += if sum >= square { (sum - next) + square } else { (square - next) + sum };
                sum = next;
            }
            (sum + lost).sqrt()
        };
        let pairs = || before.iter().zip(after).map(|(old, new)| (old.to_f64(), new.to_f64()));
        Update {
            change_norm: norm(&mut pairs().map(|(old, new)| new - old)),
            weight_norm: norm(&mut pairs().map(|(old, _)| old)),
            len: after.len() as u64,
            nonfinite: pairs().filter(|(_, new)| !new.is_finite()).count() as u64,
        }
    }

    fn assert_near(got: Update, want: Update, error: f64, what: &str) {
        let near = |got: f64, want: f64| (got - want).abs() <= error * want;
        assert!(near(got.change_norm, want.change_norm), "{what}: {got:?} {want:?}");
        assert!(near(got.weight_norm, want.weight_norm), "{what}: {got:?} {want:?}");
        assert_eq!((got.len, got.nonfinite), (want.len, want.nonfinite), "{what}");
    }

    fn check<T: Element>(of: fn(&[T]) -> TensorRef<'_>) {
        for len in [0, 1, 7, 1024, 1025, 2048, 5000, PIECE + 1, 3 * PIECE + 77] {
            // From a first step to steps that most weights are too coarse for.
            for size in [10.0, 1e-3, 1e-8] {
                let before = values::<T>(len, |i| 0.05 * wave(i, 0.7));
                let after = values::<T>(len, |i| 0.05 * (wave(i, 0.7) - size * wave(i, 0.3)));
                let want = reference(&before, &after);
                let got = update_of(of(&before), of(&after)).expect("a pair");
                assert_near(got, want, 1e-12, &format!("{} {len} {size}", T::NAME));
                let mut sample = TensorSample::default();
                sample.take_whole(of(&before));
                let got = sample.update_to(of(&after)).expect("one length");
                assert_near(got, want, 1e-12, &format!("{} {len} {size}, whole", T::NAME));
            }
        }
    }

    #[test]
    fn an_update_is_that_of_differences_in_f64() {
        check::<f32>(|values| TensorRef::F32(values));
        check::<f64>(|values| TensorRef::F64(values));
        check::<f16>(|values| TensorRef::F16(values));
        check::<bf16>(|values| TensorRef::Bf16(values));
    }

    #[test]
    fn threads_and_instruction_sets_change_no_bit() {
        let before = values::<f32>(3 * PIECE + 77, |i| wave(i, 0.7));
        let after = values::<f32>(3 * PIECE + 77, |i| 0.99 * wave(i, 0.7));
        let bits = |level, threads| {
            let totals = measure_pieces(level, threads, &before, &after);
            [totals.change, totals.weight].map(|totals| totals.finish().0.l2.to_bits())
        };
        let want = bits(Level::best(), Threads::One);
        for level in Level::all() {
            for threads in [Threads::One, Threads::Many] {
                assert_eq!(bits(level, threads), want, "{level:?} {threads:?}");
            }
        }
    }

    #[test]
    fn broken_elements_are_counted_and_no_part_of_the_norms() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let (before, after) = ([1.0, 1.0, 2.0, inf], [nan, inf, 5.0, inf]);
        let (before, after) = (TensorRef::F32(&before), TensorRef::F32(&after));
        let want = Update { change_norm: 3.0, weight_norm: 6f64.sqrt(), len: 4, nonfinite: 3 };
        let mut sample = TensorSample::default();
        sample.take(before, 0);
        let found = [update_of(before, after), update_by_sample(before, after, 0)];
        for got in found.into_iter().chain([sample.update_to(after)]) {
            assert_near(got.expect("a pair"), want, 1e-15, "broken");
        }
        assert_eq!(want.ratio(), f64::INFINITY);
    }

    #[test]
    fn a_change_beyond_f64_is_bounded_by_both_norms() {
        let (before, after) = ([1.5e308, 1.0], [-1.5e308, 1.0]);
        let got = update_of(TensorRef::F64(&before), TensorRef::F64(&after)).expect("a pair");
        assert_eq!((got.change_norm, got.nonfinite), (f64::INFINITY, 0));
        let of = |l2, infs| TensorStats { len: 2, l2, max_abs: l2, infs, ..TensorStats::default() };
        let got = Update::of_stats(&of(0.0, 1), &of(3e38, 0), &of(1e38, 0), f64::from(f32::MAX));
        assert_eq!((got.change_norm, got.weight_norm), (4e38, 3e38));
    }

    #[test]
    fn tensors_of_other_types_or_lengths_have_no_update() {
        let (a, b, c) = ([1.0_f32; 4], [1.0_f64; 4], [1.0_f32; 5]);
        let a = TensorRef::F32(&a);
        for other in [TensorRef::F64(&b), TensorRef::F32(&c)] {
            assert_eq!((update_of(a, other), update_by_sample(a, other, 0)), (None, None));
        }
        let mut sample = TensorSample::default();
        sample.take(a, 0);
        assert_eq!(sample.update_to(TensorRef::F32(&c)), None);
    }

    #[test]
    fn every_stratum_has_one_stretch_and_all_of_them_are_drawn() {
        for len in [1025, 1100, 4096, 40_000, LEN] {
            let mut seen = vec![0_u32; len];
            for seed in 0..2000 {
                let places = Places::drawn(len, mixed(seed));
                let stands_for: f64 =
                    places.iter().map(|(at, times)| times * at.len() as f64).sum();
                assert!((stands_for / len as f64 - 1.0).abs() < 0.07, "{len}: {stands_for}");
                places.iter().for_each(|(at, _)| seen[at].iter_mut().for_each(|n| *n += 1));
            }
            assert!(Places::drawn(len, 0).iter().count() >= STRATA_MIN, "{len}");
            assert!(seen.iter().all(|times| *times > 0), "{len}");
        }
        assert!(Places::drawn(0, 0).iter().next().is_none());
    }

    /// What 400 samples tell of the change, by what it is.
    fn ratios(len: usize, part: impl Fn(usize) -> f64) -> Vec<f64> {
        let before = values::<f32>(len, |i| wave(i, 0.7));
        let after = values::<f32>(len, |i| wave(i, 0.7) - 0.01 * wave(i, 0.31) * part(i));
        let want = reference(&before, &after);
        let (before, after) = (TensorRef::F32(&before), TensorRef::F32(&after));
        let ratio = |step| {
            let seed = sample_seed(step, 3);
            let got = update_by_sample(before, after, seed).expect("a pair");
            assert!((got.weight_norm / want.weight_norm - 1.0).abs() < 0.1, "{got:?} {want:?}");
            let mut sample = TensorSample::default();
            sample.take(before, seed);
            assert_eq!(sample.update_to(after), Some(got), "before and after at hand, or one");
            got.change_norm / want.change_norm
        };
        (0..400).map(ratio).collect()
    }

    #[test]
    fn spread_updates_are_told_closely_and_without_bias() {
        let rows = |i: usize| if (i / 256).is_multiple_of(3) { 1.0 } else { 0.01 };
        for (name, ratios, sigma) in [
            ("evenly", ratios(LEN, |_| 1.0), 0.03),
            ("a third of the rows", ratios(LEN, rows), 0.2),
            ("evenly, of few", ratios(1500, |_| 1.0), 0.03),
        ] {
            let mean = |f: fn(f64) -> f64| ratios.iter().copied().map(f).sum::<f64>() / 400.0;
            let square = mean(|ratio| ratio * ratio);
            assert!((square - 1.0).abs() < 0.06, "{name}: {square}");
            let spread = mean(|ratio| (ratio - 1.0) * (ratio - 1.0)).sqrt();
            assert!(spread < sigma, "{name}: {spread}");
        }
    }

    #[test]
    fn a_broken_element_is_met_by_one_sample_in_64() {
        let before = values::<f32>(LEN, |i| wave(i, 0.7));
        let mut after = before.clone();
        after[40_000] = f32::NAN;
        let (before, after) = (TensorRef::F32(&before), TensorRef::F32(&after));
        let told =
            |seed| update_by_sample(before, after, mixed(seed)).map(|update| update.nonfinite);
        let met = (0..4096).filter(|seed| told(*seed) == Some(64)).count();
        assert!((32..128).contains(&met), "{met}");
        assert_eq!((0..4096).filter(|seed| told(*seed) == Some(0)).count(), 4096 - met);
    }

    #[test]
    fn a_gradient_tells_where_a_sample_may_mislead() {
        let spread = values::<f32>(LEN, |i| wave(i, 0.31));
        let with = |index: usize, value: f32| {
            let mut gradient = spread.clone();
            gradient[index] = value;
            gradient
        };
        let rows =
            |count: usize| values::<f32>(LEN, |i| if i / 256 % 16 < count { 1.0 } else { 0.0 });
        for (name, gradient, doubtful) in [
            ("spread", spread.clone(), false),
            ("zeros", vec![0.0; LEN], false),
            ("half of the rows", rows(8), false),
            ("a few rows", rows(1), true),
            ("one element", with(40_000, 100.0), true),
            ("NaN", with(40_000, f32::NAN), true),
            ("near overflow", spread.iter().map(|g| 1e19 * g).collect(), true),
        ] {
            assert_eq!(may_mislead(&scan(&gradient), f64::from(f32::MAX)), doubtful, "{name}");
        }
    }
}
