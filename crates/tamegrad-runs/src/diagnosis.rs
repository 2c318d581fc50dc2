//! The guard's diagnosis in a run folder: the event that ends a run. Its data is the diagnosis as JSON,
//! in the schema of all reports.

use serde_json::json;
use tamegrad::Diagnosis;
use tamegrad_report::json::{DiagnosisReport, SCHEMA};

use super::table::Event;

/// The kind of the event.
const KIND: &str = "diagnosis";

/// The event of a diagnosis, at the last step.
pub(super) fn event(diagnosis: &Diagnosis, step: u64) -> Event {
    let text = [
        Some(diagnosis.verdict.as_str().to_owned()),
        diagnosis.onset.map(|step| format!("since step {step}")),
        diagnosis.origin_name().map(|name| format!("from {name}")),
        diagnosis.cause().map(|name| format!("by {name}")),
    ];
    Event {
        step,
        kind: KIND.to_owned(),
        text: text.into_iter().flatten().collect::<Vec<_>>().join(" "),
        data: json!(DiagnosisReport::from(diagnosis)),
    }
}

/// The diagnosis of an event; `None` where the event is of another kind.
///
/// # Errors
/// What was written by another version, or was damaged, with what was wanted.
pub fn diagnosis(event: &Event) -> Option<Result<Diagnosis, String>> {
    if event.kind != KIND {
        return None;
    }
    let schema = event.data.get("schema").and_then(serde_json::Value::as_str);
    if schema != Some(SCHEMA) {
        let got = schema.map_or("none".to_owned(), |schema| format!("`{schema}`"));
        return Some(Err(format!(
            "the diagnosis in this run folder was written by another version of tamegrad and is left \
             out (schema: got {got}, want `{SCHEMA}`); the run is diagnosed from its steps"
        )));
    }
    let report = serde_json::from_value::<DiagnosisReport>(event.data.clone());
    let read = report.map_err(|error| error.to_string());
    Some(read.and_then(|report| Diagnosis::try_from(&report)).map_err(|error| {
        format!("the diagnosis in this run folder cannot be read and is left out: {error}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tamegrad::{Guard, GuardConfig, Layout, Observation, RunFacts, Step};

    fn exploded() -> Diagnosis {
        let mut guard = Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
        for step in 0..60 {
            let loss = Some(if step < 50 { 1.0 } else { f64::NAN });
            guard.observe(&Observation { step: Step(step), loss, ..Observation::default() }, &[]);
        }
        guard.diagnosis()
    }

    #[test]
    fn what_a_guard_found_is_read_back() {
        let given = exploded();
        let event = event(&given, 59);
        assert_eq!(event.text, "exploded since step 50");
        let read = diagnosis(&event).expect("a diagnosis").expect("of this version");
        // NaN is no equal of itself; its text is.
        assert_eq!(format!("{read:?}"), format!("{given:?}"));
    }

    #[test]
    fn what_another_version_wrote_is_refused_with_words() {
        let good = event(&exploded(), 59);
        let with = |key: &str, value: Value| {
            let mut event = good.clone();
            event.data[key] = value;
            event
        };
        for (event, words) in [
            (with("schema", Value::Null), "got none, want `tamegrad/diagnosis/1`"),
            (with("schema", json!("tamegrad/diagnosis/9")), "got `tamegrad/diagnosis/9`"),
            (with("verdict", json!("unheard-of")), "verdict: got `unheard-of`"),
            (with("signs", json!(7)), "cannot be read"),
            (Event { data: Value::Null, ..good.clone() }, "got none"),
        ] {
            let error = diagnosis(&event).expect("a diagnosis").expect_err("it cannot be read");
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(diagnosis(&Event { kind: "finding".to_owned(), ..good }), None);
    }
}
