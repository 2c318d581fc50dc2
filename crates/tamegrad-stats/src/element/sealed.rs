//! What the kernels need of an element type; it keeps other types from implementing the trait.

use half::{bf16, f16};

use super::round_to_odd;
use crate::isa::{Isa, LANES, bf16_to_f32, f16_to_f32};
use crate::kernel::Lanes;

/// The sealing trait of [`Element`].
pub trait Sealed: Sized {
    /// Positive zero, which changes no sum and no maximum.
    const ZERO: Self;

    /// Takes sixteen elements into the running statistics.
    fn take<I: Isa>(isa: I, lanes: Lanes<I>, chunk: &[Self; LANES]) -> Lanes<I>;

    /// The largest magnitude so far, any value if one was not finite, and the number of zeros.
    fn max_abs_and_zeros<I: Isa>(isa: I, lanes: &Lanes<I>) -> (f64, u64);

    /// For each element the place of floor(log2 |x|) in a histogram: the exponent as f32 writes it,
    /// clamped to 0..=254, where 0 stands for everything below 2^-126. Zeros and non-finite
    /// elements have the place 255.
    fn log2_bins(chunk: &[Self; LANES]) -> [u8; LANES];

    /// Whether no element is NaN or infinite.
    fn all_finite(values: &[Self]) -> bool;

    /// The product in f64, rounded once.
    fn times(self, factor: f64) -> Self;

    /// Brings finite elements beyond `bound`, which is not negative, to it; gives their number.
    /// What needs no change is not written.
    fn clamp(values: &mut [Self], bound: Self) -> u64;
}

/// Elements that are looked at before they are written; their number fits in 16 bits.
pub(crate) const CHUNK: usize = 256;

/// What is decided by the bits of an element.
macro_rules! by_bits {
    ($bits:ty) => {
        #[inline(always)]
        fn all_finite(values: &[Self]) -> bool {
            const MAGNITUDE: $bits = !(1 << (<$bits>::BITS - 1));
            let max = values.iter().fold(0, |max, x| max.max(x.to_bits() & MAGNITUDE));
            max < Self::INFINITY.to_bits()
        }

        #[inline(always)]
        fn clamp(values: &mut [Self], bound: Self) -> u64 {
            const SIGN: $bits = 1 << (<$bits>::BITS - 1);
            // Magnitudes order as their bits do.
            let (bound, infinity) = (bound.to_bits(), Self::INFINITY.to_bits());
            let mut changed = 0;
            for chunk in values.chunks_mut(CHUNK) {
                let mut beyond: $bits = 0;
                for x in &*chunk {
                    let magnitude = x.to_bits() & !SIGN;
                    beyond += <$bits>::from(magnitude > bound && magnitude < infinity);
                }
                if beyond > 0 {
                    changed += u64::from(beyond);
                    for x in chunk {
                        let magnitude = x.to_bits() & !SIGN;
                        let sign = x.to_bits() & SIGN;
                        let is_beyond = magnitude > bound && magnitude < infinity;
                        *x = if is_beyond { Self::from_bits(bound | sign) } else { *x };
                    }
                }
            }
            changed
        }
    };
}

impl Sealed for f64 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn take<I: Isa>(isa: I, mut lanes: Lanes<I>, chunk: &[Self; LANES]) -> Lanes<I> {
        let x = isa.load_f64(chunk);
        lanes.max64 = isa.max_abs_f64(lanes.max64, x);
        lanes.zeros64 = isa.count_zeros_f64(lanes.zeros64, x);
        lanes.squares = isa.add_square(lanes.squares, x);
        lanes.sum = isa.add(lanes.sum, x);
        lanes
    }

    #[inline(always)]
    fn max_abs_and_zeros<I: Isa>(isa: I, lanes: &Lanes<I>) -> (f64, u64) {
        (isa.largest_f64(lanes.max64), isa.total64(lanes.zeros64))
    }

    #[inline(always)]
    fn log2_bins(chunk: &[Self; LANES]) -> [u8; LANES] {
        chunk.map(|x| {
            let exponent = (x.to_bits() >> 52 & 0x7ff) as i32;
            let place = (exponent - 1023 + 127).clamp(0, 254) as u8;
            if x == 0.0 || exponent == 0x7ff { 255 } else { place }
        })
    }

    #[inline(always)]
    fn times(self, factor: f64) -> Self {
        self * factor
    }

    by_bits!(u64);
}

impl Sealed for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn take<I: Isa>(isa: I, mut lanes: Lanes<I>, chunk: &[Self; LANES]) -> Lanes<I> {
        let x = isa.load_f32(chunk);
        lanes.max32 = isa.max_abs_f32(lanes.max32, x);
        lanes.zeros32 = isa.count_zeros_f32(lanes.zeros32, x);
        lanes.add_exact(isa, isa.widen(x))
    }

    #[inline(always)]
    fn max_abs_and_zeros<I: Isa>(isa: I, lanes: &Lanes<I>) -> (f64, u64) {
        (isa.largest_f32(lanes.max32).into(), isa.total32(lanes.zeros32))
    }

    #[inline(always)]
    fn log2_bins(chunk: &[Self; LANES]) -> [u8; LANES] {
        chunk.map(|x| if x == 0.0 { 255 } else { (x.to_bits() >> 23) as u8 })
    }

    #[inline(always)]
    fn times(self, factor: f64) -> Self {
        (f64::from(self) * factor) as f32
    }

    by_bits!(u32);
}

