//! How the magnitudes of a tensor are spread: one bin for each power of two.

use std::fmt;

use crate::element::Element;
use crate::isa::LANES;

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
/// tensor keeps 64 bins, from that of its largest element down, and counts what is smaller by more
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

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bin, more) in self.bins.iter_mut().zip(&other.bins) {
            *bin = bin.saturating_add(*more);
        }
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

/// The counts while a tensor is read, twice, so that neighbours of one magnitude do not wait for
/// each other. Place 255 is where zeros and non-finite elements go.
pub(crate) struct Bins {
    counts: [[u32; 256]; 2],
    first: u8,
    last: u8,
}

impl Bins {
    pub(crate) fn new() -> Self {
        Self { counts: [[0; 256]; 2], first: u8::MAX, last: 0 }
    }

    /// Counts the elements of a block that are in the sample.
    #[inline(always)]
    pub(crate) fn sample<T: Element>(&mut self, block: &[T], sampling: Sampling) {
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks.iter().step_by(sampling.one_in) {
            self.add(&T::log2_bins(chunk));
        }
        if !rest.is_empty() && chunks.len().is_multiple_of(sampling.one_in) {
            let mut last = [T::ZERO; LANES];
            last[..rest.len()].copy_from_slice(rest);
            self.add(&T::log2_bins(&last));
        }
    }

    #[inline(always)]
    fn add(&mut self, places: &[u8; LANES]) {
        let (mut first, mut last) = (self.first, self.last);
        for &place in places {
            first = first.min(place);
            // the place of nothing is no maximum
            last = last.max(if place == u8::MAX { 0 } else { place });
        }
        (self.first, self.last) = (first, last);
        let [even, odd] = &mut self.counts;
        for &[a, b] in places.as_chunks::<2>().0 {
            even[usize::from(a)] += 1;
            odd[usize::from(b)] += 1;
        }
    }

    /// Moves the counts to a window, and is empty again.
    #[inline(always)]
    pub(crate) fn move_to(&mut self, window: &mut Window) {
        let [even, odd] = &mut self.counts;
        window.fill(self.first, self.last, |place| {
            u64::from(std::mem::take(&mut even[place]) + std::mem::take(&mut odd[place]))
        });
        self.forget();
    }

    /// Adds the counts to a histogram, and is empty again.
    pub(crate) fn add_to(&mut self, histogram: &mut Histogram) {
        let [even, odd] = &mut self.counts;
        for place in usize::from(self.first)..=usize::from(self.last) {
            let count = std::mem::take(&mut even[place]) + std::mem::take(&mut odd[place]);
            histogram.bins[place] += u64::from(count);
        }
        self.forget();
    }

    #[inline(always)]
    fn forget(&mut self) {
        (self.first, self.last) = (u8::MAX, 0);
        (self.counts[0][255], self.counts[1][255]) = (0, 0);
    }
}

/// What is kept of the histogram of one tensor: the 64 bins from that of the largest element down.
/// What is smaller by more is counted in the lowest of them. A list of thousands of small tensors
/// would otherwise need more memory for its histograms than it has elements.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// By place modulo 64.
    counts: [u32; 64],
    first: u8,
    last: u8,
}

impl Default for Window {
    fn default() -> Self {
        Self { counts: [0; 64], first: u8::MAX, last: 0 }
    }
}

impl Window {
    /// Takes the counts of the places from `first` to `last`; they stop at what u32 holds.
    #[inline(always)]
    fn fill(&mut self, first: u8, last: u8, mut count: impl FnMut(usize) -> u64) {
        for place in self.first..=self.last {
            self.counts[usize::from(place) % 64] = 0;
        }
        (self.first, self.last) = (first.max(last.saturating_sub(63)), last);
        for place in first..=last {
            let kept = &mut self.counts[usize::from(place.max(self.first)) % 64];
            *kept = kept.saturating_add(count(usize::from(place)).min(u32::MAX.into()) as u32);
        }
    }

    /// Takes the counts of a histogram.
    pub(crate) fn fill_from(&mut self, histogram: &Histogram) {
        let bins = &histogram.bins;
        let first = bins.iter().position(|&count| count > 0).map_or(u8::MAX, |place| place as u8);
        let last = bins.iter().rposition(|&count| count > 0).map_or(0, |place| place as u8);
        self.fill(first, last, |place| bins[place]);
    }

    /// The window as a histogram.
    pub(crate) fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        for place in self.first..=self.last {
            histogram.bins[usize::from(place)] = self.counts[usize::from(place) % 64].into();
        }
        histogram
    }
}
