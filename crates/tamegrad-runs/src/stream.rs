//! Arrow IPC streams that grow: written batch by batch, read as far as they are whole.
//!
//! Writing is the `arrow-ipc` crate's. Reading uses its message types, but looks at every length
//! before it follows it: the crate's own reader trusts the offsets that a file gives.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{Message, MessageHeader, MetadataVersion, Precision, root_as_message};

use super::RunError;
use super::batch::{Batch, Column, Kind};
use super::disk::{self, GrowingFile};
use super::table::Table;
use crate::error::ReadError;
use crate::notice::{NOTICES_MAX, Notice};

/// What every message begins with, before the length of its metadata.
const MARK: [u8; 4] = [0xFF; 4];
/// Bytes of a message's metadata; ours have some 1000.
const META_MAX: usize = 64 * 1024;
/// Bytes of a batch; ours have at most 6 million.
const BODY_MAX: usize = 64 * 1024 * 1024;
/// Rows of one batch.
const BATCH_ROWS: usize = 1 << 16;
/// Places that look like a message and are none, after which the search for the next one ends.
const CANDIDATES_MAX: usize = 1000;

/// Rows on their way into a stream.
pub(super) struct Appender<T> {
    file: GrowingFile,
    encoder: StreamWriter<Vec<u8>>,
    rows: Vec<T>,
}

impl<T> fmt::Debug for Appender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows.len();
        f.debug_struct("Appender").field("file", &self.file).field("rows", &rows).finish()
    }
}

impl<T: Table> Appender<T> {
    /// A new stream, in a file that is not there yet.
    pub(super) fn create(path: PathBuf) -> Result<Self, RunError> {
        let schema = encoder::<T>(&path)?.get_ref().clone();
        let mut file = GrowingFile::create(path)?;
        file.append(&schema)?;
        // A stream without its schema could not be read at all.
        file.sync()?;
        Self::of(file)
    }

    /// Goes on with a stream of which the first `len` bytes are whole messages.
    pub(super) fn resume(path: PathBuf, len: u64) -> Result<Self, RunError> {
        Self::of(GrowingFile::resume(path, len)?)
    }

    fn of(file: GrowingFile) -> Result<Self, RunError> {
        let mut encoder = encoder::<T>(file.path())?;
        // The schema: the file has it.
        encoder.get_mut().clear();
        Ok(Self { file, encoder, rows: Vec::new() })
    }

    /// The rows that wait to be written.
    pub(super) fn rows(&mut self) -> &mut Vec<T> {
        &mut self.rows
    }

    /// Writes the rows that wait. Those that cannot be written go on waiting.
    pub(super) fn flush(&mut self) -> Result<(), RunError> {
        let mut written = 0;
        let mut result = Ok(());
        for rows in self.rows.chunks(BATCH_ROWS) {
            result = append(&mut self.file, &mut self.encoder, rows);
            if result.is_err() {
                break;
            }
            written += rows.len();
        }
        self.rows.drain(..written);
        result
    }

    /// Writes rows that do not wait with the others.
    pub(super) fn append(&mut self, rows: &[T]) -> Result<(), RunError> {
        rows.chunks(BATCH_ROWS).try_for_each(|rows| append(&mut self.file, &mut self.encoder, rows))
    }

    /// Gives the file another name; what had that name is gone.
    pub(super) fn rename(&mut self, to: &Path) -> Result<(), RunError> {
        self.file.rename(to)
    }

    /// Waits until the disk has what was written.
    pub(super) fn sync(&mut self) -> Result<(), RunError> {
        self.file.sync()
    }

    /// Writes the rows that wait and the end mark.
    pub(super) fn finish(&mut self) -> Result<(), RunError> {
        self.flush()?;
        self.encoder.finish().map_err(|error| RunError::encode(self.file.path(), error))?;
        let bytes = std::mem::take(self.encoder.get_mut());
        self.file.append(&bytes)?;
        self.file.sync()
    }
}

