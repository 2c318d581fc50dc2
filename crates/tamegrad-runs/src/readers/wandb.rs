//! W&B run files, `run-<id>.wandb`: the history of a run, with the histograms of `wandb.watch`.
//!
//! A file is a header and a LevelDB log of `Record { 2: HistoryRecord }` of wandb_internal.proto,
//! with `HistoryRecord { 1: HistoryItem, 2: HistoryStep { 1: num } }` and
//! `HistoryItem { 1: key, 2: nested_key, 16: value_json }`.

mod chunks;

use std::io::Read;
use std::path::{Path, PathBuf};

use jiter::{Jiter, JiterResult, Peek};

use self::chunks::{Item, Records};
use super::{Head, Reader, no_folder};
use crate::bins::{BINS_MAX, l2_norm};
use crate::error::ReadError;
use crate::files::read_each;
use crate::log::{LogBuilder, Point};
use crate::tags::Tags;
use crate::wire::{Malformed, Value, fields};

/// W&B run files. Those of one run id in one folder are one run.
pub(super) const READER: Reader =
    Reader { format: "W&B run file", recognises, recognises_folder: no_folder, run_key, read };

/// `:W&B`, the magic number 0xBEE1 and the version 0.
const HEADER: &[u8; 7] = b":W&B\xe1\xbe\0";
const HEADER_WANTED: &str = "the header of a W&B run file";
const WANTED: &str = "W&B records";

/// A longer value is passed over; a histogram of 64 bins takes some 800 bytes.
const VALUE_MAX: usize = 16 << 20;
/// Dictionaries within dictionaries that are looked into.
const DEPTH_MAX: usize = 16;
/// What W&B itself writes beside the numbers of the run.
const OWN_KEYS: &[&[u8]] = &[b"_step", b"_timestamp", b"_runtime", b"_wandb"];

fn recognises(head: &Head<'_>) -> bool {
    let is_named_so = head.path.extension().is_some_and(|extension| extension == "wandb");
    is_named_so || head.bytes.starts_with(HEADER)
}

fn run_key(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_prefix("run-")?.strip_suffix(".wandb")?.to_owned())
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    let mut run = Run::default();
    read_each(paths, log, |path, file, len, log| run.read(path, file, len, log))
}

/// Reads one run file of `len` bytes from a stream.
///
/// # Errors
/// [`ReadError`] if the stream fails, is empty, has no header or no whole record.
pub fn read_stream(
    path: &Path,
    stream: impl Read,
    len: u64,
    log: &mut LogBuilder,
) -> Result<(), ReadError> {
    Run::default().read(path, stream, len, log)
}

/// What is known of a run over its files.
#[derive(Debug, Default)]
struct Run {
    places: Tags<Option<usize>>,
    room: Room,
    /// History records so far: the step of those that have none.
    histories: i64,
}

/// Room that is used again for each record.
#[derive(Debug, Default)]
struct Room {
    name: Vec<u8>,
    values: Vec<f64>,
    bins: Vec<f64>,
}

/// What a value of the history is found to hold.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Exact(f64),
    Estimate(f64),
}