macro_rules! half {
    ($type:ident, $load:ident, $widen:ident, $to_f64:ident, $from_f32:ident, |$bits:ident| $bin:expr) => {
        impl Sealed for $type {
            const ZERO: Self = $type::ZERO;

            #[inline(always)]
            fn take<I: Isa>(isa: I, mut lanes: Lanes<I>, chunk: &[Self; LANES]) -> Lanes<I> {
                let x = isa.$load(chunk);
                lanes.max16 = isa.max_abs_u16(lanes.max16, x);
                lanes.zeros16 = isa.count_zeros_u16(lanes.zeros16, x);
                lanes.add_exact(isa, isa.$widen(x))
            }

            #[inline(always)]
            fn max_abs_and_zeros<I: Isa>(isa: I, lanes: &Lanes<I>) -> (f64, u64) {
                let max_abs = $type::from_bits(isa.largest_u16(lanes.max16));
                (max_abs.to_f64(), isa.total16(lanes.zeros16))
            }

            #[inline(always)]
            fn log2_bins(chunk: &[Self; LANES]) -> [u8; LANES] {
                chunk.map(|x| {
                    let $bits = x.to_bits() & 0x7fff;
                    if $bits == 0 { 255 } else { $bin }
                })
            }

            #[inline(always)]
            fn times(self, factor: f64) -> Self {
                $from_f32(round_to_odd($to_f64(self.to_bits()) * factor))
            }

            by_bits!(u16);
        }
    };
}

half!(
    f16,
    load_f16,
    widen_f16,
    f16_to_f64,
    f16_from_f32,
    |bits| (f16_to_f32(bits).to_bits() >> 23) as u8
);
half!(bf16, load_bf16, widen_bf16, bf16_to_f64, bf16_from_f32, |bits| (bits >> 7) as u8);

#[inline(always)]
fn f16_to_f64(bits: u16) -> f64 {
    f16_to_f32(bits).into()
}

#[inline(always)]
fn bf16_to_f64(bits: u16) -> f64 {
    bf16_to_f32(bits).into()
}

/// To nearest, ties to even; for finite values.
#[inline(always)]
fn f16_from_f32(value: f32) -> f16 {
    /// A half's worth of f32 bits: from here on f16 is infinite.
    const TOO_LARGE: u32 = (127 + 16) << 23;
    /// 2^-14, the smallest normal f16.
    const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
    /// Added to a magnitude below 2^-14, it leaves the bits of the denormal f16 at the end of the
    /// sum, rounded by the addition.
    const MAGIC: f32 = f32::from_bits((127 - 15 + 23 - 10 + 1) << 23);
    let sign = (value.to_bits() >> 16 & 0x8000) as u16;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let denormal = (f32::from_bits(magnitude) + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits());
    // A change of the exponent's bias, and half of the last place less one if that is even: the
    // carry rounds.
    let rebias = 0xc800_0fff_u32.wrapping_add(magnitude >> 13 & 1);
    let normal = magnitude.wrapping_add(rebias) >> 13;
    let bits = if magnitude < SMALLEST_NORMAL { denormal } else { normal };
    let bits = if magnitude >= TOO_LARGE { 0x7c00 } else { bits };
    f16::from_bits(bits as u16 | sign)
}

/// To nearest, ties to even, by the carry of an addition; for finite values.
#[inline(always)]
fn bf16_from_f32(value: f32) -> bf16 {
    let bits = value.to_bits();
    bf16::from_bits(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Element;

    #[test]
    fn every_half_is_multiplied_and_rounded_once() {
        for factor in [0.3, 1.0, -0.7, 1e-3, 3e-8, 17.0, 1e30, 0.0] {
            for bits in 0..=u16::MAX {
                let (a, b) = (f16::from_bits(bits), bf16::from_bits(bits));
                if !a.is_nan() && !a.is_infinite() {
                    let want = <f16 as Element>::from_f64(Element::to_f64(a) * factor);
                    assert_eq!(a.times(factor).to_bits(), want.to_bits(), "{a} times {factor}");
                }
                if !b.is_nan() && !b.is_infinite() {
                    let want = <bf16 as Element>::from_f64(Element::to_f64(b) * factor);
                    assert_eq!(b.times(factor).to_bits(), want.to_bits(), "{b} times {factor}");
                }
            }
        }
    }

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            if a.is_nan() {
                assert!(f16_to_f32(bits).is_nan());
            } else {
                assert_eq!(f16_to_f32(bits).to_bits(), a.to_f32().to_bits(), "{a}");
            }
            if b.is_nan() {
                assert!(bf16_to_f32(bits).is_nan());
            } else {
                assert_eq!(bf16_to_f32(bits).to_bits(), b.to_f32().to_bits(), "{b}");
            }
        }
    }
}
