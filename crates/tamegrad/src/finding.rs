//! A finding: a sign that fired, with the numbers that show it.

use crate::evidence::{Measure, Place};
use crate::observe::Step;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Severity {
    /// Worth showing. A run with strains alone is still healthy.
    Strain,
    /// Part of an explosion.
    Alarm,
}

impl Severity {
    /// Lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Strain => "strain",
            Severity::Alarm => "alarm",
        }
    }
}

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
    /// The tensor or layer that shows it; [`Place::Run`] where it is none alone.
    pub place: Place,
    /// The numbers.
    pub evidence: Vec<Measure>,
}

impl Finding {
    /// A finding of the whole run.
    pub fn new(sign: SignName, step: Step, severity: Severity, evidence: Vec<Measure>) -> Self {
        Self { sign, step, severity, place: Place::Run, evidence }
    }

    /// Whether it is part of an explosion.
    pub fn is_alarm(&self) -> bool {
        self.severity == Severity::Alarm
    }
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
