//! What the kernels need of an element type; it keeps other types from implementing the trait.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::{Edited, round_to_odd};
use crate::isa::{Isa, LANES, bf16_to_f32, f16_to_f32};
use crate::kernel::{CHUNK, Lanes};

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

    /// Copies with zeros in the place of what is not finite; gives the numbers of NaN and infinite
    /// elements.
    fn copy_finite(from: &[Self], to: &mut [Self]) -> (u64, u64);

    /// Multiplies up to [`CHUNK`] finite elements in f64 and rounds once.
    fn scale_finite(values: &mut [Self], factor: f64);

    /// Brings finite elements beyond `bound`, which is not negative, to it. What needs no change is
    /// not written.
    fn clamp(values: &mut [Self], bound: Self) -> Edited;
}

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
        fn copy_finite(from: &[Self], to: &mut [Self]) -> (u64, u64) {
            const MAGNITUDE: $bits = !(1 << (<$bits>::BITS - 1));
            let infinity = Self::INFINITY.to_bits();
            let mut counts = (0, 0);
            for (from, to) in from.chunks(CHUNK).zip(to.chunks_mut(CHUNK)) {
                let (mut nans, mut infs): ($bits, $bits) = (0, 0);
                for (x, y) in from.iter().zip(to) {
                    let magnitude = x.to_bits() & MAGNITUDE;
                    nans += <$bits>::from(magnitude > infinity);
                    infs += <$bits>::from(magnitude == infinity);
                    *y = if magnitude >= infinity { Self::ZERO } else { *x };
                }
                counts.0 += u64::from(nans);
                counts.1 += u64::from(infs);
            }
            counts
        }

        #[inline(always)]
        fn clamp(values: &mut [Self], bound: Self) -> Edited {
            const SIGN: $bits = 1 << (<$bits>::BITS - 1);
            // Magnitudes order as their bits do.
            let (bound, infinity) = (bound.to_bits(), Self::INFINITY.to_bits());
            let mut edited = Edited::default();
            for chunk in values.chunks_mut(CHUNK) {
                let (mut beyond, mut nonfinite): ($bits, $bits) = (0, 0);
                for x in &*chunk {
                    let magnitude = x.to_bits() & !SIGN;
                    beyond += <$bits>::from(magnitude > bound && magnitude < infinity);
                    nonfinite += <$bits>::from(magnitude >= infinity);
                }
                edited.nonfinite += u64::from(nonfinite);
                if beyond > 0 {
                    edited.changed += u64::from(beyond);
                    for x in chunk {
                        let magnitude = x.to_bits() & !SIGN;
                        let sign = x.to_bits() & SIGN;
                        let is_beyond = magnitude > bound && magnitude < infinity;
                        *x = if is_beyond { Self::from_bits(bound | sign) } else { *x };
                    }
                }
            }
            edited
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
    fn scale_finite(values: &mut [Self], factor: f64) {
        values.iter_mut().for_each(|x| *x *= factor);
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
    fn scale_finite(values: &mut [Self], factor: f64) {
        values.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    }

    by_bits!(u32);
}

macro_rules! half {
    ($type:ident, $load:ident, $widen:ident, $to_f64:ident, $widen_all:ident, $narrow_all:ident, |$bits:ident| $bin:expr) => {
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
                let max_abs = $to_f64(isa.largest_u16(lanes.max16));
                (max_abs, isa.total16(lanes.zeros16))
            }

            #[inline(always)]
            fn log2_bins(chunk: &[Self; LANES]) -> [u8; LANES] {
                chunk.map(|x| {
                    let $bits = x.to_bits() & 0x7fff;
                    if $bits == 0 { 255 } else { $bin }
                })
            }

            #[inline(always)]
            fn scale_finite(values: &mut [Self], factor: f64) {
                let mut wide = [0_f32; CHUNK];
                $widen_all(values, &mut wide);
                for x in &mut wide {
                    *x = round_to_odd(f64::from(*x) * factor);
                }
                $narrow_all(&wide, values);
            }

            by_bits!(u16);
        }
    };
}

