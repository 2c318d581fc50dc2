//! How the magnitudes of a tensor are spread: one bin for each power of two.

use std::fmt;

use crate::element::Element;
use crate::isa::{BYTES, Isa, LANES};

/// Which elements enter a histogram: all, or a fixed sample of them.
///
/// A sample is of runs of sixteen neighbours, at the same places for every tensor, counted from its
/// start; each tensor that is not empty has at least one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    one_in: usize,
}

impl Sampling {
    /// Every element.
    pub const ALL: Self = Self { one_in: 1 };

    /// One element in `n`. Zero counts as 1, and above 128 as 128: a run in each 2048 elements.
    pub const fn one_in(n: usize) -> Self {
        Self {
            one_in: match n {
                0 => 1,
                129.. => 128,
                n => n,
            },
        }
    }
}

/// Numbers of elements by the exponent of their magnitude, floor(log2 |x|).
///
/// Exponents run from -127 to 127, those of f32. Finite f64 beyond that, and denormal f32 and bf16,
/// are counted at the nearer end. Zeros and non-finite elements are in no bin. The histogram of a
/// tensor keeps 63 bins, from that of its largest element down, and counts what is smaller by more
/// in the lowest of them; a bin holds at most 2^32 - 1.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    /// By exponent + 127.
    bins: [u64; 255],
}

/// The place of the exponent 0.
const BIAS: i32 = 127;

impl Histogram {
    /// Exponent and number of elements of each bin that is not empty, by ascending exponent.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        let bins = self.bins.iter().enumerate();
        bins.filter(|(_, count)| **count > 0).map(|(bin, count)| (bin as i32 - BIAS, *count))
    }

    /// Number of elements with 2^exponent <= |x| < 2^(exponent + 1); 0 for exponents outside.
    pub fn count(&self, exponent: i32) -> u64 {
        let bin = usize::try_from(exponent.saturating_add(BIAS));
        bin.ok().and_then(|bin| self.bins.get(bin)).copied().unwrap_or(0)
    }

    /// Number of elements in all bins.
    pub fn total(&self) -> u64 {
        self.bins.iter().sum()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: [0; 255] }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The counts while a tensor is read. Place 255 is where zeros and non-finite elements go.
pub(crate) struct Bins {
    counts: [u32; 256],
    first: u8,
    last: u8,
    /// Places that are not counted yet; those behind `waiting` are [`NOWHERE`].
    places: [u8; BYTES],
    waiting: usize,
}

/// The place of what is in no bin.
const NOWHERE: u8 = u8::MAX;
/// Up to so many different places it is quicker to look for each among all that wait than to go to
/// the counter of each that waits.
const SPREAD_MAX: u8 = 24;

impl Bins {
    pub(crate) fn new() -> Self {
        let (first, last) = NOTHING;
        Self { counts: [0; 256], first, last, places: [NOWHERE; BYTES], waiting: 0 }
    }

    /// Counts the elements of a block that are in the sample.
    #[inline(always)]
    pub(crate) fn sample<I: Isa, T: Element>(&mut self, isa: I, block: &[T], sampling: Sampling) {
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks.iter().step_by(sampling.one_in) {
            self.add(isa, &T::log2_bins(chunk));
        }
        if !rest.is_empty() && chunks.len().is_multiple_of(sampling.one_in) {
            let mut last = [T::ZERO; LANES];
            last[..rest.len()].copy_from_slice(rest);
            self.add(isa, &T::log2_bins(&last));
        }
    }

    #[inline(always)]
    fn add<I: Isa>(&mut self, isa: I, places: &[u8; LANES]) {
        if self.waiting == BYTES {
            self.count_waiting(isa);
        }
        self.places[self.waiting..self.waiting + LANES].copy_from_slice(places);
        self.waiting += LANES;
    }

    /// Counts those that wait.
    #[inline(always)]
    pub(crate) fn count_waiting<I: Isa>(&mut self, isa: I) {
        let (first, last) = ends(&self.places);
        if first <= last && last - first < SPREAD_MAX {
            for place in first..=last {
                self.counts[usize::from(place)] += isa.count_equal(&self.places, place);
            }
        } else {
            for place in self.places {
                self.counts[usize::from(place)] += 1;
            }
            self.counts[usize::from(NOWHERE)] = 0;
        }
        (self.first, self.last) = (self.first.min(first), self.last.max(last));
        self.places = [NOWHERE; BYTES];
        self.waiting = 0;
    }

