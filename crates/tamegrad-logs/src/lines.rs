//! Lines of a file, of bounded length.

use std::io::{self, BufRead};

/// Bytes that a line may have; of longer ones the start is kept.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 20;

/// Reads a file line by line.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    offset: u64,
}

/// What is to know of a line besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it starts, in bytes from the start of the file.
    pub(crate) offset: u64,
    /// Whether it has more than [`LINE_BYTES_MAX`] bytes.
    pub(crate) is_too_long: bool,
    /// Whether a line feed ends it. The last line of a file that is cut has none.
    pub(crate) is_ended: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines of an input.
    pub(crate) fn new(input: R) -> Self {
        Self { input, offset: 0 }
    }

    /// Reads the next line into `line`, without the line feed; `None` at the end.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Line>> {
        line.clear();
        let mut about = Line { offset: self.offset, is_too_long: false, is_ended: false };
        loop {
            let bytes = match self.input.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                return Ok((self.offset > about.offset).then_some(about));
            }
            let end = memchr::memchr(b'\n', bytes);
            let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            let room = LINE_BYTES_MAX - line.len();
            about.is_too_long |= part.len() > room;
            line.extend_from_slice(part.get(..room).unwrap_or(part));
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            self.offset += used as u64;
            if end.is_some() {
                about.is_ended = true;
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(about));
            }
        }
    }
}

/// How many of these bytes are whole lines.
pub(crate) fn whole_lines(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_know_where_they_start() {
        let mut text = b"one\r\n\n".to_vec();
        text.resize(text.len() + LINE_BYTES_MAX + 1, b'x');
        text.extend_from_slice(b"\nlast");
        let mut lines = Lines::new(&text[..]);
        let (mut line, mut got) = (Vec::new(), Vec::new());
        while let Some(about) = lines.next(&mut line).unwrap() {
            got.push((about.offset, line.len(), about.is_too_long, about.is_ended));
        }
        let long = LINE_BYTES_MAX as u64 + 8;
        assert_eq!(
            got,
            [
                (0, 3, false, true),
                (5, 0, false, true),
                (6, LINE_BYTES_MAX, true, true),
                (long, 4, false, false),
            ]
        );
    }
}
