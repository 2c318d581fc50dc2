//! The work that `cargo xtask bench stats` times: a plain read, the scans and the clips.
//!
//! It is told on standard input what to do, a line `LIST WHAT REPEATS` each, does it so many times
//! in a row and answers with the median of the milliseconds: so whoever asks can take turns with
//! another program on one machine. Two answers are no times: `lengths` gives the elements of each
//! tensor, and `norm` the L2 norm of all. A line that makes no sense is answered by `error: ` and
//! why.

#![allow(unsafe_code, reason = "the plain read uses AVX2 where it is there, as the kernels do")]

use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use tamegrad_stats::{
    Clip, Element, ListStats, Sampling, TensorMut, TensorRef, clip_global_norm, scale_list,
    scan_list, scan_list_with_histograms,
};

/// Bytes that one thread sums at a time in the plain read.
const READ_BYTES: usize = 1 << 18;

/// How far above the limit the norm is when a clip is active.
const EXCESS: f64 = 1.01;

fn main() -> io::Result<()> {
    // `cargo test --benches` starts this as well, and asks for nothing.
    let mut current = None;
    for line in io::stdin().lock().lines() {
        let answer = answer(&line?, &mut current).unwrap_or_else(|why| format!("error: {why}"));
        writeln!(io::stdout(), "{answer}")?;
        io::stdout().flush()?;
    }
    Ok(())
}

/// A list and its name.
type Current = Option<(String, Box<dyn Bench>)>;

fn answer(line: &str, current: &mut Current) -> Result<String, String> {
    let words: Vec<&str> = line.split(' ').collect();
    let &[list, what, repeats] = &words[..] else {
        return Err(format!("got `{line}`, want `LIST WHAT REPEATS`"));
    };
    let repeats: NonZeroUsize =
        repeats.parse().map_err(|_| format!("got `{repeats}` repeats, want 1 or more"))?;
    // the old list goes before the new one comes
    let kept = current.take().filter(|(name, _)| name == list);
    let (_, bench) = match kept {
        Some(kept) => current.insert(kept),
        None => current.insert((list.to_owned(), make(list)?)),
    };
    match what {
        "lengths" => Ok(bench.lengths().iter().map(usize::to_string).collect::<Vec<_>>().join(" ")),
        "norm" => Ok(bench.norm().to_string()),
        _ => Ok(median(bench.milliseconds(what, repeats.get())?).to_string()),
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let count = times.len();
    (times[(count - 1) / 2] + times[count / 2]) / 2.0
}

fn make(list: &str) -> Result<Box<dyn Bench>, String> {
    let (shapes, element) = list.rsplit_once('/').unwrap_or((list, "f32"));
    let lengths = match shapes {
        "gpt2-small" => gpt2_small(),
        "resnet-50" => resnet_50(),
        "small-10000x256" => vec![256; 10_000],
        _ => return Err(format!("no list `{shapes}`")),
    };
    Ok(match element {
        "f32" => Box::new(Tensors::<f32>::new(&lengths)),
        "bf16" => Box::new(Tensors::<bf16>::new(&lengths)),
        "f16" => Box::new(Tensors::<f16>::new(&lengths)),
        _ => return Err(format!("no element type `{element}`")),
    })
}

/// The 148 parameter tensors of GPT-2 small, 124 million elements.
fn gpt2_small() -> Vec<usize> {
    const WIDTH: usize = 768;
    let norm = [WIDTH, WIDTH];
    let attention = [3 * WIDTH * WIDTH, 3 * WIDTH, WIDTH * WIDTH, WIDTH];
    let mlp = [4 * WIDTH * WIDTH, 4 * WIDTH, 4 * WIDTH * WIDTH, WIDTH];
    let block = [&norm[..], &attention, &norm, &mlp].concat();
    [vec![50_257 * WIDTH, 1024 * WIDTH], block.repeat(12), norm.to_vec()].concat()
}

/// The 161 parameter tensors of ResNet-50, 25.6 million elements.
fn resnet_50() -> Vec<usize> {
    let convolution = |from: usize, to: usize, kernel: usize| [from * to * kernel, to, to];
    let mut lengths = convolution(3, 64, 49).to_vec();
    let mut inputs = 64;
    for (width, blocks) in [(64, 3), (128, 4), (256, 6), (512, 3)] {
        for block in 0..blocks {
            lengths.extend(convolution(inputs, width, 1));
            lengths.extend(convolution(width, width, 9));
            lengths.extend(convolution(width, 4 * width, 1));
            if block == 0 {
                lengths.extend(convolution(inputs, 4 * width, 1));
            }
            inputs = 4 * width;
        }
    }
    lengths.extend([1000 * 2048, 1000]);
    lengths
}

trait Bench {
    /// The elements of each tensor.
    fn lengths(&self) -> Vec<usize>;

    /// The L2 norm of all tensors.
    fn norm(&mut self) -> f64;

    /// The time that `what` takes, `repeats` times in a row.
    fn milliseconds(&mut self, what: &str, repeats: usize) -> Result<Vec<f64>, String>;
}

/// A list of tensors of one type, each in memory of its own, as gradients are.
struct Tensors<T> {
    values: Vec<Vec<T>>,
    stats: ListStats,
}

impl<T: Element> Tensors<T> {
    fn new(lengths: &[usize]) -> Self {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / f64::from(1 << 24)
        };
        // A product of three has the long tails of gradients.
        let mut value = || 8e-3 * (uniform() - 0.5) * uniform() * uniform();
        let values = lengths.iter().map(|&n| (0..n).map(|_| T::from_f64(value())).collect());
        Self { values: values.collect(), stats: ListStats::default() }
    }
}

