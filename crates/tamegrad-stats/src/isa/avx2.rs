//! AVX2, FMA and F16C: registers of 256 bits (x86-64 from 2013 on).

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{BYTES, Isa, LANES};

/// The proof that the processor has AVX2, FMA, F16C and POPCNT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// `None` where the processor lacks one of them.
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self(()))
    }
}

impl Avx2 {
    /// The f16 of these bits, in order.
    #[inline(always)]
    pub(super) fn f16_to_f32(self, x: __m256i) -> [__m256; 2] {
        // SAFETY: `Avx2` is the proof that the instructions are there.
        unsafe {
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(x)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(x)),
            ]
        }
    }

    /// The bf16 of these bits, those at even places and those at odd ones.
    #[inline(always)]
    pub(super) fn bf16_to_f32(self, x: __m256i) -> [__m256; 2] {
        // SAFETY: `Avx2` is the proof that the instructions are there.
        unsafe {
            let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)),
                _mm256_castsi256_ps(_mm256_and_si256(x, upper)),
            ]
        }
    }
}

impl Isa for Avx2 {
    type U16 = __m256i;
    type F32 = [__m256; 2];
    type F64 = [__m256d; 4];
    type Count16 = __m256i;
    type Count32 = [__m256i; 2];
    type Count64 = [__m256i; 4];

    #[inline(always)]
    fn prefetch<T>(self, coming: &[T; LANES]) {
        for line in (0..size_of_val(coming)).step_by(64) {
            // Into the second cache: the first is too small for what is this far ahead.
            // SAFETY: the instruction reads nothing that the program could see, at any address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(coming.as_ptr().wrapping_byte_add(line).cast()) };
        }
    }

    #[inline(always)]
    fn zero_u16(self) -> Self::U16 {
        // SAFETY: `Avx2` is the proof that the instructions are there.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn zero_f32(self) -> Self::F32 {
        // SAFETY: as `zero_u16`.
        [unsafe { _mm256_setzero_ps() }; 2]
    }

    #[inline(always)]
    fn zero_f64(self) -> Self::F64 {
        // SAFETY: as `zero_u16`.
        [unsafe { _mm256_setzero_pd() }; 4]
    }

    #[inline(always)]
    fn zero_count16(self) -> Self::Count16 {
        // SAFETY: as `zero_u16`.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn zero_count32(self) -> Self::Count32 {
        // SAFETY: as `zero_u16`.
        [unsafe { _mm256_setzero_si256() }; 2]
    }

    #[inline(always)]
    fn zero_count64(self) -> Self::Count64 {
        // SAFETY: as `zero_u16`.
        [unsafe { _mm256_setzero_si256() }; 4]
    }

