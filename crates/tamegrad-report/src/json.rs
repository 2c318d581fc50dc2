//! Reports as JSON: serializable counterparts, so that the format stays while the types move.
//!
//! Numbers that JSON cannot hold are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`; what is
//! not known is `null`.

use serde::{Serialize, Serializer};
use tamegrad::{Chain, Diagnosis, Evidence, Link, Record, Severity, Verdict};

use crate::words;

/// One training run, as `train --json` tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    /// The verdict's kebab-case name.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// The step of the first alarm.
    pub onset_step: Option<u64>,
    /// Name of the layer where it began, else of the tensor.
    pub origin: Option<String>,
    /// Kebab-case name of the best supported cause.
    pub cause: Option<String>,
    /// Held-out metric at the end.
    #[serde(serialize_with = "number_if_known")]
    pub metric: Option<f64>,
    /// Number of steps at which the guard acted.
    pub actions: u64,
    /// Hash of the final weights.
    pub weights_hash: String,
}

/// The search for a fix, as `report.json` and `fix --json` tell it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FixReport {
    /// The run as given.
    pub given: GivenReport,
    /// The remedies that were tried, the least force first.
    pub trials: Vec<TrialReport>,
    /// The remedy that was trained with to the end; none when the run was healthy or none works.
    pub chosen: Option<ChosenReport>,
    /// The run with it.
    pub fixed: Option<FixedReport>,
}

/// The run as given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GivenReport {
    /// The verdict's kebab-case name.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// The step of the first alarm.
    pub onset_step: Option<u64>,
    /// Name of the layer where it began, else of the tensor.
    pub origin: Option<String>,
    /// Kebab-case name of the best supported cause.
    pub cause: Option<String>,
    /// The six signs.
    pub signs: Vec<SignReport>,
    /// The chain of gains in order of execution; empty when it was not measured.
    pub gains: Vec<GainReport>,
    /// Held-out metric at the end.
    #[serde(serialize_with = "number_if_known")]
    pub metric: Option<f64>,
}

/// Whether a sign was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignState {
    /// Never.
    Quiet,
    /// Worth showing, no alarm.
    Strain,
    /// Part of an explosion.
    Alarm,
}

/// One sign over the whole run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SignReport {
    /// Kebab-case name.
    pub name: String,
    /// Whether it was up.
    pub state: SignState,
    /// The step of its first finding, alarms before strains.
    pub first_step: Option<u64>,
    /// Number of findings.
    pub count: u64,
    /// The numbers of that finding.
    pub evidence: Vec<EvidenceReport>,
}

/// One number that shows a finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvidenceReport {
    /// What was measured, in words.
    pub what: String,
    /// Its value.
    #[serde(serialize_with = "number")]
    pub value: f64,
    /// What it is held against, in words.
    pub against: Option<String>,
    /// That as a number.
    #[serde(serialize_with = "number_if_known")]
    pub limit: Option<f64>,
}

/// The gains of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GainReport {
    /// The layer's name.
    pub layer: String,
    /// RMS of its output over RMS of its input.
    #[serde(serialize_with = "number_if_known")]
    pub forward: Option<f64>,
    /// Norm of the gradient at its input over that at its output.
    #[serde(serialize_with = "number_if_known")]
    pub backward: Option<f64>,
}

/// One remedy, tried alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialReport {
    /// Label of the remedy, such as `batch-norm-before`.
    pub remedy: String,
    /// What it changes, in words.
    pub change: String,
    /// The verdict's kebab-case name.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// Held-out metric at the end of the trial.
    #[serde(serialize_with = "number_if_known")]
    pub metric: Option<f64>,
    /// Seconds it took.
    #[serde(serialize_with = "number")]
    pub seconds: f64,
}

/// The remedy that was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChosenReport {
    /// Its label.
    pub remedy: String,
    /// What it changes, in words.
    pub change: String,
}

