//! One step of a run as the rules see it, before its update.

use tamegrad::Record;

/// The numbers of one step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) step: u64,
    /// Part of the run that is done, 0 to 1.
    pub(super) done: f64,
    pub(super) loss: f64,
    /// Held-out metric, when it was measured at this step.
    pub(super) metric: Option<f64>,
    /// NaN and Inf elements of all gradients.
    pub(super) nonfinite_gradients: u64,
    /// L2 norms of the weight matrices' gradients, the input's side first.
    pub(super) matrices: Vec<f64>,
    /// Their root mean squares.
    pub(super) matrix_rms: Vec<f64>,
}

impl Seen {
    /// The latest step of a record; `None` before the first.
    pub(super) fn latest(record: &Record, steps: u64) -> Option<Self> {
        let row = record.now()?;
        let matrices = || {
            let tensors = record.layout().tensors.iter().zip(record.tensors());
            tensors.filter(|(info, _)| info.is_matrix).filter_map(|(_, track)| track.latest)
        };
        Some(Self {
            step: row.step.0,
            done: row.step.0 as f64 / steps.max(1) as f64,
            loss: row.loss.unwrap_or(f64::NAN),
            metric: row.metric,
            nonfinite_gradients: row.nonfinite_gradients,
            matrices: matrices().map(|stats| stats.l2).collect(),
            matrix_rms: matrices().map(|stats| stats.rms()).collect(),
        })
    }

    /// The norm of the gradient as a naive sum would have it: NaN where an element is not finite.
    /// Biases, a small part, are left out.
    pub(super) fn norm(&self) -> f64 {
        match self.nonfinite_gradients {
            0 => self.matrices.iter().map(|norm| norm * norm).sum::<f64>().sqrt(),
            _ => f64::NAN,
        }
    }
}
