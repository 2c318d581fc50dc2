//! TFRecord frames: `u64 length | masked CRC32C of it | payload | masked CRC32C of it`, all LE.

use std::fmt;
use std::io::{self, Read};

use crate::framed::{self, Framed, Item};
use crate::window::Window;

/// Bytes of a payload; see [`framed::RECORD_MAX`].
pub(super) const RECORD_MAX: u64 = framed::RECORD_MAX as u64;
/// Bytes before the payload.
pub(super) const HEADER: usize = 12;
/// Bytes of a frame that are not payload.
pub(super) const FRAMING: u64 = 16;
/// Bytes that are looked at again because they were a record with a wrong checksum. Bounded: a
/// file can be made so that every 12 bytes begin another such record of 64 MiB.
const DOUBT_MAX: u64 = 256 << 20;

/// The frames of a stream.
#[derive(Debug)]
pub(super) struct Frames<R> {
    window: Window<R>,
    /// Bytes of the frame that was given out last.
    used: usize,
    doubt: u64,
}

#[derive(Debug)]
enum Judged {
    End,
    Whole { payload: usize },
    Fault(Fault),
}

#[derive(Debug)]
enum Fault {
    Length,
    Payload { frame: u64, got: u32, want: u32 },
    Large { frame: u64 },
    Cut,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(stream: R, len: u64) -> Self {
        Self { window: Window::new(stream, len), used: 0, doubt: DOUBT_MAX }
    }

    #[inline]
    fn judge(&mut self) -> io::Result<Judged> {
        let left = self.window.left();
        let head = self.window.need(HEADER)?;
        if head.is_empty() {
            return Ok(Judged::End);
        }
        if head.len() < HEADER {
            return Ok(Judged::Fault(Fault::Cut));
        }
        let Some(payload) = payload_len(head) else { return Ok(Judged::Fault(Fault::Length)) };
        let frame = payload.saturating_add(FRAMING);
        if frame > left {
            return Ok(Judged::Fault(Fault::Cut));
        }
        if payload > RECORD_MAX {
            return Ok(Judged::Fault(Fault::Large { frame }));
        }
        let payload = payload as usize;
        let bytes = self.window.need(HEADER + payload + 4)?;
        let sum = bytes.get(HEADER + payload..).and_then(|rest| rest.first_chunk());
        let (Some(bytes), Some(sum)) = (bytes.get(HEADER..HEADER + payload), sum) else {
            return Ok(Judged::Fault(Fault::Cut));
        };
        let (got, want) = (masked_crc(bytes), u32::from_le_bytes(*sum));
        if got != want {
            return Ok(Judged::Fault(Fault::Payload { frame, got, want }));
        }
        Ok(Judged::Whole { payload })
    }

    /// Passes over what is at fault; whether there is a record behind it.
    fn pass(&mut self, fault: &Fault) -> io::Result<bool> {
        match *fault {
            Fault::Large { frame } => self.window.skip(frame)?,
            // Bytes may be missing inside it: then another record begins before its end.
            Fault::Payload { frame, .. } if frame <= self.doubt => {
                self.doubt -= frame;
                return self.find();
            }
            Fault::Payload { frame, .. } => self.window.skip(frame)?,
            Fault::Length | Fault::Cut => return self.find(),
        }
        Ok(self.window.left() > 0)
    }

    /// Moves to the next place where the checksum of a length fits. By chance one fits in 2^32
    /// places.
    fn find(&mut self) -> io::Result<bool> {
        self.window.advance(1);
        loop {
            let bytes = self.window.need(HEADER)?;
            // An empty record holds nothing, and in a stretch of zeros each place could be one.
            let fits = |head: &[u8]| {
                head[..4] != [0; 4] && payload_len(head).is_some_and(|len| len <= RECORD_MAX)
            };
            // Most places are refused by the upper bytes of the length, before any checksum.
            let found = bytes
                .windows(HEADER)
                .position(|head| head[3] <= 4 && head[4..8] == [0; 4] && fits(head));
            let passed = found.unwrap_or((bytes.len() + 1).saturating_sub(HEADER).max(1));
            let is_end = bytes.len() < HEADER;
            if is_end {
                self.window.skip(u64::MAX)?;
                return Ok(false);
            }
            self.window.advance(passed);
            if found.is_some() {
                return Ok(true);
            }
        }
    }
}

