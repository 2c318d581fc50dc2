//! The lines of a file of any size, in bounded memory.

use std::io::{self, Read};

use memchr::memchr2;

/// Bytes of a line that are kept; the rest of a longer line is passed over.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 20;

/// Bytes that are read at a time, at first and later.
const CHUNK_MIN: usize = 64 << 10;
const CHUNK: usize = 1 << 20;

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Bytes from the start of the file.
    pub(crate) offset: u64,
    /// What it holds.
    pub(crate) bytes: &'a [u8],
    /// Whether more of it was passed over.
    pub(crate) is_cut: bool,
    /// Whether its end is there. The last line of a file that is cut has none.
    pub(crate) is_ended: bool,
}

/// Calls `each` for the lines of an input that begins at an offset of its file, but for empty ones.
/// Stops early when `each` says so.
///
/// # Errors
/// The error of the input, with the place in the file; the lines before it were given.
pub(crate) fn each_line(
    input: impl Read,
    offset: u64,
    each: impl FnMut(Line<'_>) -> bool,
) -> Result<(), (u64, io::Error)> {
    each_line_of(input, offset, [b'\n'; 2], LINE_BYTES_MAX, each)
}

/// [`each_line`] where either of two bytes ends a line, of which at most so many are kept.
pub(crate) fn each_line_of(
    mut input: impl Read,
    mut offset: u64,
    ends: [u8; 2],
    most: usize,
    mut each: impl FnMut(Line<'_>) -> bool,
) -> Result<(), (u64, io::Error)> {
    let (mut buffer, mut chunk) = (Vec::new(), CHUNK_MIN);
    let (mut filled, mut skipping) = (0, false);
    loop {
        // No more than is needed: most files are small, and there may be many.
        let space = (filled + chunk).min(most + CHUNK_MIN);
        buffer.resize(space.max(buffer.len()), 0);
        chunk = CHUNK.min(2 * chunk);
        let read = match input.read(buffer.get_mut(filled..space).unwrap_or_default()) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err((offset + filled as u64, error)),
        };
        filled += read;
        let bytes = buffer.get(..filled).unwrap_or_default();
        let line = |start: usize, length: usize, is_ended| Line {
            offset: offset + start as u64,
            bytes: bytes.get(start..start + length.min(most)).unwrap_or_default(),
            is_cut: length > most,
            is_ended,
        };
        let mut start = 0;
        let end = |start| memchr2(ends[0], ends[1], bytes.get(start..).unwrap_or_default());
        while let Some(length) = end(start) {
            let is_new = !std::mem::take(&mut skipping) && length > 0;
            if is_new && !each(line(start, length, true)) {
                return Ok(());
            }
            start += length + 1;
        }
        let rest = filled - start;
        let is_last = read == 0 && rest > 0 || rest > most;
        if is_last && !skipping && !each(line(start, rest, false)) || read == 0 {
            return Ok(());
        }
        skipping |= rest > most;
        // What is passed over need not be kept.
        let kept_from = if skipping { filled } else { start };
        buffer.copy_within(kept_from..filled, 0);
        filled -= kept_from;
        offset += kept_from as u64;
    }
}

impl Line<'_> {
    /// Its bytes and that of its end.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64 + u64::from(self.is_ended)
    }
}

/// How many of these bytes are in no text, of whatever encoding that has ASCII in it: they are what a
/// crash or a bad disk left.
pub(crate) fn bad_bytes(bytes: &[u8]) -> u64 {
    let is_bad = |byte: &u8| matches!(byte, 0..=6 | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f | 0xff);
    bytes.iter().map(|byte| u64::from(is_bad(byte))).sum()
}

/// Zeros in a row that a crash leaves at least; fewer are part of something binary.
const ZEROS_MIN: usize = 8;

/// Whether bytes are text. A block of zeros may follow it, which a crash left in place of what was not
/// yet written.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let Some(zero) = memchr::memchr(0, bytes) else { return true };
    let (before, rest) = bytes.split_at(zero);
    let zeros = rest.iter().take_while(|byte| **byte == 0).count();
    whole_lines(before) > 0 && bad_bytes(before) == 0 && (zeros >= ZEROS_MIN || zeros == rest.len())
}

/// How many of these bytes are whole lines.
pub(crate) fn whole_lines(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offset, start, whether it is cut and whether it is ended, of each line.
    fn lines(input: &[u8], ends: [u8; 2], most: usize) -> Vec<(u64, String, bool, bool)> {
        let mut found = Vec::new();
        let read = each_line_of(input, 0, ends, most, |line| {
            let text = String::from_utf8_lossy(line.bytes).chars().take(8).collect();
            found.push((line.offset, text, line.is_cut, line.is_ended));
            true
        });
        read.expect("bytes can be read");
        found
    }

    #[test]
    fn lines_end_where_they_should_and_know_where_they_start() {
        let text = b"a\r\nbb\rc\n\nd";
        for (ends, want) in [
            (*b"\n\r", &[(0, "a", true), (3, "bb", true), (6, "c", true), (9, "d", false)][..]),
            (*b"\n\n", &[(0, "a\r", true), (3, "bb\rc", true), (9, "d", false)]),
        ] {
            let want: Vec<_> =
                want.iter().map(|&(at, text, end)| (at, text.to_owned(), false, end)).collect();
            assert_eq!(lines(text, ends, 100), want, "{ends:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        for (length, most) in [(3 << 20, 1 << 20), (LINE_BYTES_MAX + 1, LINE_BYTES_MAX)] {
            let text = [&vec![b'x'; length][..], b"\nlast"].concat();
            let found = lines(&text, *b"\n\n", most);
            assert_eq!((found.len(), found[0].0, found[0].2), (2, 0, true));
            assert_eq!(found[1], (length as u64 + 1, "last".to_owned(), false, false));
        }
    }

    #[test]
    fn what_is_kept_of_a_line_is_its_start() {
        let mut lengths = Vec::new();
        let text = [&[b'x'; 300_000][..], b"\nlast\n"].concat();
        let read = each_line_of(&text[..], 7, *b"\n\n", 9, |line| {
            lengths.push((line.offset, line.bytes.len()));
            true
        });
        read.expect("a slice is read");
        assert_eq!(lengths, [(7, 9), (300_008, 4)]);
    }
}
