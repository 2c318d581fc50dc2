//! Text logs: what training programs print to the console, whatever they print it with.
//!
//! A line of training is one that names a loss or a gradient norm and gives its number, in any of
//! the usual ways: `loss 3.2`, `lm loss: 2.19E+00`, `gnorm=0.4`, `{'loss': nan}`, `Loss is Infinity`.
//! Source code, settings, printed tensors and tracebacks between them are passed over.

mod figures;
mod lines;
mod means;
mod names;
mod scan;
mod steps;
mod table;
mod words;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use self::lines::LINE_BYTES_MAX;
use self::means::Means;
use self::names::{Class, NAMES_MAX, Names, Subset};
use self::scan::{Bar, Marks, Pair};
use self::steps::{Kind, Position, Track};
use self::table::Table;
use self::words::Stop;
use super::{Format, Growing, Head, Reader};
use crate::files::open;
use crate::lines::{Line, bad_bytes, is_text};
use crate::log::{Log, LogBuilder, Point};

/// Text logs.
pub(crate) const TEXT: Reader =
    Reader { format: Format::named("text"), recognises, grow, read, ..Reader::OF_FILES };

/// Bytes that are looked at for the first line of training: long settings may come before it.
const PREAMBLE_BYTES_MAX: u64 = 16 << 20;
/// Records after which the kind of step is settled.
const PENDING_MAX: usize = 256;
/// Lines after a line of source code in which an assignment is taken for code, too.
const CODE_LINES: u64 = 30;

/// Files of code, settings and tables, which hold no console output.
const OTHER_FILES: &[&str] = &[
    "bat", "bib", "c", "cc", "cfg", "cmake", "conf", "cpp", "cs", "css", "csv", "cu", "f90", "go",
    "h", "hpp", "html", "ini", "ipynb", "java", "jl", "js", "json", "jsonl", "kt", "lua", "m",
    "php", "pl", "pm", "proto", "ps1", "py", "r", "rb", "rs", "scala", "sh", "sql", "svg", "swift",
    "tex", "toml", "ts", "tsv", "xml", "yaml", "yml",
];
/// Files of prose, in which output is only cited.
const PROSE_FILES: &[&str] = &["md", "rst", "adoc"];

fn recognises(head: &Head<'_>) -> bool {
    let extension = head.path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if OTHER_FILES.contains(&extension.as_str()) || !is_text(head.bytes) {
        return false;
    }
    if PROSE_FILES.contains(&extension.as_str()) {
        let found = training_lines(head.path, head.bytes, |found| found.placed >= 4);
        return found.placed >= 4;
    }
    let is_enough = |found: &TrainingLines| found.all >= 2;
    let found = training_lines(head.path, head.bytes, is_enough);
    if is_enough(&found) || found.all == 1 && head.is_whole && found.is_sure() {
        return true;
    }
    if head.is_whole {
        return false;
    }
    // Nothing yet, as after a long listing of settings.
    open(head.path).is_ok_and(|file| {
        is_enough(&training_lines(head.path, file.take(PREAMBLE_BYTES_MAX), is_enough))
    })
}

/// Lines of training that were found.
#[derive(Debug, Clone, Copy, Default)]
struct TrainingLines {
    all: u64,
    /// Those with a step.
    placed: u64,
    /// Those with a number that is not finite.
    broken: u64,
}

impl TrainingLines {
    /// Whether a single line would do.
    fn is_sure(&self) -> bool {
        self.placed + self.broken > 0
    }
}

/// Counts lines of training until they are enough.
fn training_lines(
    path: &Path,
    input: impl Read,
    is_enough: impl Fn(&TrainingLines) -> bool,
) -> TrainingLines {
    let mut reading = Reading::new(path, LogBuilder::new());
    // What cannot be read to the end is recognised by what came before.
    let _ = lines::each_line(input, 0, |line| {
        reading.line(&line);
        !is_enough(&reading.found)
    });
    reading.found
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    for path in paths {
        let file = open(path).map_err(|error| ReadError::io(path, error))?;
        let mut reading = Reading::new(path, std::mem::take(log));
        let end = reading.lines(file, 0);
        *log = reading.finish();
        if let Err((offset, error)) = end {
            log.lose_the_rest();
            log.notice(path, Some(offset), format!("{error}; what comes before it is used"));
        }
    }
    match paths.first() {
        Some(path) if log.is_empty() => {
            let found = "text without a line of training output";
            Err(ReadError::broken(path, 0, found, "lines with a loss or a gradient norm"))
        }
        _ => Ok(()),
    }
}

