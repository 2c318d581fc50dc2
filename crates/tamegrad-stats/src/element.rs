//! The four element types that can be scanned and clipped, and their way to f64 and back.

use half::{bf16, f16};

pub(crate) mod sealed;

/// A floating-point type that a gradient may have: `f32`, `f64`, [`half::f16`] or [`half::bf16`].
///
/// The trait is sealed: the error bounds of this crate hold for these four types only.
pub trait Element: Copy + Send + Sync + sealed::Sealed + 'static {
    /// The largest finite value of the type.
    const MAX: f64;

    /// The name of the type as tensor libraries write it: `f32`, `f64`, `f16`, `bf16`.
    const NAME: &'static str;

    /// The same value in f64; exact for all four types.
    fn to_f64(self) -> f64;

    /// The nearest value of the type, ties to even; infinity beyond [`Element::MAX`].
    fn from_f64(value: f64) -> Self;

    /// Whether the element is not a number.
    fn is_nan(self) -> bool;

    /// Whether the element is positive or negative infinity.
    fn is_infinite(self) -> bool;
}

macro_rules! element {
    ($type:ident, $max:expr, |$x:ident| $to_f64:expr, |$value:ident| $from_f64:expr) => {
        impl Element for $type {
            const MAX: f64 = $max;
            const NAME: &'static str = stringify!($type);

            fn to_f64(self) -> f64 {
                let $x = self;
                $to_f64
            }

            fn from_f64($value: f64) -> Self {
                $from_f64
            }

            fn is_nan(self) -> bool {
                self.is_nan()
            }

            fn is_infinite(self) -> bool {
                self.is_infinite()
            }
        }
    };
}

/// 8 significant bits, all ones, at the exponent of f32's maximum.
const BF16_MAX: f64 = 255.0 * (1_u128 << 120) as f64;

element!(f64, f64::MAX, |x| x, |value| value);
element!(f32, f32::MAX as f64, |x| f64::from(x), |value| value as f32);
element!(f16, 65504.0, |x| f64::from(x.to_f32()), |value| f16::from_f32(round_to_odd(value)));
element!(bf16, BF16_MAX, |x| f64::from(x.to_f32()), |value| bf16::from_f32(round_to_odd(value)));

/// `value` cut to 16 significant bits, the last of them set if anything was cut off.
///
/// Rounding to nearest twice, f64 to f32 to a half, goes wrong where the first step lands on a tie
/// of the second. `half::f16::from_f64` does so on processors with F16C and drops low bits on
/// others, so its result also depends on the machine. An odd last bit keeps every inexact value off
/// the ties of up to 14 bits (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums",
/// 2008). Sixteen bits are exact in f32 down to 2^-134, below which even bf16 rounds to zero.
#[inline(always)]
fn round_to_odd(value: f64) -> f32 {
    /// The bits that are cut off.
    const LOW: u64 = (1 << 37) - 1;
    let bits = value.to_bits();
    // The sum carries into the last bit that is kept unless all that are cut off are 0.
    let carried = bits | ((bits & LOW) + LOW);
    f64::from_bits(carried & !LOW) as f32
}

/// What an edit did to some elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Edited {
    /// Elements that were changed.
    pub changed: u64,
    /// Elements that are NaN or infinite, and were left as they are; 0 where nobody looked.
    pub nonfinite: u64,
}

impl Edited {
    pub(crate) fn and(self, other: Self) -> Self {
        Self { changed: self.changed + other.changed, nonfinite: self.nonfinite + other.nonfinite }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn constants_are_those_of_the_types() {
        assert_eq!(<f16 as Element>::MAX, f64::from(f16::MAX.to_f32()));
        assert_eq!(<bf16 as Element>::MAX, f64::from(bf16::MAX.to_f32()));
        assert_eq!([f16::NAME, bf16::NAME, f32::NAME, f64::NAME], ["f16", "bf16", "f32", "f64"]);
    }

    #[test]
    fn ties_and_the_values_beside_them_round_correctly() {
        let tiny = 2f64.powi(-40);
        let (ulp16, ulpb) = (2f64.powi(-10), 2f64.powi(-7));
        // (value, f16, bf16)
        let cases = [
            (1.0 + ulp16 / 2.0, 1.0, 1.0),
            (1.0 + ulp16 / 2.0 + tiny, 1.0 + ulp16, 1.0),
            (1.0 + ulp16 * 1.5 - tiny, 1.0 + ulp16, 1.0),
            (1.0 + ulp16 * 1.5, 1.0 + 2.0 * ulp16, 1.0),
            (1.0 + ulpb / 2.0, 1.0 + ulpb / 2.0, 1.0),
            (1.0 + ulpb / 2.0 + tiny, 1.0 + ulpb / 2.0, 1.0 + ulpb),
            (65519.999, 65504.0, 65536.0),
            (65520.0, f64::INFINITY, 65536.0),
            (-1e300, f64::NEG_INFINITY, f64::NEG_INFINITY),
            (2f64.powi(-25), 0.0, 2f64.powi(-25)),
            (2f64.powi(-25) + 2f64.powi(-70), 2f64.powi(-24), 2f64.powi(-25)),
            (1e-300, 0.0, 0.0),
        ];
        for (value, want16, wantb) in cases {
            assert_eq!(<f16 as Element>::from_f64(value).to_f64(), want16, "{value:e} to f16");
            assert_eq!(<bf16 as Element>::from_f64(value).to_f64(), wantb, "{value:e} to bf16");
        }
    }

    fn assert_comes_back<T: Element>(of_bits: fn(u16) -> T, to_bits: fn(T) -> u16) {
        for bits in 0..=u16::MAX {
            let x = of_bits(bits);
            let back = T::from_f64(x.to_f64());
            assert_eq!(back.is_nan(), x.is_nan(), "{} {bits:#x}", T::NAME);
            assert!(x.is_nan() || to_bits(back) == bits, "{} {bits:#x}", T::NAME);
        }
    }

    #[test]
    fn every_half_comes_back_to_the_bit() {
        assert_comes_back(f16::from_bits, f16::to_bits);
        assert_comes_back(bf16::from_bits, bf16::to_bits);
    }

    /// The distance of `value` to what it became and to both neighbours of that.
    fn distances(value: f64, bits: u16, widen: fn(u16) -> f64) -> (f64, f64) {
        let got = (widen(bits) - value).abs();
        let beside = [bits.wrapping_sub(1), bits.wrapping_add(1)].map(widen);
        let nearest = beside.iter().filter(|x| x.is_finite()).map(|x| (x - value).abs());
        (got, nearest.fold(f64::INFINITY, f64::min))
    }

    proptest! {
        #[test]
        fn no_neighbour_is_nearer(mantissa in -1.0..1.0_f64, exponent in -30..15_i32) {
            let value = mantissa * 2f64.powi(exponent);
            let (got, beside) = distances(value, <f16 as Element>::from_f64(value).to_bits(),
                |bits| f16::from_bits(bits).to_f64());
            prop_assert!(got <= beside, "f16: {} against {}", got, beside);
            let (got, beside) = distances(value, <bf16 as Element>::from_f64(value).to_bits(),
                |bits| bf16::from_bits(bits).to_f64());
            prop_assert!(got <= beside, "bf16: {} against {}", got, beside);
        }
    }
}
