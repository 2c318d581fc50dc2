//! The lines of a file of any size, in bounded memory.

use std::io::{self, Read};

use memchr::memchr2;

/// Bytes of a line that are looked at; the rest of a longer line is passed over.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// A line without its end.
pub(super) struct Line<'a> {
    /// Bytes from the start of the file.
    pub(super) offset: u64,
    /// What it holds.
    pub(super) bytes: &'a [u8],
    /// Whether more of it was passed over.
    pub(super) is_cut: bool,
}

/// Calls `each` for the lines of `input`, which end at a line feed or at a carriage return: progress
/// bars return to draw their next state. Stops early when `each` says so.
///
/// # Errors
/// The error of the input, with the bytes read before it; the lines before it were given.
pub(super) fn each_line(
    mut input: impl Read,
    mut each: impl FnMut(Line<'_>) -> bool,
) -> Result<(), (u64, io::Error)> {
    let mut buffer = vec![0; LINE_BYTES_MAX + (64 << 10)];
    let (mut filled, mut offset, mut skipping) = (0, 0_u64, false);
    loop {
        let space = buffer.get_mut(filled..).unwrap_or_default();
        let read = match input.read(space) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err((offset + filled as u64, error)),
        };
        filled += read;
        let bytes = buffer.get(..filled).unwrap_or_default();
        let mut start = 0;
        while let Some(length) = memchr2(b'\n', b'\r', bytes.get(start..).unwrap_or_default()) {
            let kept = length.min(LINE_BYTES_MAX);
            let line = Line {
                offset: offset + start as u64,
                bytes: bytes.get(start..start + kept).unwrap_or_default(),
                is_cut: kept < length,
            };
            if !std::mem::take(&mut skipping) && !line.bytes.is_empty() && !each(line) {
                return Ok(());
            }
            start += length + 1;
        }
        let rest = bytes.get(start..).unwrap_or_default();
        let is_cut = rest.len() > LINE_BYTES_MAX;
        if (is_cut || read == 0) && !skipping && !rest.is_empty() {
            let kept = rest.get(..LINE_BYTES_MAX).unwrap_or(rest);
            if !each(Line { offset: offset + start as u64, bytes: kept, is_cut }) {
                return Ok(());
            }
        }
        if read == 0 {
            return Ok(());
        }
        skipping |= is_cut;
        // What is passed over need not be kept.
        let kept_from = if skipping { filled } else { start };
        buffer.copy_within(kept_from..filled, 0);
        filled -= kept_from;
        offset += kept_from as u64;
    }
}

/// Copies `line` to `plain` without the escape sequences that colour a terminal.
pub(super) fn without_escapes<'a>(line: &'a [u8], plain: &'a mut Vec<u8>) -> &'a [u8] {
    const ESCAPE: u8 = 0x1b;
    if memchr::memchr(ESCAPE, line).is_none() {
        return line;
    }
    plain.clear();
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != ESCAPE {
            plain.push(byte);
        } else if bytes.next_if_eq(&b'[').is_some() {
            while bytes.next().is_some_and(|byte| !(0x40..0x7f).contains(&byte)) {}
        } else {
            bytes.next();
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<(u64, String, bool)> {
        let mut found = Vec::new();
        let read = each_line(input, |line| {
            let text: String = String::from_utf8_lossy(line.bytes).chars().take(8).collect();
            found.push((line.offset, text, line.is_cut));
            true
        });
        read.expect("bytes can be read");
        found
    }

    #[test]
    fn line_feeds_and_carriage_returns_end_lines() {
        let found = lines(b"a\r\nbb\rc\n\nd");
        let want = [(0, "a"), (3, "bb"), (6, "c"), (9, "d")];
        assert_eq!(found, want.map(|(offset, text)| (offset, text.to_owned(), false)));
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        let mut input = vec![b'x'; 3 * LINE_BYTES_MAX];
        input.extend_from_slice(b"\nnext\n");
        let found = lines(&input);
        assert_eq!(found.len(), 2);
        assert!(found[0].2);
        assert_eq!(found[1], (3 * LINE_BYTES_MAX as u64 + 1, "next".to_owned(), false));
    }

    #[test]
    fn colours_are_taken_out() {
        let mut plain = Vec::new();
        let line = b"\x1b[34m\x1b[1mloss\x1b[0m 2\x1b(";
        assert_eq!(without_escapes(line, &mut plain), b"loss 2");
    }
}
