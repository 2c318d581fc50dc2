//! The work that `cargo xtask bench stats` times: a plain read, the scans and the clips.
//!
//! It is told on standard input what to do, a line `LIST WHAT` each, and answers with the
//! milliseconds that it took: so whoever asks can take turns with another program on one machine.
//! `ANSWER` instead of a time: `norm` gives the L2 norm, to compare with that program's.

#![allow(unsafe_code, reason = "the plain read uses AVX2 where it is there, as the kernels do")]

use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::time::Instant;

use half::{bf16, f16};
use rayon::prelude::*;
use tamegrad_stats::{
    Clip, Element, ListStats, Sampling, TensorMut, TensorRef, clip_global_norm, scan_list,
    scan_list_with_histograms,
};

/// Bytes that one thread sums at a time in the plain read.
const READ_BYTES: usize = 1 << 18;

fn main() -> io::Result<()> {
    // `cargo test --benches` starts this as well, and asks for nothing.
    let mut current: Option<(String, Box<dyn Bench>)> = None;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let Some((list, what)) = line.split_once(' ') else {
            return Err(io::Error::other(format!("got `{line}`, want `LIST WHAT`")));
        };
        if current.as_ref().is_none_or(|(name, _)| name != list) {
            // the old list goes before the new one comes
            drop(current.take());
            current = Some((list.to_owned(), make(list)?));
        }
        let Some((_, bench)) = &mut current else { continue };
        let answer = bench.run(what).map_err(io::Error::other)?;
        writeln!(io::stdout(), "{answer}")?;
        io::stdout().flush()?;
    }
    Ok(())
}

fn make(list: &str) -> io::Result<Box<dyn Bench>> {
    let (shapes, element) = list.rsplit_once('/').unwrap_or((list, "f32"));
    let lengths = match shapes {
        "gpt2-small" => gpt2_small(),
        "resnet-50" => resnet_50(),
        "small-10000x256" => vec![256; 10_000],
        _ => return Err(io::Error::other(format!("no list `{shapes}`"))),
    };
    Ok(match element {
        "f32" => Box::new(Tensors::<f32>::new(&lengths)),
        "bf16" => Box::new(Tensors::<bf16>::new(&lengths)),
        "f16" => Box::new(Tensors::<f16>::new(&lengths)),
        _ => return Err(io::Error::other(format!("no element type `{element}`"))),
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
    /// The milliseconds of `what`, or what it computes.
    fn run(&mut self, what: &str) -> Result<f64, String>;
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

impl<T: Element + PlainSum> Bench for Tensors<T>
where
    for<'a> TensorRef<'a>: From<&'a [T]>,
    for<'a> TensorMut<'a>: From<&'a mut [T]>,
{
    fn run(&mut self, what: &str) -> Result<f64, String> {
        if what == "read" {
            let chunks = self.values.iter().flat_map(|v| v.chunks(READ_BYTES / size_of::<T>()));
            let chunks: Vec<&[T]> = chunks.collect();
            return Ok(timed(|| chunks.par_iter().map(|chunk| T::plain_sum(chunk)).sum::<f32>()));
        }
        if matches!(what, "clip_inactive" | "clip_active") {
            let limit = if what == "clip_active" { self.norm() / 1.01 } else { f64::MAX };
            let mut tensors: Vec<TensorMut<'_>> =
                self.values.iter_mut().map(|v| TensorMut::from(&mut v[..])).collect();
            let mut clip = None;
            let ms = timed(|| clip = Some(clip_global_norm(&mut tensors, limit, &mut self.stats)));
            return match (what, clip) {
                ("clip_active", Some(Clip::Clipped { .. })) => Ok(ms),
                ("clip_inactive", Some(Clip::Inactive { .. })) => Ok(ms),
                (_, clip) => Err(format!("{what} gave {clip:?}")),
            };
        }
        if what == "scale" {
            let mut tensors: Vec<TensorMut<'_>> =
                self.values.iter_mut().map(|v| TensorMut::from(&mut v[..])).collect();
            let factors = vec![0.999; tensors.len()];
            return Ok(timed(|| tamegrad_stats::scale_list(&mut tensors, &factors)));
        }
        if what == "norm" {
            return Ok(self.norm());
        }
        let tensors: Vec<TensorRef<'_>> =
            self.values.iter().map(|v| TensorRef::from(&v[..])).collect();
        let stats = &mut self.stats;
        match what {
            "scan" => Ok(timed(|| scan_list(&tensors, stats))),
            "scan_histogram" => {
                let sampling = Sampling::one_in(16);
                Ok(timed(|| scan_list_with_histograms(&tensors, sampling, stats)))
            }
            "scan_histogram_all" => {
                Ok(timed(|| scan_list_with_histograms(&tensors, Sampling::ALL, stats)))
            }
            _ => Err(format!("nothing called `{what}`")),
        }
    }
}

impl<T: Element> Tensors<T>
where
    for<'a> TensorRef<'a>: From<&'a [T]>,
{
    fn norm(&mut self) -> f64 {
        let tensors: Vec<TensorRef<'_>> =
            self.values.iter().map(|v| TensorRef::from(&v[..])).collect();
        scan_list(&tensors, &mut self.stats);
        self.stats.total().l2
    }
}

fn timed<R>(work: impl FnOnce() -> R) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_secs_f64() * 1e3
}

/// A sum that does nothing but read: the yardstick.
trait PlainSum: Sized {
    fn plain_sum(values: &[Self]) -> f32;
}

impl PlainSum for f32 {
    fn plain_sum(values: &[f32]) -> f32 {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { sum_avx2(values) };
        }
        sum(values)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(values: &[f32]) -> f32 {
    sum(values)
}

/// 64 running sums: enough to be bound by memory alone.
#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<64>();
    let mut sums = [0.0_f32; 64];
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    sums.iter().chain(rest).sum()
}

macro_rules! plain_sum_of_bits {
    ($($type:ty),*) => {
        $(impl PlainSum for $type {
            /// The same number of bytes, read as pairs of elements.
            fn plain_sum(values: &[$type]) -> f32 {
                let bits: u16 = values.iter().fold(0, |sum, x| sum.wrapping_add(x.to_bits()));
                f32::from(bits)
            }
        })*
    };
}

plain_sum_of_bits!(f16, bf16);
