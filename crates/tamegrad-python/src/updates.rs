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
const WHOLE: usize = 1024;
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
        let (before, after) = (Held::new(before, None)?, Held::new(after, None)?);
        let count = after.objects().len();
        if before.objects().len() != count {
            let message = format!("got {} copies of {count} parameters", before.objects().len());
            return Err(PyValueError::new_err(message));
        }
        self.entries.clear();
        self.entries.resize(count, None);
        let mut unread = Vec::new();
        let mut pairs = Vec::new();
        for (index, (old, new)) in before.objects().iter().zip(after.objects()).enumerate() {
            if old.is_none() {
                continue;
            }
            let found = (self.finder_before.find(old), self.finder.find(new));
            match found {
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
/// stretches of 128 elements.
#[pyclass(module = "tamegrad._core")]
#[derive(Default)]
pub(crate) struct Sampler {
    samples: Vec<Sample>,
    finder: Finder,
}

#[derive(Default)]
struct Sample {
    /// Elements of the tensor; `None` when it was not read.
    len: Option<usize>,
    values: Vec<f64>,
}

#[pymethods]
impl Sampler {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Takes the samples.
    fn take(&mut self, parameters: &Bound<'_, PyList>) -> PyResult<()> {
        let held = Held::new(parameters, None)?;
        self.samples.resize_with(held.objects().len(), Sample::default);
        for (parameter, sample) in held.objects().iter().zip(&mut self.samples) {
            sample.values.clear();
            let memory = self.finder.find(parameter);
            sample.len = memory.map(|memory| memory.len());
            if let Some(memory) = memory {
                for_each_stretch(memory.elements(), &mut sample.values, |values, stretch| {
                    values.extend(stretch);
                });
            }
        }
        Ok(())
    }

    /// Estimates what has changed since the samples were taken. Parameters that could not be read
    /// have no entry.
    fn measure(&mut self, parameters: &Bound<'_, PyList>, updates: &mut Updates) -> PyResult<()> {
        let held = Held::new(parameters, None)?;
        updates.clear(held.objects().len());
        for (index, parameter) in held.objects().iter().enumerate() {
            let Some(sample) = self.samples.get(index) else { continue };
            let memory = self.finder.find(parameter).filter(|m| Some(m.len()) == sample.len);
            let Some(memory) = memory else { continue };
            let mut sums = Sums { before: sample.values.iter(), ..Sums::default() };
            for_each_stretch(memory.elements(), &mut sums, |sums, stretch| {
                stretch.for_each(|value| sums.take(value));
            });
            updates.entries[index] = Some(sums.update(memory.len()));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Sums<'a> {
    before: std::slice::Iter<'a, f64>,
    change: f64,
    weight: f64,
    nonfinite: u64,
    count: u64,
}

impl Sums<'_> {
    fn take(&mut self, now: f64) {
        let before = self.before.next().copied().unwrap_or(now);
        self.count += 1;
        if !now.is_finite() {
            self.nonfinite += 1;
        } else if before.is_finite() {
            self.change += (now - before) * (now - before);
        }
        if before.is_finite() {
            self.weight += before * before;
        }
    }

    fn update(&self, len: usize) -> Update {
        let part = if self.count == 0 { 1.0 } else { len as f64 / self.count as f64 };
        Update {
            change_norm: (self.change * part).sqrt(),
            weight_norm: (self.weight * part).sqrt(),
            len: len as u64,
            nonfinite: (self.nonfinite as f64 * part).ceil() as u64,
        }
    }
}

/// Calls `f` with each stretch of a tensor's sample, in f64; always the same places.
fn for_each_stretch<S>(
    tensor: TensorRef<'_>,
    state: &mut S,
    f: impl Fn(&mut S, &mut dyn Iterator<Item = f64>),
) {
    fn walk<T: Copy, S>(
        values: &[T],
        state: &mut S,
        f: impl Fn(&mut S, &mut dyn Iterator<Item = f64>),
        widen: impl Fn(T) -> f64,
    ) {
        if values.len() <= WHOLE {
            return f(state, &mut values.iter().map(|value| widen(*value)));
        }
        let stretch = WHOLE / STRETCHES;
        for part in 0..STRETCHES {
            let first = (values.len() - stretch) / (STRETCHES - 1) * part;
            f(state, &mut values[first..first + stretch].iter().map(|value| widen(*value)));
        }
    }
    match tensor {
        TensorRef::F32(values) => walk(values, state, f, f64::from),
        TensorRef::F64(values) => walk(values, state, f, |value| value),
        TensorRef::F16(values) => walk(values, state, f, f16::to_f64),
        TensorRef::Bf16(values) => walk(values, state, f, bf16::to_f64),
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