impl Run {
    fn read(
        &mut self,
        path: &Path,
        mut stream: impl Read,
        len: u64,
        log: &mut LogBuilder,
    ) -> Result<(), ReadError> {
        let fail = |error| ReadError::io(path, error);
        let broken = |offset, found, wanted| {
            Err(ReadError::Broken { path: path.to_owned(), offset, found, wanted })
        };
        if len == 0 {
            return broken(0, "an empty file".to_owned(), WANTED);
        }
        let mut header = Vec::new();
        stream.by_ref().take(HEADER.len() as u64).read_to_end(&mut header).map_err(fail)?;
        if header != HEADER {
            let found = format!("\"{}\"", header.escape_ascii());
            return broken(0, found, HEADER_WANTED);
        }
        // The header is part of the first block.
        let stream = HEADER.chain(stream);
        let mut items = Records::new(stream, len, HEADER.len() as u64).map_err(fail)?;
        let (mut records, mut first_fault) = (0_u64, None);
        while let Some(item) = items.next().map_err(fail)? {
            let (offset, text) = match item {
                Item::Record(offset, record) => {
                    records += 1;
                    match self.record(record, log) {
                        Ok(()) => continue,
                        Err(fault) => (offset, fault),
                    }
                }
                Item::Fault(offset, text) => (offset, text),
            };
            // It is the error of the file if no record follows.
            if records == 0 && first_fault.is_none() {
                first_fault = Some((offset, text));
            } else {
                log.notice(path, Some(offset), text);
            }
        }
        self.places.note_left_out(path, log);
        match first_fault {
            Some((offset, text)) if records == 0 => broken(offset, text, WANTED),
            Some((offset, text)) => {
                log.notice(path, Some(offset), text);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Reads a record; what was left out of it, in words.
    fn record(&mut self, record: &[u8], log: &mut LogBuilder) -> Result<(), String> {
        for field in fields(record) {
            if let (2, Value::Bytes(history)) = field.map_err(no_message)? {
                let moment = moment(history, self.histories, &mut self.room).map_err(no_message)?;
                self.histories += 1;
                self.history(history, moment, log)?;
            }
        }
        Ok(())
    }

    /// Reads all items, also behind a bad one; the first that was left out, in words.
    fn history(
        &mut self,
        history: &[u8],
        moment: Point,
        log: &mut LogBuilder,
    ) -> Result<(), String> {
        let mut first = Ok(());
        for field in fields(history) {
            let (1, Value::Bytes(item)) = field.map_err(no_message)? else { continue };
            let json = item_of(item, &mut self.room.name).map_err(no_message)?;
            let is_own = OWN_KEYS.contains(&&self.room.name[..]);
            if let Some(json) = json.filter(|_| !is_own) {
                let read = self.value(json, moment, log);
                first = first.and(read);
            }
        }
        first
    }

    /// Adds what a value holds under the name in `self.room`.
    fn value(&mut self, json: &[u8], moment: Point, log: &mut LogBuilder) -> Result<(), String> {
        let Room { name, values, bins } = &mut self.room;
        let shown =
            |name: &[u8]| String::from_utf8_lossy(name.get(..80).unwrap_or(name)).into_owned();
        if json.len() > VALUE_MAX {
            let mib = VALUE_MAX >> 20;
            return Err(format!("a value of {:?} with more than {mib} MiB; left out", shown(name)));
        }
        let places = &mut self.places;
        let mut push = |name: &[u8], number| add(places, name, number, moment, log);
        if json.first() != Some(&b'{') {
            if let Some(value) = plain_number(json) {
                push(name, Number::Exact(value));
            }
            return Ok(());
        }
        let mut json = Jiter::new(json).with_allow_inf_nan();
        let mut found = Found { name, values, bins, push: &mut push };
        let read = found.dictionary(&mut json, 0).and_then(|()| json.finish());
        read.map_err(|error| {
            let error = error.error_type;
            format!("a value of {:?} that is no JSON ({error}); left out", shown(name))
        })
    }
}

fn add(
    places: &mut Tags<Option<usize>>,
    name: &[u8],
    number: Number,
    moment: Point,
    log: &mut LogBuilder,
) {
    let Some(place) = places.entry(name) else { return };
    let text = || String::from_utf8_lossy(name);
    match number {
        Number::Exact(value) => {
            let place = *place.get_or_insert_with(|| log.place(&text()));
            log.push_at(place, Point { value, ..moment });
        }
        Number::Estimate(value) => log.push_estimate(&text(), Point { value, ..moment }),
    }
}

fn no_message(_: Malformed) -> String {
    "a record that is no protobuf message; left out".to_owned()
}

/// Step and time of a history record, in a point without a value.
fn moment(history: &[u8], ordinal: i64, room: &mut Room) -> Result<Point, Malformed> {
    let (mut counted, mut logged, mut wall) = (None, None, f64::NAN);
    for field in fields(history) {
        match field? {
            (1, Value::Bytes(item)) => {
                let Some(json) = item_of(item, &mut room.name)? else { continue };
                match &room.name[..] {
                    b"_step" => logged = plain_number(json).map(|step| step as i64),
                    b"_timestamp" => wall = plain_number(json).unwrap_or(f64::NAN),
                    _ => {}
                }
            }
            (2, Value::Bytes(step)) => {
                counted = Some(0);
                for field in fields(step) {
                    if let (1, Value::Varint(num)) = field? {
                        counted = Some(num as i64);
                    }
                }
            }
            _ => {}
        }
    }
    let step = counted.or(logged).unwrap_or(ordinal);
    Ok(Point { step, wall, value: f64::NAN })
}

/// The value of an item, and its name in `name`: nested keys are joined by dots, as W&B shows them.
fn item_of<'a>(item: &'a [u8], name: &mut Vec<u8>) -> Result<Option<&'a [u8]>, Malformed> {
    name.clear();
    let mut json = None;
    for field in fields(item) {
        match field? {
            (1 | 2, Value::Bytes(key)) => {
                if !name.is_empty() && !key.is_empty() {
                    name.push(b'.');
                }
                name.extend_from_slice(key);
            }
            (16, Value::Bytes(bytes)) => json = Some(bytes),
            _ => {}
        }
    }
    Ok(json.filter(|_| !name.is_empty()))
}

/// A number as W&B writes it; what is not finite is a literal or, in newer files, a string.
fn plain_number(json: &[u8]) -> Option<f64> {
    match json {
        [b'"', text @ .., b'"'] => not_finite(text),
        // The library's parser knows `NaN`, `Infinity` and `-Infinity`.
        _ => std::str::from_utf8(json).ok()?.trim().parse().ok(),
    }
}

/// What a string says that stands for a number which is not finite.
fn not_finite(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The numbers of a dictionary, on their way to the log.
struct Found<'a, F> {
    name: &'a mut Vec<u8>,
    values: &'a mut Vec<f64>,
    bins: &'a mut Vec<f64>,
    push: &'a mut F,
}

impl<F: FnMut(&[u8], Number)> Found<'_, F> {
    fn dictionary(&mut self, json: &mut Jiter<'_>, depth: usize) -> JiterResult<()> {
        match kind(json.clone())?.as_deref() {
            None => self.members(json, depth),
            Some("histogram") => self.histogram(json),
            // Images, tables and the like.
            Some(_) => json.next_skip(),
        }
    }