/// The run with the chosen remedy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FixedReport {
    /// The verdict's kebab-case name.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// Held-out metric at the end.
    #[serde(serialize_with = "number_if_known")]
    pub metric: Option<f64>,
    /// Hash of the final weights.
    pub weights_hash: String,
}

/// The report of a training run.
pub fn train(
    diagnosis: &Diagnosis,
    record: &Record,
    metric: Option<f64>,
    weights_hash: &str,
) -> TrainReport {
    TrainReport {
        verdict: diagnosis.verdict,
        onset_step: diagnosis.onset.map(|step| step.0),
        origin: words::origin(diagnosis, record).map(str::to_owned),
        cause: cause(diagnosis),
        metric,
        actions: record.actions.len() as u64,
        weights_hash: weights_hash.to_owned(),
    }
}

/// The report of the run as given, the first part of a [`FixReport`].
pub fn given(diagnosis: &Diagnosis, record: &Record, metric: Option<f64>) -> GivenReport {
    GivenReport {
        verdict: diagnosis.verdict,
        onset_step: diagnosis.onset.map(|step| step.0),
        origin: words::origin(diagnosis, record).map(str::to_owned),
        cause: cause(diagnosis),
        signs: diagnosis.signs.iter().map(sign).collect(),
        gains: gains(diagnosis.chain.as_ref(), record),
        metric,
    }
}

/// The gains of a chain, a layer each in order of execution; none without a chain.
pub fn gains(chain: Option<&Chain>, record: &Record) -> Vec<GainReport> {
    let links = chain.into_iter().flat_map(|chain| &chain.links);
    let gain = |link: &Link| GainReport {
        layer: record.layout.layer_name(link.layer).to_owned(),
        forward: link.forward,
        backward: link.backward,
    };
    links.map(gain).collect()
}

/// A report as indented JSON that ends with a line break.
///
/// # Errors
/// When the value's `Serialize` fails, which that of no report in this module does.
pub fn to_string<T: Serialize>(report: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(report).map(|text| text + "\n")
}

fn cause(diagnosis: &Diagnosis) -> Option<String> {
    diagnosis.causes.first().map(|cause| cause.name.as_str().to_owned())
}

fn sign(summary: &tamegrad::diagnosis::SignSummary) -> SignReport {
    let first = summary.first.as_ref();
    SignReport {
        name: summary.sign.as_str().to_owned(),
        state: match first.map(|finding| finding.severity) {
            None => SignState::Quiet,
            Some(Severity::Strain) => SignState::Strain,
            Some(Severity::Alarm) => SignState::Alarm,
        },
        first_step: first.map(|finding| finding.step.0),
        count: summary.count as u64,
        evidence: first
            .map_or(Vec::new(), |finding| finding.evidence.iter().map(evidence).collect()),
    }
}

fn evidence(evidence: &Evidence) -> EvidenceReport {
    let (against, limit) = evidence.against.clone().unzip();
    EvidenceReport { what: evidence.what.clone(), value: evidence.value, against, limit }
}

fn verdict_name<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.as_str())
}

fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_nan() {
        serializer.serialize_str("NaN")
    } else if value.is_infinite() {
        serializer.serialize_str(if *value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        serializer.serialize_f64(*value)
    }
}