half!(f16, load_f16, widen_f16, f16_to_f64, widen_f16s, narrow_to_f16s, |bits| {
    (f16_to_f32(bits).to_bits() >> 23) as u8
});
half!(bf16, load_bf16, widen_bf16, bf16_to_f64, widen_bf16s, narrow_to_bf16s, |bits| (bits >> 7)
    as u8);

#[inline(always)]
fn f16_to_f64(bits: u16) -> f64 {
    f16_to_f32(bits).into()
}

#[inline(always)]
fn bf16_to_f64(bits: u16) -> f64 {
    bf16_to_f32(bits).into()
}

#[inline(always)]
fn widen_f16s(values: &[f16], wide: &mut [f32; CHUNK]) {
    values.convert_to_f32_slice(&mut wide[..values.len()]);
}

#[inline(always)]
fn widen_bf16s(values: &[bf16], wide: &mut [f32; CHUNK]) {
    for (wide, x) in wide.iter_mut().zip(values) {
        *wide = bf16_to_f32(x.to_bits());
    }
}

/// To nearest, ties to even.
#[inline(always)]
fn narrow_to_f16s(wide: &[f32; CHUNK], values: &mut [f16]) {
    values.convert_from_f32_slice(&wide[..values.len()]);
}

/// To nearest, ties to even, by the carry of an addition; for values that are not NaN.
#[inline(always)]
fn narrow_to_bf16s(wide: &[f32; CHUNK], values: &mut [bf16]) {
    for (x, wide) in values.iter_mut().zip(wide) {
        let bits = wide.to_bits();
        *x = bf16::from_bits(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest of all values of a type, ties to the one with even bits; by search.
    fn nearest(value: f64, to_f64: fn(u16) -> f64) -> u16 {
        let magnitude = value.abs();
        // the bits of magnitudes ascend up to infinity
        let (mut low, mut high) = (0_u16, 0x7fff);
        while !to_f64(high).is_infinite() {
            high -= 1;
        }
        let infinity = high;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if to_f64(middle) <= magnitude { low = middle } else { high = middle }
        }
        // beyond the largest, infinity stands for the next value that would be
        let beyond = 2.0 * to_f64(infinity - 1) - to_f64(infinity - 2);
        let upper = if high == infinity { beyond } else { to_f64(high) };
        let (down, up) = (magnitude - to_f64(low), upper - magnitude);
        let bits = if down < up || (down == up && low % 2 == 0) { low } else { high };
        bits | if value.is_sign_negative() { 0x8000 } else { 0 }
    }

    #[test]
    fn every_half_is_multiplied_and_rounded_once() {
        for factor in [0.3, -0.7, 1e-3, 3e-8, 17.0, 1.0 + 1e-9] {
            for bits in (0..=u16::MAX).step_by(3) {
                let mut x = [f16::from_bits(bits)];
                if x[0].is_finite() {
                    let want = nearest(f16_to_f64(bits) * factor, f16_to_f64);
                    f16::scale_finite(&mut x, factor);
                    assert_eq!(x[0].to_bits(), want, "{} times {factor}", f16::from_bits(bits));
                }
                let mut x = [bf16::from_bits(bits)];
                if x[0].is_finite() {
                    let want = nearest(bf16_to_f64(bits) * factor, bf16_to_f64);
                    bf16::scale_finite(&mut x, factor);
                    assert_eq!(x[0].to_bits(), want, "{} times {factor}", bf16::from_bits(bits));
                }
            }
        }
    }

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f16::from_bits(bits).to_f32(), bf16::from_bits(bits).to_f32());
            for (got, want) in [(f16_to_f32(bits), a), (bf16_to_f32(bits), b)] {
                assert_eq!(got.is_nan(), want.is_nan(), "{bits:#x}");
                assert!(want.is_nan() || got.to_bits() == want.to_bits(), "{got} {want}");
            }
        }
    }
}