/// Whether a text, which another reader found in its file, is the output of training.
pub(super) fn is_training(path: &Path, text: &[u8]) -> bool {
    let found = training_lines(path, text, |found| found.all >= 2);
    found.all >= 2 || found.all == 1 && found.is_sure()
}

/// Reads a text that another reader found in its file.
pub(super) fn read_text(path: &Path, text: &[u8], log: &mut LogBuilder) -> Result<(), ReadError> {
    let mut reading = Reading::new(path, std::mem::take(log));
    // Bytes in memory can be read.
    let _ = reading.lines(text, 0);
    *log = reading.finish();
    if log.is_empty() {
        let found = "no line of training output";
        return Err(ReadError::broken(path, 0, found, "lines with a loss or a gradient norm"));
    }
    Ok(())
}

fn grow(path: &Path, log: LogBuilder) -> Option<Box<dyn Growing>> {
    Some(Box::new(Reading::new(path, log)))
}

impl Growing for Reading {
    fn whole(&self, bytes: &[u8]) -> Option<usize> {
        Some(memchr::memrchr2(b'\n', b'\r', bytes).map_or(0, |end| end + 1))
    }

    fn take(&mut self, bytes: &[u8], offset: u64) {
        // Bytes in memory can be read.
        let _ = self.lines(bytes, offset);
    }

    /// A progress bar ends its state when it draws the next one, so that the rest counts.
    fn look(&mut self, rest: &[u8], points: usize) -> Log {
        let log = std::mem::take(&mut self.log);
        let mut ending = Self { log: log.ending(points), ..self.clone() };
        self.log = log;
        ending.take(rest, 0);
        ending.finish().finish()
    }
}

/// A log while it is read.
#[derive(Clone, Default)]
struct Reading {
    path: PathBuf,
    log: LogBuilder,
    names: Names,
    marks: Marks,
    plain: Vec<u8>,
    track: Track,
    means: Means,
    /// Settled after [`PENDING_MAX`] records, which wait for it.
    kind: Option<Kind>,
    pending: Vec<Record>,
    keras: Option<KerasBar>,
    table: Option<Table>,
    /// States of bars that were drawn: a bar is drawn again after each line that is printed.
    drawn: HashSet<u64>,
    /// The places in the log of a name's series: as it is, of validation, of training.
    places: Vec<[Option<usize>; 3]>,
    main_loss: Option<usize>,
    /// Records of training, and others.
    records: i64,
    others: i64,
    lines: u64,
    last_code: Option<u64>,
    last_stop: Option<[Option<i64>; 3]>,
    last_record: Option<u64>,
    /// Names that stood alone with a number on a line.
    bare: Vec<u32>,
    found: TrainingLines,
    is_cut_noticed: bool,
    is_zero_noticed: bool,
    are_means_noticed: bool,
}

/// The numbers of a line with their series.
#[derive(Debug, Clone)]
struct Record {
    position: Position,
    is_training: bool,
    values: Vec<(usize, f64)>,
}

/// The states of one bar of Keras, of which the last counts.
#[derive(Debug, Clone)]
struct KerasBar {
    at: i64,
    of: i64,
    epoch: i64,
    record: Record,
}

impl Reading {
    fn new(path: &Path, log: LogBuilder) -> Self {
        Self { path: path.to_owned(), log, ..Self::default() }
    }

    /// Takes in the lines of an input that begins at an offset of the file.
    fn lines(&mut self, input: impl Read, offset: u64) -> Result<(), (u64, io::Error)> {
        lines::each_line(input, offset, |line| {
            self.line(&line);
            true
        })
    }

    fn line(&mut self, line: &Line<'_>) {
        self.lines += 1;
        self.log.saw(line.len());
        self.notice_damage(line);
        let bad = bad_bytes(line.bytes);
        let before = self.found.all;
        let mut plain = std::mem::take(&mut self.plain);
        let bytes = lines::without_escapes(line.bytes, &mut plain);
        let is_row = match self.table {
            Some(_) => starts_as_row(table::body(bytes)),
            None => starts_as_row(bytes) && table::is_headless(bytes),
        };
        // The end of a run as W&B prints it repeats the last numbers.
        if is_row || words::is_hot(bytes) && !bytes.starts_with(b"wandb:") {
            let mut marks = std::mem::take(&mut self.marks);
            self.mark(bytes, is_row, &mut marks);
            self.marked(bytes, &mut marks);
            self.marks = marks;
        }
        self.plain = plain;
        let is_used = self.found.all > before;
        self.log.lose(if bad > 0 && !is_used { line.len() } else { bad });
    }

