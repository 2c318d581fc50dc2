//! Reports as JSON: serializable counterparts, so that the format stays while the types move.
//!
//! Numbers that JSON cannot hold are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`; what is
//! not known is `null`. `docs/json.md` describes the schema.

mod diagnosis;
pub(crate) mod number;
mod operation;

use serde::Serialize;
use tamegrad::{Diagnosis, Verdict};

use crate::text::printable_json;

pub(crate) use diagnosis::gains;
pub use diagnosis::{
    AgainstReport, CauseReport, ChainReport, DiagnosisReport, FindingReport, FirstNonFiniteReport,
    GainReport, MeasureReport, OriginReport, PlaceReport, RemedyReport, SCHEMA, SeenReport,
    SignReport, SignState, finding,
};
pub use operation::{LineReport, OperandReport, OperationReport};

/// One training run, as `train --json` tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    /// The diagnosis.
    #[serde(flatten)]
    pub diagnosis: DiagnosisReport,
    /// Hash of the final weights.
    pub weights_hash: String,
}

/// The search for a fix, as `report.json` and `fix --json` tell it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FixReport {
    /// The run as given.
    pub given: DiagnosisReport,
    /// The remedies that were tried, the least force first.
    pub trials: Vec<TrialReport>,
    /// The remedy that was trained with to the end; none when the run was healthy or none works.
    pub chosen: Option<ChosenReport>,
    /// The run with it.
    pub fixed: Option<FixedReport>,
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
    #[serde(with = "number::optional")]
    pub metric: Option<f64>,
    /// Seconds it took.
    #[serde(with = "number")]
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
    #[serde(with = "number::optional")]
    pub metric: Option<f64>,
    /// Hash of the final weights.
    pub weights_hash: String,
}

/// The report of a training run whose held-out metric at the end is known.
pub fn train(diagnosis: &Diagnosis, metric: Option<f64>, weights_hash: &str) -> TrainReport {
    let diagnosis = DiagnosisReport { metric, ..DiagnosisReport::from(diagnosis) };
    TrainReport { diagnosis, weights_hash: weights_hash.to_owned() }
}

/// A report as indented JSON that ends with a line break. Characters that command a terminal are
/// escaped, also those that JSON allows in a string.
///
/// # Errors
/// When the value's `Serialize` fails, which that of no report in this module does.
pub fn to_string<T: Serialize>(report: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(report).map(|text| printable_json(text) + "\n")
}

/// As [`to_string`], on one line.
///
/// # Errors
/// As [`to_string`].
pub fn to_line<T: Serialize>(report: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string(report).map(|text| printable_json(text) + "\n")
}

fn verdict_name<S: serde::Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.as_str())
}

#[cfg(test)]
mod tests;
