//! Writes a run folder while the run goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::disk::{GrowingFile, overwrite, remove, sync_folder};
use super::journal::Journal;
use super::place::{Existing, Place};
use super::read::{InfoFile, read_events, read_info, read_recent};
use super::state::State;
use super::stream::{Appender, read_rows};
use super::table::{Event, RunInfo, StepRow, Table, TensorRecord, TensorRow};
use super::thin::{Bounds, StepThinning, TensorThinning};
use super::{
    EVENTS_FILE, INFO_FILE, RECENT_STEPS_FILE, RECENT_TENSORS_FILE, RUN, RunError, STATE_FILE,
    STEPS_FILE, TENSORS_FILE,
};
use crate::notice::Notice;

/// How often the rows that wait are put on the disk.
pub(super) const SAVE_EVERY: Duration = Duration::from_millis(250);
/// Steps that wait make a batch at this number.
const BATCH_STEPS: usize = 256;
/// They also make one after a hundredth of the time that the run has taken, within these limits: a run
/// of days would else have batches of one row, which are mostly their own description.
const BATCH_MIN: Duration = Duration::from_secs(2);
const BATCH_MAX: Duration = Duration::from_secs(30);
/// The rows of the tensors take at most a fiftieth of the time to write, but come at least as often as
/// a batch of steps in a long run.
const TENSORS_REST: u32 = 50;
/// Rows that wait at most where nothing can be written: some 50 MB.
const STEPS_WAITING_MAX: usize = 1 << 18;
const TENSOR_ROWS_WAITING_MAX: usize = 1 << 18;
/// Bytes of events that wait at most.
const EVENT_BYTES_WAITING_MAX: usize = 4 << 20;

/// What a run folder lacks because it could not be written in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Steps.
    pub steps: u64,
    /// Rows of single tensors.
    pub tensor_rows: u64,
    /// Findings and actions.
    pub events: u64,
}

impl Lost {
    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.tensor_rows += other.tensor_rows;
        self.events += other.events;
    }
}

/// The one writer of a run folder.
///
/// What waits is written four times a second, and by [`RunWriter::save`] at once, so that the disk has it
/// even after a power cut. A write that fails is tried again; what waits meanwhile is bounded, and what
/// is given up is counted in the run. Dropping the writer saves but leaves the run open, as after a
/// crash; [`RunWriter::finish`] ends it.
#[derive(Debug)]
pub struct RunWriter {
    place: Place,
    pub(super) steps: Journal<StepRow>,
    pub(super) tensors: Journal<TensorRecord>,
    events: GrowingFile,
    /// Lines that could not be written yet.
    event_lines: Vec<u8>,
    /// The contents of whole files that could not be written yet.
    files: BTreeMap<&'static str, Vec<u8>>,
    step_thinning: StepThinning,
    tensor_thinning: TensorThinning,
    /// Steps that wait and that no file has.
    new_steps: usize,
    /// Rows of tensors that are held back and that no file has.
    new_tensor_rows: usize,
    /// The last step and its time.
    last: Option<(u32, u64)>,
    last_wall: f64,
    /// The last step if it was not written: an incident at it brings it back.
    skipped: Option<StepRow>,
    /// Steps that are still written whatever the bound, after an incident.
    full_left: u32,
    is_thinning_said: bool,
    notices: Vec<Notice>,
    lost: Lost,
    /// Since when nothing can be written, and the step then.
    trouble: Option<(Instant, u64, String)>,
    began: Instant,
    saved: Instant,
    batched: Instant,
    tensors_saved: Instant,
    tensors_took: Duration,
    resumed_at: Option<(u32, u64)>,
    is_finished: bool,
}

impl RunWriter {
    /// Begins a run in a folder, which is made if it is not there. Its lock and `run.json` are on the
    /// disk when this returns.
    ///
    /// # Errors
    /// [`RunError::Exists`] if it already holds a run, [`RunError::Locked`] if another process
    /// writes it, [`RunError::NotOurs`] if it holds other files, [`RunError::Io`] if the system
    /// refuses.
    pub fn create(folder: &Path, info: &RunInfo) -> Result<Self, RunError> {
        Self::begin(folder, info, Existing::Refuse)
    }

