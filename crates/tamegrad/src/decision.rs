//! What the guard tells an integration to do at a step.

use crate::observe::{Step, TensorId};

/// What to do with the gradients of this step.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GradientAction {
    /// Use them as they are.
    #[default]
    Keep,
    /// Multiply all by this factor before the optimizer's moments see them.
    ScaleAll(f64),
    /// Multiply these tensors' gradients by their factors.
    Scale(Vec<(TensorId, f64)>),
    /// Take no step: parameters and optimizer state stay as they are. The gradients are to be
    /// taken away, not multiplied by 0 (0 times Inf is NaN).
    Skip,
}

/// What the integration shall do at this step. The default changes nothing.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Decision {
    /// What to do with the gradients.
    pub gradients: GradientAction,
    /// Factor on the learning rate; exactly 1 when the guard leaves it alone.
    pub learning_rate: f64,
    /// Go back to the snapshot of this step (it replaces the step), and do not use the batches
    /// since then again.
    pub rewind: Option<Step>,
    /// Stop the run: what can be done at run time is exhausted.
    pub stop: bool,
}

impl Default for Decision {
    fn default() -> Self {
        Self { gradients: GradientAction::Keep, learning_rate: 1.0, rewind: None, stop: false }
    }
}

impl Decision {
    /// Whether the step goes on exactly as without a guard.
    pub fn is_proceed(&self) -> bool {
        *self == Self::default()
    }
}

/// What the ladder says of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum UpdateVerdict {
    /// Take it.
    Take,
    /// Make it anew from gradients multiplied by this factor.
    Shrink(f64),
    /// Do not take it.
    Refuse,
}
