//! The thread that writes a run folder, so that the training never waits for a disk.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tamegrad::Diagnosis;

use super::state::{self, State};
use super::table::{Event, RunInfo, StepRow, TensorRow};
use super::write::{Lost, SAVE_EVERY};
use super::{RunError, RunWriter};

/// Bytes that wait for the thread at most; steps beyond are counted as lost.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// How long the end of a run waits for a disk that does not answer.
const END_WAIT: Duration = Duration::from_secs(10);

/// One step on its way to the disk.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) row: StepRow,
    pub(super) tensors: Vec<TensorRow>,
    pub(super) events: Vec<Event>,
    pub(super) is_incident: bool,
    /// Whether the disk is to have it at once.
    pub(super) is_urgent: bool,
    /// The description of the run, where it has changed.
    pub(super) info: Option<RunInfo>,
    /// What is known of the run now.
    pub(super) known: Option<Known>,
}

impl Message {
    fn bytes(&self) -> usize {
        let events: usize = self.events.iter().map(|event| event.text.len() + 1000).sum();
        size_of::<Self>() + size_of_val(&self.tensors[..]) + events
    }
}

/// A diagnosis of a run up to a step.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) step: u64,
    pub(super) diagnosis: Box<Diagnosis>,
}

impl Known {
    fn state(&self, end: Option<&str>) -> State {
        let end = end.map(str::to_owned);
        let diagnosis = state::to_json(&self.diagnosis);
        State { step: self.step, wall: state::now(), end, diagnosis }
    }
}

/// How a run ends.
#[derive(Debug)]
struct End {
    /// In words; `None` leaves the run open, as after a crash.
    how: Option<String>,
    /// The last diagnosis; without it, the latest counts.
    known: Option<Known>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: Vec<Message>,
    bytes: usize,
    lost: Lost,
    is_urgent: bool,
    end: Option<End>,
    news: Option<String>,
    outcome: Option<Result<PathBuf, RunError>>,
    /// Whether the thread is gone.
    is_over: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// After a fork the thread is in the parent only.
    process: u32,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole between any two statements.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Asks for the end, unless it was asked for, and waits until the thread is done with it.
    fn end(&self, end: End, wait: Duration) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue();
        queue.end.get_or_insert(end);
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(queue, wait, |queue| !queue.is_over);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// All threads that write, for [`end_all`].
static LIVE: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Ends every run that this process records, with the latest diagnosis of each, for a process that is
/// about to end and cannot wait for its training. Returns their folders. At most two seconds pass.
pub fn end_all(how: &str) -> Vec<PathBuf> {
    let live: Vec<_> = {
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.drain(..).filter_map(|shared| shared.upgrade()).collect()
    };
    let until = Instant::now() + Duration::from_secs(2);
    let here = live.iter().filter(|shared| shared.is_here());
    here.filter_map(|shared| {
        let end = End { how: Some(how.to_owned()), known: None };
        let queue = shared.end(end, until.saturating_duration_since(Instant::now()));
        queue.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok()).cloned()
    })
    .collect()
}

/// The training thread's side.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    folder: PathBuf,
}

impl Keeper {
    pub(super) fn start(writer: RunWriter) -> Result<Self, RunError> {
        let folder = writer.folder().to_owned();
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            process: std::process::id(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("tamegrad-recorder".to_owned())
            .spawn(move || keep(writer, &of_thread))
            .map_err(|error| RunError::io(&folder, error))?;
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|shared| shared.strong_count() > 0);
        live.push(Arc::downgrade(&shared));
        Ok(Self { shared, folder })
    }

    /// Hands a step over.
    pub(super) fn take(&self, mut message: Message) {
        if !self.shared.is_here() {
            return;
        }
        let mut queue = self.shared.queue();
        if queue.is_over {
            return;
        }
        if queue.bytes > QUEUE_BYTES_MAX {
            queue.lost.steps += 1;
            queue.lost.tensor_rows += message.tensors.len() as u64;
            if message.events.is_empty() && message.known.is_none() {
                return;
            }
            // What was found counts more than the numbers.
            message.tensors = Vec::new();
        }
        queue.bytes += message.bytes();
        let is_first = message.info.is_some();
        let is_urgent = message.is_urgent || is_first;
        queue.messages.push(message);
        // The thread looks by itself some times a second: to wake it in each step would cost the training
        // more than the rest.
        if is_urgent {
            queue.is_urgent = true;
            self.shared.changed.notify_all();
        }
    }

