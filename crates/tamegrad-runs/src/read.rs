//! Reads a run folder, finished or not, as far as it is intact.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk;
use super::place::is_being_written;
use super::state::{COMPLETED, Ending, State};
use super::stream::read_rows;
use super::table::{Event, RunInfo, StepRow, Table, TensorRecord};
use super::{
    EVENTS_FILE, INFO_FILE, RECENT_STEPS_FILE, RECENT_TENSORS_FILE, STATE_FILE, STEPS_FILE,
    TENSORS_FILE,
};
use crate::error::ReadError;
use crate::notice::{NOTICES_MAX, Notice};

/// What `run.json` says that it is.
const FORMAT: &str = "tamegrad-run";
/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Bytes of `run.json`.
const INFO_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one event.
const EVENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Events that [`RunFolder::contents`] keeps, the earliest.
pub const EVENTS_MAX: usize = 100_000;
/// Rows of each kind that [`RunFolder::contents`] keeps; beyond, it keeps every second step, every
/// fourth and so on.
pub const ROWS_READ_MAX: usize = 2_000_000;

#[derive(Serialize, Deserialize)]
pub(super) struct InfoFile {
    format: String,
    version: u32,
    #[serde(flatten)]
    info: RunInfo,
}

impl InfoFile {
    pub(super) fn new(info: &RunInfo) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, info: info.clone() }
    }
}

/// A run folder that was opened for reading.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    /// What the run is.
    pub info: RunInfo,
}

/// Everything in a run folder, within bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// The steps, in the order in which they were run.
    pub steps: Vec<StepRow>,
    /// The tensors, in the order in which they were run.
    pub tensors: Vec<TensorRecord>,
    /// The events.
    pub events: Vec<Event>,
    /// What was left out or looked odd.
    pub notices: Vec<Notice>,
}

impl RunFolder {
    /// Opens a run folder.
    ///
    /// # Errors
    /// [`ReadError`] if it has no `run.json` of a known version.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Ok(Self { path: path.to_owned(), info: read_info(path)? })
    }

    /// Reads the steps in their order, one at a time; what is broken is left out and noted. Returns how
    /// many bytes are broken; the end of a file that is still written, or was when the writer was killed, is
    /// not.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read at all.
    pub fn visit_steps(
        &self,
        notices: &mut Vec<Notice>,
        visit: impl FnMut(StepRow),
    ) -> Result<u64, ReadError> {
        self.visit(STEPS_FILE, RECENT_STEPS_FILE, notices, visit)
    }

    /// Reads the tensors in their order, one row at a time, as [`RunFolder::visit_steps`].
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read at all.
    pub fn visit_tensors(
        &self,
        notices: &mut Vec<Notice>,
        visit: impl FnMut(TensorRecord),
    ) -> Result<u64, ReadError> {
        self.visit(TENSORS_FILE, RECENT_TENSORS_FILE, notices, visit)
    }

    fn visit<T: Table>(
        &self,
        stream: &str,
        recent: &str,
        notices: &mut Vec<Notice>,
        mut visit: impl FnMut(T),
    ) -> Result<u64, ReadError> {
        // The last rows first: a writer moves rows from there to the stream, so that the other order
        // could miss some. Those that are seen twice are passed over.
        let recent = read_recent(&self.path.join(recent), None, notices);
        let mut last = None;
        let result = read_rows(&self.path.join(stream), notices, |row: T| {
            last = Some(row.place());
            visit(row);
        });
        recent.into_iter().filter(|row: &T| Some(row.place()) > last).for_each(visit);
        result.map(|read| read.broken)
    }

    /// What was known of the run when it was last written: the guard's diagnosis, and how the run ended.
    /// `None` for a run that was not watched to its first step.
    ///
    /// # Errors
    /// [`ReadError`] if it cannot be read.
    pub fn state(&self) -> Result<Option<State>, ReadError> {
        let path = self.path.join(STATE_FILE);
        let file = match disk::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| ReadError::io(&path, error))?,
        };
        let mut text = Vec::new();
        file.take(INFO_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|error| ReadError::io(&path, error))?;
        let broken = |error: serde_json::Error| {
            ReadError::broken(&path, 0, error.to_string(), "the state of a tamegrad run")
        };
        serde_json::from_slice(&text).map(Some).map_err(broken)
    }

    /// How the run stands, by what [`RunFolder::state`] gave.
    pub fn ending(&self, state: Option<&State>) -> Ending {
        // First the lock: a run that ends in between is said to have ended.
        let is_running = self.is_being_written();
        match state.and_then(|state| state.end.as_deref()) {
            Some(COMPLETED) => Ending::Completed,
            Some(how) => Ending::Stopped(how.to_owned()),
            None if is_running => Ending::Running,
            None => Ending::Unended,
        }
    }

    /// Whether a process is writing the run at this moment.
    pub fn is_being_written(&self) -> bool {
        is_being_written(&self.path)
    }

    /// Reads the events in their order, as [`RunFolder::visit_steps`].
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read at all.
    pub fn visit_events(
        &self,
        notices: &mut Vec<Notice>,
        visit: impl FnMut(Event),
    ) -> Result<(), ReadError> {
        read_events(&self.path.join(EVENTS_FILE), notices, visit).map(drop)
    }

    /// Reads everything, within [`ROWS_READ_MAX`] and [`EVENTS_MAX`]. A file that cannot be read at
    /// all is a notice: the others still count.
    pub fn contents(&self) -> Contents {
        let mut notices = Vec::new();
        let (mut steps, mut tensors) = (Bounded::default(), Bounded::default());
        let (mut events, mut further) = (Vec::new(), 0_u64);
        let results = [
            self.visit_steps(&mut notices, |row| steps.push(row)).map(drop),
            self.visit_tensors(&mut notices, |row| tensors.push(row)).map(drop),
            self.visit_events(&mut notices, |event| {
                if events.len() < EVENTS_MAX { events.push(event) } else { further += 1 }
            }),
        ];
        let note = |text| Notice { path: self.path.clone(), offset: None, text };
        for error in results.into_iter().filter_map(Result::err) {
            notices.push(note(error.to_string()));
        }
        for (count, what) in [
            (steps.dropped, "steps were thinned out while reading"),
            (tensors.dropped, "rows of tensors were thinned out while reading"),
            (further, "further events were left out"),
        ] {
            if count > 0 {
                notices.push(note(format!("{count} {what}")));
            }
        }
        Contents { steps: steps.rows, tensors: tensors.rows, events, notices }
    }
}

