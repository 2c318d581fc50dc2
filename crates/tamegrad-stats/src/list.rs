//! A list of tensors: borrowed slices of any of the four types, and the statistics of them all.

use half::{bf16, f16};

use crate::element::{Edited, Element};
use crate::histogram::{Bins, Histogram, Sampling, Window};
use crate::isa::Level;
use crate::kernel::Totals;
use crate::scan::{TensorStats, scan_tensor, scan_tensor_with_histogram};
use crate::sum::Norm;
use crate::threads::{GRAIN_BYTES, Threads};

/// The elements of one tensor, to read.
#[derive(Debug, Clone, Copy)]
pub enum TensorRef<'a> {
    /// Of f32.
    F32(&'a [f32]),
    /// Of f64.
    F64(&'a [f64]),
    /// Of f16.
    F16(&'a [f16]),
    /// Of bf16.
    Bf16(&'a [bf16]),
}

/// The elements of one tensor, to scale or clip in place.
#[derive(Debug)]
pub enum TensorMut<'a> {
    /// Of f32.
    F32(&'a mut [f32]),
    /// Of f64.
    F64(&'a mut [f64]),
    /// Of f16.
    F16(&'a mut [f16]),
    /// Of bf16.
    Bf16(&'a mut [bf16]),
}

/// Runs `$body` with the slice of a tensor, whatever its type.
macro_rules! with_values {
    ($kind:ident, $tensor:expr, $values:ident => $body:expr) => {
        match $tensor {
            $kind::F32($values) => $body,
            $kind::F64($values) => $body,
            $kind::F16($values) => $body,
            $kind::Bf16($values) => $body,
        }
    };
}
pub(crate) use with_values;

impl TensorRef<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        with_values!(TensorRef, self, values => values.len())
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest finite value of the type.
    pub fn type_max(&self) -> f64 {
        with_values!(TensorRef, self, values => max_of(values))
    }

    /// The statistics of the elements.
    pub fn scan(&self) -> TensorStats {
        with_values!(TensorRef, self, values => crate::scan(values))
    }
}

fn max_of<T: Element>(_: &[T]) -> f64 {
    T::MAX
}

macro_rules! conversions {
    ($($type:ty => $variant:ident),*) => {
        $(
            impl<'a> From<&'a [$type]> for TensorRef<'a> {
                fn from(values: &'a [$type]) -> Self {
                    Self::$variant(values)
                }
            }

            impl<'a> From<&'a mut [$type]> for TensorMut<'a> {
                fn from(values: &'a mut [$type]) -> Self {
                    Self::$variant(values)
                }
            }
        )*
    };
}

conversions!(f32 => F32, f64 => F64, f16 => F16, bf16 => Bf16);

/// What can be read as a tensor.
pub(crate) trait View: Sync {
    fn view(&self) -> TensorRef<'_>;

    fn bytes(&self) -> usize {
        with_values!(TensorRef, self.view(), values => size_of_val(values))
    }
}

impl View for TensorRef<'_> {
    fn view(&self) -> TensorRef<'_> {
        *self
    }
}

impl View for TensorMut<'_> {
    fn view(&self) -> TensorRef<'_> {
        match self {
            Self::F32(values) => TensorRef::F32(values),
            Self::F64(values) => TensorRef::F64(values),
            Self::F16(values) => TensorRef::F16(values),
            Self::Bf16(values) => TensorRef::Bf16(values),
        }
    }
}

/// The statistics of a list of tensors. Used again for a list of the same length, it allocates
/// nothing.
#[derive(Debug, Clone, Default)]
pub struct ListStats {
    tensors: Vec<TensorStats>,
    norms: Vec<Norm>,
    /// Kept when a scan asks for none, for the next that does.
    histograms: Vec<Window>,
    has_histograms: bool,
    total: TensorStats,
    total_norm: Norm,
}

impl ListStats {
    /// The statistics of each tensor, in the order of the list.
    pub fn tensors(&self) -> &[TensorStats] {
        &self.tensors
    }

    /// The statistics of all elements of all tensors: [`crate::merge`] of [`ListStats::tensors`].
    pub fn total(&self) -> &TensorStats {
        &self.total
    }

    /// The histogram of each tensor, in the order of the list; none if none were asked for.
    pub fn histograms(&self) -> impl ExactSizeIterator<Item = Histogram> + '_ {
        let count = if self.has_histograms { self.histograms.len() } else { 0 };
        self.histograms[..count].iter().map(Window::histogram)
    }

    /// The norm of all elements in the form that is right beyond f64.
    pub(crate) fn total_norm(&self) -> Norm {
        self.total_norm
    }

    /// The norm of each tensor in the form that is right beyond f64.
    pub(crate) fn norms(&self) -> &[Norm] {
        &self.norms
    }

    /// The first tensor with a non-finite element.
    pub(crate) fn first_nonfinite(&self) -> Option<usize> {
        self.tensors.iter().position(|stats| !stats.is_finite())
    }
}