    /// Moves the counts to a window, and is empty again.
    #[inline(always)]
    pub(crate) fn move_to<I: Isa>(&mut self, isa: I, window: &mut Window) {
        let is_empty = self.first > self.last;
        // A small tensor is one run of sixteen: a fixed number of bins, and no loop to guess at.
        if is_empty && self.waiting <= LANES {
            let run: &[u8; LANES] = &self.places.as_chunks().0[0];
            let (first, last) = ends_of_run(run);
            if first > last || last - first < WINDOW_LINE as u8 {
                (window.first, window.last) = (first, last);
                for (slot, back) in window.counts[..WINDOW_LINE].iter_mut().zip(0..) {
                    *slot = isa.count_equal_16(run, last.wrapping_sub(back));
                }
                self.places[..LANES].fill(NOWHERE);
                self.waiting = 0;
                return;
            }
        }
        let (first, last) = ends(&self.places);
        // All of it still waits.
        if is_empty && (first > last || last - first < SPREAD_MAX) {
            let places = &self.places;
            window.fill(first, last, |place| isa.count_equal(places, place as u8).into());
            self.places = [NOWHERE; BYTES];
            self.waiting = 0;
            return;
        }
        self.count_waiting(isa);
        let counts = &mut self.counts;
        window.fill(self.first, self.last, |place| std::mem::take(&mut counts[place]).into());
        (self.first, self.last) = NOTHING;
    }

    /// Adds what is counted to a histogram, and is empty again.
    pub(crate) fn add_to(&mut self, histogram: &mut Histogram) {
        for place in usize::from(self.first)..=usize::from(self.last) {
            histogram.bins[place] += u64::from(std::mem::take(&mut self.counts[place]));
        }
        (self.first, self.last) = NOTHING;
    }
}

/// First and last of no place at all.
const NOTHING: (u8, u8) = (NOWHERE, 0);

/// The first and the last of the places that are somewhere.
#[inline(always)]
fn ends(places: &[u8; BYTES]) -> (u8, u8) {
    let mut first = [NOWHERE; LANES];
    // one more than the last, for which nowhere is 0
    let mut end = [0; LANES];
    for chunk in places.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            first[lane] = first[lane].min(chunk[lane]);
            end[lane] = end[lane].max(chunk[lane].wrapping_add(1));
        }
    }
    first_and_last(&first, &end)
}

/// The same for one run.
#[inline(always)]
fn ends_of_run(run: &[u8; LANES]) -> (u8, u8) {
    first_and_last(run, &run.map(|place| place.wrapping_add(1)))
}

/// From the places, and one more than each.
#[inline(always)]
fn first_and_last(first: &[u8; LANES], end: &[u8; LANES]) -> (u8, u8) {
    let first = first.iter().copied().fold(NOWHERE, u8::min);
    match end.iter().copied().fold(0, u8::max) {
        0 => NOTHING,
        end => (first, end - 1),
    }
}

/// What is kept of the histogram of one tensor: the bins from that of the largest element down.
/// What is smaller by more is counted in the lowest of them.
///
/// A full histogram of each of thousands of small tensors would need more memory than they do. As a
/// rule all that is in use here fits in the first cache line.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Window {
    first: u8,
    last: u8,
    /// Of the places from `last` down to `first`.
    counts: [u32; WINDOW],
}

/// Bins that a tensor's histogram keeps.
const WINDOW: usize = 63;
/// Those of them that share a cache line with what is before them.
const WINDOW_LINE: usize = 15;

impl Default for Window {
    fn default() -> Self {
        let (first, last) = NOTHING;
        Self { first, last, counts: [0; WINDOW] }
    }
}

impl Window {
    /// Takes the counts of the places from `first` to `last`; they stop at what u32 holds.
    #[inline(always)]
    fn fill(&mut self, first: u8, last: u8, mut count: impl FnMut(usize) -> u64) {
        (self.first, self.last) = (first, last);
        if first > last {
            return;
        }
        let kept = usize::from(last - first).min(WINDOW - 1);
        self.first = last - kept as u8;
        for (slot, place) in self.counts[..=kept].iter_mut().zip((first..=last).rev()) {
            *slot = count(usize::from(place)).min(u32::MAX.into()) as u32;
        }
        for place in first..self.first {
            let more = count(usize::from(place)).min(u32::MAX.into()) as u32;
            self.counts[kept] = self.counts[kept].saturating_add(more);
        }
    }

    /// Takes the counts of a histogram.
    pub(crate) fn fill_from(&mut self, histogram: &Histogram) {
        let bins = &histogram.bins;
        let first = bins.iter().position(|&count| count > 0).map_or(NOTHING.0, |place| place as u8);
        let last = bins.iter().rposition(|&count| count > 0).map_or(NOTHING.1, |place| place as u8);
        self.fill(first, last, |place| bins[place]);
    }

