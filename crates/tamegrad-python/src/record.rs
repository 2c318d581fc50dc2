//! A run in a run folder, recorded while a Python loop trains.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use tamegrad::{GuardConfig, Layout, RunFacts};
use tamegrad_runs::{Event, Existing, RunError, RunInfo};

use crate::guard::Guard;
use crate::signals::Signals;

/// The recorder of one run. A thread writes; calls only hand numbers over.
#[pyclass(frozen, module = "tamegrad._core")]
pub(crate) struct Recorder {
    state: Mutex<State>,
}

struct State {
    folder: PathBuf,
    /// `None` when the run has ended.
    open: Option<(tamegrad_runs::Recorder, Option<Signals>)>,
}

#[pymethods]
impl Recorder {
    /// Begins a run: its folder is made and its lock taken. `sees_signals`: a signal that ends the
    /// process ends the run first.
    #[new]
    fn new(
        py: Python<'_>,
        folder: PathBuf,
        existing: &str,
        source: String,
        mut environment: BTreeMap<String, String>,
        sees_signals: bool,
    ) -> PyResult<Self> {
        let existing = match existing {
            "number" => Existing::Number,
            "overwrite" => Existing::Overwrite,
            "resume" => Existing::Resume,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "if_run_exists: got `{existing}`, want `number`, `overwrite` or `resume`"
                )));
            }
        };
        let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
        environment.insert("system".to_owned(), system);
        environment.insert("tamegrad".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let info = RunInfo { source: Some(source), environment, ..RunInfo::default() };
        let begun = py.detach(|| tamegrad_runs::Recorder::begin(&folder, info, existing));
        let recorder = begun.map_err(|error| PyOSError::new_err(refused(&error)))?;
        let signals = if sees_signals { Signals::watch() } else { None };
        let folder = recorder.folder().to_owned();
        Ok(Self { state: Mutex::new(State { folder, open: Some((recorder, signals)) }) })
    }

    /// Where the run is.
    #[getter]
    fn folder(&self) -> PathBuf {
        self.state().folder.clone()
    }

    /// Notes which ranks have caused the alarm of a step, by their share of its batch.
    fn name_ranks(&self, step: u64, ranks: Vec<usize>) {
        if let Some((recorder, _)) = self.state().open.as_mut() {
            let names = ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            let text = format!("the loss, the inputs or the gradient of rank {names} stand out");
            let data = serde_json::json!({ "ranks": ranks });
            recorder.note(Event { step, kind: "ranks".to_owned(), text, data });
        }
    }

    /// Hands over the latest step of a guard. Gives what is new about the writing itself, in words.
    fn take(&self, guard: &Guard) -> Option<String> {
        let mut state = self.state();
        let (recorder, _) = state.open.as_mut()?;
        recorder.take(guard.core.run());
        recorder.news()
    }

    /// Ends the run with the diagnosis of a guard, or of one that has seen nothing. Gives in words what
    /// could not be written. A run that has ended stays as it is.
    fn finish(&self, py: Python<'_>, guard: Option<&Guard>, how: &str) -> Option<String> {
        let (recorder, signals) = self.state().open.take()?;
        let empty;
        let core = match guard {
            Some(guard) => &guard.core,
            None => {
                let (layout, facts) = (Layout::default(), RunFacts::default());
                empty = tamegrad::Guard::new(layout, facts, GuardConfig::default());
                &empty
            }
        };
        let finished = py.detach(|| recorder.finish_as(how, &core.diagnosis(), core.run()));
        drop(signals);
        match finished {
            Ok(folder) => {
                self.state().folder = folder;
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends every run that this process records, each with its latest diagnosis; at most two seconds pass.
#[pyfunction]
pub(crate) fn end_runs(py: Python<'_>, how: &str) -> Vec<PathBuf> {
    py.detach(|| tamegrad_runs::end_all(how))
}

fn refused(error: &RunError) -> String {
    let next = match error {
        RunError::Io { .. } => "; want a folder that can be made and written",
        _ => "",
    };
    format!("the run cannot be recorded: {error}{next}; hint: give another folder as `run`")
}
