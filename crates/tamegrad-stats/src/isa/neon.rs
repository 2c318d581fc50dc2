//! NEON: registers of 128 bits, which every 64-bit ARM processor has.

use std::arch::aarch64::*;

use half::{bf16, f16};

use super::{BYTES, Isa, LANES};

/// NEON needs no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neon;

impl Neon {
    /// Four f16 in f32, as [`super::f16_to_f32`].
    #[inline(always)]
    fn f16_to_f32(self, x: uint16x4_t) -> float32x4_t {
        // SAFETY: every processor that this is compiled for has NEON.
        unsafe {
            let bits = vmovl_u16(x);
            let magnitude = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
            let two_to_112 = vdupq_n_f32(f32::from_bits((127 + 112) << 23));
            let magnitude = vmulq_f32(vreinterpretq_f32_u32(magnitude), two_to_112);
            let exponent = vdupq_n_u32(0x7c00);
            let is_nonfinite = vceqq_u32(vandq_u32(bits, exponent), exponent);
            let nonfinite = vandq_u32(is_nonfinite, vdupq_n_u32(f32::INFINITY.to_bits()));
            let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
            let magnitude = vreinterpretq_u32_f32(magnitude);
            vreinterpretq_f32_u32(vorrq_u32(vorrq_u32(magnitude, nonfinite), sign))
        }
    }
}

impl Isa for Neon {
    type U16 = [uint16x8_t; 2];
    type F32 = [float32x4_t; 4];
    type F64 = [float64x2_t; 8];
    type Count16 = [uint16x8_t; 2];
    type Count32 = [uint32x4_t; 4];
    type Count64 = [uint64x2_t; 8];

    #[inline(always)]
    fn prefetch<T>(self, _: &[T; LANES]) {}

    #[inline(always)]
    fn zero_u16(self) -> Self::U16 {
        // SAFETY: as `f16_to_f32`.
        unsafe { [vdupq_n_u16(0); 2] }
    }

    #[inline(always)]
    fn zero_f32(self) -> Self::F32 {
        // SAFETY: as `f16_to_f32`.
        unsafe { [vdupq_n_f32(0.0); 4] }
    }

