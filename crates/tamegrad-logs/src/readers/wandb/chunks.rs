//! Records of a LevelDB log: chunks `u32 CRC32 | u16 length | u8 type | data` in blocks of 32 KiB.
//!
//! LevelDB itself masks a CRC32C; W&B stores the plain CRC32 of zlib, over the type and the data.

use std::io::{self, Read};

use crate::framed::{CUT, Framed, Item, RECORD_MAX};
use crate::window::Window;

const BLOCK: u64 = 32 * 1024;
const HEADER: usize = 7;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// The records of a stream.
#[derive(Debug)]
pub(super) struct Records<R> {
    window: Window<R>,
    /// Bytes of the chunk that was given out last.
    used: usize,
    parts: Parts,
    /// What the parts hold so far.
    record: Vec<u8>,
    /// Where the record begins.
    offset: u64,
}

/// A record over several chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// None is under way.
    Idle,
    /// It began, and its next part is to come.
    Begun,
    /// A part of it was left out, and the rest will be.
    Lost,
}

#[derive(Debug)]
enum Chunk {
    Whole {
        kind: u8,
        len: usize,
    },
    Fault {
        text: String,
        len: usize,
    },
    /// The end of the file, inside of a chunk of which so many bytes are there.
    Cut {
        len: usize,
    },
    /// The end of the file.
    End,
}

impl<R: Read> Records<R> {
    /// The records of a stream of `len` bytes behind a header of the file of `header` bytes, which
    /// is part of the first block.
    pub(super) fn new(stream: R, len: u64, header: u64) -> io::Result<Self> {
        let mut window = Window::new(stream, len);
        window.skip(header)?;
        Ok(Self { window, used: 0, parts: Parts::Idle, record: Vec::new(), offset: 0 })
    }

    /// Takes a part of a record in; what is wrong with it.
    fn part(&mut self, kind: u8, len: usize, offset: u64) -> Option<String> {
        match (kind, self.parts) {
            (FIRST, _) => {
                self.record.clear();
                self.offset = offset;
                self.parts = Parts::Begun;
            }
            (_, Parts::Begun) => {}
            (_, Parts::Lost) => return None,
            (_, Parts::Idle) => {
                self.parts = Parts::Lost;
                return Some("a record without its beginning; left out".to_owned());
            }
        }
        if self.record.len() + len > RECORD_MAX {
            self.parts = Parts::Lost;
            self.record = Vec::new();
            return Some(format!("a record of more than {} MiB; left out", RECORD_MAX >> 20));
        }
        let data = self.window.bytes().get(HEADER..HEADER + len).unwrap_or_default();
        self.record.extend_from_slice(data);
        None
    }

    /// What is missing at the end of the file.
    fn end(&mut self) -> Option<String> {
        let is_cut = std::mem::replace(&mut self.parts, Parts::Idle) == Parts::Begun;
        is_cut.then(|| CUT.to_owned())
    }

    /// The next chunk; what fills up the rest of a block is passed over.
    fn chunk(&mut self) -> io::Result<Chunk> {
        loop {
            let room = (BLOCK - self.window.offset() % BLOCK) as usize;
            let bytes = self.window.need(room)?;
            let block = bytes.get(..room.min(bytes.len())).unwrap_or_default();
            if block.is_empty() {
                return Ok(Chunk::End);
            }
            // A writer that flushes whole blocks leaves zeros behind its last record. A block of
            // nothing else is what a crash leaves.
            let is_zero = block.first_chunk() == Some(&[0; HEADER]) && is_zero(block);
            if block.len() >= HEADER && !is_zero {
                return Ok(judge(block, room));
            }
            let len = block.len();
            if is_zero && room as u64 == BLOCK {
                return Ok(Chunk::Fault { text: format!("{len} zero bytes; left out"), len });
            }
            self.window.advance(len);
        }
    }
}

impl<R: Read> Framed for Records<R> {
    fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        loop {
            self.window.advance(std::mem::take(&mut self.used));
            let chunk = self.chunk()?;
            let offset = self.window.offset();
            let (kind, len) = match chunk {
                Chunk::Whole { kind, len } => (kind, len),
                Chunk::End => return Ok(self.end().map(|text| Item::Cut(self.offset, text))),
                Chunk::Cut { len } => {
                    self.used = len;
                    self.parts = Parts::Lost;
                    return Ok(Some(Item::Cut(offset, CUT.to_owned())));
                }
                Chunk::Fault { text, len } => {
                    self.used = len;
                    self.parts = Parts::Lost;
                    return Ok(Some(Item::Fault(offset, text)));
                }
            };
            if self.parts == Parts::Begun && matches!(kind, FULL | FIRST) {
                // This chunk is looked at again by the next call.
                self.parts = Parts::Idle;
                let text = "a record without its end; left out".to_owned();
                return Ok(Some(Item::Fault(self.offset, text)));
            }
            self.used = HEADER + len;
            if kind == FULL {
                self.parts = Parts::Idle;
                let data = self.window.bytes().get(HEADER..HEADER + len).unwrap_or_default();
                return Ok(Some(Item::Record(offset, data)));
            }
            if let Some(text) = self.part(kind, len, offset) {
                return Ok(Some(Item::Fault(offset, text)));
            }
            if kind == LAST && self.parts == Parts::Begun {
                self.parts = Parts::Idle;
                return Ok(Some(Item::Record(self.offset, &self.record)));
            }
            if kind == LAST {
                self.parts = Parts::Idle;
            }
        }
    }
}