    /// [`RunWriter::create`] with a choice of what is done about an earlier run there;
    /// [`RunWriter::folder`] then tells where the run is written.
    ///
    /// # Errors
    /// As [`RunWriter::create`].
    pub fn begin(folder: &Path, info: &RunInfo, existing: Existing) -> Result<Self, RunError> {
        if existing == Existing::Resume && folder.join(INFO_FILE).exists() {
            return Self::resume(folder);
        }
        let place = Place::claim(folder, existing, &RUN)?;
        let folder = place.folder().to_owned();
        write_info(&folder, info)?;
        let steps = Appender::create(folder.join(STEPS_FILE))?;
        let tensors = Appender::create(folder.join(TENSORS_FILE))?;
        let events = GrowingFile::create(folder.join(EVENTS_FILE))?;
        sync_folder(&folder)?;
        Ok(Self::new(place, steps, tensors, events))
    }

    /// Goes on with a run. What a crash has left half-written is cut off, and said in
    /// [`RunWriter::notices`]; a step that is not after the last one begins a new segment.
    ///
    /// # Errors
    /// As [`RunWriter::create`], and [`RunError::Read`] if this is no run folder, or one whose
    /// streams cannot be read at all.
    pub fn resume(folder: &Path) -> Result<Self, RunError> {
        read_info(folder)?;
        let place = Place::claim(folder, Existing::Resume, &RUN)?;
        let path = |name| folder.join(name);
        let mut notices = Vec::new();

        let (mut rows, mut last) = (0, None);
        let steps_end = read_rows(&path(STEPS_FILE), &mut notices, |row: StepRow| {
            rows += 1;
            last = Some(row);
        })?;
        let last_place = last.as_ref().map(Table::place);
        let recent_steps: Vec<StepRow> =
            read_recent(&path(RECENT_STEPS_FILE), last_place, &mut notices);
        let mut thinning = TensorThinning::new(Bounds::default());
        let mut last_record = None;
        let tensors_end = read_rows(&path(TENSORS_FILE), &mut notices, |record: TensorRecord| {
            thinning.count(&record);
            last_record = Some(record.place());
        })?;
        let recent: Vec<TensorRecord> =
            read_recent(&path(RECENT_TENSORS_FILE), last_record, &mut notices);
        let events_end = read_events(&path(EVENTS_FILE), &mut notices, |_| {})?;

        let mut steps = Appender::resume(path(STEPS_FILE), steps_end.whole)?;
        steps.rows().extend(&recent_steps);
        let tensors = Appender::resume(path(TENSORS_FILE), tensors_end.whole)?;
        let events = GrowingFile::resume(path(EVENTS_FILE), events_end)?;
        let last = recent_steps.last().copied().or(last);
        let mut writer = Self::new(place, steps, tensors, events);
        writer.steps.flush()?;
        remove(&path(RECENT_STEPS_FILE))?;
        writer.step_thinning =
            StepThinning::new(Bounds::default().step_rows, rows + recent_steps.len() as u64);
        writer.tensor_thinning = thinning;
        writer.last =
            last.as_ref().map(Table::place).max(last_record).max(recent.last().map(Table::place));
        writer.last_wall = last.map_or(f64::NAN, |row| row.wall);
        writer.notices = notices;
        writer.resumed_at = writer.last;
        for records in recent.chunk_by(|a, b| (a.segment, a.step) == (b.segment, b.step)) {
            writer.hold(records.to_vec());
        }
        Ok(writer)
    }

