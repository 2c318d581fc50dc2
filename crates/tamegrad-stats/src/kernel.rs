//! The kernel: one read of a piece of a tensor, sixteen lanes at a time.

use crate::element::{Edited, Element};
use crate::histogram::{Bins, Sampling, Window};
use crate::isa::{Isa, LANES, Level, on_level};
use crate::sum::{LARGE, Squares, Sum};

/// Elements that are summed in plain f64, 128 a lane, before their sum joins a compensated one. The
/// relative error of a sum of squares of one block is at most (128 + 5) 2^-53, under 1.5e-14, and
/// that of the norm half of it.
pub(crate) const BLOCK: usize = 2048;

/// Elements that are looked at before they are written; their number fits in 16 bits.
pub(crate) const CHUNK: usize = 256;

/// Elements of a piece: what one thread takes at a time of a large tensor.
pub(crate) const PIECE: usize = 128 * BLOCK;

/// Bytes between what is read and what is asked for ahead. A processor's own guess of what comes next
/// ends with a page of 4 KiB, and gradients that the caches hold in part come from farther away at
/// each of them.
const AHEAD: usize = 16 << 10;

/// Below this a maximum leaves room for doubt: squares of smaller elements could underflow.
const SMALL: f64 = f64::from_bits((1023 - 400) << 52);

/// The running statistics of a block, in sixteen lanes. A maximum and a count are in the type that
/// the elements are loaded as; the others are not used.
#[derive(Clone, Copy)]
pub struct Lanes<I: Isa> {
    pub squares: I::F64,
    pub sum: I::F64,
    pub max16: I::U16,
    pub max32: I::F32,
    pub max64: I::F64,
    pub zeros16: I::Count16,
    pub zeros32: I::Count32,
    pub zeros64: I::Count64,
}

impl<I: Isa> Lanes<I> {
    #[inline(always)]
    fn new(isa: I) -> Self {
        Self {
            squares: isa.zero_f64(),
            sum: isa.zero_f64(),
            max16: isa.zero_u16(),
            max32: isa.zero_f32(),
            max64: isa.zero_f64(),
            zeros16: isa.zero_count16(),
            zeros32: isa.zero_count32(),
            zeros64: isa.zero_count64(),
        }
    }

    /// Adds values whose squares are exact in f64.
    #[inline(always)]
    pub fn add_exact(mut self, isa: I, x: I::F64) -> Self {
        self.squares = isa.add_exact_square(self.squares, x);
        self.sum = isa.add(self.sum, x);
        self
    }
}

/// What a piece of a tensor adds to the statistics of the whole.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) len: u64,
    pub(crate) nans: u64,
    pub(crate) infs: u64,
    pub(crate) zeros: u64,
    pub(crate) max_abs: f64,
    pub(crate) squares: Squares,
    pub(crate) sum: Sum,
}

impl Totals {
    pub(crate) fn append(&mut self, other: Self) {
        self.len += other.len;
        self.nans += other.nans;
        self.infs += other.infs;
        self.zeros += other.zeros;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.squares.append(other.squares);
        self.sum.append(other.sum);
    }
}

/// Where the elements of a piece are counted by magnitude.
pub(crate) struct Sample<'a> {
    pub(crate) bins: &'a mut Bins,
    pub(crate) sampling: Sampling,
    /// Takes the counts at the end, where the piece is a whole tensor.
    pub(crate) window: Option<&'a mut Window>,
}

