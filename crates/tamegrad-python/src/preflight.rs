//! A model before its first update, judged and told by the core.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tamegrad::preflight::OverflowAt;
use tamegrad::{FirstStep, critical};
use tamegrad_report::{Style, json, preflight};

use crate::layout::{LayerRow, TensorRow, layout};
use crate::scan::Scan;
use crate::trace::Trace;
use crate::updates::Updates;

/// What the core tells of a first step.
#[pyclass(module = "tamegrad._core", frozen)]
pub(crate) struct Preflight {
    seen: tamegrad::Preflight,
}

/// Layer, forward and backward gain, whether one of them lies outside what is usual.
type GainRow = (String, Option<f64>, Option<f64>, bool);

#[pymethods]
impl Preflight {
    /// Judges what was measured of a first step on copies; see the core's `FirstStep`.
    #[new]
    #[pyo3(signature = (
        tensors, layers, gradients, *, loss = None, trace = None, updates = None,
        critical_multiple = None, dtype_max = None,
    ))]
    #[allow(clippy::too_many_arguments, reason = "keywords on the Python side")]
    fn new(
        tensors: Vec<TensorRow>,
        layers: Vec<LayerRow>,
        gradients: &Scan,
        loss: Option<f64>,
        trace: Option<&Trace>,
        updates: Option<&Updates>,
        critical_multiple: Option<f64>,
        dtype_max: Option<f64>,
    ) -> PyResult<Self> {
        let layout = layout(tensors, layers)?;
        let trace = trace.map(|trace| trace.to_core(layout.layers.len()));
        let first = FirstStep {
            loss,
            trace: trace.as_ref(),
            gradients: &gradients.entries,
            updates: updates.map_or(&[], |updates| &updates.entries),
            critical_multiple,
            dtype_max,
        };
        Ok(Self { seen: tamegrad::preflight(&layout, &first) })
    }

    /// What speaks against starting the run, in words.
    fn warnings(&self) -> Vec<String> {
        preflight::report(&self.seen).warnings
    }

    /// Loss of the batch.
    #[getter]
    fn loss(&self) -> Option<f64> {
        self.seen.loss
    }

    /// L2 norm of the gradient; NaN when it has elements that are not finite.
    #[getter]
    fn gradient_norm(&self) -> Option<f64> {
        self.seen.gradient_norm
    }

    /// Where the first number comes up that is not finite: the name of a layer, or in words.
    #[getter]
    fn nonfinite_at(&self) -> Option<String> {
        let layout = &self.seen.layout;
        Some(match self.seen.overflow? {
            OverflowAt::Input => "the input".to_owned(),
            OverflowAt::Output(layer) | OverflowAt::Gradient(layer) => {
                layout.layer_name(layer).to_owned()
            }
            OverflowAt::Loss | OverflowAt::LossGradient => "the loss".to_owned(),
            OverflowAt::Parameter(tensor) => {
                format!("the gradient of {}", layout.tensor_name(tensor))
            }
        })
    }

    /// The least powers of 2 between a layer's largest output or gradient and the largest number of
    /// its type.
    #[getter]
    fn headroom_bits(&self) -> Option<f64> {
        self.seen.headroom_bits
    }

    /// The weight matrix that the first update changes most, with |dW|/|W|.
    #[getter]
    fn first_update(&self) -> Option<(String, f64)> {
        let (tensor, ratio) = self.seen.first_update?;
        Some((self.seen.layout.tensor_name(tensor).to_owned(), ratio))
    }

    /// The smallest multiple of the first update that raises the loss of its own batch.
    #[getter]
    fn critical_multiple(&self) -> Option<f64> {
        self.seen.critical_multiple
    }

    /// The gains of the layers, in order of execution.
    fn gains(&self) -> Vec<GainRow> {
        let links = self.seen.chain.iter().flat_map(|chain| &chain.links);
        let name = |id| self.seen.layout.layer_name(id).to_owned();
        links
            .map(|link| (name(link.layer), link.forward, link.backward, link.is_marked()))
            .collect()
    }

    /// The report as text.
    #[pyo3(signature = (*, width = 100, colour = false))]
    fn text(&self, width: usize, colour: bool) -> String {
        preflight::text(&self.seen, &Style { colour, width })
    }

    /// The report as JSON.
    fn json(&self) -> PyResult<String> {
        let text = json::to_string(&preflight::report(&self.seen));
        text.map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

/// The smallest multiple of an update that raises the loss of its batch: infinite when the largest
/// that is tried does not, 0 when the smallest does; `None` where the loss is not finite at the start.
///
/// `loss_at` gives the loss with the parameters moved by a multiple of the update, `epsilon` is that of
/// the loss's type.
#[pyfunction]
pub(crate) fn critical_multiple(
    start: f64,
    epsilon: f64,
    loss_at: &Bound<'_, PyAny>,
) -> PyResult<Option<f64>> {
    critical::critical_multiple(start, epsilon, |multiple| loss_at.call1((multiple,))?.extract())
}
