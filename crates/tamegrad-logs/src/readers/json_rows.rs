//! Records in JSON: one object a line, one array of objects, or objects that hold columns.
//!
//! Lines are read piece by piece. A document is held in memory, not mapped: who writes it anew cuts
//! it first, which would end a reader of the map.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use crate::files::open;
use crate::json::{Event, Json, JsonError};
use crate::lines::{bad_bytes, whole_lines};
use crate::log::{Log, LogBuilder};
use crate::number::parse_number;
use crate::readers::notebook::is_named_so;
use crate::readers::{Format, Growing, Head, Reader};
use crate::row::Row;
use crate::rows::{Rows, is_log_name, is_loss_name};
use crate::step::{Stepper, is_step_name};

/// JSON lines and JSON documents of records or columns (mmcv, detectron2, Chainer, LLaMA-Factory,
/// own ones).
pub(crate) const READER: Reader =
    Reader { format: Format::named("json-lines"), recognises, grow, read, ..Reader::OF_FILES };

/// Names that hold all records of a document and say nothing more about them.
const WRAPPERS: [&str; 12] = [
    "log_history",
    "history",
    "logs",
    "log",
    "metrics",
    "records",
    "data",
    "entries",
    "rows",
    "results",
    "items",
    "values",
];
/// Bytes of the first record that are looked at to tell records from a document.
const FIRST_RECORD_BYTES_MAX: u64 = 16 << 20;
/// Bytes of lines that are read at a time.
const CHUNK: u64 = 1 << 20;
/// Bytes of a line; of a longer one the rest is another, broken one.
const LINE_BYTES_MAX: usize = 80 << 20;
/// Bytes of a document; a longer one is read as if it was cut there.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;
/// Broken lines behind the first record that are passed over in that.
const BROKEN_LINES_MAX: usize = 10;
/// Numbers of columns that are held at a time, 16 bytes each.
const COLUMN_CELLS_MAX: usize = 3_000_000;
/// Columns of one object.
const COLUMNS_MAX: usize = 20_000;
/// Columns without a name that is known are taken for numbers over steps from this length on.
const COLUMN_LENGTH_MIN: usize = 16;

/// How the objects of a file belong together.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// One object a line.
    Lines,
    /// One object after the other, over several lines each.
    Objects,
    /// One value that holds everything.
    Document,
}

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

