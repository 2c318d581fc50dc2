//! Reports as JSON: serializable counterparts, so that the format stays while the types move.
//!
//! Numbers that JSON cannot hold are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`; what is
//! not known is `null`.

use serde::{Serialize, Serializer};
use tamegrad::{Chain, Diagnosis, Evidence, Layout, Link, Record, Severity, Verdict};

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
    /// What kind of place that is: `layer`, `tensor`, `data`, or `loss`, which has no name.
    pub place: Option<&'static str>,
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
    /// As in [`TrainReport::place`].
    pub place: Option<&'static str>,
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
#[serde(rename_all = "kebab-case")]
pub enum SignState {
    /// Never.
    Quiet,
    /// The run ended before it could say anything.
    TooEarly,
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
    /// What has happened, or what the sign is where it was never up.
    pub title: &'static str,
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
        place: diagnosis.origin.as_ref().map(|origin| origin.place.as_str()),
        cause: cause(diagnosis),
        metric,
        actions: record.actions.len() as u64 + record.actions_dropped,
        weights_hash: weights_hash.to_owned(),
    }
}

/// The report of the run as given, the first part of a [`FixReport`].
pub fn given(diagnosis: &Diagnosis, record: &Record, metric: Option<f64>) -> GivenReport {
    GivenReport {
        verdict: diagnosis.verdict,
        onset_step: diagnosis.onset.map(|step| step.0),
        origin: words::origin(diagnosis, record).map(str::to_owned),
        place: diagnosis.origin.as_ref().map(|origin| origin.place.as_str()),
        cause: cause(diagnosis),
        signs: diagnosis.signs.iter().map(sign).collect(),
        gains: gains(diagnosis.chain.as_ref(), &record.layout),
        metric,
    }
}

/// The gains of a chain, a layer each in order of execution; none without a chain.
pub fn gains(chain: Option<&Chain>, layout: &Layout) -> Vec<GainReport> {
    let links = chain.into_iter().flat_map(|chain| &chain.links);
    let gain = |link: &Link| GainReport {
        layer: layout.layer_name(link.layer).to_owned(),
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
        title: words::sign_title(summary),
        state: match first.map(|finding| finding.severity) {
            None if summary.too_early.is_some() => SignState::TooEarly,
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

pub(crate) fn evidence(evidence: &Evidence) -> EvidenceReport {
    let (against, limit) = evidence.against.clone().unzip();
    EvidenceReport { what: evidence.what.clone(), value: evidence.value, against, limit }
}

pub(crate) fn verdict_name<S: Serializer>(
    verdict: &Verdict,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.as_str())
}

pub(crate) fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
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
mod tests;
