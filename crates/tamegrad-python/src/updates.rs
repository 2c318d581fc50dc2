//! The size of an update: what changed in the parameters between two moments.

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tamegrad::Update;
use tamegrad_stats::{TensorRef, TensorSample, may_mislead, sample_seed, update_of};

use crate::memory::{Finder, Held};
use crate::scan::Scan;

/// Elements of all tensors that are kept whole at one step because a sample may mislead: 4 MiB at
/// eight bytes each. A copy of a large embedding at every step would cost more than it tells.
const DOUBTFUL_MAX: usize = 1 << 19;

/// The update of each parameter; `None` where it is not known.
#[pyclass(module = "tamegrad._core")]
#[derive(Default)]
pub(crate) struct Updates {
    pub(crate) entries: Vec<Option<Update>>,
    finder: Finder,
    finder_before: Finder,
}

#[pymethods]
impl Updates {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Measures the updates from copies to parameters; gives the positions of those it cannot
    /// read. `None` in the copies leaves a parameter out.
    fn measure(
        &mut self,
        before: &Bound<'_, PyList>,
        after: &Bound<'_, PyList>,
    ) -> PyResult<Vec<usize>> {
        let py = after.py();
        let before = Held::new(before, None, &mut self.finder_before)?;
        let after = Held::new(after, None, &mut self.finder)?;
        let count = after.len();
        if before.len() != count {
            let message = format!("got {} copies of {count} parameters", before.len());
            return Err(PyValueError::new_err(message));
        }
        self.entries.clear();
        self.entries.resize(count, None);
        let mut unread = Vec::new();
        let mut pairs = Vec::new();
        for index in (0..count).filter(|index| !before.is_absent(*index)) {
            match (before.memory(index), after.memory(index)) {
                (Some(old), Some(new)) if old.len() == new.len() => {
                    pairs.push((index, old.elements(), new.elements()));
                }
                _ => unread.push(index),
            }
        }
        let measured = py.detach(|| {
            let update = |(index, old, new): &(usize, TensorRef<'_>, TensorRef<'_>)| {
                (*index, update_of(*old, *new))
            };
            pairs.iter().map(update).collect::<Vec<_>>()
        });
        for (index, update) in measured {
            match update {
                Some(update) => self.entries[index] = Some(update),
                None => unread.push(index),
            }
        }
        Ok(unread)
    }

    /// Puts numbers into an entry: norm of the change, norm before it, elements, non-finite ones.
    fn put(
        &mut self,
        index: usize,
        change_norm: f64,
        weight_norm: f64,
        len: u64,
        nonfinite: u64,
    ) -> PyResult<()> {
        let count = self.entries.len();
        let entry = self.entries.get_mut(index);
        let entry =
            entry.ok_or_else(|| PyIndexError::new_err(format!("got entry {index} of {count}")))?;
        *entry = Some(Update { change_norm, weight_norm, len, nonfinite });
        Ok(())
    }

    /// Forgets what was measured; `count` empty entries remain.
    fn clear(&mut self, count: usize) {
        self.entries.clear();
        self.entries.resize(count, None);
    }

    /// Norm of the change, norm before it, elements and non-finite ones of an entry.
    fn get(&self, index: usize) -> Option<(f64, f64, u64, u64)> {
        let update = self.entries.get(index).copied().flatten()?;
        Some((update.change_norm, update.weight_norm, update.len, update.nonfinite))
    }

    fn __len__(&self) -> usize {
        self.entries.len()
    }
}

/// A sample of each parameter before an update, to estimate the update by.
#[pyclass(module = "tamegrad._core")]
#[derive(Default)]
pub(crate) struct Sampler {
    samples: Vec<TensorSample>,
    /// Whether the sample of a parameter was taken.
    is_taken: Vec<bool>,
    finder: Finder,
}

#[pymethods]
impl Sampler {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Takes the samples of a step; of tensors whose gradients say that a sample may mislead all
    /// elements, as long as these are not too many.
    #[pyo3(signature = (parameters, step = 0, gradients = None))]
    fn take(
        &mut self,
        parameters: &Bound<'_, PyList>,
        step: u64,
        gradients: Option<&Scan>,
    ) -> PyResult<()> {
        let held = Held::new(parameters, None, &mut self.finder)?;
        self.samples.resize_with(held.len(), TensorSample::default);
        self.is_taken.clear();
        let mut left = DOUBTFUL_MAX;
        for (index, sample) in self.samples.iter_mut().enumerate() {
            let memory = held.memory(index);
            self.is_taken.push(memory.is_some());
            let Some(elements) = memory.map(|memory| memory.elements()) else { continue };
            let gradient = gradients.and_then(|scan| scan.entries.get(index).copied().flatten());
            let is_doubtful = |gradient| may_mislead(&gradient, elements.type_max());
            if elements.len() <= left && gradient.is_some_and(is_doubtful) {
                left -= elements.len();
                sample.take_whole(elements);
            } else {
                sample.take(elements, sample_seed(step, index as u64));
            }
        }
        Ok(())
    }

    /// Estimates what has changed since the samples were taken. Parameters that could not be read
    /// have no entry.
    fn measure(&mut self, parameters: &Bound<'_, PyList>, updates: &mut Updates) -> PyResult<()> {
        let held = Held::new(parameters, None, &mut self.finder)?;
        updates.clear(held.len());
        let taken =
            self.samples.iter().zip(&self.is_taken).map(|(sample, is)| is.then_some(sample));
        for (index, sample) in taken.enumerate().take(held.len()) {
            let memory = held.memory(index);
            updates.entries[index] =
                sample.zip(memory).and_then(|(sample, memory)| sample.update_to(memory.elements()));
        }
        Ok(())
    }
}
