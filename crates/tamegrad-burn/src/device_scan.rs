//! Statistics by burn's own tensor operations, for devices whose memory the CPU cannot read.
//!
//! Each tensor becomes a [`Row`] of six numbers on its device; [`read`] brings the rows of all
//! tensors over at once. A device that flushes denormals counts them as zeros, and a norm or mean
//! of nothing else is 0 there; everything else is as in [`tamegrad_stats::scan`], with l2 within
//! 1e-5 of it, relative to it, and the mean within 1e-5 of the largest magnitude.

use std::vec::IntoIter;

use burn::tensor::{Bool, DType, FloatDType, Int, IntDType, Tensor, TensorData, Transaction};
use tamegrad_stats::TensorStats;

/// How many numbers are summed in one go. Adding up millions of f32 in a row loses digits.
const SUMMED_AT_ONCE: usize = 512;

/// What one pass over a tensor tells, on the tensor's device.
pub(crate) struct Row {
    len: u64,
    /// NaNs, infinities, zeros.
    counts: Tensor<1, Int>,
    /// The largest magnitude m of the finite elements, their sum x/m, their sum (x/m)^2: squares
    /// of x itself would overflow. f64 for a tensor of f64, otherwise f32.
    moments: Tensor<1>,
}

impl Row {
    /// The row of a tensor with at least one element. Nothing is read back.
    pub(crate) fn new<const D: usize>(tensor: Tensor<D>) -> Self {
        let len = tensor.shape().num_elements();
        let values = widened(tensor.inner()).reshape([len]);
        let (is_nan, is_inf) = (values.clone().is_nan(), values.clone().is_inf());
        let is_zero = values.clone().equal_elem(0.0);
        let counts = [is_nan.clone(), is_inf.clone(), is_zero].map(count);
        let finite = values.mask_fill(is_nan.bool_or(is_inf), 0.0);
        let max = finite.clone().abs().max();
        let divisor = max.clone().mask_fill(max.clone().equal_elem(0.0), 1.0);
        let scaled = finite / divisor;
        let moments = vec![max, sum(scaled.clone()), sum(scaled.square())];
        Self {
            len: len as u64,
            counts: Tensor::cat(counts.to_vec(), 0),
            moments: Tensor::cat(moments, 0),
        }
    }

    fn is_f64(&self) -> bool {
        self.moments.dtype() == DType::F64
    }
}

/// The statistics of all rows, in their order, with one read-back. Should the device fail, every
/// element counts as NaN: what cannot be read is no reason for calm.
pub(crate) fn read(rows: Vec<Row>) -> Vec<TensorStats> {
    let kinds: Vec<(u64, bool)> = rows.iter().map(|row| (row.len, row.is_f64())).collect();
    let mut numbers = stack(rows).map(Stacked::read).unwrap_or_default();
    let unread = |len| TensorStats { len, nans: len, ..TensorStats::default() };
    kinds
        .into_iter()
        .map(|(len, is_f64)| numbers.next(len, is_f64).unwrap_or_else(|| unread(len)))
        .collect()
}

/// The rows of all tensors, in at most three tensors.
struct Stacked {
    counts: Tensor<1, Int>,
    f32_moments: Option<Tensor<1>>,
    f64_moments: Option<Tensor<1>>,
}

/// Rows of several devices are gathered on the first one. `None` without rows.
fn stack(rows: Vec<Row>) -> Option<Stacked> {
    let device = rows.first()?.counts.device();
    let (mut counts, mut f32_moments, mut f64_moments) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let moments = if row.is_f64() { &mut f64_moments } else { &mut f32_moments };
        moments.push(row.moments.to_device(&device));
        counts.push(row.counts.to_device(&device));
    }
    let cat = |moments: Vec<Tensor<1>>| (!moments.is_empty()).then(|| Tensor::cat(moments, 0));
    Some(Stacked {
        counts: Tensor::cat(counts, 0),
        f32_moments: cat(f32_moments),
        f64_moments: cat(f64_moments),
    })
}

impl Stacked {
    /// The one read-back.
    fn read(self) -> Numbers {
        let has_f32 = self.f32_moments.is_some();
        let mut transaction = Transaction::default().register(self.counts);
        for moments in self.f32_moments.into_iter().chain(self.f64_moments) {
            transaction = transaction.register(moments);
        }
        let mut read = transaction.try_execute().unwrap_or_default().into_iter();
        Numbers {
            counts: triples(read.next()),
            f32_moments: triples(has_f32.then(|| read.next()).flatten()),
            f64_moments: triples(read.next()),
        }
    }
}

/// What was read back.
#[derive(Default)]
struct Numbers {
    counts: IntoIter<[f64; 3]>,
    f32_moments: IntoIter<[f64; 3]>,
    f64_moments: IntoIter<[f64; 3]>,
}

impl Numbers {
    /// The statistics of the next row.
    fn next(&mut self, len: u64, is_f64: bool) -> Option<TensorStats> {
        let [nans, infs, zeros] = self.counts.next()?.map(|count| count as u64);
        let moments = if is_f64 { &mut self.f64_moments } else { &mut self.f32_moments };
        let [max_abs, sum, squares] = moments.next()?;
        let mut stats = TensorStats { len, nans, infs, zeros, max_abs, ..TensorStats::default() };
        stats.l2 = (max_abs * squares.sqrt()).min(f64::MAX);
        if stats.finite() > 0 {
            stats.mean = (sum / stats.finite() as f64).clamp(-1.0, 1.0) * max_abs;
        }
        Some(stats)
    }
}

