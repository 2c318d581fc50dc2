//! Sixteen lanes of arithmetic on each instruction set, chosen at run time.
//!
//! A kernel is written once, over the operations of [`Isa`], and compiled for every set. Whatever
//! the width of a register, an operation is on sixteen lanes in order and rounds each lane as IEEE
//! 754 says, without fused multiplication: so every set gives the same result to the bit.

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

/// Elements that one operation works on.
pub(crate) const LANES: usize = 16;

/// Bytes that [`Isa::count_equal`] looks at.
pub(crate) const BYTES: usize = 128;

/// The operations that the kernels are made of, on groups of sixteen lanes.
///
/// A value of an implementing type is the proof that the processor has the instructions.
pub trait Isa: Copy + Send + Sync {
    /// Sixteen halves, as bits.
    type U16: Copy;
    /// Sixteen f32.
    type F32: Copy;
    /// Sixteen f64.
    type F64: Copy;
    /// Sixteen counters beside an [`Isa::U16`].
    type Count16: Copy;
    /// Sixteen counters beside an [`Isa::F32`].
    type Count32: Copy;
    /// Sixteen counters beside an [`Isa::F64`].
    type Count64: Copy;

    /// Asks for elements from memory that will be read soon, where the instruction set can.
    fn prefetch<T>(self, coming: &[T; LANES]);

    /// Zero in every lane.
    fn zero_u16(self) -> Self::U16;
    /// Zero in every lane.
    fn zero_f32(self) -> Self::F32;
    /// Zero in every lane.
    fn zero_f64(self) -> Self::F64;
    /// Zero in every lane.
    fn zero_count16(self) -> Self::Count16;
    /// Zero in every lane.
    fn zero_count32(self) -> Self::Count32;
    /// Zero in every lane.
    fn zero_count64(self) -> Self::Count64;

    /// Loads f32.
    fn load_f32(self, from: &[f32; LANES]) -> Self::F32;
    /// Loads f64.
    fn load_f64(self, from: &[f64; LANES]) -> Self::F64;
    /// Loads the bits of f16.
    fn load_f16(self, from: &[f16; LANES]) -> Self::U16;
    /// Loads the bits of bf16.
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::U16;

    /// The f32 in f64.
    fn widen(self, x: Self::F32) -> Self::F64;
    /// The f16 of these bits in f64.
    fn widen_f16(self, x: Self::U16) -> Self::F64;
    /// The bf16 of these bits in f64, those at even places before those at odd places.
    fn widen_bf16(self, x: Self::U16) -> Self::F64;
    /// `a + b`.
    fn add(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// `sum + x * x`, the product rounded before it is added.
    fn add_square(self, sum: Self::F64, x: Self::F64) -> Self::F64;
    /// `sum + x * x` for x whose square is exact in f64, as that of every f32 is: so that it makes
    /// no difference whether the two are fused.
    fn add_exact_square(self, sum: Self::F64, x: Self::F64) -> Self::F64;

    /// The larger of `max` and x without its sign bit, as integers.
    fn max_abs_u16(self, max: Self::U16, x: Self::U16) -> Self::U16;
    /// The larger of `max` and |x|; either of them where x is NaN.
    fn max_abs_f32(self, max: Self::F32, x: Self::F32) -> Self::F32;
    /// The larger of `max` and |x|; either of them where x is NaN.
    fn max_abs_f64(self, max: Self::F64, x: Self::F64) -> Self::F64;
    /// One more in the lanes where x is 0 or has the sign bit alone.
    fn count_zeros_u16(self, count: Self::Count16, x: Self::U16) -> Self::Count16;
    /// One more in the lanes where x is 0 or -0.
    fn count_zeros_f32(self, count: Self::Count32, x: Self::F32) -> Self::Count32;
    /// One more in the lanes where x is 0 or -0.
    fn count_zeros_f64(self, count: Self::Count64, x: Self::F64) -> Self::Count64;

    /// The sum of the lanes, as a tree: lane i with lane i + 8, then + 4, + 2, + 1.
    fn sum(self, x: Self::F64) -> f64;
    /// The largest lane.
    fn largest_u16(self, x: Self::U16) -> u16;
    /// The largest of lanes that are not negative; any value where one is NaN.
    fn largest_f32(self, x: Self::F32) -> f32;
    /// The largest of lanes that are not negative; any value where one is NaN.
    fn largest_f64(self, x: Self::F64) -> f64;
    /// How many of sixteen bytes are `byte`.
    fn count_equal_16(self, bytes: &[u8; LANES], byte: u8) -> u32;
    /// How many of the bytes are `byte`.
    fn count_equal(self, bytes: &[u8; BYTES], byte: u8) -> u32;
    /// The sum of the counters, each below 2^12.
    fn total16(self, count: Self::Count16) -> u64;
    /// The sum of the counters.
    fn total32(self, count: Self::Count32) -> u64;
    /// The sum of the counters.
    fn total64(self, count: Self::Count64) -> u64;
}

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What every processor of the architecture has: SSE2 on x86-64.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "NEON is always there"))]
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Level {
    /// The fastest that this processor has. Asking again costs a load and a comparison.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = avx512::Avx512::detect().map(Level::Avx512);
            let best = avx512.or_else(|| avx2::Avx2::detect().map(Level::Avx2));
            best.unwrap_or(Level::Portable(portable::Portable))
        }
        #[cfg(target_arch = "aarch64")]
        {
            Level::Neon(neon::Neon)
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            Level::Portable(portable::Portable)
        }
    }

    /// Every one that this processor has, the slowest first.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Level::Portable(portable::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(avx2::Avx2::detect().map(Level::Avx2));
            all.extend(avx512::Avx512::detect().map(Level::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        all.push(Level::Neon(neon::Neon));
        all
    }
}

/// Defines a function that runs `$body`, which must be `#[inline(always)]`, compiled for the
/// instruction set of a [`Level`]. With `isa` the body gets the set's [`Isa`] as first argument.
macro_rules! on_level {
    (
        $(#[$doc:meta])*
        fn $name:ident<$T:ident: Element>(level, $($arg:ident: $type:ty),*) $(-> $out:ty)? {
            $body:ident(isa)
        }
    ) => {
        $(#[$doc])*
        pub(crate) fn $name<$T: Element>(level: Level, $($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,popcnt")]
            fn avx2<$T: Element>(isa: $crate::isa::Avx2, $($arg: $type),*) $(-> $out)? {
                $body(isa, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx2,fma,f16c,popcnt")]
            fn avx512<$T: Element>(isa: $crate::isa::Avx512, $($arg: $type),*) $(-> $out)? {
                $body(isa, $($arg),*)
            }
            match level {
                Level::Portable(isa) => $body(isa, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Avx2` exists only where its instructions were detected.
                Level::Avx2(isa) => unsafe { avx2(isa, $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Avx512` exists only where its instructions were detected.
                Level::Avx512(isa) => unsafe { avx512(isa, $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Level::Neon(isa) => $body(isa, $($arg),*),
            }
        }
    };
}
pub(crate) use on_level;
pub(crate) use portable::{bf16_to_f32, f16_to_f32};
#[cfg(target_arch = "x86_64")]
pub(crate) use {avx2::Avx2, avx512::Avx512};
