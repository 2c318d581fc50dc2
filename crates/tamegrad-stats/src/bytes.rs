//! Tensors as files hold them: little-endian bytes at any address.

use std::ops::Range;

use half::{bf16, f16};

use crate::element::Element;
use crate::isa::Level;
use crate::kernel::{Totals, scan_piece};
use crate::list::TensorRef;
use crate::scan::{TensorStats, scan_ranges};
use crate::threads::Threads;

/// The type of the elements of a tensor, as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// [`f32`].
    F32,
    /// [`f64`].
    F64,
    /// [`half::f16`].
    F16,
    /// [`half::bf16`].
    Bf16,
}

/// Runs `$body` with the type itself.
macro_rules! with_type {
    ($element:expr, $type:ident => $body:expr) => {
        match $element {
            ElementType::F32 => with_type!(@ f32, $type => $body),
            ElementType::F64 => with_type!(@ f64, $type => $body),
            ElementType::F16 => with_type!(@ f16, $type => $body),
            ElementType::Bf16 => with_type!(@ bf16, $type => $body),
        }
    };
    (@ $own:ident, $type:ident => $body:expr) => {{
        type $type = $own;
        $body
    }};
}

impl ElementType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        with_type!(self, T => size_of::<T>())
    }

    /// The largest finite value: [`Element::MAX`].
    pub fn max(self) -> f64 {
        with_type!(self, T => <T as Element>::MAX)
    }
}

/// The elements of one tensor as little-endian bytes.
#[derive(Debug, Clone, Copy)]
pub struct TensorBytes<'a> {
    element: ElementType,
    bytes: &'a [u8],
}

impl<'a> TensorBytes<'a> {
    /// The elements in `bytes`; `None` if the last one is cut.
    pub fn new(element: ElementType, bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(element.size()).then_some(Self { element, bytes })
    }

    /// The same memory as a tensor; `None` if it is not aligned for the type, or the machine is
    /// big-endian. [`TensorBytes::scan`] works there too.
    pub fn as_tensor(&self) -> Option<TensorRef<'a>> {
        if cfg!(target_endian = "big") {
            return None;
        }
        with_type!(self.element, T => {
            bytemuck::try_cast_slice::<_, T>(self.bytes).ok().map(TensorRef::from)
        })
    }

    /// The statistics, at any address: those of [`crate::scan`] over the same elements, to the
    /// bit. The elements are copied, at most 2 MiB of them at a time for each thread.
    pub fn scan(&self) -> TensorStats {
        with_type!(self.element, T => scan_copied(self.bytes, T::from_le_bytes))
    }
}

fn scan_copied<T: Element, const SIZE: usize>(
    bytes: &[u8],
    element: impl Fn([u8; SIZE]) -> T + Sync,
) -> TensorStats {
    let (elements, _) = bytes.as_chunks::<SIZE>();
    let scan = |range: Range<usize>| {
        let piece: Vec<T> = elements[range].iter().map(|bytes| element(*bytes)).collect();
        scan_piece(Level::best(), &piece, None)
    };
    let threads = Threads::for_bytes(bytes.len());
    scan_ranges(threads, 0..elements.len(), Totals::append, &scan).finish().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::PIECE;
    use crate::scan::scan;
    use crate::scan::tests::bits;

    /// At every address the same to the bit as a scan of the elements themselves.
    fn check<T: Element, const SIZE: usize>(element: ElementType, to_le: impl Fn(T) -> [u8; SIZE]) {
        assert_eq!((element.size(), element.max()), (SIZE, T::MAX));
        for len in [0, 1, 17, 3000, PIECE, PIECE + 1, 3 * PIECE + 5] {
            let mut values: Vec<T> =
                (0..len).map(|i| T::from_f64((i as f64 * 0.37).sin() * 1e3)).collect();
            if let Some(last) = values.last_mut() {
                *last = T::from_f64(f64::INFINITY);
            }
            let want = bits(&scan(&values));
            let data: Vec<u8> = values.iter().flat_map(|&value| to_le(value)).collect();
            for offset in 0..SIZE + 1 {
                // Vec<u64> starts at a multiple of 8.
                let mut memory = vec![0_u64; (data.len() + offset).div_ceil(8)];
                let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
                memory[offset..offset + data.len()].copy_from_slice(&data);
                let bytes = &memory[offset..offset + data.len()];
                let tensor = TensorBytes::new(element, bytes).unwrap();
                assert_eq!(bits(&tensor.scan()), want, "{element:?} {len} at {offset}");
                let borrowed = tensor.as_tensor();
                if len > 0 && cfg!(target_endian = "little") {
                    assert_eq!(borrowed.is_some(), offset.is_multiple_of(SIZE), "at {offset}");
                }
                if let Some(borrowed) = borrowed {
                    assert_eq!(bits(&borrowed.scan()), want, "{element:?} {len} at {offset}");
                }
            }
        }
    }

    #[test]
    fn bytes_at_any_address_are_scanned_as_their_elements_are() {
        check(ElementType::F32, f32::to_le_bytes);
        check(ElementType::F64, f64::to_le_bytes);
        check(ElementType::F16, f16::to_le_bytes);
        check(ElementType::Bf16, bf16::to_le_bytes);
    }

    #[test]
    fn a_cut_element_is_no_tensor() {
        for (element, len) in [(ElementType::F64, 12), (ElementType::F32, 6), (ElementType::F16, 1)]
        {
            assert!(TensorBytes::new(element, &[0; 16][..len]).is_none(), "{element:?}");
        }
    }
}
