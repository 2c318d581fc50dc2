//! Tensors in files: little-endian bytes, read piece by piece.
//!
//! The file is read, not mapped: another process may cut it meanwhile, which would end a reader of the
//! map.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;

use bytemuck::Pod;
use half::{bf16, f16};

use crate::element::Element;
use crate::isa::Level;
use crate::kernel::{Totals, scan_piece};
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

/// The statistics of `count` elements that lie in a file from `offset` on: those of [`crate::scan`]
/// over the same elements, to the bit. At most 2 MiB of them are in memory at a time for each thread.
///
/// # Errors
/// What the system says; [`io::ErrorKind::UnexpectedEof`] if the file ends before the elements do,
/// also where it did not when the scan began.
pub fn scan_file(
    file: &File,
    offset: u64,
    count: usize,
    element: ElementType,
) -> io::Result<TensorStats> {
    with_type!(element, T => scan_read(file, offset, count, T::from_le_bytes))
}

thread_local! {
    /// What a thread has read last; in words, so that elements of every type are aligned.
    static BUFFER: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn scan_read<T: Element + Pod, const SIZE: usize>(
    file: &File,
    offset: u64,
    count: usize,
    element: impl Fn([u8; SIZE]) -> T + Sync,
) -> io::Result<TensorStats> {
    let failed = OnceLock::new();
    let scan = |range: Range<usize>, buffer: &mut Vec<u64>| {
        let len = range.len() * SIZE;
        buffer.resize(buffer.len().max(len.div_ceil(8)), 0);
        let bytes = bytemuck::cast_slice_mut(buffer).get_mut(..len).unwrap_or_default();
        let at = offset.checked_add(range.start as u64 * SIZE as u64);
        read_exact_at(file, bytes, at.ok_or(io::ErrorKind::UnexpectedEof)?)?;
        let level = Level::best();
        Ok(match bytemuck::try_cast_slice::<_, T>(&*bytes) {
            Ok(elements) if cfg!(target_endian = "little") => scan_piece(level, elements, None),
            _ => {
                let (elements, _) = bytes.as_chunks::<SIZE>();
                let elements: Vec<T> = elements.iter().map(|bytes| element(*bytes)).collect();
                scan_piece(level, &elements, None)
            }
        })
    };
    let scan = |range: Range<usize>| {
        if failed.get().is_some() {
            return Totals::default();
        }
        let scanned = BUFFER.with_borrow_mut(|buffer| scan(range, buffer));
        scanned.unwrap_or_else(|error: io::Error| {
            // The first of several is told.
            let _ = failed.set(error);
            Totals::default()
        })
    };
    let threads = Threads::for_bytes(count.saturating_mul(SIZE));
    let totals = scan_ranges(threads, 0..count, Totals::append, &scan);
    failed.into_inner().map_or_else(|| Ok(totals.finish().0), Err)
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = bytes.get_mut(read..).unwrap_or_default();
                offset += read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;
    use crate::kernel::PIECE;
    use crate::scan::scan;
    use crate::scan::tests::bits;

    /// At every place the same to the bit as a scan of the elements themselves.
    fn check<T: Element, const SIZE: usize>(element: ElementType, to_le: impl Fn(T) -> [u8; SIZE]) {
        assert_eq!((element.size(), element.max()), (SIZE, T::MAX));
        let mut file = tempfile::tempfile().unwrap();
        for len in [0, 1, 17, 3000, PIECE, PIECE + 1, 3 * PIECE + 5] {
            let mut values: Vec<T> =
                (0..len).map(|i| T::from_f64((i as f64 * 0.37).sin() * 1e3)).collect();
            if let Some(last) = values.last_mut() {
                *last = T::from_f64(f64::INFINITY);
            }
            let want = bits(&scan(&values));
            let data: Vec<u8> = values.iter().flat_map(|&value| to_le(value)).collect();
            for offset in [0, 1, 7, 4096] {
                file.seek(SeekFrom::Start(offset)).unwrap();
                file.write_all(&data).unwrap();
                let scanned = scan_file(&file, offset, len, element).unwrap();
                assert_eq!(bits(&scanned), want, "{element:?} {len} at {offset}");
            }
        }
    }

    #[test]
    fn elements_in_a_file_are_scanned_as_they_are_in_memory() {
        check(ElementType::F32, f32::to_le_bytes);
        check(ElementType::F64, f64::to_le_bytes);
        check(ElementType::F16, f16::to_le_bytes);
        check(ElementType::Bf16, bf16::to_le_bytes);
    }

    #[test]
    fn a_file_that_ends_too_early_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * PIECE as u64).unwrap();
        for (offset, count) in [(0, 2 * PIECE + 1), (8 * PIECE as u64, 1)] {
            let scanned = scan_file(&file, offset, count, ElementType::F32);
            assert_eq!(scanned.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{offset}");
        }
        assert_eq!(
            scan_file(&file, 0, 2 * PIECE, ElementType::F32).unwrap().zeros,
            2 * PIECE as u64
        );
    }
}