    #[inline(always)]
    fn zero_f64(self) -> Self::F64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { [vdupq_n_f64(0.0); 8] }
    }

    #[inline(always)]
    fn zero_count16(self) -> Self::Count16 {
        // SAFETY: as `f16_to_f32`.
        unsafe { [vdupq_n_u16(0); 2] }
    }

    #[inline(always)]
    fn zero_count32(self) -> Self::Count32 {
        // SAFETY: as `f16_to_f32`.
        unsafe { [vdupq_n_u32(0); 4] }
    }

    #[inline(always)]
    fn zero_count64(self) -> Self::Count64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { [vdupq_n_u64(0); 8] }
    }

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F32 {
        // SAFETY: as `f16_to_f32`; the four quarters of the array are read.
        unsafe { std::array::from_fn(|i| vld1q_f32(from[4 * i..].as_ptr())) }
    }

    #[inline(always)]
    fn load_f64(self, from: &[f64; LANES]) -> Self::F64 {
        // SAFETY: as `f16_to_f32`; the eight pairs of the array are read.
        unsafe { std::array::from_fn(|i| vld1q_f64(from[2 * i..].as_ptr())) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::U16 {
        // SAFETY: as `f16_to_f32`; both halves of the array are read; an f16 is its sixteen bits.
        unsafe { std::array::from_fn(|i| vld1q_u16(from[8 * i..].as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::U16 {
        // SAFETY: as `f16_to_f32`; both halves of the array are read; a bf16 is its sixteen bits.
        unsafe { std::array::from_fn(|i| vld1q_u16(from[8 * i..].as_ptr().cast())) }
    }

    #[inline(always)]
    fn widen(self, x: Self::F32) -> Self::F64 {
        // SAFETY: as `f16_to_f32`.
        unsafe {
            std::array::from_fn(|i| match i % 2 {
                0 => vcvt_f64_f32(vget_low_f32(x[i / 2])),
                _ => vcvt_high_f64_f32(x[i / 2]),
            })
        }
    }

    #[inline(always)]
    fn widen_f16(self, x: Self::U16) -> Self::F64 {
        // SAFETY: as `f16_to_f32`.
        unsafe {
            self.widen([
                self.f16_to_f32(vget_low_u16(x[0])),
                self.f16_to_f32(vget_high_u16(x[0])),
                self.f16_to_f32(vget_low_u16(x[1])),
                self.f16_to_f32(vget_high_u16(x[1])),
            ])
        }
    }

    #[inline(always)]
    fn widen_bf16(self, x: Self::U16) -> Self::F64 {
        // SAFETY: as `f16_to_f32`.
        unsafe {
            let (low, high) = (vreinterpretq_u32_u16(x[0]), vreinterpretq_u32_u16(x[1]));
            let upper = vdupq_n_u32(0xffff_0000);
            self.widen([
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(low)),
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(high)),
                vreinterpretq_f32_u32(vandq_u32(low, upper)),
                vreinterpretq_f32_u32(vandq_u32(high, upper)),
            ])
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { std::array::from_fn(|i| vaddq_f64(a[i], b[i])) }
    }

    #[inline(always)]
    fn add_square(self, sum: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { std::array::from_fn(|i| vaddq_f64(sum[i], vmulq_f64(x[i], x[i]))) }
    }

    #[inline(always)]
    fn add_exact_square(self, sum: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { std::array::from_fn(|i| vfmaq_f64(sum[i], x[i], x[i])) }
    }

    #[inline(always)]
    fn max_abs_u16(self, max: Self::U16, x: Self::U16) -> Self::U16 {
        // SAFETY: as `f16_to_f32`.
        unsafe {
            let magnitude = vdupq_n_u16(0x7fff);
            std::array::from_fn(|i| vmaxq_u16(max[i], vandq_u16(x[i], magnitude)))
        }
    }

    #[inline(always)]
    fn max_abs_f32(self, max: Self::F32, x: Self::F32) -> Self::F32 {
        // SAFETY: as `f16_to_f32`.
        unsafe { std::array::from_fn(|i| vmaxq_f32(max[i], vabsq_f32(x[i]))) }
    }

    #[inline(always)]
    fn max_abs_f64(self, max: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { std::array::from_fn(|i| vmaxq_f64(max[i], vabsq_f64(x[i]))) }
    }

    // A lane that compares equal is all ones, which is -1.

    #[inline(always)]
    fn count_zeros_u16(self, count: Self::Count16, x: Self::U16) -> Self::Count16 {
        // SAFETY: as `f16_to_f32`.
        unsafe {
            let magnitude = vdupq_n_u16(0x7fff);
            std::array::from_fn(|i| vsubq_u16(count[i], vceqzq_u16(vandq_u16(x[i], magnitude))))
        }
    }

    #[inline(always)]
    fn count_zeros_f32(self, count: Self::Count32, x: Self::F32) -> Self::Count32 {
        // SAFETY: as `f16_to_f32`.
        unsafe { std::array::from_fn(|i| vsubq_u32(count[i], vceqzq_f32(x[i]))) }
    }

    #[inline(always)]
    fn count_zeros_f64(self, count: Self::Count64, x: Self::F64) -> Self::Count64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { std::array::from_fn(|i| vsubq_u64(count[i], vceqzq_f64(x[i]))) }
    }

    #[inline(always)]
    fn sum(self, x: Self::F64) -> f64 {
        // SAFETY: as `f16_to_f32`.
        unsafe {
            // + 8, + 4, + 2, + 1
            let eight: [float64x2_t; 4] = std::array::from_fn(|i| vaddq_f64(x[i], x[i + 4]));
            let four = [vaddq_f64(eight[0], eight[2]), vaddq_f64(eight[1], eight[3])];
            vaddvq_f64(vaddq_f64(four[0], four[1]))
        }
    }

    #[inline(always)]
    fn largest_u16(self, x: Self::U16) -> u16 {
        // SAFETY: as `f16_to_f32`.
        unsafe { vmaxvq_u16(vmaxq_u16(x[0], x[1])) }
    }

    #[inline(always)]
    fn largest_f32(self, x: Self::F32) -> f32 {
        // SAFETY: as `f16_to_f32`.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(x[0], x[1]), vmaxq_f32(x[2], x[3]))) }
    }

    #[inline(always)]
    fn largest_f64(self, x: Self::F64) -> f64 {
        // SAFETY: as `f16_to_f32`.
        unsafe {
            let four: [float64x2_t; 4] = std::array::from_fn(|i| vmaxq_f64(x[i], x[i + 4]));
            vmaxvq_f64(vmaxq_f64(vmaxq_f64(four[0], four[1]), vmaxq_f64(four[2], four[3])))
        }
    }

    #[inline(always)]
    fn count_equal_16(self, bytes: &[u8; LANES], byte: u8) -> u32 {
        // SAFETY: as `f16_to_f32`; the 16 bytes are read.
        unsafe {
            let equal = vceqq_u8(vld1q_u8(bytes.as_ptr()), vdupq_n_u8(byte));
            vaddvq_u8(vandq_u8(equal, vdupq_n_u8(1))).into()
        }
    }

    #[inline(always)]
    fn count_equal(self, bytes: &[u8; BYTES], byte: u8) -> u32 {
        // SAFETY: as `f16_to_f32`; the 16 bytes are read.
        unsafe {
            let mut count = vdupq_n_u8(0);
            for part in bytes.as_chunks::<16>().0 {
                let part = vld1q_u8(part.as_ptr());
                count = vsubq_u8(count, vceqq_u8(part, vdupq_n_u8(byte)));
            }
            vaddlvq_u8(count).into()
        }
    }

    #[inline(always)]
    fn total16(self, count: Self::Count16) -> u64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { u64::from(vaddlvq_u16(count[0])) + u64::from(vaddlvq_u16(count[1])) }
    }

    #[inline(always)]
    fn total32(self, count: Self::Count32) -> u64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { count.into_iter().map(|count| u64::from(vaddvq_u32(count))).sum() }
    }

    #[inline(always)]
    fn total64(self, count: Self::Count64) -> u64 {
        // SAFETY: as `f16_to_f32`.
        unsafe { count.into_iter().map(|count| vaddvq_u64(count)).sum() }
    }
}