on_level! {
    /// The totals of `values`, in blocks from its start, each block's sum in a fixed order.
    fn scan_piece<T: Element>(level, values: &[T], sample: Option<Sample<'_>>)
        -> Totals { scan_blocks(isa) }
}

on_level! {
    /// Multiplies the finite elements by `factor`; quicker where it is known that all are finite.
    fn scale_piece<T: Element>(level, values: &mut [T], factor: f64, all_finite: bool) {
        scale_on(isa)
    }
}

on_level! {
    /// Brings finite elements beyond `bound` to it.
    fn clamp_piece<T: Element>(level, values: &mut [T], bound: T) -> Edited { clamp_on(isa) }
}

#[inline(always)]
fn scale_on<I: Isa, T: Element>(_: I, values: &mut [T], factor: f64, all_finite: bool) {
    // Wide stores that cross the lines of the cache cost more.
    let (head, values) = values.split_at_mut(before_line(values));
    for chunk in std::iter::once(head).chain(values.chunks_mut(CHUNK)) {
        // Without a choice for each element the compiler needs no masked store, which is slow.
        if all_finite || T::all_finite(chunk) {
            T::scale_finite(chunk, factor);
        } else {
            for x in chunk.iter_mut().filter(|x| !x.is_nan() && !x.is_infinite()) {
                T::scale_finite(std::slice::from_mut(x), factor);
            }
        }
    }
}

/// Elements before the first that begins a cache line of 64 bytes; at most 63.
#[inline(always)]
fn before_line<T>(values: &[T]) -> usize {
    values.as_ptr().align_offset(64).min(values.len())
}

#[inline(always)]
fn clamp_on<I: Isa, T: Element>(_: I, values: &mut [T], bound: T) -> Edited {
    let (head, values) = values.split_at_mut(before_line(values));
    T::clamp(head, bound).and(T::clamp(values, bound))
}

#[inline(always)]
fn scan_blocks<I: Isa, T: Element>(isa: I, values: &[T], mut sample: Option<Sample<'_>>) -> Totals {
    let mut totals = Totals { len: values.len() as u64, ..Totals::default() };
    let mut coming = values.get(AHEAD / size_of::<T>()..).unwrap_or_default().chunks(BLOCK);
    for block in values.chunks(BLOCK) {
        let mut sums = scan_block(isa, block, coming.next().unwrap_or_default());
        if !sums.is_ordinary() {
            let mut finite = [T::ZERO; BLOCK];
            let (nans, infs) = T::copy_finite(block, &mut finite);
            totals.nans += nans;
            totals.infs += infs;
            let finite = &finite[..block.len()];
            sums = scan_block(isa, finite, &[]);
            sums.zeros -= nans + infs;
            if !sums.is_ordinary() {
                sums.squares = 0.0;
                sums.sum = 0.0;
                add_extremes(finite, &mut totals);
            }
        }
        totals.zeros += sums.zeros;
        totals.max_abs = totals.max_abs.max(sums.max_abs);
        totals.squares.add_squares(sums.squares);
        totals.sum.add_ordinary(sums.sum);
        if let Some(sample) = &mut sample {
            sample.bins.sample(isa, block, sample.sampling);
        }
    }
    match sample {
        Some(Sample { bins, window: Some(window), .. }) => bins.move_to(isa, window),
        Some(Sample { bins, window: None, .. }) => bins.count_waiting(isa),
        None => {}
    }
    totals
}

/// The sums of a block in plain f64.
struct BlockSums {
    squares: f64,
    sum: f64,
    max_abs: f64,
    zeros: u64,
}

impl BlockSums {
    /// Whether every element is finite, no square overflowed, and none that matters underflowed:
    /// beside the largest, squares below its 2^-200th part are nothing.
    #[inline(always)]
    fn is_ordinary(&self) -> bool {
        self.sum.is_finite()
            && self.max_abs <= LARGE
            && (self.max_abs >= SMALL || self.max_abs == 0.0)
    }
}

/// The sums of `block`; `coming` is asked for from memory meanwhile.
#[inline(always)]
fn scan_block<I: Isa, T: Element>(isa: I, block: &[T], coming: &[T]) -> BlockSums {
    let (chunks, rest) = block.as_chunks::<LANES>();
    let (coming, _) = coming.as_chunks::<LANES>();
    let (first, last) = chunks.split_at(coming.len().min(chunks.len()));
    let mut lanes = Lanes::new(isa);
    for (chunk, coming) in first.iter().zip(coming) {
        isa.prefetch(coming);
        lanes = T::take(isa, lanes, chunk);
    }
    for chunk in last {
        lanes = T::take(isa, lanes, chunk);
    }
    let mut padding = 0;
    if !rest.is_empty() {
        let mut last = [T::ZERO; LANES];
        last[..rest.len()].copy_from_slice(rest);
        lanes = T::take(isa, lanes, &last);
        padding = LANES - rest.len();
    }
    let (max_abs, zeros) = T::max_abs_and_zeros(isa, &lanes);
    BlockSums {
        squares: isa.sum(lanes.squares),
        sum: isa.sum(lanes.sum),
        max_abs,
        zeros: zeros - padding as u64,
    }
}

/// Adds a block of finite elements whose squares may overflow or underflow.
#[cold]
#[inline(never)]
fn add_extremes<T: Element>(finite: &[T], totals: &mut Totals) {
    let (mut squares, mut sum) = (Squares::default(), Sum::default());
    for x in finite {
        squares.add(x.to_f64().abs());
        sum.add(x.to_f64(), 1.0);
    }
    totals.squares.append(squares);
    totals.sum.append(sum);
}