/// Reads lines, of which the first bytes were read: how the file ended, and how the last line did.
fn read_lines(
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
fn counted<R>(bytes: &[u8], rows: &mut Rows, read: impl FnOnce(&mut Rows) -> R) -> R {
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

fn read_layout(
    layout: Layout,
    bytes: &[u8],
    only: Option<&str>,
    rows: &mut Rows,
) -> Result<(), JsonError> {
    let json = Json::new(bytes).one_line_each(layout == Layout::Lines);
    match layout {
        Layout::Document => {
            Document { json, rows, only, cells_left: COLUMN_CELLS_MAX, is_full_said: false }.read()
        }
        Layout::Lines | Layout::Objects => read_records(json, rows, &mut Records::default()),
    }
}

/// What the first value of a file and the start of the next tell.
fn layout(bytes: &[u8], path: &Path) -> Layout {
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

/// What is kept from record to record.
#[derive(Debug, Clone, Default)]
struct Records {
    row: Row,
    name: String,
    stepper: Stepper,
}

/// A file of one record a line, as it grows.
#[derive(Debug, Clone)]
struct GrowingLines {
    rows: Rows,
    records: Records,
}

fn grow(path: &Path, log: LogBuilder) -> Option<Box<dyn Growing>> {
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

/// Reads objects one after the other, each of which is a record.
fn read_records(
    mut json: Json<'_>,
    rows: &mut Rows,
    records: &mut Records,
) -> Result<(), JsonError> {
    let Records { row, name, stepper } = records;
    loop {
        row.clear();
        name.clear();
        let start = json.offset();
        let record = match json.next() {
            Ok(Event::End) => return Ok(()),
            Ok(Event::ObjectStart) => read_record(&mut json, row, name),
            Ok(event) => {
                rows.notice(json.offset(), "got a value that is not an object, want a record");
                json.skip(event)
            }
            Err(error) => Err(error),
        };
        match record {
            Ok(()) => rows.push("", row, stepper),
            Err(error @ JsonError { found: Some(_), .. }) => {
                rows.notice(error.offset, format!("{error}; this record is left out"));
                json.seek_line();
                rows.log.lose(json.offset() - start);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Puts the numbers of an object, whose start was read, into a row; those of objects in it under
/// names joined by `/`.
fn read_record(json: &mut Json<'_>, row: &mut Row, name: &mut String) -> Result<(), JsonError> {
    let length = name.len();
    while json.next()? == Event::Key {
        join(name, &json.text());
        match json.next()? {
            Event::ObjectStart => read_record(json, row, name)?,
            Event::ArrayStart => {
                if let Some(number) = read_single(json)? {
                    row.push(name, number);
                }
            }
            Event::Number(number) => row.push(name, number),
            Event::Text => push_text(row, name, &json.text()),
            _ => {}
        }
        name.truncate(length);
    }
    Ok(())
}

/// The number of an array, whose start was read, that has one element.
fn read_single(json: &mut Json<'_>) -> Result<Option<f64>, JsonError> {
    let first = json.next()?;
    let mut event = first;
    let mut count = 0u64;
    while event != Event::ArrayEnd {
        json.skip(event)?;
        count += 1;
        event = json.next()?;
    }
    Ok(match first {
        Event::Number(number) if count == 1 => Some(number),
        _ => None,
    })
}

/// Adds a text that is a number, or that says what the record is of.
fn push_text(row: &mut Row, name: &str, text: &str) {
    match parse_number(text) {
        Some(number) => row.push(name, number),
        None => row.push_text(name, text),
    }
}

fn join(name: &mut String, part: &str) {
    if !name.is_empty() {
        name.push('/');
    }
    name.push_str(part);
}

/// An array of numbers, with holes where an element is none.
type Column = Vec<Option<f64>>;

/// A document, through which the reader goes member by member. Arrays of objects are records;
/// arrays of numbers are columns.
struct Document<'a> {
    json: Json<'a>,
    rows: &'a mut Rows,
    only: Option<&'a str>,
    cells_left: usize,
    is_full_said: bool,
}

/// Where in the document the reader is.
#[derive(Default)]
struct Name {
    /// The names of the objects that hold this one, joined by `/`.
    text: String,
    /// Where the names inside of a record start, if this is in one.
    row: Option<usize>,
}

impl Name {
    /// Goes to a member; [`Name::back`] with what this returns goes back.
    fn enter(&mut self, part: &str) -> usize {
        let length = self.text.len();
        if self.row.is_some() || !WRAPPERS.contains(&part) {
            join(&mut self.text, part);
        }
        length
    }

    fn back(&mut self, length: usize) {
        self.text.truncate(length);
    }

    /// The name inside of the record.
    fn in_row(&self) -> &str {
        let name = self.text.get(self.row.unwrap_or(0)..).unwrap_or_default();
        name.strip_prefix('/').unwrap_or(name)
    }
}

impl Document<'_> {
    fn read(mut self) -> Result<(), JsonError> {
        let (mut name, mut row) = (Name::default(), Row::default());
        loop {
            match self.json.next()? {
                Event::End => return Ok(()),
                Event::ObjectStart => {
                    self.object(&mut name, &mut row)?;
                }
                Event::ArrayStart => {
                    let mut column = Column::new();
                    self.array(&mut name, &mut column)?;
                    self.cells_left += column.len();
                }
                _ => {}
            }
            row.clear();
        }
    }

    /// Reads an object whose start was read: its numbers into the row, its columns and records
    /// into the log. Whether it has columns.
    fn object(&mut self, name: &mut Name, row: &mut Row) -> Result<bool, JsonError> {
        let mut columns = Vec::new();
        let length = name.text.len();
        let ended = self.members(name, row, &mut columns);
        // An error leaves the name at the member that is broken.
        name.back(length);
        let has_columns = self.push_columns(name, row, columns, ended.is_err());
        Ok(ended? | has_columns)
    }

    fn members(
        &mut self,
        name: &mut Name,
        row: &mut Row,
        columns: &mut Vec<(String, Column)>,
    ) -> Result<bool, JsonError> {
        let mut has_columns = false;
        while self.json.next()? == Event::Key {
            let is_top = self.json.depth() == 1;
            let key = self.json.text().into_owned();
            let event = self.json.next()?;
            if is_top && self.only.is_some_and(|only| only != key) {
                self.json.skip(event)?;
                continue;
            }
            let length = name.enter(&key);
            match event {
                Event::ObjectStart => has_columns |= self.object(name, row)?,
                Event::ArrayStart => self.member_array(name, key, row, columns)?,
                Event::Number(number) => row.push(name.in_row(), number),
                Event::Text => push_text(row, name.in_row(), &self.json.text()),
                _ => {}
            }
            name.back(length);
        }
        Ok(has_columns)
    }

    fn member_array(
        &mut self,
        name: &mut Name,
        key: String,
        row: &mut Row,
        columns: &mut Vec<(String, Column)>,
    ) -> Result<(), JsonError> {
        let mut column = Column::new();
        let ended = self.array(name, &mut column);
        match column[..] {
            [_, _, ..] if columns.len() < COLUMNS_MAX => {
                columns.push((key, column));
                return ended;
            }
            [Some(number)] => row.push(name.in_row(), number),
            _ => {}
        }
        self.cells_left += column.len();
        ended
    }

    /// Reads an array whose start was read: objects as records, other elements into the column.
    fn array(&mut self, name: &mut Name, column: &mut Column) -> Result<(), JsonError> {
        loop {
            let event = self.json.next()?;
            let cell = match event {
                Event::ArrayEnd => return Ok(()),
                Event::ObjectStart if column.is_empty() => return self.records(name),
                Event::Number(number) => Some(number),
                Event::Text => parse_number(&self.json.text()),
                _ => {
                    self.json.skip(event)?;
                    None
                }
            };
            if self.cells_left > 0 {
                self.cells_left -= 1;
                column.push(cell);
            } else if !std::mem::replace(&mut self.is_full_said, true) {
                let text = format!(
                    "got columns of more than {COLUMN_CELLS_MAX} numbers in one object; the rest \
                     is left out"
                );
                self.rows.notice(self.json.offset(), text);
            }
        }
    }

    /// Reads the rest of an array of objects; the start of the first was read.
    fn records(&mut self, name: &mut Name) -> Result<(), JsonError> {
        let outer = name.row;
        let (depth, length) = (self.json.depth() - 1, name.text.len());
        let (mut row, mut stepper) = (Row::default(), Stepper::default());
        let mut event = Ok(Event::ObjectStart);
        let ended = loop {
            row.clear();
            name.row = Some(length);
            let element = match event {
                Ok(Event::ArrayEnd) => break Ok(()),
                Ok(Event::ObjectStart) => self.object(name, &mut row),
                Ok(event) => self.json.skip(event).map(|()| true),
                Err(error) => Err(error),
            };
            name.back(length);
            match element {
                // Numbers beside columns are settings. In records of records (a list of layers in
                // each step) only those with an own step are records.
                Ok(true) => {}
                Ok(false) if outer.is_some() && !has_step(&row) => {}
                Ok(false) => self.rows.push(&name.text, &row, &mut stepper),
                Err(error) => {
                    if let Err(error) = self.seek_record(error, depth) {
                        break Err(error);
                    }
                }
            }
            event = self.json.next();
        };
        name.row = outer;
        ended
    }

    /// Goes behind a broken record, to the next one.
    fn seek_record(&mut self, error: JsonError, depth: usize) -> Result<(), JsonError> {
        if error.found.is_none() {
            return Err(error);
        }
        self.rows.notice(error.offset, format!("{error}; this record is left out"));
        let is_more = self.json.seek_object(depth);
        self.rows.log.lose(self.json.offset() - error.offset);
        if is_more {
            return Ok(());
        }
        Err(JsonError { offset: self.json.offset(), found: None })
    }

    /// Turns columns of an object that belong together, by their length, into rows. Whether there
    /// were any.
    fn push_columns(
        &mut self,
        name: &Name,
        row: &Row,
        mut columns: Vec<(String, Column)>,
        is_cut: bool,
    ) -> bool {
        self.cells_left += columns.iter().map(|(_, column)| column.len()).sum::<usize>();
        let record = name.row.is_some().then_some(row);
        let mut has_columns = false;
        while let Some(length) = columns.first().map(|(_, column)| column.len()) {
            // The column that the file breaks off in belongs to the others.
            let (group, rest): (Vec<_>, Vec<_>) =
                columns.into_iter().partition(|(_, column)| is_cut || column.len() == length);
            columns = rest;
            if self.are_named(&name.text, &group) || are_over_steps(&group, record) {
                self.push_group(&name.text, &group);
                has_columns = true;
            }
        }
        has_columns
    }

    /// Whether the user gave the name of a column to a role.
    fn are_named(&self, prefix: &str, columns: &[(String, Column)]) -> bool {
        columns.iter().any(|(column, _)| {
            let mut name = prefix.to_owned();
            join(&mut name, column);
            self.rows.log.is_named(&name)
        })
    }

    fn push_group(&mut self, prefix: &str, group: &[(String, Column)]) {
        let (mut row, mut stepper) = (Row::default(), Stepper::default());
        let length = group.iter().map(|(_, column)| column.len()).max().unwrap_or(0);
        // Sacred: `"train.loss": {"steps": [...], "values": [...]}`.
        let has_steps = group.iter().any(|(name, _)| is_step_name(name));
        let is_value = |name: &str| has_steps && matches!(name, "values" | "value");
        let (above, own) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let is_named = !own.is_empty() && group.iter().any(|(name, _)| is_value(name));
        for index in 0..length {
            row.clear();
            for (name, column) in group {
                let name = if is_named && is_value(name) { own } else { name };
                if let Some(&Some(value)) = column.get(index) {
                    row.push(name, value);
                }
            }
            self.rows.push(if is_named { above } else { prefix }, &row, &mut stepper);
        }
    }
}

fn has_step(row: &Row) -> bool {
    row.cells().any(|(name, _)| is_step_name(name))
}

/// Whether columns are numbers over steps, and not a setting (`betas`) or something of one step
/// (the sizes of all blocks).
fn are_over_steps(columns: &[(String, Column)], record: Option<&Row>) -> bool {
    let any = |is_known: fn(&str) -> bool| columns.iter().any(|(name, _)| is_known(name));
    match record {
        Some(row) => any(is_step_name) || (any(is_loss_name) && !has_step(row)),
        None => {
            any(is_log_name) || columns.iter().any(|(_, column)| column.len() >= COLUMN_LENGTH_MIN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::tests::{
        change, check_damage, compare, knows, points, read_text, survives,
    };
    use proptest::prelude::*;

    /// Reads a text and compares `name: step:value ...` of all series, one a line.
    fn check(text: &str, want: &str) {
        assert!(knows(&READER, "log", text.as_bytes()), "{text}");
        let log = read_text(&READER, "log", text.as_bytes());
        compare(&log, want);
        assert!(log.notices.is_empty(), "{:?}", log.notices);
    }

    /// The same for a text of which something is left out: at these bytes.
    fn check_notices(text: &str, want: &str, offsets: &[usize]) {
        let log = read_text(&READER, "log", text.as_bytes());
        assert_eq!(points(&log, "loss"), want, "{text}");
        let got: Vec<_> = log.notices.iter().map(|notice| notice.offset).collect();
        let offsets: Vec<_> = offsets.iter().map(|&offset| Some(offset as u64)).collect();
        assert_eq!(got, offsets, "{:?}", log.notices);
    }

    #[test]
    fn what_is_damaged_is_counted() {
        let row = |step| format!("{{\"step\": {step}, \"loss\": 2.5}}");
        let rows: Vec<String> = (0..8000).map(row).collect();
        check_damage(&READER, "a.jsonl", rows.join("\n").as_bytes());
        check_damage(&READER, "a.json", format!("[{}]", rows.join(",\n")).as_bytes());
    }

    #[test]
    fn lines_are_records() {
        check(
            r#"{"step": 1, "loss": 2.5, "note": "fast", "ok": true, "none": null}
               {"step": 2, "loss": NaN, "lr": "0.1"}

               {"step": 3, "loss": "Infinity", "opt": {"norm": {"all": -Infinity}}, "x": [7]}
               {"step": 1, "loss": 2, "sizes": [1, 2, 3], "deep": [[1]], "void": []}"#,
            "loss: 1:2.5 2:NaN 3:inf 1:2
             lr: 2:0.1
             opt/norm/all: 3:-inf
             x: 3:7",
        );
    }

    #[test]
    fn records_may_stand_in_an_array_or_over_several_lines() {
        let want = "loss: 5:1 6:2";
        check(r#"[{"Iteration": 5.0, "loss": 1}, {"Iteration": 6.0, "loss": 2}]"#, want);
        check("[\n  {\n\"iter\": 5,\n\"loss\": 1\n},\n  {\n\"iter\": 6,\n\"loss\": 2\n}\n]", want);
        check("{\n\"iter\": 5,\n\"loss\": 1\n}\n{\n\"iter\": 6,\n\"loss\": 2\n}\n", want);
        check(r#"{"step":5,"loss":1}{"step":6,"loss":2}"#, want);
        check(r#"{"args": {"lr": 1}, "history": [{"step":5,"loss":1},{"step":6,"loss":2}]}"#, want);
    }

    #[test]
    fn arrays_and_objects_in_a_document_name_the_series() {
        check(
            r#"{"train": [{"step": 1, "loss": 3}, {"step": 2, "loss": 2}],
                "val": [{"step": 2, "loss": 4}]}"#,
            "train/loss: 1:3 2:2
             val/loss: 2:4",
        );
        check(
            r#"{"runs": [{"lr": 0.1, "history": [{"step": 1, "loss": 3, "l": [{"norm": 1}]}]},
                         {"lr": 0.2, "history": [{"step": 1, "loss": 5, "l": [{"norm": 1}]}]}]}"#,
            "runs/history/loss: 1:3 1:5
             runs/lr: 0:0.1 1:0.2",
        );
    }

    #[test]
    fn columns_of_one_length_belong_together() {
        check(
            r#"{"betas": [0.9, 0.99], "steps": [10, 20, 30], "loss": [3, null, NaN],
                "val_loss": [4, "2"], "seed": 1}"#,
            "betas: 0:0.9 1:0.99
             val_loss: 0:4 1:2
             loss: 10:3 30:NaN",
        );
        check(
            r#"{"train": {"step": [1, 2], "loss": [3, 2]}, "val": {"step": [2, 4], "loss": [4, 5]}}"#,
            "train/loss: 1:3 2:2
             val/loss: 2:4 4:5",
        );
        check(
            r#"[{"seed": 1, "step": [1, 2], "loss": [3, 2]}, {"seed": 2, "step": [1], "loss": [4]}]"#,
            "loss: 1:3 2:2 1:4
             seed: 1:2",
        );
    }

    #[test]
    fn iterations_of_mmcv_run_on_and_validations_have_their_own_series() {
        check(
            r#"{"env_info": "Linux", "seed": null}
               {"mode": "train", "epoch": 1, "iter": 50, "loss": 3, "time": 0.5}
               {"mode": "train", "epoch": 1, "iter": 100, "loss": 2, "time": 0.5}
               {"mode": "val", "epoch": 1, "iter": 64, "mIoU": 0.5}
               {"mode": "train", "epoch": 2, "iter": 50, "loss": 1, "time": 0.5}"#,
            "epoch: 50:1 100:1 150:2
             loss: 50:3 100:2 150:1
             time: 50:0.5 100:0.5 150:0.5
             val/epoch: 100:1
             val/mIoU: 100:0.5",
        );
    }

    #[test]
    fn what_is_broken_is_left_out_and_said() {
        let good = r#"{"step": 1, "loss": 1}"#;
        for bad in ["{\"step\": 2, \"lo", "{\"loss\":", "oops", "{\"loss\": 2..1}", "\0\0\0\0"] {
            let at = match bad {
                "oops" | "\0\0\0\0" => 0,
                "{\"loss\": 2..1}" => 9,
                cut => cut.len(),
            };
            check_notices(&format!("{good}\n{bad}\n{good}\n"), "1:1 1:1", &[good.len() + 1 + at]);
        }
        check_notices(&format!("{good}\n{}", &good[..20]), "1:1", &[43]);
        check_notices(&format!("{good}\n5\n{good}"), "1:1 1:1", &[24]);
        check_notices(&format!("[{good}, {{\"step\": oops}}, {good}]"), "1:1 1:1", &[34]);
        check_notices(&format!("[{good}, {good}"), "1:1 1:1", &[47]);
        check_notices(r#"{"step": [1, 2, 3], "loss": [5, 6, 7"#, "1:5 2:6", &[36]);
    }

    #[test]
    fn a_first_line_that_is_cut_does_not_hide_the_others() {
        let text = "{\"step\": 0, \"lo\n{\"step\": 1, \"loss\": 1}\n{\"step\": 2, \"loss\": 2}\n";
        check_notices(text, "1:1 2:2", &[15]);
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        let text = b"{\"step\": 1, \"loss\": 1, \"n\": \"\xff\xfe\"}\n\xff\xfe\x80\n{\"step\": 2, \"loss\": 2}";
        let log = read_text(&READER, "log", text);
        assert_eq!(points(&log, "loss"), "1:1 2:2");
        assert_eq!(log.notices.len(), 1);
    }

    #[test]
    fn long_lines_and_deep_ones_are_no_trouble() {
        let numbers = "1.25,".repeat(4 << 20);
        let text = format!(
            "{{\"step\": 1, \"loss\": 1}}\n{{\"step\": 2, \"loss\": 2, \"all\": [{numbers}1]}}\n\
             {}\n{}\n{{\"step\": 3, \"loss\": 3}}\n",
            "[".repeat(100_000),
            "{\"a\":".repeat(100_000),
        );
        let log = read_text(&READER, "log", text.as_bytes());
        assert_eq!(points(&log, "loss"), "1:1 2:2 3:3");
        assert_eq!(log.notices.len(), 3, "{:?}", log.notices);
    }

    #[test]
    fn other_json_is_not_taken_for_a_log() {
        for text in [
            "",
            "{}",
            "[]",
            "[1, 2, 3]",
            r#"{"train_loss": 0.5, "epoch": 3}"#,
            r#"{"model_type": "llama", "betas": [0.9, 0.99], "num_epochs": 3, "layers": [1, 2]}"#,
            r#"{"images": [{"id": 1, "width": 2}, {"id": 2, "width": 3}]}"#,
            r#"{"cells": [{"cell_type": "code", "execution_count": 1, "outputs": []}]}"#,
            "loss 3",
        ] {
            assert!(!knows(&READER, "a.json", text.as_bytes()), "{text}");
        }
        assert!(knows(&READER, "a.jsonl", br#"{"train_loss": 0.5, "epoch": 3}"#));
    }

    #[test]
    fn a_file_without_numbers_is_an_error_that_says_where() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, want) in
            [("", "at byte 0: got no number"), ("{\"a\": ", "at byte 6: got the end")]
        {
            std::fs::write(file.path(), text).unwrap();
            let error = read(&[file.path().to_owned()], &mut LogBuilder::new()).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(
            mut text in prop_oneof![
                Just(b"[{\"step\": 1, \"loss\": [2, NaN]}, {\"epoch\": 2, \"a\": {\"b\": 1}}]".to_vec()),
                Just(b"{\"epoch\": 1, \"iter\": 9}\n{\"epoch\": 2, \"iter\": 3}\n".to_vec()),
                Just(b"{\"log_history\": [{\"step\": 1}], \"s\": {\"step\": [1, 2], \"x\": [3]}}".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..80),
            ],
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            end in any::<prop::sample::Index>(),
        ) {
            change(&mut text, &changes);
            text.truncate(end.index(text.len() + 1).max(text.len() / 2));
            survives(&READER, &text);
            survives(&crate::readers::hf_trainer::READER, &text);
        }
    }
}
