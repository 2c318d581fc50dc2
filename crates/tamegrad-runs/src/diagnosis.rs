//! The guard's diagnosis in a run folder: the event that ends a run, and what `diagnose` reads of it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tamegrad::causes::CauseName;
use tamegrad::hindsight::{Judgement, LogCause, LogOrigin, LogRemedy};
use tamegrad::remedies::RemedyName;
use tamegrad::{Diagnosis, Evidence, Record, Verdict};

use super::table::Event;

/// The kind of the event.
const KIND: &str = "diagnosis";

/// The event's data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Data {
    verdict: String,
    onset_step: Option<u64>,
    origin: Option<String>,
    origin_evidence: Vec<Value>,
    /// The best supported cause.
    cause: Option<String>,
    cause_evidence: Vec<Value>,
    /// Labels, the best first.
    remedies: Vec<String>,
}

/// The event of a diagnosis.
pub(super) fn event(diagnosis: &Diagnosis, record: &Record) -> Event {
    let Diagnosis { verdict, onset, origin, causes, remedies, .. } = diagnosis;
    let origin_name = origin.as_ref().and_then(|origin| {
        let layer = origin.layer.map(|id| record.layout.layer_name(id));
        layer.or_else(|| origin.tensor.map(|id| record.layout.tensor_name(id)))
    });
    let cause = causes.first();
    let data = Data {
        verdict: verdict.as_str().to_owned(),
        onset_step: onset.map(|step| step.0),
        origin: origin_name.map(str::to_owned),
        origin_evidence: origin.iter().flat_map(|origin| &origin.evidence).map(number).collect(),
        cause: cause.map(|cause| cause.name.as_str().to_owned()),
        cause_evidence: cause.iter().flat_map(|cause| &cause.evidence).map(number).collect(),
        remedies: remedies.iter().map(tamegrad::remedies::Proposal::label).collect(),
    };
    let text = [
        Some(data.verdict.clone()),
        data.onset_step.map(|step| format!("since step {step}")),
        data.origin.as_ref().map(|name| format!("from {name}")),
        data.cause.as_ref().map(|name| format!("by {name}")),
    ];
    Event {
        step: record.now().map_or(0, |row| row.step.0),
        kind: KIND.to_owned(),
        text: text.into_iter().flatten().collect::<Vec<_>>().join(" "),
        data: json!(data),
    }
}

/// The diagnosis of an event, in the form that logs are judged in; `None` where the event is of
/// another kind or has no verdict that is known.
pub fn judgement(event: &Event) -> Option<Judgement> {
    if event.kind != KIND {
        return None;
    }
    let data: Data = serde_json::from_value(event.data.clone()).ok()?;
    let verdicts = [
        Verdict::Healthy,
        Verdict::Recovered,
        Verdict::Exploding,
        Verdict::Exploded,
        Verdict::Dead,
        Verdict::TooEarly,
    ];
    let evidence = |values: &[Value]| values.iter().filter_map(evidence).collect();
    let cause = |name: &String| CauseName::ALL.into_iter().find(|of| of.as_str() == name);
    let remedy = |label: &String| {
        let name = RemedyName::ALL.into_iter().filter(|of| label.starts_with(of.as_str()));
        let name = name.max_by_key(|of| of.as_str().len())?;
        Some(LogRemedy { name, advice: name.doc().title.to_owned() })
    };
    let mut remedies: Vec<LogRemedy> = data.remedies.iter().filter_map(remedy).collect();
    remedies.dedup();
    Some(Judgement {
        verdict: verdicts.into_iter().find(|of| of.as_str() == data.verdict)?,
        onset: data.onset_step.and_then(|step| i64::try_from(step).ok()),
        recovered: None,
        alarms: Vec::new(),
        strains: Vec::new(),
        origin: data
            .origin
            .map(|tensor| LogOrigin { tensor, evidence: evidence(&data.origin_evidence) }),
        causes: data
            .cause
            .iter()
            .filter_map(cause)
            .map(|name| LogCause { name, evidence: evidence(&data.cause_evidence) })
            .collect(),
        remedies,
    })
}

/// A piece of evidence as JSON.
pub(super) fn number(evidence: &Evidence) -> Value {
    let Evidence { what, value, against } = evidence;
    let (reference, limit) = against.as_ref().map(|(what, limit)| (what, json_f64(*limit))).unzip();
    json!({ "what": what, "value": json_f64(*value), "reference": reference, "limit": limit })
}

fn evidence(value: &Value) -> Option<Evidence> {
    let what = value.get("what")?.as_str()?;
    let reference = value.get("reference").and_then(Value::as_str);
    let against = reference.zip(value.get("limit").and_then(from_json_f64));
    let against = against.map(|(what, limit)| (what.to_owned(), limit));
    Some(Evidence { what: what.to_owned(), value: from_json_f64(value.get("value")?)?, against })
}

/// A number, or `"NaN"`, `"inf"`, `"-inf"`, for which JSON has no numbers.
fn json_f64(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

fn from_json_f64(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guard_found_is_read_back() {
        let data = json!({
            "verdict": "dead",
            "onset_step": 3,
            "origin": "layers.0",
            "origin_evidence": [
                { "what": "gain", "value": "inf", "reference": "its mean", "limit": 1.5 },
            ],
            "cause": "unscaled-target",
            "cause_evidence": [{ "what": "target", "value": 300.0 }],
            "remedies": ["scale-target", "batch-norm-before", "batch-norm-after"],
        });
        let event = Event { step: 9, kind: KIND.to_owned(), text: String::new(), data };
        let judgement = judgement(&event).unwrap();
        assert_eq!((judgement.verdict, judgement.onset), (Verdict::Dead, Some(3)));
        let origin = judgement.origin.unwrap();
        assert_eq!(origin.tensor, "layers.0");
        assert_eq!(origin.evidence, [Evidence::against("gain", f64::INFINITY, "its mean", 1.5)]);
        assert_eq!(judgement.causes[0].name, CauseName::UnscaledTarget);
        assert_eq!(judgement.causes[0].evidence, [Evidence::of("target", 300.0)]);
        let names: Vec<RemedyName> = judgement.remedies.iter().map(|of| of.name).collect();
        assert_eq!(names, [RemedyName::ScaleTarget, RemedyName::BatchNorm]);
    }

    #[test]
    fn evidence_survives_json() {
        for of in [
            Evidence::of("a", f64::NEG_INFINITY),
            Evidence::against("b", 1.5, "its usual", f64::INFINITY),
        ] {
            assert_eq!(evidence(&number(&of)), Some(of));
        }
    }

    #[test]
    fn what_is_no_diagnosis_is_none() {
        let event = |kind: &str, data| Event { kind: kind.to_owned(), data, ..Event::default() };
        for event in [
            event("finding", json!({ "verdict": "dead" })),
            event(KIND, json!({ "verdict": "unheard-of" })),
            event(KIND, Value::Null),
            event(KIND, json!(7)),
        ] {
            assert_eq!(judgement(&event), None, "{event:?}");
        }
    }
}