/// Appends a batch of rows: all of them or none.
fn append<T: Table>(
    file: &mut GrowingFile,
    encoder: &mut StreamWriter<Vec<u8>>,
    rows: &[T],
) -> Result<(), RunError> {
    let encoded = RecordBatch::try_new(Arc::new(T::schema()), T::columns(rows))
        .and_then(|batch| encoder.write(&batch));
    let bytes = std::mem::take(encoder.get_mut());
    encoded.map_err(|error| RunError::encode(file.path(), error))?;
    file.append(&bytes)
}

fn encoder<T: Table>(path: &Path) -> Result<StreamWriter<Vec<u8>>, RunError> {
    // Padding to 8 bytes instead of 64: small batches stay small.
    IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
        .and_then(|options| StreamWriter::try_new_with_options(Vec::new(), &T::schema(), options))
        .map_err(|error| RunError::encode(path, error))
}

/// What is at a place of a stream.
enum Found {
    Message { meta: Vec<u8>, body: Vec<u8> },
    EndMark,
    EndOfFile,
    Trouble(String),
}

/// Reads the rows of a stream in order; what is no whole batch is left out and noted.
///
pub(super) fn read_rows<T: Table>(
    path: &Path,
    notices: &mut Vec<Notice>,
    mut visit: impl FnMut(T),
) -> Result<Rows, ReadError> {
    let io = |error| ReadError::io(path, error);
    let file = disk::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let mut stream = Stream::<T> {
        file: BufReader::new(file),
        len,
        offset: 0,
        layout: Vec::new(),
        rows: PhantomData,
    };
    let mut note = |offset, text| {
        if notices.len() < NOTICES_MAX {
            notices.push(Notice { path: path.to_owned(), offset: Some(offset), text });
        }
    };
    let broken = |offset, found: String| {
        ReadError::broken(path, offset, found, "the schema of an Arrow IPC stream")
    };
    let mut read = Rows { whole: 0, broken: 0 };
    loop {
        let start = stream.offset;
        let trouble = match stream.next().map_err(io)? {
            Found::EndOfFile => break,
            Found::EndMark => continue,
            Found::Trouble(trouble) => trouble,
            Found::Message { meta, body } => {
                match stream.take(&meta, body, &mut visit) {
                    Ok(()) => read.whole = stream.offset,
                    Err(trouble) if stream.layout.is_empty() => return Err(broken(start, trouble)),
                    Err(trouble) => {
                        read.broken += stream.offset - start;
                        note(start, format!("{trouble}: left out"));
                    }
                }
                continue;
            }
        };
        if stream.layout.is_empty() {
            return Err(broken(start, trouble));
        }
        if stream.search(start).map_err(io)? {
            read.broken += stream.offset - start;
            note(start, format!("{trouble}: {} bytes are left out", stream.offset - start));
        } else {
            let text = format!(
                "{trouble}: the last {} bytes are no whole batch and are left out; hint: the \
                 writer was stopped, or is still writing",
                len - start
            );
            note(start, text);
            if !stream.begins_a_message(start).map_err(io)? {
                read.broken += len - start;
            }
            break;
        }
    }
    if stream.layout.is_empty() {
        return Err(broken(0, "the end of the file".to_owned()));
    }
    Ok(read)
}

/// What was read of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    /// The length up to which the stream holds messages, without the mark of its end: there a writer goes
    /// on.
    pub(super) whole: u64,
    /// Bytes that are broken, without a message that the end of the file cuts.
    pub(super) broken: u64,
}

struct Stream<T> {
    file: BufReader<File>,
    len: u64,
    offset: u64,
    /// The columns, once the schema was read.
    layout: Vec<(Arc<str>, Kind)>,
    rows: PhantomData<T>,
}

impl<T: Table> Stream<T> {
    /// Whether what is at an offset may be a message that is cut.
    fn begins_a_message(&mut self, offset: u64) -> io::Result<bool> {
        let mut head = [0; 4];
        self.file.seek(SeekFrom::Start(offset))?;
        let read = self.len.saturating_sub(offset).min(4) as usize;
        self.file.read_exact(&mut head[..read])?;
        Ok(head[..read] == MARK[..read])
    }

