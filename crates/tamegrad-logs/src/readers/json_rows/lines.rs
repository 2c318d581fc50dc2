//! One record a line, read piece by piece, also while the file grows.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::layout::{FIRST_RECORD_BYTES_MAX, Layout, layout};
use super::records::{Records, read_records};
use crate::files::open;
use crate::json::{Json, JsonError};
use crate::lines::{bad_bytes, whole_lines};
use crate::log::{Log, LogBuilder};
use crate::readers::Growing;
use crate::rows::Rows;

/// Bytes of lines that are read at a time.
const CHUNK: u64 = 1 << 20;
/// Bytes of a line; of a longer one the rest is another, broken one.
const LINE_BYTES_MAX: usize = 80 << 20;

/// Reads lines, of which the first bytes were read: how the file ended, and how the last line did.
pub(super) fn read_lines(
    mut file: File,
    mut bytes: Vec<u8>,
    rows: &mut Rows,
) -> (io::Result<usize>, Result<(), JsonError>) {
    let (mut records, mut offset) = (Records::default(), 0);
    loop {
        let whole = if bytes.len() > LINE_BYTES_MAX { bytes.len() } else { whole_lines(&bytes) };
        take_lines(&bytes[..whole], offset, rows, &mut records);
        offset += whole as u64;
        bytes.drain(..whole);
        let got = file.by_ref().take(CHUNK).read_to_end(&mut bytes);
        if !matches!(got, Ok(1..)) {
            let json = Json::new(&bytes).at(offset).one_line_each(true);
            return (got, counted(&bytes, rows, |rows| read_records(json, rows, &mut records)));
        }
    }
}

/// Counts bytes that are read, and of those that were not left out such as no text contains: they can
/// stand in a name.
pub(super) fn counted<R>(bytes: &[u8], rows: &mut Rows, read: impl FnOnce(&mut Rows) -> R) -> R {
    rows.log.saw(bytes.len() as u64);
    let before = rows.log.damage().left_out;
    let result = read(rows);
    let left_out = rows.log.damage().left_out - before;
    rows.log.lose(bad_bytes(bytes).saturating_sub(left_out));
    result
}

/// Reads whole lines that begin at an offset of the file.
fn take_lines(bytes: &[u8], offset: u64, rows: &mut Rows, records: &mut Records) {
    let json = Json::new(bytes).at(offset).one_line_each(true);
    if let Err(error) = counted(bytes, rows, |rows| read_records(json, rows, records)) {
        rows.notice(error.offset, error.to_string());
    }
}

/// A file of one record a line, as it grows.
#[derive(Debug, Clone)]
struct GrowingLines {
    rows: Rows,
    records: Records,
}

pub(super) fn grow(path: &Path, log: LogBuilder) -> Option<Box<dyn Growing>> {
    let mut bytes = Vec::new();
    open(path).ok()?.take(FIRST_RECORD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let is_lines = layout(&bytes, path) == Layout::Lines;
    let (rows, records) = (Rows::new(log, path), Records::default());
    is_lines.then(|| Box::new(GrowingLines { rows, records }) as Box<dyn Growing>)
}

impl Growing for GrowingLines {
    fn take(&mut self, bytes: &[u8], offset: u64) {
        take_lines(bytes, offset, &mut self.rows, &mut self.records);
    }

    /// A record without a line feed behind it may be whole.
    fn look(&mut self, rest: &[u8], points: usize) -> Log {
        let (rows, records) = (self.rows.ending(points), self.records.clone());
        let mut ending = Self { rows, records };
        ending.take(rest, 0);
        ending.rows.log.finish()
    }
}
