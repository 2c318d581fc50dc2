//! One step under the guard: opened before its update, and finished with it.

use crate::decision::Decision;

/// What the guard asks of an integration besides the numbers of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asks {
    /// Keep a snapshot of the state before this step.
    pub snapshot: bool,
    /// Arm the probes for the next pass.
    pub trace: bool,
    /// Repeat the pass with probes, on a copy of the model and without an update.
    pub repeated_trace: bool,
    /// Look for the operation that made the first value of this pass that is not finite, for
    /// [`Guard::observe_inspection`](crate::Guard::observe_inspection).
    pub operation: bool,
    /// Hold a copy of parameters and optimizer state: the update may have to be undone.
    pub copy: bool,
    /// Measure the update of this step. Where it is not asked for, a look at every eighth update tells as much:
    /// the gradient, the rate and the loss are what they were in a hundred calm steps.
    pub update: bool,
    /// Measure the elasticities of this pass's loss, for [`Guard::observe_elasticities`](crate::Guard::observe_elasticities).
    pub elasticities: bool,
    /// Measure the lag of Adam's second moment at this update.
    pub lag: bool,
    /// Measure the critical step size along this update.
    pub critical_step: bool,
}

/// A step whose update is still to come. Hand it to [`Guard::finish`](crate::Guard::finish) together
/// with the update.
#[derive(Debug)]
#[must_use = "a step ends with its update: hand it to `Guard::finish`"]
pub struct OpenStep {
    pub(crate) decision: Decision,
}

impl OpenStep {
    /// What to do with the gradients.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }
}

/// What to do with an update.
#[derive(Debug)]
#[must_use = "an update that is refused or shrunk must not be taken as it is"]
pub enum Finished {
    /// Keep it; the step is over.
    Taken,
    /// Undo it: parameters and optimizer state stay as they were, and the step is over.
    Refused,
    /// Multiply the gradients by [`ShrinkingStep::factor`], let the optimizer redo the update from the
    /// state that it had before, and hand both to
    /// [`Guard::finish_shrunk`](crate::Guard::finish_shrunk).
    Shrink(ShrinkingStep),
}

impl Finished {
    /// Whether the update is kept as it is.
    pub fn is_taken(&self) -> bool {
        matches!(self, Finished::Taken)
    }
}

/// A step whose update is to be redone with smaller gradients.
#[derive(Debug)]
#[must_use = "a step ends with its update: hand it to `Guard::finish_shrunk`"]
pub struct ShrinkingStep {
    pub(crate) factor: f64,
}

impl ShrinkingStep {
    /// The factor on the gradients.
    pub fn factor(&self) -> f64 {
        self.factor
    }
}
