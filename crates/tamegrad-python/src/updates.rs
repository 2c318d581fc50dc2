//! The size of an update: what changed in the parameters between two moments.

use half::{bf16, f16};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tamegrad::Update;
use tamegrad_stats::{Element, TensorRef, TensorStats, merge, scan};

use crate::memory::{Finder, Held};

/// Elements that are worked on at a time.
const CHUNK: usize = 2048;
/// A tensor of at most this many elements is sampled whole.
const WHOLE: usize = 512;
/// Stretches that are sampled of a larger one, spread over it.
const STRETCHES: usize = 8;

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

/// A sample of each parameter before an update, to estimate the update by: of a large tensor, 8
/// stretches of 64 elements.
#[pyclass(module = "tamegrad._core")]
#[derive(Default)]
pub(crate) struct Sampler {
    samples: Vec<Sample>,
    /// The sampled elements of all parameters, one after another.
    values: Vec<f64>,
    now: Vec<f64>,
    finder: Finder,
}

#[derive(Default)]
struct Sample {
    /// Elements of the tensor; `None` when it was not read.
    len: Option<usize>,
    /// Where its sampled elements lie among those of all.
    values: std::ops::Range<usize>,
}

#[pymethods]
impl Sampler {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Takes the samples.
    fn take(&mut self, parameters: &Bound<'_, PyList>) -> PyResult<()> {
        let held = Held::new(parameters, None, &mut self.finder)?;
        self.samples.clear();
        self.values.clear();
        for index in 0..held.len() {
            let start = self.values.len();
            let memory = held.memory(index);
            if let Some(memory) = memory {
                sample(memory.elements(), &mut self.values);
            }
            let len = memory.map(|memory| memory.len());
            self.samples.push(Sample { len, values: start..self.values.len() });
        }
        Ok(())
    }

    /// Estimates what has changed since the samples were taken. Parameters that could not be read
    /// have no entry.
    fn measure(&mut self, parameters: &Bound<'_, PyList>, updates: &mut Updates) -> PyResult<()> {
        let held = Held::new(parameters, None, &mut self.finder)?;
        updates.clear(held.len());
        for (index, sampled) in self.samples.iter().enumerate().take(held.len()) {
            let memory = held.memory(index).filter(|m| Some(m.len()) == sampled.len);
            let Some(memory) = memory else { continue };
            self.now.clear();
            sample(memory.elements(), &mut self.now);
            let before = &self.values[sampled.values.clone()];
            updates.entries[index] = Some(estimate(before, &self.now, memory.len()));
        }
        Ok(())
    }
}

/// Appends the sample of a tensor, in f64; always the same places.
fn sample(tensor: TensorRef<'_>, out: &mut Vec<f64>) {
    fn pick<T: Copy>(values: &[T], out: &mut Vec<f64>, widen: impl Fn(T) -> f64) {
        if values.len() <= WHOLE {
            return out.extend(values.iter().map(|value| widen(*value)));
        }
        let stretch = WHOLE / STRETCHES;
        for part in 0..STRETCHES {
            let first = (values.len() - stretch) / (STRETCHES - 1) * part;
            out.extend(values[first..first + stretch].iter().map(|value| widen(*value)));
        }
    }
    match tensor {
        TensorRef::F32(values) => pick(values, out, f64::from),
        TensorRef::F64(values) => pick(values, out, |value| value),
        TensorRef::F16(values) => pick(values, out, f16::to_f64),
        TensorRef::Bf16(values) => pick(values, out, bf16::to_f64),
    }
}

/// The update of a tensor of `len` elements by a sample of it.
fn estimate(before: &[f64], after: &[f64], len: usize) -> Update {
    let (mut change, mut weight, mut checked) = ([0.0; 4], [0.0; 4], [0.0; 4]);
    for (old, new) in before.chunks(4).zip(after.chunks(4)) {
        for (lane, (old, new)) in old.iter().zip(new).enumerate() {
            change[lane] += (new - old) * (new - old);
            weight[lane] += old * old;
            // 0 for a finite number, NaN for any other.
            checked[lane] += new * 0.0;
        }
    }
    let part = if before.is_empty() { 1.0 } else { len as f64 / before.len() as f64 };
    let (mut change, mut weight): (f64, f64) = (change.iter().sum(), weight.iter().sum());
    let mut nonfinite = 0;
    if !(change + weight + checked.iter().sum::<f64>()).is_finite() {
        let finite = |value: &&f64| value.is_finite();
        nonfinite = after.len() - after.iter().filter(finite).count();
        weight = before.iter().filter(finite).map(|old| old * old).sum();
        let pairs = before.iter().zip(after).filter(|(a, b)| a.is_finite() && b.is_finite());
        change = pairs.map(|(old, new)| (new - old) * (new - old)).sum();
    }
    Update {
        change_norm: (change * part).sqrt(),
        weight_norm: (weight * part).sqrt(),
        len: len as u64,
        nonfinite: (nonfinite as f64 * part).ceil() as u64,
    }
}

/// The update from one state of a tensor to another; `None` when they are of different types.
fn update_of(before: TensorRef<'_>, after: TensorRef<'_>) -> Option<Update> {
    match (before, after) {
        (TensorRef::F32(a), TensorRef::F32(b)) => Some(update(a, b, f64::from)),
        (TensorRef::F64(a), TensorRef::F64(b)) => Some(update(a, b, |value| value)),
        (TensorRef::F16(a), TensorRef::F16(b)) => Some(update(a, b, f16::to_f64)),
        (TensorRef::Bf16(a), TensorRef::Bf16(b)) => Some(update(a, b, bf16::to_f64)),
        _ => None,
    }
}

fn update<T: Element>(before: &[T], after: &[T], widen: impl Fn(T) -> f64) -> Update {
    let mut parts: [Vec<TensorStats>; 3] = Default::default();
    let mut change = [0.0; CHUNK];
    for (old, new) in before.chunks(CHUNK).zip(after.chunks(CHUNK)) {
        for ((change, old), new) in change.iter_mut().zip(old).zip(new) {
            *change = widen(*new) - widen(*old);
        }
        parts[0].push(scan(&change[..new.len()]));
        parts[1].push(scan(old));
        parts[2].push(scan(new));
    }
    let [change, before, after] = parts.map(|parts| merge(&parts));
    // In f64 two finite values can differ by more than the type holds. The bound falls on the side
    // of the alarm.
    let overflowed = change.infs > 0 && before.max_abs + after.max_abs > f64::MAX;
    Update {
        change_norm: if overflowed { before.l2 + after.l2 } else { change.l2 },
        weight_norm: before.l2,
        len: after.len,
        nonfinite: after.nonfinite(),
    }
}
