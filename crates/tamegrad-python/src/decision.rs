//! What the guard decided, as Python sees it.

use pyo3::prelude::*;
use tamegrad::GradientAction;

/// What to do at a step that does not go on exactly as without the guard.
#[pyclass(module = "tamegrad._core", frozen, get_all)]
pub(crate) struct Decision {
    /// `keep`, `scale-all`, `scale` or `skip`.
    action: &'static str,
    /// Factor on all gradients; 1 unless the action is `scale-all`.
    factor: f64,
    /// Positions of tensors with their factors; empty unless the action is `scale`.
    factors: Vec<(usize, f64)>,
    /// Factor on the learning rate.
    learning_rate: f64,
    /// Step of the snapshot to go back to.
    rewind: Option<u64>,
    /// Whether what can be done at run time is exhausted.
    stop: bool,
}

#[pymethods]
impl Decision {
    fn __repr__(&self) -> String {
        format!(
            "Decision(action='{}', factor={}, factors={:?}, learning_rate={}, rewind={:?}, stop={})",
            self.action, self.factor, self.factors, self.learning_rate, self.rewind, self.stop
        )
    }
}

impl From<&tamegrad::Decision> for Decision {
    fn from(decision: &tamegrad::Decision) -> Self {
        let (action, factor, factors) = match &decision.gradients {
            GradientAction::Keep => ("keep", 1.0, Vec::new()),
            GradientAction::ScaleAll(factor) => ("scale-all", *factor, Vec::new()),
            GradientAction::Scale(of) => {
                ("scale", 1.0, of.iter().map(|(id, factor)| (id.0, *factor)).collect())
            }
            GradientAction::Skip => ("skip", 1.0, Vec::new()),
        };
        Self {
            action,
            factor,
            factors,
            learning_rate: decision.learning_rate,
            rewind: decision.rewind.map(|step| step.0),
            stop: decision.stop,
        }
    }
}