impl<T: Element + Plain> Bench for Tensors<T>
where
    for<'a> TensorRef<'a>: From<&'a [T]>,
    for<'a> TensorMut<'a>: From<&'a mut [T]>,
{
    fn lengths(&self) -> Vec<usize> {
        self.values.iter().map(Vec::len).collect()
    }

    fn norm(&mut self) -> f64 {
        scan_list(&views(&self.values), &mut self.stats);
        self.stats.total().l2
    }

    fn milliseconds(&mut self, what: &str, repeats: usize) -> Result<Vec<f64>, String> {
        let stats = &mut self.stats;
        match what {
            "read" => {
                let chunks = chunks(&self.values);
                Ok((0..repeats).map(|_| timed(|| read(&chunks)).0).collect())
            }
            "read_multiply" => {
                let mut read_multiply = || {
                    let sum = read(&chunks(&self.values));
                    multiply(&mut self.values);
                    sum
                };
                Ok((0..repeats).map(|_| timed(&mut read_multiply).0).collect())
            }
            "scan" => {
                let tensors = views(&self.values);
                Ok((0..repeats).map(|_| timed(|| scan_list(&tensors, stats)).0).collect())
            }
            "scan_histogram" => {
                let tensors = views(&self.values);
                let sampling = Sampling::one_in(16);
                let mut scan = || scan_list_with_histograms(&tensors, sampling, stats);
                Ok((0..repeats).map(|_| timed(&mut scan).0).collect())
            }
            "clip_inactive" => {
                let mut tensors = views_mut(&mut self.values);
                let mut clip = || match timed(|| clip_global_norm(&mut tensors, f64::MAX, stats)) {
                    (ms, Clip::Inactive { .. }) => Ok(ms),
                    (_, clip) => Err(format!("a clip that should do nothing gave {clip:?}")),
                };
                (0..repeats).map(|_| clip()).collect()
            }
            "clip_active" => self.clip_active(repeats),
            _ => Err(format!("nothing called `{what}`")),
        }
    }
}

impl<T: Element + Plain> Tensors<T>
where
    for<'a> TensorRef<'a>: From<&'a [T]>,
    for<'a> TensorMut<'a>: From<&'a mut [T]>,
{
    /// Each clip leaves the norm at its limit, so the next limit is below that.
    fn clip_active(&mut self, repeats: usize) -> Result<Vec<f64>, String> {
        let norm = self.norm();
        let mut limit = norm;
        let mut tensors = views_mut(&mut self.values);
        let mut clip = || {
            limit /= EXCESS;
            match timed(|| clip_global_norm(&mut tensors, limit, &mut self.stats)) {
                (ms, Clip::Clipped { .. }) => Ok(ms),
                (_, clip) => Err(format!("a clip to {limit} gave {clip:?}")),
            }
        };
        let times = (0..repeats).map(|_| clip()).collect();
        // Many rounds of clips would end at subnormal values, which take a time of their own.
        let factors = vec![norm / limit; tensors.len()];
        scale_list(&mut tensors, &factors);
        times
    }
}

