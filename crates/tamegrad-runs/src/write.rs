//! Writes a run folder while the run goes on.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::read::{InfoFile, read_events, read_info, read_recent};
use super::stream::{Appender, GrowingFile, read_rows};
use super::table::{Event, RunInfo, StepRow, Table, TensorRecord, TensorRow};
use super::thin::{Bounds, StepThinning, TensorThinning};
use super::{EVENTS_FILE, INFO_FILE, LOCK_FILE, RECENT_FILE, RunError, STEPS_FILE, TENSORS_FILE};
use crate::notice::Notice;

/// Steps that wait at most before they are written.
const STEPS_WAITING_MAX: usize = 256;
/// Rows of tensors that wait at most.
const TENSOR_ROWS_WAITING_MAX: usize = 4096;
/// Rows wait for a hundredth of the time that the run has taken, within these limits: a run of days
/// would else be written in batches of one row, which are mostly their own description.
const WAIT_MIN: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The one writer of a run folder.
///
/// Dropping it writes what waits but leaves the run open, as after a crash; [`RunWriter::finish`]
/// ends it. An error leaves the folder readable, and the rows that waited are lost.
#[derive(Debug)]
pub struct RunWriter {
    folder: PathBuf,
    steps: Appender<StepRow>,
    pub(super) tensors: Appender<TensorRecord>,
    events: GrowingFile,
    step_thinning: StepThinning,
    tensor_thinning: TensorThinning,
    /// The place of the last step, by which a rewind is seen.
    last: Option<(u32, u64)>,
    /// The last step if it was not written: an incident at it brings it back.
    skipped: Option<StepRow>,
    /// Steps that are still written whatever the bound, after an incident.
    full_left: u32,
    is_thinning_said: bool,
    notices: Vec<Notice>,
    began: Instant,
    flushed: Instant,
    flush_took: Duration,
    is_finished: bool,
    /// Held until the writer is gone.
    _lock: File,
}

impl RunWriter {
    /// Begins a run in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`RunError::Exists`] if it already holds a run, [`RunError::Locked`] if another process
    /// writes it, [`RunError::Io`] if the system refuses.
    pub fn create(folder: &Path, info: &RunInfo) -> Result<Self, RunError> {
        Self::begin(folder, info, |info_path| {
            if info_path.exists() {
                Err(RunError::Exists { path: folder.to_owned() })
            } else {
                Ok(())
            }
        })
    }

    /// Begins a run in a folder, in place of the run that it may hold.
    ///
    /// # Errors
    /// [`RunError::Locked`] if another process writes it, [`RunError::Io`] if the system refuses.
    pub fn replace(folder: &Path, info: &RunInfo) -> Result<Self, RunError> {
        Self::begin(folder, info, remove)
    }

    fn begin(
        folder: &Path,
        info: &RunInfo,
        make_way: impl FnOnce(&Path) -> Result<(), RunError>,
    ) -> Result<Self, RunError> {
        fs::create_dir_all(folder).map_err(|error| RunError::io(folder, error))?;
        let lock = lock(folder)?;
        let info_path = folder.join(INFO_FILE);
        make_way(&info_path)?;
        let steps = Appender::create(folder.join(STEPS_FILE))?;
        let tensors = Appender::create(folder.join(TENSORS_FILE))?;
        let events = GrowingFile::open(folder.join(EVENTS_FILE), 0)?;
        remove(&folder.join(RECENT_FILE))?;
        // Last: a folder with this file is a whole run folder.
        let text = serde_json::to_vec_pretty(&InfoFile::new(info))
            .map_err(|error| RunError::encode(&info_path, error))?;
        overwrite(&info_path, &text)?;
        Ok(Self::new(folder, lock, steps, tensors, events))
    }

