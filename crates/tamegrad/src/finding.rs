//! A finding: a sign that fired, with the numbers that show it.

use crate::observe::{LayerId, Step, TensorId};

/// Which sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SignName {
    /// Loss fluctuates wildly.
    LossFluctuates,
    /// Loss, gradient or parameter is NaN or Inf.
    LossNonFinite,
    /// Metric does not improve, or deteriorates.
    MetricStalls,
    /// Parameters are updated by very large values.
    UpdatesTooLarge,
    /// Spikes or very high values in the gradients.
    GradientSpikes,
    /// The learning rate has to come down a lot.
    LearningRateFalls,
}

impl SignName {
    /// All six, in the order in which they are shown.
    pub const ALL: [SignName; 6] = [
        SignName::LossFluctuates,
        SignName::LossNonFinite,
        SignName::MetricStalls,
        SignName::UpdatesTooLarge,
        SignName::GradientSpikes,
        SignName::LearningRateFalls,
    ];
}

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

/// What a sign says of the latest step.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Reading {
    /// Nothing to see.
    Quiet,
    /// Too early to say: so many more steps (or measurements) are needed.
    TooEarly {
        /// How many more.
        needs: u32,
    },
    /// The sign is up.
    Fired(Finding),
}