    fn mark(&mut self, line: &[u8], is_row: bool, marks: &mut Marks) {
        marks.clear();
        if self.table.as_ref().is_some_and(|table| is_row && table.row(line, marks)) {
            return;
        }
        if is_row && table::headless(line, &mut self.names, marks) {
            return;
        }
        scan::scan(line, &mut self.names, marks);
        if marks.pairs.is_empty() && !marks.has_position() {
            self.table = table::header(line, &mut self.names).or(self.table.take());
        }
    }

    fn notice_damage(&mut self, line: &Line<'_>) {
        if line.is_cut && !std::mem::replace(&mut self.is_cut_noticed, true) {
            let text = format!(
                "got a line of more than {LINE_BYTES_MAX} bytes; its start is used, and so is that \
                 of any other such line"
            );
            self.log.notice(&self.path, Some(line.offset), text);
        }
        if !self.is_zero_noticed
            && let Some(at) = memchr::memchr(0, line.bytes)
        {
            self.is_zero_noticed = true;
            let text = "got zero bytes, as left by a crash during writing; they are skipped";
            self.log.notice(&self.path, Some(line.offset + at as u64), text);
        }
    }

    /// Takes in a line of which `marks` were found.
    fn marked(&mut self, line: &[u8], marks: &mut Marks) {
        // Code hardly ever has a step and two more numbers by name.
        let is_plain = marks.step.is_some() && marks.pairs.len() > 1;
        if marks.is_code || !is_plain && words::is_code(line) {
            if words::is_error(line)
                && let Some(stop) = words::stop(line)
            {
                marks.clear();
                let position = self.track.advance(marks, false, self.records);
                return self.stopped(position, stop == Stop::Gradient);
            }
            self.last_code = Some(self.lines);
            return;
        }
        if !self.is_training_line(line, marks) {
            marks.pairs.clear();
        }
        // `Loss is nan, stopping` names a loss, and is no record of it.
        let is_message =
            !marks.has_position() && marks.pairs.iter().all(|pair| !pair.value.is_finite());
        let is_free = is_message || marks.bar == Bar::Keras;
        let stop = if is_free { words::stop(line) } else { None };
        if is_message && (stop.is_some() || words::is_condition(line)) {
            marks.pairs.clear();
        }
        if marks.pairs.is_empty() && stop.is_none() && !marks.has_position() {
            return;
        }
        if marks.bar != Bar::Keras && marks.epoch.is_some() {
            self.end_keras();
        }
        let is_validation = is_of_validation(marks);
        let position = self.track.advance(marks, is_validation, self.records);
        if marks.bar == Bar::Keras && !marks.pairs.is_empty() {
            self.keras(line, marks, position);
        } else if !marks.pairs.is_empty() {
            self.record(line, marks, position, is_validation);
        }
        if let Some(stop) = stop {
            self.stopped(position, stop == Stop::Gradient);
        }
    }

    /// Whether the numbers of a line are of training, not of settings, code or prose.
    fn is_training_line(&self, line: &[u8], marks: &Marks) -> bool {
        let is_sure = |pair: &&Pair| pair.name.class.is_core() && !pair.is_loose;
        if marks.pairs.len() == 1
            && let Some(pair) = marks.pairs.iter().find(is_sure)
            && !marks.has_position()
            && is_whole_line(line, pair)
            && line.contains(&b'=')
        {
            // `total_loss = 0.0` before the loop.
            let is_code = self.last_code.is_some_and(|last| self.lines - last < CODE_LINES);
            return !is_code && (pair.value != 0.0 || self.records > 0 || !self.pending.is_empty());
        }
        marks.pairs.iter().any(|pair| is_sure(&pair))
            || marks.has_position()
            || marks.pairs.iter().any(|pair| pair.name.class.is_core())
                && marks.pairs.iter().any(|pair| !pair.is_loose)
            || is_overflow(line, marks)
    }

