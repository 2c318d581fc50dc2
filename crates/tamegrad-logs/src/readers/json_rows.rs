//! Records in JSON: one object a line, one array of objects, or objects that hold columns.
//!
//! Lines are read piece by piece. A document is held in memory, not mapped: who writes it anew cuts
//! it first, which would end a reader of the map.

mod document;
mod layout;
mod lines;
mod records;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use self::document::Document;
use self::layout::{FIRST_RECORD_BYTES_MAX, Layout, layout};
use self::lines::{counted, grow, read_lines};
use self::records::{Records, read_record, read_records};
use crate::files::open;
use crate::json::{Event, Json, JsonError};
use crate::log::LogBuilder;
use crate::readers::notebook::is_named_so;
use crate::readers::{Format, Head, Reader};
use crate::row::Row;
use crate::rows::Rows;

/// JSON lines and JSON documents of records or columns (mmcv, detectron2, Chainer, LLaMA-Factory,
/// own ones).
pub(crate) const READER: Reader =
    Reader { format: Format::named("json-lines"), recognises, grow, read, ..Reader::OF_FILES };

/// Bytes of a document; a longer one is read as if it was cut there.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;

fn recognises(head: &Head<'_>) -> bool {
    let text = head.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head.bytes);
    if !matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) || is_named_so(head.path) {
        return false;
    }
    // What the start holds is what the reader finds in it.
    let mut rows = Rows::new(LogBuilder::with_named(head.named), head.path);
    let _ = read_layout(layout(head.bytes, head.path), head.bytes, None, &mut rows);
    rows.look_like_a_log()
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    paths.iter().try_for_each(|path| read_file(path, None, log))
}

/// Reads a file, or of a document the one top-level member that is named.
pub(super) fn read_file(
    path: &Path,
    only: Option<&str>,
    log: &mut LogBuilder,
) -> Result<(), ReadError> {
    let mut file = open(path).map_err(|error| ReadError::io(path, error))?;
    let mut bytes = Vec::new();
    let mut got = file.by_ref().take(FIRST_RECORD_BYTES_MAX).read_to_end(&mut bytes);
    let layout = if only.is_some() { Layout::Document } else { layout(&bytes, path) };
    let mut rows = Rows::new(std::mem::take(log), path);
    let ended = if layout == Layout::Lines {
        let (end, ended) = read_lines(file, bytes, &mut rows);
        got = got.and(end);
        ended
    } else {
        got = got.and_then(|_| file.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes));
        counted(&bytes, &mut rows, |rows| {
            let ended = read_layout(layout, &bytes, only, rows);
            if let Err(JsonError { offset, found: Some(_) }) = &ended {
                rows.log.lose((bytes.len() as u64).saturating_sub(*offset));
            }
            ended
        })
    };
    *log = rows.log;
    if !log.is_empty() {
        if let Err(error) = got {
            log.lose_the_rest();
            log.notice(path, None, format!("{error}; what comes before it is used"));
        } else if let Err(error) = ended {
            log.notice(path, Some(error.offset), error.to_string());
        }
        return Ok(());
    }
    got.map_err(|error| ReadError::io(path, error))?;
    let wanted = "records with named numbers, such as {\"step\": 10, \"loss\": 2.3}";
    let (offset, found) = match ended {
        Err(JsonError { offset, found: Some(found) }) => (offset, found),
        Err(JsonError { offset, found: None }) => {
            (offset, "the end of the file in the first record".to_owned())
        }
        Ok(()) => (0, "no number in any record".to_owned()),
    };
    Err(ReadError::broken(path, offset, found, wanted))
}

/// Reads the numbers of a file that is one object into a row.
///
/// # Errors
/// What was found in place of the object.
pub(super) fn read_object(file: &mut File, row: &mut Row) -> Result<(), String> {
    let mut bytes = Vec::new();
    let read = Read::by_ref(file).take(FIRST_RECORD_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    let mut json = Json::new(&bytes);
    match json.next() {
        Ok(Event::ObjectStart) => {
            read_record(&mut json, row, &mut String::new()).map_err(|error| error.to_string())
        }
        Ok(_) => Err("no object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn read_layout(
    layout: Layout,
    bytes: &[u8],
    only: Option<&str>,
    rows: &mut Rows,
) -> Result<(), JsonError> {
    let json = Json::new(bytes).one_line_each(layout == Layout::Lines);
    match layout {
        Layout::Document => Document::new(json, rows, only).read(),
        Layout::Lines | Layout::Objects => read_records(json, rows, &mut Records::default()),
    }
}

#[cfg(test)]
mod tests;