/// The statistics of every tensor of a list and of the whole, in one read of memory, into `stats`.
///
/// Each tensor's are those of [`crate::scan`], to the bit, and the whole's those of
/// [`crate::merge`] over them: however the list is cut, and whatever the number of threads. Lists
/// from 1 MiB on are spread over the threads of the rayon pool that the caller is in, cut by bytes.
pub fn scan_list(tensors: &[TensorRef<'_>], stats: &mut ListStats) {
    scan_views(Level::best(), tensors, None, stats);
}

/// [`scan_list`] with a histogram of each tensor.
pub fn scan_list_with_histograms(
    tensors: &[TensorRef<'_>],
    sampling: Sampling,
    stats: &mut ListStats,
) {
    scan_views(Level::best(), tensors, Some(sampling), stats);
}

pub(crate) fn scan_views<V: View>(
    level: Level,
    tensors: &[V],
    sampling: Option<Sampling>,
    stats: &mut ListStats,
) {
    stats.tensors.resize(tensors.len(), TensorStats::default());
    stats.norms.resize(tensors.len(), Norm::default());
    stats.has_histograms = sampling.is_some();
    if stats.has_histograms {
        stats.histograms.resize(tensors.len(), Window::default());
    }
    let bytes = total_bytes(tensors);
    let threads = Threads::for_bytes(bytes);
    let slots = Slots {
        stats: &mut stats.tensors,
        norms: &mut stats.norms,
        histograms: sampling.map(|sampling| (&mut *stats.histograms, sampling)),
    };
    scan_part(level, threads, tensors, bytes, slots);

    let mut total = Totals::default();
    for (part, norm) in stats.tensors.iter().zip(&stats.norms) {
        total.append_stats(part);
        total.squares.add_norm(*norm);
    }
    (stats.total, stats.total_norm) = total.finish();
}

/// Where the results of a part of a list go.
struct Slots<'a> {
    stats: &'a mut [TensorStats],
    norms: &'a mut [Norm],
    histograms: Option<(&'a mut [Window], Sampling)>,
}

impl<'a> Slots<'a> {
    fn split_at(self, middle: usize) -> (Self, Self) {
        let (stats, more_stats) = self.stats.split_at_mut(middle);
        let (norms, more_norms) = self.norms.split_at_mut(middle);
        let (histograms, more_histograms) = match self.histograms {
            None => (None, None),
            Some((histograms, sampling)) => {
                let (first, rest) = histograms.split_at_mut(middle);
                (Some((first, sampling)), Some((rest, sampling)))
            }
        };
        (
            Self { stats, norms, histograms },
            Self { stats: more_stats, norms: more_norms, histograms: more_histograms },
        )
    }
}

fn scan_part<V: View>(
    level: Level,
    threads: Threads,
    tensors: &[V],
    bytes: usize,
    slots: Slots<'_>,
) {
    if threads == Threads::Many && bytes > GRAIN_BYTES && tensors.len() > 1 {
        let (middle, left_bytes) = half(tensors, bytes);
        let (left, right) = tensors.split_at(middle);
        let (left_slots, right_slots) = slots.split_at(middle);
        threads.join(
            || scan_part(level, threads, left, left_bytes, left_slots),
            || scan_part(level, threads, right, bytes - left_bytes, right_slots),
        );
        return;
    }
    let results = slots.stats.iter_mut().zip(slots.norms);
    match slots.histograms {
        None => {
            for (tensor, (stats, norm)) in tensors.iter().zip(results) {
                (*stats, *norm) = with_values!(TensorRef, tensor.view(),
                    values => scan_tensor(level, threads, values));
            }
        }
        Some((windows, sampling)) => {
            let mut bins = Bins::new();
            for ((tensor, (stats, norm)), window) in tensors.iter().zip(results).zip(windows) {
                (*stats, *norm) = with_values!(TensorRef, tensor.view(),
                values => scan_tensor_with_histogram(
                    level, threads, values, sampling, &mut bins, window,
                ));
            }
        }
    }
}

fn total_bytes<V: View>(tensors: &[V]) -> usize {
    tensors.iter().map(View::bytes).sum()
}

/// Where to cut a list of at least two tensors so that both parts hold about half of its `bytes`,
/// and the bytes of the first part.
fn half<V: View>(tensors: &[V], bytes: usize) -> (usize, usize) {
    let last = tensors.len() - 1;
    let mut before = 0;
    for (index, tensor) in tensors[..last].iter().enumerate() {
        let after = before + tensor.bytes();
        if after * 2 >= bytes {
            let is_nearer = bytes - before * 2 < after * 2 - bytes;
            return if is_nearer && index > 0 { (index, before) } else { (index + 1, after) };
        }
        before = after;
    }
    (last, before)
}

/// Work on the elements of a tensor in place, which does not depend on how the tensor is cut.
pub(crate) trait Edit: Sync {
    /// Whether there is anything to do for the tensor at `index`.
    fn wants(&self, index: usize) -> bool;

    /// Works on a piece of the tensor at `index`.
    fn edit<T: Element>(&self, index: usize, values: &mut [T]) -> Edited;
}

/// Edits the tensors in pieces, perhaps several at once.
pub(crate) fn edit_list<E: Edit>(tensors: &mut [TensorMut<'_>], edit: &E) -> Edited {
    let bytes = total_bytes(tensors);
    edit_part(Threads::for_bytes(bytes), tensors, 0, bytes, edit)
}

/// Edits one tensor in pieces, perhaps several at once.
pub(crate) fn edit_slice<T: Element, E: Edit>(values: &mut [T], edit: &E) -> Edited {
    edit_tensor(Threads::for_bytes(size_of_val(values)), 0, values, edit)
}

/// From the end to the start: what a scan has read last is still in the cache.
fn edit_part<E: Edit>(
    threads: Threads,
    tensors: &mut [TensorMut<'_>],
    first: usize,
    bytes: usize,
    edit: &E,
) -> Edited {
    if threads == Threads::Many && bytes > GRAIN_BYTES && tensors.len() > 1 {
        let (middle, left_bytes) = half(tensors, bytes);
        let (left, right) = tensors.split_at_mut(middle);
        let (a, b) = threads.join(
            || edit_part(threads, right, first + middle, bytes - left_bytes, edit),
            || edit_part(threads, left, first, left_bytes, edit),
        );
        return a.and(b);
    }
    let mut edited = Edited::default();
    for (index, tensor) in tensors.iter_mut().enumerate().rev() {
        let index = first + index;
        if edit.wants(index) {
            edited = edited.and(with_values!(TensorMut, tensor, values =>
                edit_tensor(threads, index, values, edit)));
        }
    }
    edited
}

fn edit_tensor<T: Element, E: Edit>(
    threads: Threads,
    index: usize,
    values: &mut [T],
    edit: &E,
) -> Edited {
    if size_of_val(values) <= GRAIN_BYTES {
        return edit.edit(index, values);
    }
    let (left, right) = values.split_at_mut(values.len() / 2);
    let (a, b) = threads.join(
        || edit_tensor(threads, index, right, edit),
        || edit_tensor(threads, index, left, edit),
    );
    a.and(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::PIECE;
    use crate::scan::merge;
    use crate::scan::tests::bits;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn wave<T: Element>(len: usize) -> Vec<T> {
        (0..len).map(|i| T::from_f64((i as f64 * 0.37).sin() * 1e3)).collect()
    }

    /// Tensors of one type, among them empty ones and one of several pieces.
    fn waves<T: Element>() -> [Vec<T>; 6] {
        [5, 0, PIECE + 3, 3000, 70_000, 16].map(wave)
    }

    #[test]
    fn neither_threads_nor_cuts_change_a_bit() {
        let (wide, half, brain) = (waves::<f64>(), waves::<f16>(), waves::<bf16>());
        let mut single: Vec<Vec<f32>> = (0..2000).map(|i| wave(i % 300)).collect();
        single.push(wave(2 * PIECE + 1));
        single[1250][3] = f32::NAN;
        let mut list: Vec<TensorRef<'_>> = Vec::new();
        list.extend(single.iter().map(|v| TensorRef::F32(v)));
        list.extend(wide.iter().map(|v| TensorRef::F64(v)));
        list.extend(half.iter().map(|v| TensorRef::F16(v)));
        list.extend(brain.iter().map(|v| TensorRef::Bf16(v)));
        let alone: Vec<TensorStats> = list.iter().map(TensorRef::scan).collect();
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut stats = ListStats::default();
            pool.install(|| scan_list(&list, &mut stats));
            let got: Vec<_> = stats.tensors().iter().map(bits).collect();
            assert!(got == alone.iter().map(bits).collect::<Vec<_>>(), "{threads} threads");
            assert_eq!(bits(stats.total()), bits(&merge(&alone)), "{threads} threads");
            assert_eq!(stats.first_nonfinite(), Some(1250));

            let mut parts = Vec::new();
            for part in list.chunks(threads * 111) {
                scan_list(part, &mut stats);
                parts.extend_from_slice(stats.tensors());
            }
            assert_eq!(bits(&merge(&parts)), bits(&merge(&alone)), "cut by {}", threads * 111);
        }
    }

    #[test]
    fn an_empty_list_has_empty_statistics() {
        let mut stats = ListStats::default();
        scan_list(&[TensorRef::F32(&[1.0])], &mut stats);
        scan_list(&[], &mut stats);
        assert_eq!((stats.tensors().len(), *stats.total()), (0, TensorStats::default()));
    }

    proptest! {
        #[test]
        fn both_halves_of_a_list_have_tensors(lengths in vec(0..50_usize, 2..40)) {
            let values = [1.0_f32; 50];
            let list: Vec<TensorRef<'_>> =
                lengths.iter().map(|&n| TensorRef::F32(&values[..n])).collect();
            let bytes = total_bytes(&list);
            let (middle, left) = half(&list, bytes);
            prop_assert!(0 < middle && middle < list.len());
            prop_assert_eq!(left, total_bytes(&list[..middle]));
            // no other cut is nearer to the middle by more than one tensor
            prop_assert!(left.abs_diff(bytes - left) <= 4 * lengths.iter().max().unwrap());
        }
    }
}