    pub(super) fn news(&self) -> Option<String> {
        if self.shared.is_here() { self.shared.queue().news.take() } else { None }
    }

    pub(super) fn finish(self, how: &str, known: Known) -> Result<PathBuf, RunError> {
        if !self.shared.is_here() {
            return Ok(self.folder.clone());
        }
        let text = serde_json::to_string_pretty(&known.state(Some(how)));
        let end = End { how: Some(how.to_owned()), known: Some(known) };
        let mut queue = self.shared.end(end, END_WAIT);
        let outcome = queue.outcome.take();
        let lost = queue.lost;
        drop(queue);
        let error = match outcome {
            Some(Ok(folder)) => return Ok(folder),
            Some(Err(error)) => error,
            None => RunError::Stalled { path: self.folder.clone() },
        };
        let fallback = text.ok().and_then(|text| write_elsewhere(&text));
        Err(RunError::NotWritten { source: Box::new(error), lost, fallback })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.shared.is_here() {
            let how = std::thread::panicking().then(|| "panic".to_owned());
            drop(self.shared.end(End { how, known: None }, END_WAIT));
        }
    }
}

/// Writes a diagnosis where it can be, and says where.
fn write_elsewhere(text: &str) -> Option<PathBuf> {
    let folders = [Some(std::env::temp_dir()), std::env::current_dir().ok()];
    folders.into_iter().flatten().find_map(|folder| {
        let file = tempfile::Builder::new()
            .prefix("tamegrad-diagnosis-")
            .suffix(".json")
            .tempfile_in(folder)
            .ok()?;
        std::io::Write::write_all(&mut file.as_file(), text.as_bytes()).ok()?;
        file.keep().ok().map(|(_, path)| path)
    })
}

/// What the thread does, until the run ends.
fn keep(mut writer: RunWriter, shared: &Shared) {
    let mut latest: Option<Known> = None;
    let mut is_in_trouble = false;
    let end = loop {
        let (messages, lost, is_urgent, end) = next(shared);
        writer.count_lost(lost);
        for mut message in messages {
            // Before the events: what is on the disk is never milder than they are.
            if let Some(known) = message.known.take() {
                // What cannot be written waits in the writer, which tries again.
                let _ = writer.state(&known.state(None));
                latest = Some(known);
            }
            write(&mut writer, message);
        }
        if let Some(end) = end {
            break end;
        }
        let _ = if is_urgent { writer.save() } else { writer.save_when_due() };
        let news = match (writer.trouble(), is_in_trouble) {
            (Some(error), false) => format!(
                "the run is not recorded at present: {error}; hint: writing is tried again four times \
                 a second"
            ),
            (None, true) => "the run is recorded again".to_owned(),
            _ => continue,
        };
        is_in_trouble = !is_in_trouble;
        shared.queue().news = Some(news);
    };
    let outcome = finish(writer, end, latest);
    let mut queue = shared.queue();
    queue.outcome = Some(outcome);
    queue.is_over = true;
    shared.changed.notify_all();
}

fn finish(mut writer: RunWriter, end: End, latest: Option<Known>) -> Result<PathBuf, RunError> {
    let Some(how) = end.how else {
        let folder = writer.folder().to_owned();
        return writer.save().map(|()| folder);
    };
    writer.finish_with(end.known.or(latest).map(|known| known.state(Some(&how))))
}

/// Waits for something to do, at most for half of the time between two saves: a save that is not due yet
/// is not put off for long.
fn next(shared: &Shared) -> (Vec<Message>, Lost, bool, Option<End>) {
    let queue = shared.queue();
    let is_idle = |queue: &mut Queue| !queue.is_urgent && queue.end.is_none();
    let waited = shared.changed.wait_timeout_while(queue, SAVE_EVERY / 2, is_idle);
    let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
    queue.bytes = 0;
    let messages = std::mem::take(&mut queue.messages);
    let is_urgent = std::mem::take(&mut queue.is_urgent);
    (messages, std::mem::take(&mut queue.lost), is_urgent, queue.end.take())
}

/// Hands a step to the writer. What cannot be written waits there, and is told by its trouble.
fn write(writer: &mut RunWriter, message: Message) {
    let Message { row, tensors, events, is_incident, info, .. } = message;
    let _ = info.map_or(Ok(()), |info| writer.describe(&info));
    let _ = writer.step(&row);
    if !tensors.is_empty() {
        let _ = writer.tensors(row.step, &tensors);
    }
    if is_incident {
        let _ = writer.incident(row.step);
    }
    for event in &events {
        let _ = writer.event(event);
    }
}
