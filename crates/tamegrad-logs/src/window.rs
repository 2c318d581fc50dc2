//! A stream seen through a buffer that slides over it, so that a file never is in memory whole.

use std::io::{self, ErrorKind, Read};

/// Bytes asked of the stream at once.
const CHUNK: usize = 1 << 20;

/// The next bytes of a stream, with their place in it.
#[derive(Debug)]
pub(crate) struct Window<R> {
    stream: R,
    len: u64,
    offset: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Window<R> {
    /// A window on a stream of so many bytes. What lies behind them is left alone: a file that
    /// grows is read as it was.
    pub(crate) fn new(stream: R, len: u64) -> Self {
        let capacity = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
        Self { stream, len, offset: 0, buffer: vec![0; capacity], start: 0, end: 0 }
    }

    /// Where the window begins, in bytes from the start of the stream.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes from the window's beginning to the end of the stream.
    pub(crate) fn left(&self) -> u64 {
        self.len.saturating_sub(self.offset)
    }

    /// The bytes that are in the window.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// At least so many bytes, or all up to the end where that comes first.
    #[inline]
    pub(crate) fn need(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.end - self.start < wanted {
            self.fill(wanted)?;
        }
        Ok(self.bytes())
    }

    /// Moves the window's beginning by so many of its bytes.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.end - self.start);
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Moves the window's beginning by any number of bytes, up to the end.
    pub(crate) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes.min(self.left());
        while left > 0 {
            let here = self.need(1)?.len();
            if here == 0 {
                break;
            }
            let step = usize::try_from(left).map_or(here, |left| left.min(here));
            self.advance(step);
            left -= step as u64;
        }
        Ok(())
    }

    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < wanted {
            if self.end == self.buffer.len() {
                // By what has really come, never by what a length in the file claims.
                self.buffer.resize(wanted.min((2 * self.end).max(CHUNK)), 0);
            }
            let unread = self.left().saturating_sub(self.end as u64);
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            let most = usize::try_from(unread).map_or(room.len(), |unread| unread.min(room.len()));
            match self.stream.read(room.get_mut(..most).unwrap_or_default()) {
                Ok(0) => {
                    // Also where the file has become shorter since it was opened.
                    self.len = self.offset + self.end as u64;
                    break;
                }
                Ok(read) => self.end += read.min(most),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wish_beyond_the_end_takes_no_memory() {
        let mut window = Window::new(&b"abc"[..], 3);
        assert_eq!(window.need(64 << 20).unwrap(), b"abc");
        assert!(window.buffer.len() <= CHUNK);
    }

    #[test]
    fn a_stream_is_left_at_the_length_that_was_given() {
        let mut window = Window::new(&b"abcdef"[..], 4);
        assert_eq!(window.need(6).unwrap(), b"abcd");
        window.skip(9).unwrap();
        assert_eq!((window.offset(), window.left()), (4, 0));
    }

    #[test]
    fn a_stream_that_is_shorter_than_was_said_ends() {
        let mut window = Window::new(&b"abc"[..], 9);
        assert_eq!(window.need(6).unwrap(), b"abc");
        assert_eq!(window.left(), 3);
        window.skip(5).unwrap();
        assert_eq!((window.offset(), window.left()), (3, 0));
    }

    /// A stream that gives a few bytes at a time.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(room.len());
            self.0.read(&mut room[..most])
        }
    }

    proptest! {
        #[test]
        fn every_byte_is_seen_at_its_place(
            bytes: Vec<u8>,
            drop in 1_usize..9,
            steps in prop::collection::vec((0_usize..20, 0_usize..20), 0..40),
        ) {
            let mut window = Window::new(Drops(&bytes, drop), bytes.len() as u64);
            for (wanted, used) in steps {
                let offset = window.offset() as usize;
                let seen = window.need(wanted).unwrap();
                prop_assert!(seen.len() >= wanted.min(bytes.len() - offset));
                prop_assert_eq!(seen, &bytes[offset..offset + seen.len()]);
                window.advance(used);
            }
        }
    }
}
