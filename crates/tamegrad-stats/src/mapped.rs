//! A file as bytes in memory, without reading it first.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

/// A whole file, mapped for reading only. Its pages are read when they are touched, and the system
/// takes them back when it needs the memory.
///
/// Another process may write to the file meanwhile. Then the bytes change under the reader, who
/// must not trust anything twice; and if it cuts the file, a read beyond the new end raises a
/// signal (`SIGBUS` on Unix) that ends the program. The same is true of a disk that fails.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::InvalidInput`] if it is no regular file,
    /// [`io::ErrorKind::UnexpectedEof`] if it is empty, for nothing can be mapped then.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Before it is opened: to open a pipe is to wait for the other side.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
        }
        // SAFETY: the map is private to this struct and read-only, and outlives every slice of it.
        // What it cannot rule out is another process that writes: a changed byte is another
        // number, and every pattern of bits is a valid u8 (and f64, f32 and half); a cut raises a
        // signal, as the type's documentation says.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// The bytes of the file, at least one.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Asks the system to read these bytes from the disk now, in the background. What is outside
    /// the file is passed over, and so is a system that cannot.
    pub fn prefetch(&self, range: Range<usize>) {
        let end = range.end.min(self.map.len());
        let start = range.start.min(end);
        #[cfg(unix)]
        if start < end {
            // A hint: where it is refused the pages are read when they are touched.
            let _ = self.map.advise_range(memmap2::Advice::WillNeed, start, end - start);
        }
        #[cfg(not(unix))]
        let _ = start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"abc").unwrap();
        let file = MappedFile::open(&path).unwrap();
        for range in [0..3, 1..1, 2..9, 7..9, Range { start: 3, end: 1 }, 0..usize::MAX] {
            file.prefetch(range);
        }
        assert_eq!(file.bytes(), b"abc");
    }

    #[test]
    fn what_cannot_be_mapped_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        fs::write(&empty, b"").unwrap();
        for (path, kind) in [
            (folder.path(), io::ErrorKind::InvalidInput),
            (&empty, io::ErrorKind::UnexpectedEof),
            (&folder.path().join("gone"), io::ErrorKind::NotFound),
        ] {
            assert_eq!(MappedFile::open(path).map(|_| ()).unwrap_err().kind(), kind, "{path:?}");
        }
    }
}