    fn members(&mut self, json: &mut Jiter<'_>, depth: usize) -> JiterResult<()> {
        let len = self.name.len();
        let mut key = json.next_object()?;
        while let Some(member) = key {
            self.name.push(b'.');
            self.name.extend_from_slice(member.as_bytes());
            match json.peek()? {
                Peek::Object if depth < DEPTH_MAX => self.dictionary(json, depth + 1)?,
                Peek::String => {
                    if let Some(number) = not_finite(json.known_str()?.as_bytes()) {
                        (self.push)(self.name, Number::Exact(number));
                    }
                }
                other @ (Peek::Object | Peek::Array | Peek::Null | Peek::True | Peek::False) => {
                    json.known_skip(other)?;
                }
                number => {
                    let number = json.known_float(number)?;
                    (self.push)(self.name, Number::Exact(number));
                }
            }
            self.name.truncate(len);
            key = json.next_key()?;
        }
        Ok(())
    }

    /// A `{"_type": "histogram", "values": [n counts], "bins": [n + 1 edges]}`.
    fn histogram(&mut self, json: &mut Jiter<'_>) -> JiterResult<()> {
        self.values.clear();
        self.bins.clear();
        let mut key = json.next_object()?;
        while let Some(member) = key {
            match member {
                "values" => numbers(json, self.values)?,
                "bins" => numbers(json, self.bins)?,
                _ => json.next_skip()?,
            }
            key = json.next_key()?;
        }
        let edges = self.bins.windows(2).zip(self.values.iter());
        let bins = edges.filter_map(|(edge, &count)| Some((*edge.first()?, *edge.last()?, count)));
        if let Some(norm) = l2_norm(bins) {
            (self.push)(self.name, Number::Estimate(norm));
        }
        Ok(())
    }
}

/// The `_type` of a dictionary, which need not come first.
fn kind(mut json: Jiter<'_>) -> JiterResult<Option<String>> {
    let mut key = json.next_object()?;
    while let Some(member) = key {
        if member == "_type" && json.peek()? == Peek::String {
            return Ok(Some(json.known_str()?.to_owned()));
        }
        json.next_skip()?;
        key = json.next_key()?;
    }
    Ok(None)
}

/// The numbers of an array.
fn numbers(json: &mut Jiter<'_>, into: &mut Vec<f64>) -> JiterResult<()> {
    let mut peek = json.next_array()?;
    while let Some(number) = peek {
        let number = json.known_float(number)?;
        if into.len() < BINS_MAX {
            into.push(number);
        }
        peek = json.array_step()?;
    }
    Ok(())
}