    /// Goes on with a run. What a crash has left half-written is cut off, and said in
    /// [`RunWriter::notices`]; a step that is not after the last one begins a new segment.
    ///
    /// # Errors
    /// As [`RunWriter::create`], and [`RunError::Read`] if this is no run folder, or one whose
    /// streams cannot be read at all.
    pub fn resume(folder: &Path) -> Result<Self, RunError> {
        read_info(folder)?;
        let lock = lock(folder)?;
        let paths = [STEPS_FILE, TENSORS_FILE, RECENT_FILE, EVENTS_FILE].map(|f| folder.join(f));
        let [steps_path, tensors_path, recent_path, events_path] = paths;
        let mut notices = Vec::new();

        let (mut rows, mut last) = (0, None);
        let steps_end = read_rows(&steps_path, &mut notices, |row: StepRow| {
            rows += 1;
            last = Some((row.segment, row.step));
        })?;
        let mut thinning = TensorThinning::new(Bounds::default());
        let mut last_record = None;
        let tensors_end = read_rows(&tensors_path, &mut notices, |record: TensorRecord| {
            thinning.count(&record);
            last_record = Some((record.segment, record.step));
        })?;
        let recent = read_recent(&recent_path, last_record, &mut notices);
        let events_end = read_events(&events_path, &mut notices, |_| {})?;

        let steps = Appender::resume(steps_path, steps_end)?;
        let tensors = Appender::resume(tensors_path, tensors_end)?;
        let events = GrowingFile::open(events_path, events_end)?;
        let mut writer = Self::new(folder, lock, steps, tensors, events);
        writer.step_thinning = StepThinning::new(Bounds::default().step_rows, rows);
        writer.tensor_thinning = thinning;
        writer.last = last.max(last_record).max(recent.last().map(Table::place));
        writer.notices = notices;
        for records in recent.chunk_by(|a, b| (a.segment, a.step) == (b.segment, b.step)) {
            writer.hold(records.to_vec());
        }
        Ok(writer)
    }

    fn new(
        folder: &Path,
        lock: File,
        steps: Appender<StepRow>,
        tensors: Appender<TensorRecord>,
        events: GrowingFile,
    ) -> Self {
        let (bounds, now) = (Bounds::default(), Instant::now());
        Self {
            folder: folder.to_owned(),
            steps,
            tensors,
            events,
            step_thinning: StepThinning::new(bounds.step_rows, 0),
            tensor_thinning: TensorThinning::new(bounds),
            last: None,
            skipped: None,
            full_left: 0,
            is_thinning_said: false,
            notices: Vec::new(),
            began: now,
            flushed: now,
            flush_took: Duration::ZERO,
            is_finished: false,
            _lock: lock,
        }
    }

    /// Sets how much the folder may hold.
    pub fn with_bounds(mut self, bounds: Bounds) -> Self {
        self.step_thinning.bound = bounds.step_rows;
        self.tensor_thinning.bounds = bounds;
        self
    }

    /// What [`RunWriter::resume`] found broken and cut off.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Adds a step. Its segment is raised where the step does not come after the last one.
    ///
    /// # Errors
    /// [`RunError`] if the rows that waited could not be written.
    pub fn step(&mut self, row: &StepRow) -> Result<(), RunError> {
        let mut row = *row;
        if let Some((segment, step)) = self.last {
            row.segment = row.segment.max(segment);
            if row.segment == segment && row.step <= step {
                row.segment = segment.saturating_add(1);
            }
        }
        self.last = Some((row.segment, row.step));
        let is_special = row.is_nonfinite() || self.full_left > 0;
        self.full_left = self.full_left.saturating_sub(1);
        if self.step_thinning.keeps(is_special) {
            self.skipped = None;
            self.steps.rows().push(row);
        } else {
            self.skipped = Some(row);
            self.say_thinning(row.step)?;
        }
        self.flush_when_due()
    }

    /// Adds the gradients of the tensors at a step that was added.
    ///
    /// # Errors
    /// [`RunError`] if the rows that waited could not be written.
    pub fn tensors(&mut self, step: u64, rows: &[TensorRow]) -> Result<(), RunError> {
        let segment = self.last.map_or(0, |(segment, _)| segment);
        self.hold(rows.iter().map(|row| TensorRecord::new(step, segment, row)).collect());
        self.flush_when_due()
    }

    fn hold(&mut self, records: Vec<TensorRecord>) {
        self.tensor_thinning.push(records, self.tensors.rows());
    }

    /// Says that something happens at the step: the tensors' last steps and the next ones are
    /// written in full. The first of several writes everything that waited.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written.
    pub fn incident(&mut self, step: u64) -> Result<(), RunError> {
        let is_first = self.full_left == 0;
        self.full_left = self.tensor_thinning.bounds.full_steps;
        if let Some(row) = self.skipped.take_if(|row| row.step == step) {
            self.step_thinning.dropped -= 1;
            self.steps.rows().push(row);
        }
        if !self.tensor_thinning.incident(self.tensors.rows()) {
            self.say_thinning(step)?;
        }
        // Not at each of many incidents in a row: batches of one row are mostly their description.
        if is_first { self.flush() } else { self.flush_when_due() }
    }

