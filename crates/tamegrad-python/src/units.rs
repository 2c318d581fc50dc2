//! Clipping by unit, in place.

use pyo3::prelude::*;
use tamegrad_stats::{Element, TensorMut, TensorRef, UnitLimits};

use crate::memory::Finder;

/// Adaptive gradient clipping of one gradient beside its weights, both stored by rows, each of the
/// first dimension's `units` a row. False when nothing was written, because they are of other
/// types, cannot be reached, or are not finite.
#[pyfunction]
pub(crate) fn clip_units(
    gradient: &Bound<'_, PyAny>,
    weights: &Bound<'_, PyAny>,
    units: usize,
    ratio: f64,
    eps: f64,
) -> bool {
    let mut finder = Finder::default();
    let found = finder.find(gradient).zip(finder.find(weights));
    let Some((mut gradient_memory, weights)) = found else { return false };
    let (written, read) = (gradient_memory.addresses(), weights.addresses());
    if written.start < read.end && read.start < written.end {
        return false;
    }
    let cols = gradient_memory.len() / units.max(1);
    let limits = UnitLimits { lambda: ratio, eps };
    let (to, from) = (gradient_memory.elements_mut(), weights.elements());
    gradient.py().detach(|| match (to, from) {
        (TensorMut::F32(to), TensorRef::F32(from)) => clip(to, from, cols, limits),
        (TensorMut::F64(to), TensorRef::F64(from)) => clip(to, from, cols, limits),
        (TensorMut::F16(to), TensorRef::F16(from)) => clip(to, from, cols, limits),
        (TensorMut::Bf16(to), TensorRef::Bf16(from)) => clip(to, from, cols, limits),
        _ => false,
    })
}

fn clip<T: Element>(to: &mut [T], from: &[T], cols: usize, limits: UnitLimits) -> bool {
    tamegrad_stats::clip_units(to, from, cols, limits).is_ok()
}