    /// What is at the place; after a message or a mark, the place is behind it.
    fn next(&mut self) -> io::Result<Found> {
        let left = self.len - self.offset;
        if left == 0 {
            return Ok(Found::EndOfFile);
        }
        if left < 8 {
            return Ok(Found::Trouble(format!("got {left} bytes, want a message")));
        }
        let head = self.eight()?;
        let (mark, length) = split(head);
        if mark != MARK {
            return Ok(Found::Trouble(format!("got {mark:02X?}, want {MARK:02X?}")));
        }
        if length == 0 {
            self.offset += 8;
            return Ok(Found::EndMark);
        }
        if length % 8 != 0 {
            let text = format!("got {length} bytes of metadata, want a multiple of 8");
            return Ok(Found::Trouble(text));
        }
        let meta = match self.piece(i64::from(length), META_MAX, left - 8, "metadata")? {
            Ok(meta) => meta,
            Err(text) => return Ok(Found::Trouble(text)),
        };
        let wanted = match root_as_message(&meta) {
            Ok(message) => message.bodyLength(),
            Err(error) => return Ok(Found::Trouble(format!("got broken metadata ({error})"))),
        };
        let left = left - 8 - meta.len() as u64;
        let body = match self.piece(wanted, BODY_MAX, left, "values")? {
            Ok(body) => body,
            Err(text) => return Ok(Found::Trouble(text)),
        };
        self.offset += 8 + meta.len() as u64 + body.len() as u64;
        Ok(Found::Message { meta, body })
    }