    /// Adds an event, at once.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written.
    pub fn event(&mut self, event: &Event) -> Result<(), RunError> {
        let mut line = serde_json::to_vec(event)
            .map_err(|error| RunError::encode(&self.folder.join(EVENTS_FILE), error))?;
        line.push(b'\n');
        self.events.append(&line)
    }

    /// Writes everything that waits, and puts the last steps where a reader finds them.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written.
    pub fn flush(&mut self) -> Result<(), RunError> {
        let began = Instant::now();
        let steps = self.steps.flush();
        // The last steps after the tensors: a reader knows by its place what it has seen already.
        let tensors = self.tensors.flush().and_then(|()| self.write_recent());
        self.flushed = Instant::now();
        self.flush_took = began.elapsed();
        steps.and(tensors)
    }

    /// Ends the run: the last steps are written in full, the streams get their end marks.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written.
    pub fn finish(mut self) -> Result<(), RunError> {
        self.tensor_thinning.drain(self.tensors.rows());
        if self.step_thinning.dropped + self.tensor_thinning.dropped > 0 {
            self.say_thinned()?;
        }
        self.is_finished = true;
        self.steps.finish()?;
        self.tensors.finish()?;
        remove(&self.folder.join(RECENT_FILE))?;
        self.events.sync()
    }

    fn flush_when_due(&mut self) -> Result<(), RunError> {
        let wait = (self.began.elapsed() / 100).max(self.flush_took * 50);
        let wait = wait.clamp(WAIT_MIN, WAIT_MAX);
        if self.flushed.elapsed() >= wait {
            return self.flush();
        }
        if self.steps.rows().len() >= STEPS_WAITING_MAX {
            self.steps.flush()?;
        }
        if self.tensors.rows().len() >= TENSOR_ROWS_WAITING_MAX {
            self.tensors.flush()?;
        }
        Ok(())
    }

    /// Says once that a bound is reached, so that it is known even if the run does not end well.
    fn say_thinning(&mut self, step: u64) -> Result<(), RunError> {
        if self.is_thinning_said {
            return Ok(());
        }
        self.is_thinning_said = true;
        let text = "the run folder has reached its bound: not every step is written from here on";
        let kind = "thinning".to_owned();
        self.event(&Event { step, kind, text: text.to_owned(), ..Event::default() })
    }

    fn say_thinned(&mut self) -> Result<(), RunError> {
        let (steps, tensors) = (self.step_thinning.dropped, self.tensor_thinning.dropped);
        let text = format!(
            "{steps} steps were not written, {tensors} rows of tensors live on in envelopes only"
        );
        let data = serde_json::json!({ "steps": steps, "tensor_rows": tensors });
        let step = self.last.map_or(0, |(_, step)| step);
        self.event(&Event { step, kind: "thinned".to_owned(), text, data })
    }

    fn write_recent(&self) -> Result<(), RunError> {
        let path = self.folder.join(RECENT_FILE);
        let mut records = self.tensor_thinning.held().copied().peekable();
        if records.peek().is_none() {
            return remove(&path);
        }
        let fresh = self.folder.join(format!("{RECENT_FILE}.new"));
        let mut appender = Appender::create(fresh.clone())?;
        appender.rows().extend(records);
        appender.flush()?;
        drop(appender);
        fs::rename(&fresh, &path).map_err(|error| RunError::io(&path, error))
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // There is nobody left to tell; a reader sees what is missing.
            let _ = self.flush();
        }
    }
}

/// Takes the lock of a folder, or says who has it.
fn lock(folder: &Path) -> Result<File, RunError> {
    let path = folder.join(LOCK_FILE);
    let io = |error| RunError::io(&path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.take(20).read_to_string(&mut text);
            let holder = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(RunError::Locked { path: folder.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    file.set_len(0).map_err(io)?;
    file.write_all(std::process::id().to_string().as_bytes()).map_err(io)?;
    Ok(file)
}

/// Writes a file in one go: readers see the old one or the new one.
fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(|error| RunError::io(path, error))
}

fn remove(path: &Path) -> Result<(), RunError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RunError::io(path, error))
        }
        _ => Ok(()),
    }
}
