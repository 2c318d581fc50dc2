//! Arrays, which the compiler turns into what the architecture always has.

use half::{bf16, f16};

use super::{BYTES, Isa, LANES};

/// Plain arrays of sixteen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portable;

impl Isa for Portable {
    type U16 = [u16; LANES];
    type F32 = [f32; LANES];
    type F64 = [f64; LANES];
    type Count16 = [u16; LANES];
    type Count32 = [u32; LANES];
    type Count64 = [u64; LANES];

    #[inline(always)]
    fn prefetch<T>(self, _: &[T; LANES]) {}

    #[inline(always)]
    fn zero_u16(self) -> Self::U16 {
        [0; LANES]
    }

    #[inline(always)]
    fn zero_f32(self) -> Self::F32 {
        [0.0; LANES]
    }

    #[inline(always)]
    fn zero_f64(self) -> Self::F64 {
        [0.0; LANES]
    }

    #[inline(always)]
    fn zero_count16(self) -> Self::Count16 {
        [0; LANES]
    }

    #[inline(always)]
    fn zero_count32(self) -> Self::Count32 {
        [0; LANES]
    }

    #[inline(always)]
    fn zero_count64(self) -> Self::Count64 {
        [0; LANES]
    }

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F32 {
        *from
    }

    #[inline(always)]
    fn load_f64(self, from: &[f64; LANES]) -> Self::F64 {
        *from
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::U16 {
        from.map(f16::to_bits)
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::U16 {
        from.map(bf16::to_bits)
    }

    #[inline(always)]
    fn widen(self, x: Self::F32) -> Self::F64 {
        x.map(f64::from)
    }

    #[inline(always)]
    fn widen_f16(self, x: Self::U16) -> Self::F64 {
        x.map(|bits| f64::from(f16_to_f32(bits)))
    }

    #[inline(always)]
    fn widen_bf16(self, x: Self::U16) -> Self::F64 {
        std::array::from_fn(|i| f64::from(bf16_to_f32(x[(2 * i) % 16 + i / 8])))
    }

    #[inline(always)]
    fn add(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn add_square(self, sum: Self::F64, x: Self::F64) -> Self::F64 {
        std::array::from_fn(|i| sum[i] + x[i] * x[i])
    }

    #[inline(always)]
    fn add_exact_square(self, sum: Self::F64, x: Self::F64) -> Self::F64 {
        self.add_square(sum, x)
    }

    #[inline(always)]
    fn max_abs_u16(self, max: Self::U16, x: Self::U16) -> Self::U16 {
        std::array::from_fn(|i| max[i].max(x[i] & 0x7fff))
    }

    #[inline(always)]
    fn max_abs_f32(self, max: Self::F32, x: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| if x[i].abs() > max[i] { x[i].abs() } else { max[i] })
    }

    #[inline(always)]
    fn max_abs_f64(self, max: Self::F64, x: Self::F64) -> Self::F64 {
        std::array::from_fn(|i| if x[i].abs() > max[i] { x[i].abs() } else { max[i] })
    }

    #[inline(always)]
    fn count_zeros_u16(self, count: Self::Count16, x: Self::U16) -> Self::Count16 {
        std::array::from_fn(|i| count[i].wrapping_add(u16::from(x[i] & 0x7fff == 0)))
    }

    #[inline(always)]
    fn count_zeros_f32(self, count: Self::Count32, x: Self::F32) -> Self::Count32 {
        std::array::from_fn(|i| count[i].wrapping_add(u32::from(x[i] == 0.0)))
    }

    #[inline(always)]
    fn count_zeros_f64(self, count: Self::Count64, x: Self::F64) -> Self::Count64 {
        std::array::from_fn(|i| count[i].wrapping_add(u64::from(x[i] == 0.0)))
    }

    #[inline(always)]
    fn sum(self, mut x: Self::F64) -> f64 {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                x[i] += x[i + half];
            }
            half /= 2;
        }
        x[0]
    }

    #[inline(always)]
    fn largest_u16(self, x: Self::U16) -> u16 {
        x.into_iter().fold(0, u16::max)
    }

    #[inline(always)]
    fn largest_f32(self, x: Self::F32) -> f32 {
        x.into_iter().fold(0.0, |max, x| if x > max { x } else { max })
    }

    #[inline(always)]
    fn largest_f64(self, x: Self::F64) -> f64 {
        x.into_iter().fold(0.0, |max, x| if x > max { x } else { max })
    }

    #[inline(always)]
    fn count_equal_16(self, bytes: &[u8; LANES], byte: u8) -> u32 {
        bytes.iter().map(|&x| u32::from(x == byte)).sum()
    }

    #[inline(always)]
    fn count_equal(self, bytes: &[u8; BYTES], byte: u8) -> u32 {
        let mut lanes = [0_u8; LANES];
        for chunk in bytes.as_chunks::<LANES>().0 {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += u8::from(x == byte);
            }
        }
        lanes.into_iter().map(u32::from).sum()
    }

    #[inline(always)]
    fn total16(self, count: Self::Count16) -> u64 {
        count.iter().map(|&n| u64::from(n)).sum()
    }

    #[inline(always)]
    fn total32(self, count: Self::Count32) -> u64 {
        count.iter().map(|&n| u64::from(n)).sum()
    }

    #[inline(always)]
    fn total64(self, count: Self::Count64) -> u64 {
        count.iter().sum()
    }
}

/// Without a branch: the bits of the magnitude, moved to their place in f32 and multiplied by
/// 2^112, which makes up for the difference of the exponents' biases and turns a denormal f16 into
/// a normal f32.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(bits);
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * TWO_TO_112;
    let nonfinite = if bits & 0x7c00 == 0x7c00 { f32::INFINITY.to_bits() } else { 0 };
    f32::from_bits(magnitude.to_bits() | nonfinite | (bits & 0x8000) << 16)
}

/// The upper half of an f32.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