    fn new(
        place: Place,
        steps: Appender<StepRow>,
        tensors: Appender<TensorRecord>,
        events: GrowingFile,
    ) -> Self {
        let (bounds, now) = (Bounds::default(), Instant::now());
        let path = |name| place.folder().join(name);
        let (recent_steps, recent_tensors) = (path(RECENT_STEPS_FILE), path(RECENT_TENSORS_FILE));
        Self {
            place,
            steps: Journal::new(steps, recent_steps),
            tensors: Journal::new(tensors, recent_tensors),
            events,
            event_lines: Vec::new(),
            files: BTreeMap::new(),
            step_thinning: StepThinning::new(bounds.step_rows, 0),
            tensor_thinning: TensorThinning::new(bounds),
            new_steps: 0,
            new_tensor_rows: 0,
            last: None,
            last_wall: f64::NAN,
            skipped: None,
            full_left: 0,
            is_thinning_said: false,
            notices: Vec::new(),
            lost: Lost::default(),
            trouble: None,
            began: now,
            saved: now,
            batched: now,
            tensors_saved: now,
            tensors_took: Duration::ZERO,
            resumed_at: None,
            is_finished: false,
        }
    }

    /// Sets how much the folder may hold.
    #[cfg(test)]
    pub(super) fn with_bounds(mut self, bounds: Bounds) -> Self {
        self.step_thinning.bound = bounds.step_rows;
        self.tensor_thinning.bounds = bounds;
        self
    }

    /// Where the run is written.
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// The last step of the earlier run that it goes on with.
    pub(super) fn resumed_at(&self) -> Option<(u32, u64)> {
        self.resumed_at
    }

    /// What [`RunWriter::resume`] found broken and cut off.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// What was given up so far, because nothing could be written for too long.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Counts what was given up before it came here.
    pub(super) fn count_lost(&mut self, lost: Lost) {
        self.lost.add(lost);
    }

    /// Describes the run anew, once its tensors are known.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written; the earlier description is still there. It waits on.
    pub fn describe(&mut self, info: &RunInfo) -> Result<(), RunError> {
        self.file(INFO_FILE, &InfoFile::new(info))
    }

    /// Writes a whole file in place of what it was.
    fn file(&mut self, name: &'static str, contents: &impl Serialize) -> Result<(), RunError> {
        let text = serde_json::to_vec_pretty(contents)
            .map_err(|error| RunError::encode(&self.place.folder().join(name), error))?;
        self.files.insert(name, text);
        let result = self.write_files();
        if result.is_err() {
            self.note_outcome(&result);
        }
        result
    }

    fn write_files(&mut self) -> Result<(), RunError> {
        self.place.check()?;
        while let Some((name, text)) = self.files.first_key_value() {
            overwrite(&self.place.folder().join(name), text)?;
            self.files.pop_first();
        }
        Ok(())
    }