/// The chunk at the start of what is left of a block; `room` is what would be left of it if the
/// file did not end inside it.
fn judge(block: &[u8], room: usize) -> Chunk {
    let Some((sum, len, kind)) = header(block) else { return Chunk::End };
    if HEADER + len > room {
        let text = format!(
            "a chunk that would go on behind its block; left out {} bytes up to the next block",
            block.len()
        );
        return Chunk::Fault { text, len: block.len() };
    }
    let Some(data) = block.get(HEADER..HEADER + len) else {
        // A header and nothing behind it is how a run looks that was killed or still goes on.
        if block.len() == HEADER {
            return Chunk::End;
        }
        return Chunk::Cut { len: block.len() };
    };
    let got = crc(kind, data);
    if got != sum {
        // The length may be wrong as well: only a good chunk behind it says that it is right.
        let behind = block.get(HEADER + len..).unwrap_or_default();
        let left_out = if is_chunk(behind) { HEADER + len } else { block.len() };
        let text =
            format!("a chunk with checksum {got:08x}, want {sum:08x}; left out {left_out} bytes");
        return Chunk::Fault { text, len: left_out };
    }
    if ![FULL, FIRST, MIDDLE, LAST].contains(&kind) {
        let text = format!("a chunk of the unknown type {kind}; left out");
        return Chunk::Fault { text, len: HEADER + len };
    }
    Chunk::Whole { kind, len }
}

/// Whether a good chunk begins here, or there is no room for one.
fn is_chunk(block: &[u8]) -> bool {
    let Some((sum, len, kind)) = header(block) else { return true };
    block.get(HEADER..HEADER + len).is_some_and(|data| crc(kind, data) == sum)
}

/// The checksum, the length and the type that a chunk begins with.
fn header(block: &[u8]) -> Option<(u32, usize, u8)> {
    let (&[a, b, c, d, low, high, kind], _) = block.split_first_chunk()?;
    Some((u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([low, high]).into(), kind))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

fn crc(kind: u8, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(data);
    hasher.finalize()
}

/// A log of records behind the header of a file, for tests.
#[cfg(test)]
pub(super) fn write(header: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut log = header.to_vec();
    for record in records {
        let (mut rest, mut is_first) = (&record[..], true);
        loop {
            let room = BLOCK as usize - log.len() % BLOCK as usize;
            if room < HEADER {
                log.resize(log.len() + room, 0);
                continue;
            }
            let (data, after) = rest.split_at(rest.len().min(room - HEADER));
            let kind = match (is_first, after.is_empty()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, false) => MIDDLE,
                (false, true) => LAST,
            };
            log.extend(chunk(kind, data));
            (rest, is_first) = (after, false);
            if rest.is_empty() {
                break;
            }
        }
    }
    log
}