/// Rows of which, beyond a bound, only every second, fourth ... step is kept.
struct Bounded<T> {
    rows: Vec<T>,
    every: u64,
    /// Steps seen, and the place of the last.
    steps: u64,
    last: Option<(u32, u64)>,
    dropped: u64,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), every: 1, steps: 0, last: None, dropped: 0 }
    }
}

impl<T: Table> Bounded<T> {
    fn push(&mut self, row: T) {
        if self.last.replace(row.place()) != Some(row.place()) {
            self.steps += 1;
        }
        if !self.steps.is_multiple_of(self.every) {
            self.dropped += 1;
            return;
        }
        if self.rows.len() >= ROWS_READ_MAX {
            self.halve();
        }
        self.rows.push(row);
    }

    fn halve(&mut self) {
        let before = self.rows.len();
        let (mut steps, mut last) = (0_u64, None);
        self.rows.retain(|row| {
            if last.replace(row.place()) != Some(row.place()) {
                steps += 1;
            }
            steps.is_multiple_of(2)
        });
        self.every *= 2;
        self.dropped += (before - self.rows.len()) as u64;
    }
}

/// Reads `run.json`.
pub(super) fn read_info(folder: &Path) -> Result<RunInfo, ReadError> {
    let path = folder.join(INFO_FILE);
    let io = |error| ReadError::io(&path, error);
    let mut text = Vec::new();
    disk::open(&path).map_err(io)?.take(INFO_BYTES_MAX).read_to_end(&mut text).map_err(io)?;
    let wanted = "the description of a tamegrad run, version 1";
    let broken = |found: String| ReadError::broken(&path, 0, found, wanted);
    let file: InfoFile =
        serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    if file.format != FORMAT || file.version > VERSION {
        return Err(broken(format!("{:?} version {}", file.format, file.version)));
    }
    Ok(file.info)
}

/// The last rows of a run that has not ended, as far as they are after `last`.
pub(super) fn read_recent<T: Table>(
    path: &Path,
    last: Option<(u32, u64)>,
    notices: &mut Vec<Notice>,
) -> Vec<T> {
    let mut records = Vec::new();
    let result = read_rows(path, notices, |record: T| {
        if Some(record.place()) > last && records.len() < ROWS_READ_MAX {
            records.push(record);
        }
    });
    match result {
        // The run has ended, or has only begun.
        Err(ReadError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            notices.push(Notice { path: path.to_owned(), offset: None, text: error.to_string() });
        }
        Ok(_) => {}
    }
    records
}

/// Reads the events; returns the length up to which the lines are whole.
pub(super) fn read_events(
    path: &Path,
    notices: &mut Vec<Notice>,
    mut visit: impl FnMut(Event),
) -> Result<u64, ReadError> {
    let io = |error| ReadError::io(path, error);
    let mut file = BufReader::new(disk::open(path).map_err(io)?);
    let mut note = |offset, text| {
        if notices.len() < NOTICES_MAX {
            notices.push(Notice { path: path.to_owned(), offset: Some(offset), text });
        }
    };
    let mut offset = 0;
    loop {
        let mut line = Vec::new();
        let read = (&mut file).take(EVENT_BYTES_MAX).read_until(b'\n', &mut line).map_err(io)?;
        if read == 0 {
            return Ok(offset);
        }
        if line.last() == Some(&b'\n') {
            match serde_json::from_slice(&line) {
                Ok(event) => visit(event),
                Err(error) => note(offset, format!("a broken event is left out: {error}")),
            }
        } else if (read as u64) < EVENT_BYTES_MAX {
            note(offset, format!("an event is truncated after {read} bytes and left out"));
            return Ok(offset);
        } else {
            note(offset, format!("more than {EVENT_BYTES_MAX} bytes of one event are left out"));
        }
        offset += read as u64;
    }
}