    /// Why nothing can be written at present.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|(_, _, error)| error.as_str())
    }

    /// Adds a step. Its segment is raised where the step does not come after the last one.
    ///
    /// # Errors
    /// [`RunError`] if what waited was due and could not be written. It waits on.
    pub fn step(&mut self, row: &StepRow) -> Result<(), RunError> {
        let mut row = *row;
        if let Some((segment, step)) = self.last {
            row.segment = row.segment.max(segment);
            if row.segment == segment && row.step <= step {
                row.segment = segment.saturating_add(1);
            }
        }
        let is_first = self.last.is_none();
        self.last = Some((row.segment, row.step));
        self.last_wall = row.wall;
        let is_special = row.is_nonfinite() || self.full_left > 0;
        self.full_left = self.full_left.saturating_sub(1);
        if self.step_thinning.keeps(is_special) {
            self.skipped = None;
            self.push(row);
        } else {
            self.skipped = Some(row);
            self.say_thinning(row.step)?;
        }
        // Whoever looks at the folder sees at once that the run is recorded.
        if is_first { self.save() } else { self.save_when_due() }
    }

    fn push(&mut self, row: StepRow) {
        let waiting = self.steps.stream.rows();
        waiting.push(row);
        self.new_steps += 1;
        if waiting.len() > STEPS_WAITING_MAX {
            // The latest say most.
            let given_up = STEPS_WAITING_MAX / 4;
            waiting.drain(..given_up);
            self.new_steps = self.new_steps.min(waiting.len());
            self.lost.steps += given_up as u64;
        }
    }

    /// Adds the gradients of the tensors at a step that was added.
    ///
    /// # Errors
    /// As [`RunWriter::step`].
    pub fn tensors(&mut self, step: u64, rows: &[TensorRow]) -> Result<(), RunError> {
        let segment = self.last.map_or(0, |(segment, _)| segment);
        self.hold(rows.iter().map(|row| TensorRecord::new(step, segment, row)).collect());
        self.save_when_due()
    }

    fn hold(&mut self, records: Vec<TensorRecord>) {
        self.new_tensor_rows += records.len();
        let waiting = self.tensors.stream.rows();
        self.tensor_thinning.push(records, waiting);
        if waiting.len() > TENSOR_ROWS_WAITING_MAX && self.trouble.is_some() {
            let given_up = waiting.len() - TENSOR_ROWS_WAITING_MAX * 3 / 4;
            waiting.drain(..given_up);
            self.lost.tensor_rows += given_up as u64;
        }
    }

    /// Says that something happens at the step: the tensors' last steps and the next ones are
    /// written in full.
    ///
    /// # Errors
    /// As [`RunWriter::step`].
    pub fn incident(&mut self, step: u64) -> Result<(), RunError> {
        self.full_left = self.tensor_thinning.bounds.full_steps;
        if let Some(row) = self.skipped.take_if(|row| row.step == step) {
            self.step_thinning.dropped -= 1;
            self.push(row);
        }
        if !self.tensor_thinning.incident(self.tensors.stream.rows()) {
            self.say_thinning(step)?;
        }
        Ok(())
    }

    /// Adds an event, at once; [`RunWriter::save`] waits until the disk has it.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written. It waits on.
    pub fn event(&mut self, event: &Event) -> Result<(), RunError> {
        let mut line = serde_json::to_vec(event)
            .map_err(|error| RunError::encode(&self.place.folder().join(EVENTS_FILE), error))?;
        line.push(b'\n');
        if self.event_lines.len() + line.len() > EVENT_BYTES_WAITING_MAX {
            self.lost.events += 1;
            return Ok(());
        }
        self.event_lines.extend(line);
        self.write_events()
    }

    fn write_events(&mut self) -> Result<(), RunError> {
        if !self.event_lines.is_empty() {
            self.events.append(&self.event_lines)?;
            self.event_lines.clear();
        }
        Ok(())
    }

    /// Writes what is known of the run so far, in place of what was known before.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written; what was known before is still there. It waits on.
    pub fn state(&mut self, state: &State) -> Result<(), RunError> {
        self.file(STATE_FILE, state)
    }

    /// Puts everything that waits on the disk.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written. It waits on, and the next save tries again.
    pub fn save(&mut self) -> Result<(), RunError> {
        let result = self.try_save(true);
        self.note_outcome(&result);
        result
    }

    /// [`RunWriter::save`] if a quarter of a second has passed since the last.
    ///
    /// # Errors
    /// As [`RunWriter::save`].
    pub fn save_when_due(&mut self) -> Result<(), RunError> {
        if self.saved.elapsed() < SAVE_EVERY {
            return Ok(());
        }
        let result = self.try_save(false);
        self.note_outcome(&result);
        result
    }

    fn try_save(&mut self, is_urgent: bool) -> Result<(), RunError> {
        let now = Instant::now();
        self.saved = now;
        self.place.check()?;
        // The diagnosis before the events, and the reason of a finding before the finding.
        let files = self.write_files();
        let steps = self.save_steps(now);
        let tensors = self.save_tensors(now, is_urgent);
        let events = self.write_events().and_then(|()| self.events.sync());
        files.and(steps).and(tensors).and(events)
    }

    fn save_steps(&mut self, now: Instant) -> Result<(), RunError> {
        let wait = (now.duration_since(self.began) / 100).clamp(BATCH_MIN, BATCH_MAX);
        let waiting = self.steps.stream.rows().len();
        if waiting == 0 {
            return Ok(());
        }
        if waiting >= BATCH_STEPS || now.duration_since(self.batched) >= wait {
            self.steps.flush()?;
            self.batched = now;
            self.new_steps = 0;
            return self.steps.forget();
        }
        let rows = self.steps.stream.rows().clone();
        self.steps.keep(&rows, self.new_steps)?;
        self.new_steps = 0;
        Ok(())
    }

    fn save_tensors(&mut self, now: Instant, is_urgent: bool) -> Result<(), RunError> {
        self.tensors.flush()?;
        let rest = (self.tensors_took * TENSORS_REST).min(BATCH_MAX);
        if !is_urgent && now.duration_since(self.tensors_saved) < rest {
            return Ok(());
        }
        let held: Vec<TensorRecord> = self.tensor_thinning.held().copied().collect();
        let is_in_ring = self.new_tensor_rows <= self.tensor_thinning.ring_rows();
        let new = if is_in_ring { self.new_tensor_rows } else { usize::MAX };
        self.tensors.keep(&held, new)?;
        self.new_tensor_rows = 0;
        self.tensors_saved = Instant::now();
        self.tensors_took = self.tensors_saved.duration_since(now);
        Ok(())
    }

    /// Remembers since when nothing can be written, and says so in the run when it can be again.
    fn note_outcome(&mut self, result: &Result<(), RunError>) {
        let step = self.last.map_or(0, |(_, step)| step);
        match result {
            Err(error) if self.trouble.is_none() => {
                self.trouble = Some((Instant::now(), step, error.to_string()));
            }
            Err(_) => {}
            Ok(()) => {
                let Some((since, from, error)) = self.trouble.take() else { return };
                let Lost { steps, tensor_rows, events } = self.lost;
                let text = format!(
                    "nothing could be written from step {from} to step {step}, for {:.0} s: {error}; \
                     {steps} steps, {tensor_rows} rows of tensors and {events} events are lost",
                    since.elapsed().as_secs_f64()
                );
                let data = serde_json::json!(
                    { "steps": steps, "tensor_rows": tensor_rows, "events": events }
                );
                // If the disk is full again, the line waits with the others.
                let _ = self.event(&Event { step, kind: "not-written".to_owned(), text, data });
            }
        }
    }

    /// Ends the run: the last steps are written in full, the streams get their end marks, and an
    /// earlier run is replaced if that was asked for. Returns where the run is.
    ///
    /// # Errors
    /// [`RunError`] if it could not be written.
    pub fn finish(self) -> Result<PathBuf, RunError> {
        self.finish_with(None)
    }

    /// [`RunWriter::finish`] with what is known of the run at its end.
    pub(super) fn finish_with(mut self, state: Option<State>) -> Result<PathBuf, RunError> {
        self.place.check()?;
        self.tensor_thinning.drain(self.tensors.stream.rows());
        if self.step_thinning.dropped + self.tensor_thinning.dropped > 0 {
            self.say_thinned()?;
        }
        self.save()?;
        self.is_finished = true;
        self.steps.finish()?;
        self.tensors.finish()?;
        self.write_events()?;
        self.events.sync()?;
        // Last: who reads that a run has ended finds all of it.
        state.map_or(Ok(()), |state| self.state(&state))?;
        self.place.settle()
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
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // There is nobody left to tell; a reader sees what is missing.
            let _ = self.save();
        }
    }
}

fn write_info(folder: &Path, info: &RunInfo) -> Result<(), RunError> {
    let path = folder.join(INFO_FILE);
    let text = serde_json::to_vec_pretty(&InfoFile::new(info))
        .map_err(|error| RunError::encode(&path, error))?;
    overwrite(&path, &text)
}
