//! Files of records that each have a length and a checksum, as event files and W&B run files are.

use std::io;
use std::path::Path;

use tamegrad_runs::ReadError;

use crate::log::LogBuilder;

/// Bytes of a record; a longer one is passed over. An event with a number takes some 50 bytes, a
/// large image 1 MB.
pub(crate) const RECORD_MAX: usize = 64 << 20;
/// Said where the file ends before a record does.
pub(crate) const CUT: &str =
    "a record cut short by the end of the file; everything before it is used";

/// What is next in a stream, and where it begins.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// A whole record, whose checksum fits.
    Record(u64, &'a [u8]),
    /// Something that was left out.
    Fault(u64, String),
    /// A record that the end of the file cuts short.
    Cut(u64, String),
}

/// A stream of such records.
pub(crate) trait Framed {
    /// The next record, or what is in its place; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Item<'_>>>;
}

/// What came of a record.
#[derive(Debug)]
pub(crate) enum Taken {
    Whole,
    /// Something in it was left out.
    InPart(String),
    /// It is no record of the format.
    No(String),
}

/// Gives each record of a file of `len` bytes to `take`, and notes what was left out.
///
/// # Errors
/// [`ReadError`] if the stream fails, or has something and no record.
#[inline]
pub(crate) fn read_records(
    path: &Path,
    len: u64,
    mut stream: impl Framed,
    wanted: &'static str,
    log: &mut LogBuilder,
    mut take: impl FnMut(&[u8], &mut LogBuilder) -> Taken,
) -> Result<(), ReadError> {
    let (mut is_any, mut first_fault) = (false, None);
    // Where what is lost begins; it ends at the next good record.
    let mut lost_from: Option<u64> = None;
    while let Some(item) = stream.next().map_err(|error| ReadError::io(path, error))? {
        let (offset, text) = match item {
            Item::Record(offset, record) => {
                log.lose(lost_from.take().map_or(0, |from| offset.saturating_sub(from)));
                match take(record, log) {
                    Taken::Whole => {
                        is_any = true;
                        continue;
                    }
                    Taken::InPart(text) => {
                        is_any = true;
                        (offset, text)
                    }
                    Taken::No(text) => {
                        lost_from = Some(offset);
                        (offset, text)
                    }
                }
            }
            Item::Fault(offset, text) => {
                lost_from.get_or_insert(offset);
                (offset, text)
            }
            Item::Cut(offset, text) => {
                log.lose(lost_from.take().map_or(0, |from| offset.saturating_sub(from)));
                (offset, text)
            }
        };
        // It is the error of the file if no record follows.
        if is_any || first_fault.is_some() {
            log.notice(path, Some(offset), text);
        } else {
            first_fault = Some((offset, text));
        }
    }
    log.lose(lost_from.map_or(0, |from| len.saturating_sub(from)));
    match first_fault {
        Some((offset, found)) if !is_any => Err(ReadError::broken(path, offset, found, wanted)),
        first_fault => {
            first_fault.into_iter().for_each(|(at, text)| log.notice(path, Some(at), text));
            Ok(())
        }
    }
}
