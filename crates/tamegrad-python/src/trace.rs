//! What hooks at layers saw in one pass, filled in output by output.

use pyo3::prelude::*;
use tamegrad::LayerSample;
use tamegrad::observe::LayerTrace;
use tamegrad_stats::TensorStats;

use crate::memory::Finder;
use crate::numbers::{Numbers, numbers, stats};
use crate::scan::scan_one;

/// Outputs of layers, the gradients of the loss with respect to them, and inputs of their own, of one
/// pass.
#[pyclass(module = "tamegrad._core")]
#[derive(Default)]
pub(crate) struct Trace {
    input: Seen,
    layers: Vec<Seen>,
    finder: Finder,
}

#[derive(Default, Clone)]
struct Seen {
    output: Option<TensorStats>,
    delta: Option<TensorStats>,
    input: Option<TensorStats>,
}

#[pymethods]
impl Trace {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Reads the output of a layer (`None`: the network's input); false when it cannot be read in
    /// place.
    fn output(&mut self, layer: Option<usize>, tensor: &Bound<'_, PyAny>) -> bool {
        let found = scan_one(&mut self.finder, tensor);
        self.seen(layer).output = found;
        found.is_some()
    }

    /// Reads the gradient with respect to a layer's output; false when it cannot be read in place.
    fn delta(&mut self, layer: Option<usize>, tensor: &Bound<'_, PyAny>) -> bool {
        let found = scan_one(&mut self.finder, tensor);
        self.seen(layer).delta = found;
        found.is_some()
    }

    /// Reads a layer's own input, where that is not the output of the layer before it (`None`: the
    /// layer has no float input); false when it cannot be read in place.
    #[pyo3(signature = (layer, tensor))]
    fn input(&mut self, layer: usize, tensor: Option<&Bound<'_, PyAny>>) -> bool {
        let found = match tensor {
            Some(tensor) => scan_one(&mut self.finder, tensor),
            None => Some(TensorStats::default()),
        };
        self.seen(Some(layer)).input = found;
        found.is_some()
    }

    /// Puts seven numbers in place of reading an output.
    fn put_output(&mut self, layer: Option<usize>, numbers: Numbers) {
        self.seen(layer).output = Some(stats(numbers));
    }

    /// Puts seven numbers in place of reading a gradient.
    fn put_delta(&mut self, layer: Option<usize>, numbers: Numbers) {
        self.seen(layer).delta = Some(stats(numbers));
    }

    /// Puts seven numbers in place of reading a layer's own input.
    fn put_input(&mut self, layer: usize, numbers: Numbers) {
        self.seen(Some(layer)).input = Some(stats(numbers));
    }

    /// The seven numbers of a layer's output (`None`: the network's input), if it was seen.
    fn get_output(&self, layer: Option<usize>) -> Option<Numbers> {
        self.seen_of(layer)?.output.as_ref().map(numbers)
    }

    /// The seven numbers of the gradient with respect to a layer's output, if it was seen.
    fn get_delta(&self, layer: Option<usize>) -> Option<Numbers> {
        self.seen_of(layer)?.delta.as_ref().map(numbers)
    }

    /// The seven numbers of a layer's own input, if it has one that was seen.
    fn get_input(&self, layer: usize) -> Option<Numbers> {
        self.seen_of(Some(layer))?.input.as_ref().map(numbers)
    }

    /// Number of layers seen so far.
    fn __len__(&self) -> usize {
        self.layers.len()
    }

    /// Norm of the gradient with respect to each layer's output; NaN where none was seen.
    fn delta_norms(&self) -> Vec<f64> {
        let norm = |seen: &Seen| seen.delta.map_or(f64::NAN, |stats| stats.l2);
        self.layers.iter().map(norm).collect()
    }
}

impl Trace {
    /// The trace as the core takes it, with `count` layers; one that was not reached has seen
    /// nothing.
    pub(crate) fn to_core(&self, count: usize) -> LayerTrace {
        let sample = |seen: Option<&Seen>| LayerSample {
            output: seen.and_then(|seen| seen.output).unwrap_or_default(),
            delta: seen.and_then(|seen| seen.delta),
            input: seen.and_then(|seen| seen.input),
            input_delta: None,
        };
        LayerTrace {
            input: self.input.output.map(|_| sample(Some(&self.input))),
            layers: (0..count).map(|index| sample(self.layers.get(index))).collect(),
        }
    }

    fn seen_of(&self, layer: Option<usize>) -> Option<&Seen> {
        layer.map_or(Some(&self.input), |index| self.layers.get(index))
    }

    fn seen(&mut self, layer: Option<usize>) -> &mut Seen {
        let Some(index) = layer else { return &mut self.input };
        if index >= self.layers.len() {
            self.layers.resize(index + 1, Seen::default());
        }
        &mut self.layers[index]
    }
}
