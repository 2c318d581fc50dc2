//! How the objects of a file belong together.

use std::path::Path;

use crate::json::{Event, Json, JsonError};

/// Bytes of the first record that are looked at to tell records from a document.
pub(super) const FIRST_RECORD_BYTES_MAX: u64 = 16 << 20;
/// Broken lines behind the first record that are passed over in that.
const BROKEN_LINES_MAX: usize = 10;

/// How the objects of a file belong together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Layout {
    /// One object a line.
    Lines,
    /// One object after the other, over several lines each.
    Objects,
    /// One value that holds everything.
    Document,
}

/// What the first value of a file and the start of the next tell.
pub(super) fn layout(bytes: &[u8], path: &Path) -> Layout {
    let mut json = Json::new(bytes);
    let first = match json.next() {
        Ok(Event::ArrayStart) => return Layout::Document,
        Ok(first) => first,
        Err(_) => Event::Other,
    };
    let start = json.offset() as usize;
    let ended = json.skip(first);
    let value = bytes.get(start..json.offset() as usize).unwrap_or_default();
    let has_lines = memchr::memchr(b'\n', value).is_some();
    let is_named_so = path.extension().is_some_and(|extension| {
        ["jsonl", "ndjson"].iter().any(|lines| extension.eq_ignore_ascii_case(lines))
    });
    let is_broken = matches!(ended, Err(JsonError { found: Some(_), .. }));
    if (ended.is_ok() || is_broken) && finds_object(&mut json, is_broken) {
        if has_lines && !is_broken { Layout::Objects } else { Layout::Lines }
    } else if is_named_so && !has_lines {
        Layout::Lines
    } else {
        Layout::Document
    }
}

/// Whether an object comes next, perhaps behind a few lines that are broken.
fn finds_object(json: &mut Json<'_>, is_in_broken_line: bool) -> bool {
    let mut is_broken = is_in_broken_line;
    for _ in 0..BROKEN_LINES_MAX {
        if is_broken && !json.seek_line() {
            return false;
        }
        match json.next() {
            Ok(Event::ObjectStart) => return true,
            Ok(Event::End) => return false,
            _ => is_broken = true,
        }
    }
    false
}
