//! Records of a LevelDB log: chunks `u32 CRC32 | u16 length | u8 type | data` in blocks of 32 KiB.
//!
//! LevelDB itself masks a CRC32C; W&B stores the plain CRC32 of zlib, over the type and the data.

use std::io::{self, Read};

use crate::window::Window;

/// A longer record is passed over.
pub(super) const RECORD_MAX: usize = 64 << 20;
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

/// What is next in a stream.
#[derive(Debug)]
pub(super) enum Item<'a> {
    /// A whole record, and where it begins.
    Record(u64, &'a [u8]),
    /// Something that was left out, and where it begins.
    Fault(u64, String),
}

#[derive(Debug)]
enum Chunk {
    Whole {
        kind: u8,
        len: usize,
    },
    /// The end of the file.
    End,
    Fault {
        text: String,
        len: usize,
    },
}

impl<R: Read> Records<R> {
    /// The records of a stream of `len` bytes behind a header of the file of `header` bytes, which
    /// is part of the first block.
    pub(super) fn new(stream: R, len: u64, header: u64) -> io::Result<Self> {
        let mut window = Window::new(stream, len);
        window.skip(header)?;
        Ok(Self { window, used: 0, parts: Parts::Idle, record: Vec::new(), offset: 0 })
    }

    /// The next record, or what is in its place; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        loop {
            self.window.advance(std::mem::take(&mut self.used));
            let offset = self.window.offset();
            let (kind, len) = match self.chunk()? {
                Chunk::Whole { kind, len } => (kind, len),
                Chunk::End => return Ok(self.end().map(|text| Item::Fault(self.offset, text))),
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
        is_cut
            .then(|| "a record cut short by the end of the file; all before it is used".to_owned())
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
            // A writer that flushes whole blocks leaves zeros behind its last record.
            let is_filling =
                block.len() < HEADER || block.first_chunk() == Some(&[0; HEADER]) && is_zero(block);
            if !is_filling {
                return Ok(judge(block, room));
            }
            let len = block.len();
            self.window.advance(len);
        }
    }
}

/// The chunk at the start of what is left of a block; `room` is what would be left of it if the
/// file did not end inside it.
fn judge(block: &[u8], room: usize) -> Chunk {
    let (sum, len, kind) = match block {
        [a, b, c, d, low, high, kind, ..] => {
            let sum = u32::from_le_bytes([*a, *b, *c, *d]);
            (sum, usize::from(u16::from_le_bytes([*low, *high])), *kind)
        }
        _ => return Chunk::End,
    };
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
        let text = "a record cut short by the end of the file; all before it is used".to_owned();
        return Chunk::Fault { text, len: block.len() };
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
    if !(FULL..=LAST).contains(&kind) {
        let text = format!("a chunk of the unknown type {kind}; left out");
        return Chunk::Fault { text, len: HEADER + len };
    }
    Chunk::Whole { kind, len }
}

/// Whether a good chunk begins here, or there is no room for one.
fn is_chunk(block: &[u8]) -> bool {
    let [a, b, c, d, low, high, kind, rest @ ..] = block else { return true };
    let len = usize::from(u16::from_le_bytes([*low, *high]));
    rest.get(..len).is_some_and(|data| crc(*kind, data) == u32::from_le_bytes([*a, *b, *c, *d]))
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