    /// The window as a histogram.
    pub(crate) fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        for (place, count) in (self.first..=self.last).rev().zip(self.counts) {
            histogram.bins[usize::from(place)] = count.into();
        }
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Level;
    use crate::kernel::{BLOCK, PIECE};
    use crate::list::{ListStats, TensorRef, scan_list_with_histograms, scan_views};
    use half::{bf16, f16};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The exponent by repeated halving and doubling.
    fn log2_floor(magnitude: f64) -> i32 {
        let (mut x, mut exponent) = (magnitude, 0);
        while x >= 2.0 {
            (x, exponent) = (x / 2.0, exponent + 1);
        }
        while x < 1.0 {
            (x, exponent) = (x * 2.0, exponent - 1);
        }
        exponent
    }

    fn reference<T: Element>(values: &[T], one_in: usize) -> Vec<(i32, u64)> {
        let mut bins = std::collections::BTreeMap::new();
        for (index, x) in values.iter().map(|x| x.to_f64().abs()).enumerate() {
            let is_sampled = (index % BLOCK / LANES).is_multiple_of(one_in);
            if is_sampled && x > 0.0 && x.is_finite() {
                *bins.entry(log2_floor(x).clamp(-127, 127)).or_insert(0) += 1;
            }
        }
        let lowest = bins.last_key_value().map_or(0, |(last, _)| last - 62);
        let mut window = std::collections::BTreeMap::new();
        for (exponent, count) in bins {
            *window.entry(exponent.max(lowest)).or_insert(0) += count;
        }
        window.into_iter().collect()
    }

    fn check<T: Element>(values: &[T]) -> Result<(), TestCaseError>
    where
        for<'a> TensorRef<'a>: From<&'a [T]>,
    {
        for one_in in [1, 3, 16, 128] {
            for level in Level::all() {
                let mut stats = ListStats::default();
                let sampling = Sampling::one_in(one_in);
                scan_views(level, &[TensorRef::from(values)], Some(sampling), &mut stats);
                let got: Vec<(i32, u64)> = stats.histograms().next().unwrap().iter().collect();
                prop_assert_eq!(got, reference(values, one_in), "1 in {}, {:?}", one_in, level);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bits_are_counted_where_they_belong(
            wide in vec(any::<u64>(), 0..600), single in vec(any::<u32>(), 0..600),
            half in vec(any::<u16>(), 0..600),
        ) {
            check(&wide.iter().map(|&b| f64::from_bits(b)).collect::<Vec<_>>())?;
            check(&single.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>())?;
            check(&half.iter().map(|&b| f16::from_bits(b)).collect::<Vec<_>>())?;
            check(&half.iter().map(|&b| bf16::from_bits(b)).collect::<Vec<_>>())?;
        }

        #[test]
        fn values_like_gradients_are_counted_where_they_belong(
            values in vec(-1e-3..1e-3_f32, 0..600), repeats in 0..8_usize,
        ) {
            check(&values.repeat(repeats))?;
        }
    }

    #[test]
    fn large_tensors_and_lists() {
        let values: Vec<f32> = (0..2 * PIECE + 5).map(|i| (i as f32 * 0.37).sin()).collect();
        check(&values).unwrap();
        let list = [TensorRef::F32(&values), TensorRef::F64(&[0.5, 3.0]), TensorRef::F32(&[])];
        let mut stats = ListStats::default();
        scan_list_with_histograms(&list, Sampling::ALL, &mut stats);
        let ones: Vec<u64> = stats.histograms().map(|histogram| histogram.count(1)).collect();
        assert_eq!(ones, [0, 1, 0], "of the 3");
        let totals: Vec<u64> = stats.histograms().map(|histogram| histogram.total()).collect();
        assert_eq!(totals, [2 * PIECE as u64 + 4, 2, 0], "all but the first, which is 0");

        scan_list_with_histograms(&list[1..], Sampling::ALL, &mut stats);
        let counts: Vec<u64> = stats.histograms().map(|histogram| histogram.total()).collect();
        assert_eq!(counts, [2, 0], "nothing is left of the scan before");
        crate::list::scan_list(&list, &mut stats);
        assert_eq!(stats.histograms().len(), 0);
    }

    #[test]
    fn exponents_outside_have_no_elements() {
        let mut stats = ListStats::default();
        scan_list_with_histograms(&[TensorRef::F32(&[1.0, -1.5])], Sampling::ALL, &mut stats);
        let histogram = stats.histograms().next().unwrap();
        let counts = [i32::MIN, -128, -1, 0, 1, 128, i32::MAX].map(|e| histogram.count(e));
        assert_eq!(counts, [0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(format!("{histogram:?}"), "{0: 2}");
    }
}
