//! What is known of a run so far: `diagnosis.json`, replaced as the run goes on.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tamegrad::Diagnosis;
use tamegrad_report::json::{DiagnosisReport, SCHEMA};

/// How a run ended that came to its end.
pub const COMPLETED: &str = "completed";

/// What is known of a run: the diagnosis of the guard that watched it, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The step at which this was known.
    pub step: u64,
    /// When, in seconds since 1970.
    pub wall: f64,
    /// How the run ended, [`COMPLETED`] or in other words; `None` while it goes on, and for ever if
    /// it was killed.
    pub end: Option<String>,
    /// The diagnosis as JSON, in the schema of all reports.
    pub diagnosis: Value,
}

/// How a run stands, as far as its folder tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It came to its end.
    Completed,
    /// It ended in another way, in words: `stopped by Ctrl-C`.
    Stopped(String),
    /// A process is writing it.
    Running,
    /// It was killed, or its machine went down.
    Unended,
}

/// The time, in seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A diagnosis as it is kept.
pub(super) fn to_json(diagnosis: &Diagnosis) -> Value {
    json!(DiagnosisReport::from(diagnosis))
}

impl State {
    /// The diagnosis.
    ///
    /// # Errors
    /// What was written by another version, or was damaged, with what was wanted.
    pub fn diagnosis(&self) -> Result<Diagnosis, String> {
        let schema = self.diagnosis.get("schema").and_then(Value::as_str);
        if schema != Some(SCHEMA) {
            let got = schema.map_or("none".to_owned(), |schema| format!("`{schema}`"));
            return Err(format!(
                "the diagnosis in this run folder was written by another version of tamegrad and is \
                 left out (schema: got {got}, want `{SCHEMA}`); the run is diagnosed from its steps"
            ));
        }
        let report = serde_json::from_value::<DiagnosisReport>(self.diagnosis.clone());
        let read = report.map_err(|error| error.to_string());
        read.and_then(|report| Diagnosis::try_from(&report)).map_err(|error| {
            format!("the diagnosis in this run folder cannot be read and is left out: {error}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::{Guard, GuardConfig, Layout, Observation, RunFacts, Step};

    fn exploded() -> Diagnosis {
        let mut guard = Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
        for step in 0..60 {
            let loss = Some(if step < 50 { 1.0 } else { f64::NAN });
            guard.observe(&Observation { step: Step(step), loss, ..Observation::default() }, &[]);
        }
        guard.diagnosis()
    }

    fn state(diagnosis: Value) -> State {
        State { step: 59, wall: 1.7e9, end: None, diagnosis }
    }

    #[test]
    fn what_a_guard_found_is_read_back() {
        let given = exploded();
        let read = state(to_json(&given)).diagnosis().expect("of this version");
        // NaN is no equal of itself; its text is.
        assert_eq!(format!("{read:?}"), format!("{given:?}"));
    }

    #[test]
    fn what_another_version_wrote_is_refused_with_words() {
        let with = |key: &str, value: Value| {
            let mut diagnosis = to_json(&exploded());
            diagnosis[key] = value;
            diagnosis
        };
        for (diagnosis, words) in [
            (with("schema", Value::Null), "got none, want `tamegrad/diagnosis/2`"),
            (with("schema", json!("tamegrad/diagnosis/9")), "got `tamegrad/diagnosis/9`"),
            (with("verdict", json!("unheard-of")), "verdict: got `unheard-of`"),
            (with("signs", json!(7)), "cannot be read"),
            (Value::Null, "got none"),
        ] {
            let error = state(diagnosis).diagnosis().expect_err("it cannot be read");
            assert!(error.contains(words), "{error}");
        }
    }
}
