//! AVX-512 (F, BW, DQ): registers of 512 bits for what is f64, the 256 bits of AVX2 for what is narrower.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::avx2::Avx2;
use super::{BYTES, Isa, LANES};

/// The proof that the processor has AVX-512 F, BW and DQ and what [`Avx2`] needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512(Avx2);

impl Avx512 {
    /// `None` where the processor lacks one of them.
    pub(crate) fn detect() -> Option<Self> {
        let is_there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        Avx2::detect().filter(|_| is_there).map(Self)
    }
}

impl Isa for Avx512 {
    type U16 = <Avx2 as Isa>::U16;
    type F32 = <Avx2 as Isa>::F32;
    type F64 = [__m512d; 2];
    type Count16 = <Avx2 as Isa>::Count16;
    type Count32 = <Avx2 as Isa>::Count32;
    type Count64 = [__m512i; 2];

    #[inline(always)]
    fn prefetch<T>(self, coming: &[T; LANES]) {
        self.0.prefetch(coming);
    }

    #[inline(always)]
    fn zero_u16(self) -> Self::U16 {
        self.0.zero_u16()
    }

    #[inline(always)]
    fn zero_f32(self) -> Self::F32 {
        self.0.zero_f32()
    }

    #[inline(always)]
    fn zero_f64(self) -> Self::F64 {
        // SAFETY: `Avx512` is the proof that the instructions are there.
        [unsafe { _mm512_setzero_pd() }; 2]
    }

    #[inline(always)]
    fn zero_count16(self) -> Self::Count16 {
        self.0.zero_count16()
    }

    #[inline(always)]
    fn zero_count32(self) -> Self::Count32 {
        self.0.zero_count32()
    }

    #[inline(always)]
    fn zero_count64(self) -> Self::Count64 {
        // SAFETY: as `zero_f64`.
        [unsafe { _mm512_setzero_si512() }; 2]
    }

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F32 {
        self.0.load_f32(from)
    }

    #[inline(always)]
    fn load_f64(self, from: &[f64; LANES]) -> Self::F64 {
        // SAFETY: as `zero_f64`; both halves of the array are read, at any alignment.
        unsafe { [_mm512_loadu_pd(from.as_ptr()), _mm512_loadu_pd(from[8..].as_ptr())] }
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::U16 {
        self.0.load_f16(from)
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::U16 {
        self.0.load_bf16(from)
    }

    #[inline(always)]
    fn widen(self, x: Self::F32) -> Self::F64 {
        // SAFETY: as `zero_f64`.
        unsafe { [_mm512_cvtps_pd(x[0]), _mm512_cvtps_pd(x[1])] }
    }

    #[inline(always)]
    fn widen_f16(self, x: Self::U16) -> Self::F64 {
        self.widen(self.0.f16_to_f32(x))
    }

    #[inline(always)]
    fn widen_bf16(self, x: Self::U16) -> Self::F64 {
        self.widen(self.0.bf16_to_f32(x))
    }

    #[inline(always)]
    fn add(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        // SAFETY: as `zero_f64`.
        unsafe { [_mm512_add_pd(a[0], b[0]), _mm512_add_pd(a[1], b[1])] }
    }

    #[inline(always)]
    fn add_square(self, sum: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `zero_f64`.
        unsafe {
            [
                _mm512_add_pd(sum[0], _mm512_mul_pd(x[0], x[0])),
                _mm512_add_pd(sum[1], _mm512_mul_pd(x[1], x[1])),
            ]
        }
    }

    #[inline(always)]
    fn add_exact_square(self, sum: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `zero_f64`.
        unsafe { [_mm512_fmadd_pd(x[0], x[0], sum[0]), _mm512_fmadd_pd(x[1], x[1], sum[1])] }
    }

    #[inline(always)]
    fn max_abs_u16(self, max: Self::U16, x: Self::U16) -> Self::U16 {
        self.0.max_abs_u16(max, x)
    }

    #[inline(always)]
    fn max_abs_f32(self, max: Self::F32, x: Self::F32) -> Self::F32 {
        self.0.max_abs_f32(max, x)
    }

    #[inline(always)]
    fn max_abs_f64(self, max: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `zero_f64`.
        unsafe {
            [_mm512_max_pd(_mm512_abs_pd(x[0]), max[0]), _mm512_max_pd(_mm512_abs_pd(x[1]), max[1])]
        }
    }

    #[inline(always)]
    fn count_zeros_u16(self, count: Self::Count16, x: Self::U16) -> Self::Count16 {
        self.0.count_zeros_u16(count, x)
    }

    #[inline(always)]
    fn count_zeros_f32(self, count: Self::Count32, x: Self::F32) -> Self::Count32 {
        self.0.count_zeros_f32(count, x)
    }

    #[inline(always)]
    fn count_zeros_f64(self, count: Self::Count64, x: Self::F64) -> Self::Count64 {
        // SAFETY: as `zero_f64`.
        unsafe {
            let low = _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(x[0], _mm512_setzero_pd());
            let high = _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(x[1], _mm512_setzero_pd());
            let one = _mm512_set1_epi64(1);
            [
                _mm512_mask_add_epi64(count[0], low, count[0], one),
                _mm512_mask_add_epi64(count[1], high, count[1], one),
            ]
        }
    }

    #[inline(always)]
    fn sum(self, x: Self::F64) -> f64 {
        // SAFETY: as `zero_f64`.
        unsafe {
            // + 8, + 4, + 2, + 1
            let eight = _mm512_add_pd(x[0], x[1]);
            let four =
                _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd::<1>(eight));
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }

    #[inline(always)]
    fn largest_u16(self, x: Self::U16) -> u16 {
        self.0.largest_u16(x)
    }

    #[inline(always)]
    fn largest_f32(self, x: Self::F32) -> f32 {
        self.0.largest_f32(x)
    }

    #[inline(always)]
    fn largest_f64(self, x: Self::F64) -> f64 {
        // SAFETY: as `zero_f64`.
        unsafe { _mm512_reduce_max_pd(_mm512_max_pd(x[0], x[1])) }
    }

    #[inline(always)]
    fn count_equal_16(self, bytes: &[u8; LANES], byte: u8) -> u32 {
        self.0.count_equal_16(bytes, byte)
    }

    #[inline(always)]
    fn count_equal(self, bytes: &[u8; BYTES], byte: u8) -> u32 {
        // SAFETY: as `zero_f64`; both halves of the array are read, at any alignment.
        unsafe {
            let byte = _mm512_set1_epi8(byte.cast_signed());
            let low = _mm512_loadu_si512(bytes.as_ptr().cast());
            let high = _mm512_loadu_si512(bytes[64..].as_ptr().cast());
            _mm512_cmpeq_epi8_mask(low, byte).count_ones()
                + _mm512_cmpeq_epi8_mask(high, byte).count_ones()
        }
    }

    #[inline(always)]
    fn total16(self, count: Self::Count16) -> u64 {
        self.0.total16(count)
    }

    #[inline(always)]
    fn total32(self, count: Self::Count32) -> u64 {
        self.0.total32(count)
    }

    #[inline(always)]
    fn total64(self, count: Self::Count64) -> u64 {
        // SAFETY: as `zero_f64`.
        unsafe { _mm512_reduce_add_epi64(_mm512_add_epi64(count[0], count[1])).cast_unsigned() }
    }
}
