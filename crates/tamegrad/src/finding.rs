//! A finding: a sign that fired, with the numbers that show it.

use crate::evidence::{Measure, Place, named_enum};
use crate::observe::Step;

named_enum! {
    /// How serious a finding is.
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    Severity {
        /// Worth showing. A run with strains alone is still healthy.
        Strain => "strain",
        /// Part of an explosion.
        Alarm => "alarm",
    }
}

/// The signs, in the order in which they are shown: the file in `signs/` and the name. The macro given
/// says what is made of them.
macro_rules! for_each_sign {
    ($make:ident) => {
        $make! {
            /// Loss fluctuates wildly.
            loss_fluctuates => LossFluctuates,
            /// Loss, gradient or parameter is NaN or Inf.
            loss_nonfinite => LossNonFinite,
            /// Metric stalls or deteriorates.
            metric_stalls => MetricStalls,
            /// Updates are too large.
            updates_too_large => UpdatesTooLarge,
            /// Gradients spike or are very large.
            gradient_spikes => GradientSpikes,
            /// The learning rate has to come down a lot.
            learning_rate_falls => LearningRateFalls,
        }
    };
}
pub(crate) use for_each_sign;

macro_rules! sign_names {
    ($($(#[$doc:meta])* $module:ident => $name:ident,)*) => {
        /// Which sign.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub enum SignName {
            $($(#[$doc])* $name,)*
        }

        impl SignName {
            /// All signs, in the order in which they are shown.
            pub const ALL: [SignName; [$(stringify!($name),)*].len()] = [$(SignName::$name,)*];
        }
    };
}

for_each_sign!(sign_names);

/// A sign that fired.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Finding {
    /// Which sign.
    pub sign: SignName,
    /// When.
    pub step: Step,
    /// How serious.
    pub severity: Severity,
    /// The tensor or layer that shows it; [`Place::Run`] if it is no single one.
    pub place: Place,
    /// The numbers.
    pub evidence: Vec<Measure>,
}

impl Finding {
    /// A finding of the whole run.
    pub fn new(sign: SignName, step: Step, severity: Severity, evidence: Vec<Measure>) -> Self {
        Self { sign, step, severity, place: Place::Run, evidence }
    }

    /// The same at a place.
    pub fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// Whether it is part of an explosion.
    pub fn is_alarm(&self) -> bool {
        self.severity == Severity::Alarm
    }
}

/// What a sign says about the latest step.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Reading {
    /// Nothing to see.
    Quiet,
    /// Too early to say: this many more steps (or measurements) are needed.
    TooEarly {
        /// How many more.
        needs: u32,
    },
    /// The sign is up.
    Fired(Finding),
}

impl Reading {
    /// What the sign found, if it is up.
    pub(crate) fn fired(self) -> Option<Finding> {
        match self {
            Reading::Fired(finding) => Some(finding),
            Reading::Quiet | Reading::TooEarly { .. } => None,
        }
    }
}