impl<R: Read> Framed for Frames<R> {
    #[inline]
    fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        self.window.advance(std::mem::take(&mut self.used));
        let offset = self.window.offset();
        match self.judge()? {
            Judged::End => Ok(None),
            Judged::Whole { payload } => {
                self.used = payload + FRAMING as usize;
                let payload = self.window.bytes().get(HEADER..HEADER + payload);
                Ok(payload.map(|payload| Item::Record(offset, payload)))
            }
            Judged::Fault(fault) => {
                let is_found = self.pass(&fault)?;
                let left_out = self.window.offset() - offset;
                let upto = if is_found { "next record" } else { "end of the file" };
                Ok(Some(match fault {
                    Fault::Cut if !is_found => {
                        let text = format!(
                            "a record cut short by the end of the file ({left_out} bytes of it are \
                             there); everything before it is used"
                        );
                        Item::Cut(offset, text)
                    }
                    fault => {
                        let text = format!("{fault}; left out {left_out} bytes up to the {upto}");
                        Item::Fault(offset, text)
                    }
                }))
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => {
                write!(f, "bytes that are no record (the length's checksum does not fit)")
            }
            Self::Payload { got, want, .. } => {
                write!(f, "a record with checksum {got:08x}, want {want:08x}")
            }
            Self::Large { .. } => {
                write!(f, "a record of more than {} MiB", RECORD_MAX >> 20)
            }
            Self::Cut => write!(f, "a record that would go on behind the end of the file"),
        }
    }
}

/// The length of the payload behind a header; `None` where its checksum does not fit.
#[inline]
pub(super) fn payload_len(head: &[u8]) -> Option<u64> {
    let (len, rest) = head.split_first_chunk::<8>()?;
    let sum = rest.first_chunk::<4>()?;
    (masked_crc(len) == u32::from_le_bytes(*sum)).then(|| u64::from_le_bytes(*len))
}

/// Whether the checksum of a whole frame's payload fits.
pub(super) fn is_sound(frame: &[u8]) -> bool {
    let payload = frame.get(HEADER..).and_then(|rest| rest.split_last_chunk::<4>());
    payload.is_some_and(|(payload, sum)| masked_crc(payload) == u32::from_le_bytes(*sum))
}

