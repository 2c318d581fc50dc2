//! The statistics of a list of tensors, and their scaling in place.

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyList};
use tamegrad_stats::{ListStats, TensorRef, TensorStats, merge, scale_list, scan_list};

use crate::memory::{Finder, Held, Memory};
use crate::numbers::{Numbers, numbers, scaled, stats};

/// The statistics of a list of tensors, an entry each; `None` where a tensor is absent.
///
/// What lies densely in the CPU's memory as f32, f64, f16 or bf16 is read in place in one pass,
/// without the GIL. The positions of all others are given back, for the caller to fill in.
#[pyclass(module = "tamegrad._core")]
#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) entries: Vec<Option<TensorStats>>,
    buffers: ListStats,
    places: Vec<usize>,
    finder: Finder,
    /// The gradients that were read, held until `release`.
    held: Vec<Py<PyAny>>,
}

#[pymethods]
impl Scan {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Reads the `.grad` of each parameter; gives the positions of those it cannot read.
    ///
    /// The gradients' Python objects are held until `release`: torch makes them anew each time
    /// they are asked for while nobody holds them, and the optimizer will ask for them next.
    fn gradients(&mut self, parameters: &Bound<'_, PyList>) -> PyResult<Vec<usize>> {
        self.held.clear();
        let grad = intern!(parameters.py(), "grad");
        let held = Held::new(parameters, Some(grad), &mut self.finder)?;
        let unread = self.read(&held, parameters.py());
        self.held = held.into_objects();
        Ok(unread)
    }

    /// Lets go of the gradients.
    fn release(&mut self) {
        self.held.clear();
    }

    /// Reads each tensor; gives the positions of those it cannot read.
    fn tensors(&mut self, tensors: &Bound<'_, PyList>) -> PyResult<Vec<usize>> {
        let held = Held::new(tensors, None, &mut self.finder)?;
        Ok(self.read(&held, tensors.py()))
    }

    /// Reads one tensor into an entry; false when it cannot be read.
    fn put_tensor(&mut self, index: usize, tensor: &Bound<'_, PyAny>) -> PyResult<bool> {
        let found = scan_one(&mut self.finder, tensor);
        if found.is_some() {
            *self.entry(index)? = found;
        }
        Ok(found.is_some())
    }

    /// The value of a float or of a tensor of one element; `None` when it cannot be read in place.
    fn number(&mut self, value: &Bound<'_, PyAny>) -> Option<f64> {
        if let Ok(number) = value.cast::<PyFloat>() {
            return Some(number.value());
        }
        match self.finder.find(value)?.elements() {
            TensorRef::F32([value]) => Some(f64::from(*value)),
            TensorRef::F64([value]) => Some(*value),
            TensorRef::F16([value]) => Some(value.to_f64()),
            TensorRef::Bf16([value]) => Some(value.to_f64()),
            _ => None,
        }
    }

    /// The seven numbers of one tensor, which gets no entry; `None` when it cannot be read.
    fn numbers_of(&mut self, tensor: &Bound<'_, PyAny>) -> Option<Numbers> {
        scan_one(&mut self.finder, tensor).as_ref().map(numbers)
    }

    /// Puts seven numbers into an entry: elements, NaN, Inf, zeros, norm, largest, mean.
    fn put(&mut self, index: usize, numbers: Option<Numbers>) -> PyResult<()> {
        *self.entry(index)? = numbers.map(stats);
        Ok(())
    }

    /// Multiplies the statistics by a factor, as if the tensors had been.
    fn multiply(&mut self, factor: f64) {
        for entry in self.entries.iter_mut().flatten() {
            *entry = scaled(*entry, factor);
        }
    }