    /// The places of the line's numbers in the log.
    fn values(&mut self, marks: &Marks, is_validation: bool) -> Vec<(usize, f64)> {
        let mut values = Vec::with_capacity(marks.pairs.len());
        // `[train] loss: 2` without a step, beside `[val] loss: 3`.
        let is_train = marks.subset == Some(Subset::Train) && !marks.has_position();
        for pair in &marks.pairs {
            let is_neutral = pair.name.says_subset.is_none() && pair.name.class.has_validation();
            let variant = if pair.is_validation || is_validation && is_neutral {
                1
            } else {
                2 * usize::from(is_train && is_neutral)
            };
            let place = self.place(pair, variant);
            if pair.name.class == Class::Loss && variant != 1 {
                self.main_loss.get_or_insert(place);
            }
            values.push((place, pair.value));
        }
        values
    }

    fn place(&mut self, pair: &Pair, variant: usize) -> usize {
        let id = pair.name.id as usize;
        if self.places.len() <= id {
            self.places.resize(id + 1, [None; 3]);
        }
        *self.places[id][variant].get_or_insert_with(|| {
            let prefix = ["", "val_", "train_"][variant];
            self.log.place(&format!("{prefix}{}", self.names.text(pair.name.id)))
        })
    }

    fn record(&mut self, line: &[u8], marks: &Marks, position: Position, is_validation: bool) {
        let mut values = self.values(marks, false);
        let is_core = marks.pairs.iter().any(|pair| pair.name.class.is_core());
        if self.is_repeated(&position, &values) {
            return;
        }
        if self.means.take_apart(line, marks, &mut values)
            && !std::mem::replace(&mut self.are_means_noticed, true)
        {
            let text = "got fairseq's means over each epoch so far; they are taken apart into means \
                        since the line before, where enough digits were printed";
            self.log.notice(&self.path, None, text);
        }
        self.count(line, marks);
        self.push(Record { position, is_training: is_core && !is_validation, values });
    }

    /// Whether the same was just logged, as two handlers of a logger do, or drawn by the bar before.
    fn is_repeated(&mut self, position: &Position, values: &[(usize, f64)]) -> bool {
        if position.bar.is_none() && position.own.is_none() {
            self.last_record = None;
            return false;
        }
        let mut hasher = DefaultHasher::new();
        (position.bar, position.own).hash(&mut hasher);
        values.iter().for_each(|(at, value)| (at, value.to_bits()).hash(&mut hasher));
        let hash = hasher.finish();
        let Some(bar) = position.bar else { return self.last_record.replace(hash) == Some(hash) };
        if bar <= 1 || self.drawn.len() > 1 << 16 {
            self.drawn.clear();
        }
        !self.drawn.insert(hash)
    }

    /// Counts a line of training. One that only says `name = number` may be a setting: it counts
    /// from the second of its name on.
    fn count(&mut self, line: &[u8], marks: &Marks) {
        let is_telling = |class: Class| class.is_core() || class == Class::LossScale;
        let mut telling = marks.pairs.iter().filter(|pair| is_telling(pair.name.class));
        let Some(first) = telling.next() else { return };
        let is_finite = first.value.is_finite() && telling.all(|pair| pair.value.is_finite());
        let is_bare = marks.pairs.len() == 1 && !marks.has_position() && is_whole_line(line, first);
        let is_new = is_bare && !self.bare.contains(&first.name.id);
        if is_new {
            self.bare.push(first.name.id);
        }
        self.found.all += u64::from(!is_new || !is_finite);
        self.found.placed += u64::from(marks.has_position());
        self.found.broken += u64::from(!is_finite);
    }

    fn push(&mut self, mut record: Record) {
        // What is not of training stands at the record before it, and counts if there is none.
        record.position.number = match (record.is_training, self.records) {
            (false, 0) => self.others,
            (false, records) => records - 1,
            (true, records) => records,
        };
        self.records += i64::from(record.is_training);
        self.others += i64::from(!record.is_training);
        match self.kind {
            Some(kind) => self.emit(&record, kind),
            None => {
                self.pending.push(record);
                if self.pending.len() >= PENDING_MAX {
                    self.settle();
                }
            }
        }
    }