#[cfg(test)]
fn chunk(kind: u8, data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u16).to_le_bytes();
    [&crc(kind, data).to_le_bytes()[..], &len, &[kind], data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Records as text or, where long, as their length; faults as `!offset text`.
    fn read(bytes: &[u8]) -> Vec<String> {
        let mut records = Records::new(bytes, bytes.len() as u64, 7).unwrap();
        let mut found = Vec::new();
        while let Some(item) = records.next().unwrap() {
            found.push(match item {
                Item::Record(_, record) if record.len() > 40 => record.len().to_string(),
                Item::Record(_, record) => String::from_utf8_lossy(record).into_owned(),
                Item::Fault(offset, text) | Item::Cut(offset, text) => {
                    format!("!{offset} {text}")
                }
            });
        }
        found
    }

    fn log(records: &[&str]) -> Vec<u8> {
        let records: Vec<Vec<u8>> = records.iter().map(|record| record.as_bytes().into()).collect();
        write(b"header:", &records)
    }

    #[test]
    fn records_over_blocks_and_tails_of_live_runs() {
        let long = "x".repeat(100_000);
        // 32768 - 7 - 7 - 32740 - 7 - 2 = 5 bytes are too few for another header.
        let filling = "y".repeat(32_740);
        let cases: &[(Vec<u8>, &[&str])] = &[
            (log(&[]), &[]),
            (log(&["one", &long, "two", ""]), &["one", "100000", "two", ""]),
            (log(&[&filling, "ab", "next"]), &["32740", "ab", "next"]),
            // The bare header of a chunk, a part of one, zeros to the end of the block and beyond.
            ([log(&["one"]), chunk(FULL, b"two")[..7].to_vec()].concat(), &["one"]),
            ([log(&["one"]), chunk(FULL, b"two")[..5].to_vec()].concat(), &["one"]),
            ([log(&["one"]), vec![0; 32_751]].concat(), &["one"]),
            (
                [log(&["one"]), vec![0; 32_751 + 40_000], log(&["two"])[7..].to_vec()].concat(),
                &[
                    "one",
                    "!32768 32768 zero bytes; left out",
                    "!65536 a chunk with checksum d202ef8d, want 00000000; left out 7242 bytes",
                ],
            ),
        ];
        for (bytes, want) in cases {
            assert_eq!(read(bytes), *want);
        }
    }

    #[test]
    fn what_is_broken_is_left_out_and_said() {
        let long = "x".repeat(100_000);
        let cut = "a record cut short by the end of the file; everything before it is used";
        let parts = |kinds: &[(u8, &str)]| -> Vec<u8> {
            let chunks = kinds.iter().flat_map(|(kind, data)| chunk(*kind, data.as_bytes()));
            b"header:".iter().copied().chain(chunks).collect()
        };
        let mut wrong = log(&["one", "two", "three"]);
        wrong[7 + 10 + 8] ^= 1;
        let mut wrong_length = log(&["one", &long, "two"]);
        wrong_length[7 + 10 + 4] ^= 8;
        let mut over = log(&["one", &long, "two"]);
        over[7 + 5] = 0xff;
        let cases: &[(Vec<u8>, &[&str])] = &[
            (log(&["one", "two"])[..7 + 10 + 8].to_vec(), &["one", &format!("!17 {cut}")]),
            (log(&["one", &long])[..32_768].to_vec(), &["one", &format!("!17 {cut}")]),
            (
                wrong,
                &[
                    "one",
                    "!17 a chunk with checksum 6e68da4c, want 7773eb0d; left out 10 bytes",
                    "three",
                ],
            ),
            (
                wrong_length,
                &[
                    "one",
                    "!17 a chunk with checksum 8be8931a, want a9e80de7; left out 32751 bytes",
                    "two",
                ],
            ),
            (
                over,
                &[
                    "!7 a chunk that would go on behind its block; left out 32761 bytes up to the \
                     next block",
                    "two",
                ],
            ),
            (
                parts(&[(FIRST, "a"), (FULL, "one"), (LAST, "b"), (FULL, "two"), (9, "c")]),
                &[
                    "!7 a record without its end; left out",
                    "one",
                    "!25 a record without its beginning; left out",
                    "two",
                    "!43 a chunk of the unknown type 9; left out",
                ],
            ),
        ];
        for (bytes, want) in cases {
            assert_eq!(read(bytes), *want);
        }
    }

    #[test]
    fn a_large_record_is_passed_over() {
        let bytes = log(&["one", &"x".repeat(RECORD_MAX + 1), "two"]);
        let found = read(&bytes);
        assert_eq!(found.len(), 3, "{:?}", &found[..3]);
        let is_said = found[1].ends_with(" a record of more than 64 MiB; left out");
        assert!(is_said && found[0] == "one" && found[2] == "two", "{found:?}");
    }

    proptest! {
        #[test]
        fn one_wrong_byte_costs_no_record_of_another_block(
            lens in prop::collection::vec(0_usize..20_000, 1..12),
            at: prop::sample::Index,
            flip in 1_u8..,
        ) {
            let records: Vec<String> = lens.iter().map(|&len| "z".repeat(len)).collect();
            let mut bytes = log(&records.iter().map(|record| &record[..]).collect::<Vec<_>>());
            let all = read(&bytes);
            prop_assert_eq!(all.len(), records.len());
            let at = 7 + at.index(bytes.len() - 7);
            bytes[at] ^= flip;
            let found = read(&bytes);
            let good = found.iter().filter(|text| !text.starts_with('!')).count();
            // The records of the block, with those that begin or end in it.
            let block = (at as u64 / BLOCK * BLOCK) as i64;
            let mut end = 7;
            let mut touched = 0;
            for len in &lens {
                let begin = end;
                end += *len as i64 + HEADER as i64;
                end += (end / BLOCK as i64 - begin / BLOCK as i64) * HEADER as i64;
                touched += i64::from(begin < block + BLOCK as i64 && end >= block);
            }
            prop_assert!(good as i64 >= lens.len() as i64 - touched, "{found:?}");
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let found = read(&bytes).len();
            prop_assert!(found <= bytes.len());
        }
    }
}