    #[inline(always)]
    fn load_f32(self, from: &[f32; LANES]) -> Self::F32 {
        // SAFETY: as `zero_u16`; both halves of the array are read, at any alignment.
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from[8..].as_ptr())] }
    }

    #[inline(always)]
    fn load_f64(self, from: &[f64; LANES]) -> Self::F64 {
        // SAFETY: as `zero_u16`; the four quarters of the array are read, at any alignment.
        unsafe {
            [
                _mm256_loadu_pd(from.as_ptr()),
                _mm256_loadu_pd(from[4..].as_ptr()),
                _mm256_loadu_pd(from[8..].as_ptr()),
                _mm256_loadu_pd(from[12..].as_ptr()),
            ]
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Self::U16 {
        // SAFETY: as `zero_u16`; the whole array is read, at any alignment.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::U16 {
        // SAFETY: as `zero_u16`; the whole array is read, at any alignment.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn widen(self, x: Self::F32) -> Self::F64 {
        // SAFETY: as `zero_u16`.
        unsafe {
            [
                _mm256_cvtps_pd(_mm256_castps256_ps128(x[0])),
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x[0])),
                _mm256_cvtps_pd(_mm256_castps256_ps128(x[1])),
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x[1])),
            ]
        }
    }

    #[inline(always)]
    fn widen_f16(self, x: Self::U16) -> Self::F64 {
        self.widen(self.f16_to_f32(x))
    }

    #[inline(always)]
    fn widen_bf16(self, x: Self::U16) -> Self::F64 {
        self.widen(self.bf16_to_f32(x))
    }

    #[inline(always)]
    fn add(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        // SAFETY: as `zero_u16`.
        unsafe {
            [
                _mm256_add_pd(a[0], b[0]),
                _mm256_add_pd(a[1], b[1]),
                _mm256_add_pd(a[2], b[2]),
                _mm256_add_pd(a[3], b[3]),
            ]
        }
    }

    #[inline(always)]
    fn add_square(self, sum: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `zero_u16`.
        unsafe {
            [
                _mm256_add_pd(sum[0], _mm256_mul_pd(x[0], x[0])),
                _mm256_add_pd(sum[1], _mm256_mul_pd(x[1], x[1])),
                _mm256_add_pd(sum[2], _mm256_mul_pd(x[2], x[2])),
                _mm256_add_pd(sum[3], _mm256_mul_pd(x[3], x[3])),
            ]
        }
    }

    #[inline(always)]
    fn add_exact_square(self, sum: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `zero_u16`.
        unsafe {
            [
                _mm256_fmadd_pd(x[0], x[0], sum[0]),
                _mm256_fmadd_pd(x[1], x[1], sum[1]),
                _mm256_fmadd_pd(x[2], x[2], sum[2]),
                _mm256_fmadd_pd(x[3], x[3], sum[3]),
            ]
        }
    }

    #[inline(always)]
    fn max_abs_u16(self, max: Self::U16, x: Self::U16) -> Self::U16 {
        // SAFETY: as `zero_u16`.
        unsafe { _mm256_max_epu16(max, _mm256_and_si256(x, _mm256_set1_epi16(0x7fff))) }
    }

    #[inline(always)]
    fn max_abs_f32(self, max: Self::F32, x: Self::F32) -> Self::F32 {
        // SAFETY: as `zero_u16`.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [
                _mm256_max_ps(_mm256_andnot_ps(sign, x[0]), max[0]),
                _mm256_max_ps(_mm256_andnot_ps(sign, x[1]), max[1]),
            ]
        }
    }

    #[inline(always)]
    fn max_abs_f64(self, max: Self::F64, x: Self::F64) -> Self::F64 {
        // SAFETY: as `zero_u16`.
        unsafe {
            let sign = _mm256_set1_pd(-0.0);
            [
                _mm256_max_pd(_mm256_andnot_pd(sign, x[0]), max[0]),
                _mm256_max_pd(_mm256_andnot_pd(sign, x[1]), max[1]),
                _mm256_max_pd(_mm256_andnot_pd(sign, x[2]), max[2]),
                _mm256_max_pd(_mm256_andnot_pd(sign, x[3]), max[3]),
            ]
        }
    }

    #[inline(always)]
    fn count_zeros_u16(self, count: Self::Count16, x: Self::U16) -> Self::Count16 {
        // SAFETY: as `zero_u16`. A lane that compares equal is all ones, which is -1.
        unsafe {
            let magnitude = _mm256_and_si256(x, _mm256_set1_epi16(0x7fff));
            _mm256_sub_epi16(count, _mm256_cmpeq_epi16(magnitude, _mm256_setzero_si256()))
        }
    }

    #[inline(always)]
    fn count_zeros_f32(self, count: Self::Count32, x: Self::F32) -> Self::Count32 {
        // SAFETY: as `zero_u16`. A lane that compares equal is all ones, which is -1.
        unsafe {
            let zero = _mm256_setzero_ps();
            let low = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_EQ_OQ>(x[0], zero));
            let high = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_EQ_OQ>(x[1], zero));
            [_mm256_sub_epi32(count[0], low), _mm256_sub_epi32(count[1], high)]
        }
    }

    #[inline(always)]
    fn count_zeros_f64(self, count: Self::Count64, x: Self::F64) -> Self::Count64 {
        // SAFETY: as `zero_u16`. A lane that compares equal is all ones, which is -1.
        unsafe {
            let zero = _mm256_setzero_pd();
            let a = _mm256_castpd_si256(_mm256_cmp_pd::<_CMP_EQ_OQ>(x[0], zero));
            let b = _mm256_castpd_si256(_mm256_cmp_pd::<_CMP_EQ_OQ>(x[1], zero));
            let c = _mm256_castpd_si256(_mm256_cmp_pd::<_CMP_EQ_OQ>(x[2], zero));
            let d = _mm256_castpd_si256(_mm256_cmp_pd::<_CMP_EQ_OQ>(x[3], zero));
            [
                _mm256_sub_epi64(count[0], a),
                _mm256_sub_epi64(count[1], b),
                _mm256_sub_epi64(count[2], c),
                _mm256_sub_epi64(count[3], d),
            ]
        }
    }

    #[inline(always)]
    fn sum(self, x: Self::F64) -> f64 {
        // SAFETY: as `zero_u16`.
        unsafe {
            // + 8, + 4, + 2, + 1
            let four = _mm256_add_pd(_mm256_add_pd(x[0], x[2]), _mm256_add_pd(x[1], x[3]));
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }

    #[inline(always)]
    fn largest_u16(self, x: Self::U16) -> u16 {
        // SAFETY: as `zero_u16`.
        unsafe {
            let eight = _mm_max_epu16(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            // The smallest of the complements is the complement of the largest.
            let smallest = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));
            !(_mm_extract_epi16::<0>(smallest) as u16)
        }
    }

    #[inline(always)]
    fn largest_f32(self, x: Self::F32) -> f32 {
        // SAFETY: as `zero_u16`.
        unsafe {
            let eight = _mm256_max_ps(x[0], x[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest_f64(self, x: Self::F64) -> f64 {
        // SAFETY: as `zero_u16`.
        unsafe {
            let four = _mm256_max_pd(_mm256_max_pd(x[0], x[1]), _mm256_max_pd(x[2], x[3]));
            let two = _mm_max_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }

    #[inline(always)]
    fn count_equal_16(self, bytes: &[u8; LANES], byte: u8) -> u32 {
        // SAFETY: as `zero_u16`; the whole array is read, at any alignment.
        let equal = unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed())))
        };
        equal.count_ones()
    }

    #[inline(always)]
    fn count_equal(self, bytes: &[u8; BYTES], byte: u8) -> u32 {
        let mut count = 0;
        for part in bytes.as_chunks::<32>().0 {
            // SAFETY: as `zero_u16`; the 32 bytes are read, at any alignment.
            let equal = unsafe {
                let part = _mm256_loadu_si256(part.as_ptr().cast());
                let byte = _mm256_set1_epi8(byte.cast_signed());
                _mm256_movemask_epi8(_mm256_cmpeq_epi8(part, byte))
            };
            count += equal.count_ones();
        }
        count
    }

    #[inline(always)]
    fn total16(self, count: Self::Count16) -> u64 {
        // SAFETY: as `zero_u16`. Pairs are added in 32 bits.
        let pairs = unsafe { _mm256_madd_epi16(count, _mm256_set1_epi16(1)) };
        self.total32([pairs, self.zero_u16()])
    }

    #[inline(always)]
    fn total32(self, count: Self::Count32) -> u64 {
        let mut lanes = [0_u32; 8];
        // SAFETY: as `zero_u16`; the whole array is written, at any alignment.
        unsafe {
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_add_epi32(count[0], count[1]));
        }
        u64::from(lanes.iter().sum::<u32>())
    }

    #[inline(always)]
    fn total64(self, count: Self::Count64) -> u64 {
        let mut lanes = [0_u64; 4];
        // SAFETY: as `zero_u16`; the whole array is written, at any alignment.
        unsafe {
            let low = _mm256_add_epi64(count[0], count[1]);
            let high = _mm256_add_epi64(count[2], count[3]);
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_add_epi64(low, high));
        }
        lanes.iter().sum()
    }
}