/// Counts are exact in f64 up to 2^53.
fn triples(data: Option<TensorData>) -> IntoIter<[f64; 3]> {
    let values: Vec<f64> = data.iter().flat_map(|data| data.iter::<f64>()).collect();
    values.as_chunks().0.to_vec().into_iter()
}

/// Half precision as f32, which holds its squares, sums and small factors.
pub(crate) fn widened<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F32 | DType::F64 => tensor,
        _ => tensor.cast(FloatDType::F32),
    }
}

/// As an integer: f32 counts to 2^24 only.
fn count(mask: Tensor<1, Bool>) -> Tensor<1, Int> {
    mask.int().cast(IntDType::I32).sum()
}

/// The sum in rows of [`SUMMED_AT_ONCE`], then the sum of their sums in rows, and so on.
fn sum(mut values: Tensor<1>) -> Tensor<1> {
    while values.dims()[0] > SUMMED_AT_ONCE {
        let [len] = values.dims();
        let rows = len / SUMMED_AT_ONCE;
        let in_rows = rows * SUMMED_AT_ONCE;
        let whole = values.clone().narrow(0, 0, in_rows).reshape([rows, SUMMED_AT_ONCE]);
        let mut sums = vec![whole.sum_dim(1).reshape([rows])];
        if in_rows < len {
            sums.push(values.narrow(0, in_rows, len - in_rows).sum());
        }
        values = Tensor::cat(sums, 0);
    }
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    const TYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

    fn tensor(values: &[f64], dtype: DType) -> Tensor<1> {
        Tensor::from_data(TensorData::from(values), (&Device::flex(), dtype))
    }

    /// Rows of all `values` in all types against one scan on the CPU of each.
    fn check(values: &[Vec<f64>]) {
        let tensors = || TYPES.iter().flat_map(|dtype| values.iter().map(|v| tensor(v, *dtype)));
        let found = read(tensors().map(Row::new).collect());
        assert_eq!(found.len(), 4 * values.len());
        for (index, (found, tensor)) in found.iter().zip(tensors()).enumerate() {
            let dtype = tensor.dtype();
            let exact: Vec<f64> = tensor.into_data().iter::<f64>().collect();
            let want = tamegrad_stats::scan(&exact);
            let of = &values[index % values.len()];
            let what = format!("{dtype:?} {:?} of {}", &of[..of.len().min(8)], of.len());
            let counts = |s: &TensorStats| (s.len, s.nans, s.infs, s.zeros, s.max_abs);
            assert_eq!(counts(found), counts(&want), "{what}");
            let near = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-5 * scale;
            assert!(near(found.l2, want.l2, want.l2), "{what}: {} {}", found.l2, want.l2);
            let (mean, scale) = (want.mean, want.max_abs);
            assert!(near(found.mean, mean, scale), "{what}: {} {mean}", found.mean);
        }
    }

    #[test]
    fn agrees_with_the_scan_on_the_cpu() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        check(&[
            vec![3.0, -4.0, 0.0],
            vec![-2.5],
            vec![0.0, -0.0],
            vec![nan],
            vec![inf, -inf, nan],
            vec![nan, 3.0, inf, 4.0, 0.0, -inf],
            vec![1e30, -1e30, 1e30, 5.0],
            vec![1e-40, -1e-40, 1e-40],
            vec![1e-40, 0.0, 1.0],
            vec![3e38; 700],
            vec![60_000.0; 3],
        ]);
    }

    #[test]
    fn agrees_at_every_length_round_the_rows_of_the_sum() {
        let wave = |i: usize| (i as f64 * 0.37).sin() + 0.5;
        let lengths = [511, 512, 513, 1023, 1024, 1025, 512 * 512, 512 * 512 + 1, 700_001];
        check(&lengths.map(|len| (0..len).map(wave).collect()));
    }

    #[test]
    fn counts_beyond_what_f32_counts() {
        let len = (1 << 24) + 3;
        let zeros = Tensor::<2>::zeros([1, len], &Device::flex());
        let ones = Tensor::<2>::ones([len, 1], &Device::flex());
        let found = read(vec![Row::new(zeros), Row::new(ones)]);
        assert_eq!((found[0].zeros, found[0].l2), (len as u64, 0.0));
        assert!((found[1].l2 / (len as f64).sqrt() - 1.0).abs() < 1e-5, "{}", found[1].l2);
        assert!((found[1].mean - 1.0).abs() < 1e-5, "{}", found[1].mean);
    }

    #[test]
    fn many_tensors_are_read_back_as_three() {
        let device = Device::flex();
        let row = |index: usize| match index % 2 {
            0 => Row::new(Tensor::<2>::ones([1 + index, 2], &device)),
            _ => Row::new(Tensor::<1>::ones([1 + index], (&device, DType::F64))),
        };
        let stacked = stack((0..400).map(row).collect()).expect("rows");
        assert_eq!(stacked.counts.dims(), [1200]);
        let dims = |moments: &Option<Tensor<1>>| moments.as_ref().map(Tensor::dims);
        assert_eq!(dims(&stacked.f32_moments), Some([600]));
        assert_eq!(dims(&stacked.f64_moments), Some([600]));
        let numbers = stacked.read();
        assert_eq!(numbers.counts.len(), 400);
        assert!(stack(Vec::new()).is_none());
    }
}