pub(crate) fn number_if_known<S: Serializer>(
    value: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => number(value, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{exploded, fix_report, healthy};
    use serde_json::{Value, json};

    fn value_of<T: Serialize>(report: &T) -> Value {
        let text = to_string(report).expect("reports serialize");
        assert!(text.starts_with("{\n  \"") && text.ends_with("}\n"), "{text}");
        serde_json::from_str(&text).expect("what was written is JSON")
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    #[test]
    fn a_training_run_of_each_end() {
        let guard = exploded();
        let report = train(&guard.diagnosis(), guard.record(), Some(f64::NAN), "a1b2");
        assert_eq!(
            value_of(&report),
            json!({
                "verdict": "exploded",
                "onset_step": 150,
                "origin": "layers.3",
                "cause": "activation",
                "metric": "NaN",
                "actions": 0,
                "weights_hash": "a1b2",
            })
        );
        let guard = healthy();
        let report = train(&guard.diagnosis(), guard.record(), Some(0.97), "c3d4");
        assert_eq!(
            value_of(&report),
            json!({
                "verdict": "healthy",
                "onset_step": null,
                "origin": null,
                "cause": null,
                "metric": 0.97,
                "actions": 0,
                "weights_hash": "c3d4",
            })
        );
    }

    #[test]
    fn every_key_of_a_fix() {
        let guard = exploded();
        let value = value_of(&fix_report(&guard));
        assert_eq!(keys(&value), ["chosen", "fixed", "given", "trials"]);
        let given = &value["given"];
        assert_eq!(
            keys(given),
            ["cause", "gains", "metric", "onset_step", "origin", "signs", "verdict"]
        );
        assert_eq!(given["verdict"], "exploded");
        assert_eq!(given["metric"], 0.1);
        let gains = given["gains"].as_array().expect("gains");
        assert_eq!(gains.len(), 6);
        assert_eq!(gains[3], json!({ "layer": "layers.3", "forward": 38.0, "backward": 41.0 }));
        let signs = given["signs"].as_array().expect("signs");
        let names: Vec<_> = signs.iter().map(|sign| sign["name"].as_str()).collect();
        assert_eq!(names, tamegrad::signs::SignName::ALL.map(|name| Some(name.as_str())));
        assert_eq!(
            signs[1],
            json!({
                "name": "loss-nonfinite",
                "state": "alarm",
                "first_step": 152,
                "count": 16,
                "evidence": [
                    { "what": "loss", "value": "NaN", "against": null, "limit": null },
                    {
                        "what": "NaN and Inf elements in the gradients",
                        "value": 6.0,
                        "against": null,
                        "limit": null,
                    },
                ],
            })
        );
        assert_eq!(
            signs[5],
            json!({
                "name": "learning-rate-falls",
                "state": "quiet",
                "first_step": null,
                "count": 0,
                "evidence": [],
            })
        );
        assert_eq!(
            value["trials"][0],
            json!({
                "remedy": "clip-global-norm",
                "change": "clip by global norm at 2.4",
                "verdict": "exploded",
                "metric": "NaN",
                "seconds": 3.25,
            })
        );
        assert_eq!(
            value["chosen"],
            json!({ "remedy": "bounded-activation", "change": "relu in layers.3" })
        );
        assert_eq!(
            value["fixed"],
            json!({ "verdict": "healthy", "metric": 0.955, "weights_hash": "00c0ffee" })
        );
    }

    #[test]
    fn fields_are_written_in_their_order_and_no_number_is_lost() {
        let report = |value, limit| EvidenceReport {
            what: "gain".into(),
            value,
            against: Some("calm".into()),
            limit,
        };
        for (value, limit, text) in [
            (f64::NAN, None, r#"{"what":"gain","value":"NaN","against":"calm","limit":null}"#),
            (
                f64::INFINITY,
                Some(f64::NEG_INFINITY),
                r#"{"what":"gain","value":"Infinity","against":"calm","limit":"-Infinity"}"#,
            ),
            (0.1, Some(1e300), r#"{"what":"gain","value":0.1,"against":"calm","limit":1e+300}"#),
        ] {
            let written = serde_json::to_string(&report(value, limit)).expect("reports serialize");
            assert_eq!(written, text);
        }
    }

    #[test]
    fn a_healthy_run_has_nothing_chosen() {
        let guard = healthy();
        let given = given(&guard.diagnosis(), guard.record(), None);
        let report = FixReport { given, trials: vec![], chosen: None, fixed: None };
        let value = value_of(&report);
        assert_eq!((&value["chosen"], &value["fixed"]), (&Value::Null, &Value::Null));
        assert_eq!(value["trials"], json!([]));
        assert_eq!(value["given"]["metric"], Value::Null);
    }
}