    fn eight(&mut self) -> io::Result<[u8; 8]> {
        let mut bytes = [0; 8];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The next bytes of the file, as many as a message says, if there can be so many.
    fn piece(
        &mut self,
        wanted: i64,
        most: usize,
        left: u64,
        what: &str,
    ) -> io::Result<Result<Vec<u8>, String>> {
        let Some(length) = usize::try_from(wanted).ok().filter(|&length| length <= most) else {
            return Ok(Err(format!("got {wanted} bytes of {what}, want at most {most}")));
        };
        if length as u64 > left {
            return Ok(Err(format!("got {left} bytes, want {length} bytes of {what}")));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes)?;
        Ok(Ok(bytes))
    }

    /// Takes a message: the schema, or a batch whose rows are visited.
    fn take(
        &mut self,
        meta: &[u8],
        body: Vec<u8>,
        visit: &mut impl FnMut(T),
    ) -> Result<(), String> {
        let message = root_as_message(meta).map_err(|error| error.to_string())?;
        if message.header_type() == MessageHeader::Schema {
            self.layout = layout(&message)?;
            return Ok(());
        }
        let batch = batch(&message, body, &self.layout)?;
        for row in 0..batch.rows {
            visit(T::row(&batch, row).ok_or("a batch without the columns that rows need")?);
        }
        Ok(())
    }

    /// Goes to the next place after `start` at which a batch begins, if there is one. All messages
    /// begin at a multiple of eight.
    fn search(&mut self, start: u64) -> io::Result<bool> {
        let mut place = start / 8 * 8 + 8;
        self.file.seek(SeekFrom::Start(place))?;
        let mut candidates = 0;
        while place + 8 <= self.len && candidates < CANDIDATES_MAX {
            let (mark, length) = split(self.eight()?);
            if mark == MARK && length > 0 && length as usize <= META_MAX {
                candidates += 1;
                if self.is_batch(i64::from(length), self.len - place - 8)? {
                    self.offset = place;
                    self.file.seek(SeekFrom::Start(place))?;
                    return Ok(true);
                }
                self.file.seek(SeekFrom::Start(place + 8))?;
            }
            place += 8;
        }
        Ok(false)
    }

    /// Whether metadata of this length begins here and belongs to a batch that fits the file.
    fn is_batch(&mut self, length: i64, left: u64) -> io::Result<bool> {
        let Ok(meta) = self.piece(length, META_MAX, left, "metadata")? else { return Ok(false) };
        let Ok(message) = root_as_message(&meta) else { return Ok(false) };
        let left = left - meta.len() as u64;
        let fits = u64::try_from(message.bodyLength()).is_ok_and(|length| length <= left);
        Ok(fits && message.header_type() == MessageHeader::RecordBatch)
    }
}

fn split(bytes: [u8; 8]) -> ([u8; 4], i32) {
    let [a, b, c, d, e, f, g, h] = bytes;
    ([a, b, c, d], i32::from_le_bytes([e, f, g, h]))
}

/// The columns that a schema names.
fn layout(message: &Message<'_>) -> Result<Vec<(Arc<str>, Kind)>, String> {
    let fields = message.header_as_schema().and_then(|schema| schema.fields());
    let mut columns = Vec::new();
    for field in fields.ok_or("a schema without columns")? {
        let name = field.name().unwrap_or_default();
        let bits = field.type_as_int().filter(|int| !int.is_signed()).map(|int| int.bitWidth());
        let precision = field.type_as_floating_point().map(|float| float.precision());
        let kind = match (bits, precision) {
            (Some(32), _) => Kind::U32,
            (Some(64), _) => Kind::U64,
            (_, Some(Precision::DOUBLE)) => Kind::F64,
            _ => return Err(format!("column {name:?} of type {:?}", field.type_type())),
        };
        columns.push((Arc::from(name), kind));
    }
    if columns.is_empty() {
        return Err("a schema without columns".to_owned());
    }
    Ok(columns)
}

/// The batch of a message, if all that it says fits its body.
fn batch(
    message: &Message<'_>,
    body: Vec<u8>,
    layout: &[(Arc<str>, Kind)],
) -> Result<Batch, String> {
    let header = message.header_as_record_batch().ok_or("a message that is not a batch")?;
    if header.compression().is_some() {
        return Err("a compressed batch".to_owned());
    }
    let rows = usize::try_from(header.length()).map_err(|_| "a negative number of rows")?;
    let (nodes, buffers) = header.nodes().zip(header.buffers()).ok_or("a batch without columns")?;
    if nodes.len() != layout.len() || buffers.len() != 2 * layout.len() {
        let (found, wanted) = (nodes.len(), layout.len());
        return Err(format!("a batch with {found} columns, want {wanted}"));
    }
    let mut end = 0_usize;
    let mut buffers = buffers.iter().map(|buffer| {
        let start = usize::try_from(buffer.offset()).ok()?;
        // One behind the other, as we write them: metadata that was damaged hardly ever says so.
        let is_next = start == end.checked_next_multiple_of(8)?;
        end = start.checked_add(usize::try_from(buffer.length()).ok()?)?;
        (is_next && end <= body.len()).then_some(start..end)
    });
    let mut columns = Vec::new();
    for (node, (name, kind)) in nodes.iter().zip(layout) {
        let outside = || format!("column {name:?} out of place");
        let presence = buffers.next().flatten().ok_or_else(outside)?;
        let values = buffers.next().flatten().ok_or_else(outside)?;
        let presence = (node.null_count() != 0).then_some(presence);
        let is_short = |bits: &Range<usize>| bits.len() < rows.div_ceil(8);
        if node.length() != header.length()
            || rows.checked_mul(kind.width()).is_none_or(|needed| values.len() < needed)
            || presence.as_ref().is_some_and(is_short)
        {
            return Err(format!("column {name:?} without its {rows} rows"));
        }
        columns.push(Column { name: name.clone(), kind: *kind, values, presence });
    }
    if end.checked_next_multiple_of(8) != Some(body.len()) {
        return Err(format!("{} bytes of values, want {end}", body.len()));
    }
    Ok(Batch { rows, columns, body })
}
