//! Lines as a terminal shows them.

use std::io::{self, Read};

use crate::lines::{Line, each_line_of};

/// Bytes of a line that are looked at; the rest of a longer line is passed over.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// Calls `each` for the lines of `input`, which end at a line feed or at a carriage return: progress
/// bars return to draw their next state. As [`crate::lines::each_line`] otherwise.
///
/// # Errors
/// As there.
pub(super) fn each_line(
    input: impl Read,
    offset: u64,
    each: impl FnMut(Line<'_>) -> bool,
) -> Result<(), (u64, io::Error)> {
    each_line_of(input, offset, *b"\n\r", LINE_BYTES_MAX, each)
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

    #[test]
    fn colours_are_taken_out() {
        let mut plain = Vec::new();
        let line = b"\x1b[34m\x1b[1mloss\x1b[0m 2\x1b(";
        assert_eq!(without_escapes(line, &mut plain), b"loss 2");
    }
}