/// The checksum as TFRecord stores it, so that a checksum of checksums stays good.
#[inline]
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A frame around a payload, for tests.
#[cfg(test)]
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u64).to_le_bytes();
    let sums = [masked_crc(&len).to_le_bytes(), masked_crc(payload).to_le_bytes()];
    [&len[..], &sums[0], payload, &sums[1]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Payloads in words, faults as `!offset text`.
    fn read(bytes: &[u8]) -> Vec<String> {
        read_as_long(bytes, bytes.len())
    }

    fn read_as_long(bytes: &[u8], len: usize) -> Vec<String> {
        let mut frames = Frames::new(bytes, len as u64);
        let mut found = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            found.push(match frame {
                Item::Record(_, payload) => String::from_utf8_lossy(payload).into_owned(),
                Item::Fault(offset, text) | Item::Cut(offset, text) => {
                    format!("!{offset} {text}")
                }
            });
        }
        found
    }

    fn three() -> Vec<u8> {
        [frame(b"one"), frame(b"two"), frame(b"three")].concat()
    }

    /// A header that is right in itself and claims a payload of so many bytes.
    fn claim(len: u64) -> Vec<u8> {
        [len.to_le_bytes().to_vec(), masked_crc(&len.to_le_bytes()).to_le_bytes().to_vec()].concat()
    }

    #[test]
    fn what_is_broken_is_left_out_and_said() {
        let flip = |at: usize| {
            let mut bytes = three();
            bytes[at] ^= 0x40;
            bytes
        };
        let without = |range: std::ops::Range<usize>| {
            let mut bytes = three();
            bytes.drain(range);
            bytes
        };
        let bomb = |len: u64| [frame(b"one"), claim(len), frame(b"three")].concat();
        let cases: &[(Vec<u8>, &[&str])] = &[
            (three(), &["one", "two", "three"]),
            (
                flip(19 + 13),
                &[
                    "one",
                    "!19 a record with checksum 8dd24676, want 09c99089; left out 19 bytes up \
                     to the next record",
                    "three",
                ],
            ),
            (
                flip(19 + 2),
                &[
                    "one",
                    "!19 bytes that are no record (the length's checksum does not fit); left out \
                     19 bytes up to the next record",
                    "three",
                ],
            ),
            (
                without(32..36),
                &[
                    "one",
                    "!19 a record with checksum 1e35a0ab, want 00000005; left out 15 bytes \
                     up to the next record",
                    "three",
                ],
            ),
            (
                bomb(1 << 60),
                &[
                    "one",
                    "!19 a record that would go on behind the end of the file; left out 12 bytes \
                     up to the next record",
                    "three",
                ],
            ),
            (
                three()[..50].to_vec(),
                &[
                    "one",
                    "two",
                    "!38 a record cut short by the end of the file (12 bytes of it are there); \
                     everything before it is used",
                ],
            ),
            (
                [three(), vec![0; 40]].concat(),
                &[
                    "one",
                    "two",
                    "three",
                    "!59 bytes that are no record (the length's checksum does not fit); left out \
                     40 bytes up to the end of the file",
                ],
            ),
        ];
        for (bytes, want) in cases {
            assert_eq!(read(bytes), *want);
        }
    }

    #[test]
    fn a_file_that_has_become_shorter_ends() {
        let cut = "!38 a record cut short by the end of the file (12 bytes of it are there); \
                   everything before it is used";
        assert_eq!(read_as_long(&three()[..50], 59), ["one", "two", cut]);
        assert_eq!(read_as_long(&three(), 100), ["one", "two", "three"]);
    }

    #[test]
    fn a_large_record_is_passed_over() {
        let len = RECORD_MAX + 1;
        let large = claim(len).into_iter().chain(std::iter::repeat_n(7, len as usize + 4));
        let bytes = [frame(b"one"), large.collect(), frame(b"two")].concat();
        let text = format!(
            "!19 a record of more than 64 MiB; left out {} bytes up to the next record",
            len + FRAMING
        );
        assert_eq!(read(&bytes), ["one", &text, "two"]);
    }

    #[test]
    fn records_within_records_end_in_time() {
        // Each header is right and claims a payload up to the end, whose checksum is wrong.
        let count = 40_000;
        let bytes: Vec<u8> =
            (0..count).flat_map(|i| claim((count - i - 1) * 12)).chain([0; 4]).collect();
        let faults = read(&bytes);
        assert!(faults.iter().all(|fault| fault.starts_with('!')), "{:?}", faults.first());
        assert!(faults.len() as u64 <= DOUBT_MAX / (count * 6) + 2, "{}", faults.len());
    }

    proptest! {
        #[test]
        fn one_wrong_byte_costs_one_record(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..12),
            at: prop::sample::Index,
            flip in 1_u8..,
        ) {
            let frames: Vec<Vec<u8>> = payloads.iter().map(|payload| frame(payload)).collect();
            let mut bytes = frames.concat();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut begin = 0;
            let mut want = Vec::new();
            for (payload, frame) in payloads.iter().zip(&frames) {
                if !(begin..begin + frame.len()).contains(&at) {
                    want.push(String::from_utf8_lossy(payload).into_owned());
                }
                begin += frame.len();
            }
            let mut got = read(&bytes);
            got.retain(|text| !text.starts_with('!') || want.contains(text));
            prop_assert_eq!(got, want);
        }

        /// No payload is of 8 bytes: where one is missing with its checksum, the length of the
        /// next record and that length's checksum are a good record in its place, and no reader
        /// can tell. An event is longer, its time alone takes 9 bytes.
        #[test]
        fn missing_bytes_cost_only_their_records(
            payloads in prop::collection::vec(prop::collection::vec(b'a'..=b'z', 9..40), 1..12),
            from: prop::sample::Index,
            len in 1_usize..100,
        ) {
            let frames: Vec<Vec<u8>> = payloads.iter().map(|payload| frame(payload)).collect();
            let mut bytes = frames.concat();
            let from = from.index(bytes.len());
            let to = (from + len).min(bytes.len());
            bytes.drain(from..to);
            let mut begin = 0;
            let mut want = Vec::new();
            for (payload, frame) in payloads.iter().zip(&frames) {
                if begin + frame.len() <= from || begin >= to {
                    want.push(String::from_utf8_lossy(payload).into_owned());
                }
                begin += frame.len();
            }
            let mut got = read(&bytes);
            got.retain(|text| !text.starts_with('!'));
            // The two ends may make up one good record, as where two equal ones meet.
            prop_assert!(got.len() <= want.len() + 1);
            let mut rest = got.iter();
            prop_assert!(want.iter().all(|text| rest.any(|got| got == text)), "{:?}", got);
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let faults = read(&bytes).len();
            prop_assert!(faults <= bytes.len());
        }
    }
}