    fn settle(&mut self) {
        let points = |is_wanted: fn(&Record) -> bool| -> Vec<(usize, Position)> {
            let records = self.pending.iter().filter(|record| is_wanted(record));
            let place_of = |record: &Record| Some((record.values.first()?.0, record.position));
            records.filter_map(place_of).collect()
        };
        let training = points(|record| record.is_training);
        let kind = steps::decide(&if training.is_empty() { points(|_| true) } else { training });
        self.kind = Some(kind);
        for record in std::mem::take(&mut self.pending) {
            self.emit(&record, kind);
        }
    }

    fn emit(&mut self, record: &Record, kind: Kind) {
        let step = record.position.step(kind);
        for &(place, value) in &record.values {
            self.log.push_at(place, Point { step, wall: f64::NAN, value });
        }
    }

    /// A state of a bar: it takes the place of the one before, but what was no number stays.
    fn keras(&mut self, line: &[u8], marks: &Marks, position: Position) {
        let Some(place) = marks.place else { return };
        let epoch = position.step(Kind::Epoch);
        let old = self.keras.as_ref();
        let is_same_epoch = old.is_some_and(|old| old.epoch == epoch);
        // Another bar in the same epoch is that of an evaluation.
        let is_validation = is_same_epoch && old.is_some_and(|old| old.of != place.of);
        let values = self.values(marks, is_validation);
        if let Some(old) = &mut self.keras
            && is_same_epoch
            && old.of == place.of
            && old.at <= place.at
        {
            old.at = place.at;
            merge(&mut old.record.values, &values);
            return;
        }
        self.end_keras();
        self.count(line, marks);
        let record = Record { position, is_training: !is_validation, values };
        self.keras = Some(KerasBar { at: place.at, of: place.of, epoch, record });
    }

    fn end_keras(&mut self) {
        if let Some(bar) = self.keras.take() {
            self.push(bar.record);
        }
    }

    /// The program said that the loss, or the norm of the gradients, is no number.
    fn stopped(&mut self, position: Position, is_gradient: bool) {
        // A traceback says it again and again.
        if self.last_stop.replace(position.last()) == Some(position.last()) {
            return;
        }
        let place = if is_gradient {
            self.log.place("grad_norm")
        } else {
            self.main_loss.unwrap_or_else(|| self.log.place("loss"))
        };
        self.found.all += 1;
        self.found.broken += 1;
        let values = vec![(place, f64::NAN)];
        match &mut self.keras {
            Some(bar) => merge(&mut bar.record.values, &values),
            None => self.push(Record { position, is_training: true, values }),
        }
    }

    fn finish(mut self) -> LogBuilder {
        self.end_keras();
        if self.kind.is_none() {
            self.settle();
        }
        if self.names.dropped > 0 {
            let text = format!("got more than {NAMES_MAX} names of numbers; the rest are left out");
            self.log.notice(&self.path, None, text);
        }
        self.log
    }
}

fn starts_as_row(line: &[u8]) -> bool {
    line.iter().find(|byte| !b" \t|".contains(byte)).is_some_and(u8::is_ascii_digit)
}

fn merge(old: &mut Vec<(usize, f64)>, new: &[(usize, f64)]) {
    for &(place, value) in new {
        match old.iter_mut().find(|(known, _)| *known == place) {
            Some((_, known)) if known.is_finite() => *known = value,
            Some(_) => {}
            None => old.push((place, value)),
        }
    }
}

/// Whether the line says that the gradients were too large for half precision.
fn is_overflow(line: &[u8], marks: &Marks) -> bool {
    marks.pairs.iter().any(|pair| pair.name.class == Class::LossScale)
        && line.windows(8).any(|part| part.eq_ignore_ascii_case(b"overflow"))
}

/// Whether all that a line says is of validation.
fn is_of_validation(marks: &Marks) -> bool {
    let is_validation =
        |pair: &Pair| pair.is_validation || pair.name.says_subset == Some(Subset::Validation);
    if marks.pairs.is_empty() {
        return marks.subset == Some(Subset::Validation);
    }
    let mut values = marks.pairs.iter().filter(|pair| pair.name.class.has_validation()).peekable();
    values.peek().is_some() && values.all(is_validation)
}

/// Whether the line is a name with a number and nothing else.
fn is_whole_line(line: &[u8], pair: &Pair) -> bool {
    let before = line.get(..pair.span.0).unwrap_or_default();
    let after = line.get(pair.span.1..).unwrap_or_default();
    before.trim_ascii().is_empty() && after.iter().all(|byte| b" ;".contains(byte))
}

#[cfg(test)]
mod tests;