    /// Multiplies the `.grad` of each parameter in place, by its own factor or by one for all;
    /// non-finite elements stay as they are. Gives the positions of those it could not reach.
    fn scale_gradients(
        &mut self,
        parameters: &Bound<'_, PyList>,
        factors: Factors,
    ) -> PyResult<Vec<usize>> {
        let py = parameters.py();
        let held = Held::new(parameters, Some(intern!(py, "grad")), &mut self.finder)?;
        let count = held.len();
        if let Factors::Each(each) = &factors
            && each.len() != count
        {
            let message = format!("got {} factors for {count} parameters", each.len());
            return Err(PyValueError::new_err(message));
        }
        let mut reached = Vec::with_capacity(count);
        let mut unreached = Vec::new();
        for index in 0..count {
            if held.is_absent(index) || factors.of(index) == 1.0 {
                continue;
            }
            match held.memory(index) {
                Some(found) => reached.push((index, found)),
                None => unreached.push(index),
            }
        }
        unreached.extend(without_overlaps(&mut reached));
        let of_each: Vec<f64> = reached.iter().map(|(index, _)| factors.of(*index)).collect();
        let mut list: Vec<_> =
            reached.iter_mut().map(|(_, memory)| memory.elements_mut()).collect();
        py.detach(|| scale_list(&mut list, &of_each));
        Ok(unreached)
    }

    /// L2 norm of the finite elements of all tensors.
    fn norm(&self) -> f64 {
        merge(self.entries.iter().flatten()).l2
    }

    /// NaN and Inf elements of all tensors.
    fn nonfinite(&self) -> u64 {
        self.entries.iter().flatten().map(TensorStats::nonfinite).sum()
    }

    /// The seven numbers of an entry.
    fn get(&self, index: usize) -> PyResult<Option<Numbers>> {
        let entry = self.entries.get(index).ok_or_else(|| self.no_entry(index))?;
        Ok(entry.as_ref().map(numbers))
    }

    /// The L2 norms of the entries; NaN where a tensor is absent.
    fn norms(&self) -> Vec<f64> {
        self.entries.iter().map(|entry| entry.map_or(f64::NAN, |stats| stats.l2)).collect()
    }

    fn __len__(&self) -> usize {
        self.entries.len()
    }
}

/// Takes out of the list what shares memory with another tensor of it, and gives the positions.
fn without_overlaps(list: &mut Vec<(usize, Memory<'_>)>) -> Vec<usize> {
    list.sort_unstable_by_key(|(_, memory)| memory.addresses().start);
    let mut end = 0;
    let mut shared = Vec::new();
    list.retain(|(index, memory)| {
        let addresses = memory.addresses();
        let is_apart = addresses.start >= end;
        end = end.max(addresses.end);
        if !is_apart {
            shared.push(*index);
        }
        is_apart
    });
    shared
}

/// One factor for all tensors, or one for each.
#[derive(FromPyObject)]
pub(crate) enum Factors {
    All(f64),
    Each(Vec<f64>),
}

impl Factors {
    fn of(&self, index: usize) -> f64 {
        match self {
            Factors::All(factor) => *factor,
            Factors::Each(each) => each.get(index).copied().unwrap_or(1.0),
        }
    }
}

impl Scan {
    fn read(&mut self, held: &Held<'_>, py: Python<'_>) -> Vec<usize> {
        let mut unread = Vec::new();
        let mut found: Vec<TensorRef<'_>> = Vec::with_capacity(held.len());
        self.entries.clear();
        self.entries.resize(held.len(), None);
        self.places.clear();
        for index in (0..held.len()).filter(|index| !held.is_absent(*index)) {
            match held.memory(index) {
                Some(memory) => {
                    found.push(memory.elements());
                    self.places.push(index);
                }
                None => unread.push(index),
            }
        }
        let buffers = &mut self.buffers;
        py.detach(|| scan_list(&found, buffers));
        for (place, stats) in self.places.iter().zip(self.buffers.tensors()) {
            self.entries[*place] = Some(*stats);
        }
        unread
    }

    fn entry(&mut self, index: usize) -> PyResult<&mut Option<TensorStats>> {
        let error = self.no_entry(index);
        self.entries.get_mut(index).ok_or(error)
    }

    fn no_entry(&self, index: usize) -> PyErr {
        PyIndexError::new_err(format!("got entry {index} of {}", self.entries.len()))
    }
}

/// The statistics of one tensor, read where it lies.
pub(crate) fn scan_one(finder: &mut Finder, tensor: &Bound<'_, PyAny>) -> Option<TensorStats> {
    let memory = finder.find(tensor)?;
    let elements = memory.elements();
    Some(tensor.py().detach(|| match elements {
        TensorRef::F32(values) => tamegrad_stats::scan(values),
        TensorRef::F64(values) => tamegrad_stats::scan(values),
        TensorRef::F16(values) => tamegrad_stats::scan(values),
        TensorRef::Bf16(values) => tamegrad_stats::scan(values),
    }))
}
