//! A finding: a sign that fired, with the numbers that show it.

use crate::observe::{LayerId, Step, TensorId};
use crate::signs::SignName;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Severity {
    /// Worth showing. A run with strains alone is still healthy.
    Strain,
    /// Part of an explosion.
    Alarm,
}

/// One number that shows a finding or a cause.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Evidence {
    /// What was measured, in words, such as `update ratio of layers.3.linear.weight`.
    pub what: String,
    /// Its value.
    pub value: f64,
    /// What it is held against, in words and as a number.
    pub against: Option<(String, f64)>,
}

impl Evidence {
    /// A number alone.
    pub fn of(what: impl Into<String>, value: f64) -> Self {
        Self { what: what.into(), value, against: None }
    }

    /// A number and what it is held against.
    pub fn against(
        what: impl Into<String>,
        value: f64,
        reference: impl Into<String>,
        limit: f64,
    ) -> Self {
        Self { what: what.into(), value, against: Some((reference.into(), limit)) }
    }
}

/// A sign that fired.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Finding {
    /// Which sign.
    pub sign: SignName,
    /// When.
    pub step: Step,
    /// How grave.
    pub severity: Severity,
    /// The tensor that shows it, if it is one.
    pub tensor: Option<TensorId>,
    /// The layer that shows it, if it is one.
    pub layer: Option<LayerId>,
    /// The numbers.
    pub evidence: Vec<Evidence>,
}

impl Finding {
    /// What has happened, in words that are true for this finding; a sign's own title tells of all
    /// that it may be.
    pub fn title(&self) -> &'static str {
        self.sign.title_of(&self.evidence)
    }
}