fn views<T>(values: &[Vec<T>]) -> Vec<TensorRef<'_>>
where
    for<'a> TensorRef<'a>: From<&'a [T]>,
{
    values.iter().map(|v| TensorRef::from(&v[..])).collect()
}

fn views_mut<T>(values: &mut [Vec<T>]) -> Vec<TensorMut<'_>>
where
    for<'a> TensorMut<'a>: From<&'a mut [T]>,
{
    values.iter_mut().map(|v| TensorMut::from(&mut v[..])).collect()
}

/// The milliseconds that `work` takes, and what it gives.
fn timed<R>(work: impl FnOnce() -> R) -> (f64, R) {
    let start = Instant::now();
    let result = black_box(work());
    (start.elapsed().as_secs_f64() * 1e3, result)
}

/// What one thread sums or multiplies at a time.
fn chunks<T>(values: &[Vec<T>]) -> Vec<&[T]> {
    values.iter().flat_map(|v| v.chunks(READ_BYTES / size_of::<T>())).collect()
}

fn read<T: Plain + Sync>(chunks: &[&[T]]) -> f32 {
    chunks.par_iter().map(|chunk| T::plain_sum(chunk)).sum()
}

fn multiply<T: Plain + Send>(values: &mut [Vec<T>]) {
    let chunks = values.iter_mut().flat_map(|v| v.chunks_mut(READ_BYTES / size_of::<T>()));
    let mut chunks: Vec<&mut [T]> = chunks.collect();
    chunks.par_iter_mut().for_each(|chunk| T::plain_multiply(chunk));
}

/// The yardsticks: work so little that memory alone takes the time.
trait Plain: Sized {
    /// A sum, which reads.
    fn plain_sum(values: &[Self]) -> f32;

    /// A product with a 1 that the compiler does not know, which reads and writes.
    fn plain_multiply(values: &mut [Self]);
}

impl Plain for f32 {
    fn plain_sum(values: &[f32]) -> f32 {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { sum_avx2(values) };
        }
        sum(values)
    }

    fn plain_multiply(values: &mut [f32]) {
        let factor = black_box(1.0);
        values.iter_mut().for_each(|x| *x *= factor);
    }
}

macro_rules! plain_sum_of_bits {
    ($($type:ty),*) => {
        $(impl Plain for $type {
            /// The bits as whole numbers: a conversion to f32 would be more than a read.
            fn plain_sum(values: &[$type]) -> f32 {
                let bits: &[u16] = values.reinterpret_cast();
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2.
                    return f32::from(unsafe { sum_bits_avx2(bits) });
                }
                f32::from(sum_bits(bits))
            }

            fn plain_multiply(values: &mut [$type]) {
                let bits: &mut [u16] = values.reinterpret_cast_mut();
                let factor = black_box(1);
                bits.iter_mut().for_each(|x| *x = x.wrapping_mul(factor));
            }
        })*
    };
}

plain_sum_of_bits!(f16, bf16);

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(values: &[f32]) -> f32 {
    sum(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_bits_avx2(values: &[u16]) -> u16 {
    sum_bits(values)
}

#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    sum_in_lanes(values, |sum, x| sum + x)
}

#[inline(always)]
fn sum_bits(values: &[u16]) -> u16 {
    sum_in_lanes(values, u16::wrapping_add)
}

/// 64 running sums: enough to be bound by memory alone.
#[inline(always)]
fn sum_in_lanes<T: Copy + Default>(values: &[T], add: impl Fn(T, T) -> T) -> T {
    let (chunks, rest) = values.as_chunks::<64>();
    let mut sums = [T::default(); 64];
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum = add(*sum, x);
        }
    }
    sums.iter().chain(rest).fold(T::default(), |sum, &x| add(sum, x))
}
