//! The size of an update by a sample of each tensor, and in full where a sample could mislead.
//!
//! Of each tensor on the CPU a part is looked at, at places drawn anew for every step, by the rule of
//! [`tamegrad_stats::update_by_sample`]. A tensor is measured in full, by [`measure_those`], in a step
//! in which
//!
//! - the estimated ratio is [`UPDATE_NOTABLE`] or more;
//! - its gradient says that a sample [`may_mislead`];
//! - a sampled element is not finite after it, or an element was not at the step before.
//!
//! A parameter that becomes NaN from a finite gradient of usual size is seen in the same step if it is
//! in the sample, in the next if the loss depends on it, and within [`READ_EVERY`] steps in any case: each step
//! reads some of the tensors in full.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use tamegrad::cadence::{READ_EVERY, UPDATE_NOTABLE};
use tamegrad::record::TensorTrack;
use tamegrad::{Step, Update};
use tamegrad_stats::{
    ListStats, TensorRef, TensorStats, is_sampled, may_mislead, sample_seed, update_by_sample,
};

use crate::host::HostTensor;
use crate::parameters::ParameterTable;
use crate::updates::measure_those;

/// The update of each parameter from `before` to `after`, by [`tamegrad::TensorId`], estimated
/// where a sample tells it. `gradients` are those that made the update, `tracks` what is known of
/// each parameter from the steps before.
pub(crate) fn estimate<M: Module>(
    table: &ParameterTable,
    before: &M,
    after: &M,
    gradients: &[Option<TensorStats>],
    tracks: &[TensorTrack],
    step: Step,
    buffers: &mut ListStats,
) -> Vec<Option<Update>> {
    let mut holder = Holder { table, held: (0..table.len()).map(|_| None).collect() };
    before.visit(&mut holder);
    let mut sampler = Sampler {
        table,
        before: holder.held,
        gradients,
        tracks,
        step: step.0,
        updates: vec![None; table.len()],
    };
    after.visit(&mut sampler);
    let Sampler { mut updates, before: held, .. } = sampler;
    drop(held);
    let unknown: Vec<bool> = updates.iter().map(Option::is_none).collect();
    if unknown.contains(&true) {
        measure_those(table, before, after, &unknown, &mut updates, buffers);
    }
    updates
}

/// Takes handles to the parameters before the update.
struct Holder<'a> {
    table: &'a ParameterTable,
    held: Vec<Option<HostTensor>>,
}

impl ModuleVisitor for Holder<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(index) = self.table.index_of(param.id)
            && self.held[index].is_none()
        {
            self.held[index] = HostTensor::new(param.val());
        }
    }
}

struct Sampler<'a> {
    table: &'a ParameterTable,
    before: Vec<Option<HostTensor>>,
    gradients: &'a [Option<TensorStats>],
    tracks: &'a [TensorTrack],
    step: u64,
    /// `None` where no sample tells the update.
    updates: Vec<Option<Update>>,
}

impl ModuleVisitor for Sampler<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(index) = self.table.index_of(param.id) else { return };
        // A tied tensor is met twice.
        let Some(before) = self.before[index].take() else { return };
        let Some(after) = HostTensor::new(param.val()) else { return };
        let latest = self.tracks.get(index).and_then(|track| track.latest_update);
        // A sample that misses what was broken before would make it news once more.
        let was_broken = latest.is_some_and(|update| update.nonfinite > 0);
        if !was_broken && before.is_laid_out_like(&after) {
            let gradient = self.gradients.get(index).copied().flatten();
            let seed = sample_seed(self.step, index as u64);
            let is_read = (self.step.wrapping_add(index as u64)).is_multiple_of(READ_EVERY);
            self.updates[index] =
                told_by_sample(before.elements(), after.elements(), gradient, seed, is_read);
        }
    }
}

/// The update by a sample; `None` when it is to be measured in full.
fn told_by_sample(
    before: TensorRef<'_>,
    after: TensorRef<'_>,
    gradient: Option<TensorStats>,
    seed: u64,
    is_read: bool,
) -> Option<Update> {
    let is_doubtful = || gradient.is_some_and(|gradient| may_mislead(&gradient, after.type_max()));
    if is_sampled(after.len()) && (is_doubtful() || (is_read && !after.scan().is_finite())) {
        return None;
    }
    update_by_sample(before, after, seed).filter(|update| update.ratio() < UPDATE_NOTABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::updates::measure;
    use burn::module::ParamId;
    use burn::tensor::Device;
    use tamegrad_stats::scan;

    const LEN: usize = 256 * 256 + 37;

    fn wave(index: usize, pace: f32) -> f32 {
        (index as f32 * pace).sin()
    }

    fn told(before: &[f32], after: &[f32], gradient: &[f32], seed: u64) -> Option<Update> {
        let gradient = Some(scan(gradient));
        told_by_sample(TensorRef::F32(before), TensorRef::F32(after), gradient, seed, false)
    }

    fn moved(before: &[f32], gradient: &[f32], rate: f32) -> Vec<f32> {
        before.iter().zip(gradient).map(|(w, g)| w - rate * g).collect()
    }

    #[test]
    fn what_a_sample_could_miss_is_measured_in_full() {
        let before: Vec<f32> = (0..LEN).map(|i| wave(i, 0.7)).collect();
        let spread: Vec<f32> = (0..LEN).map(|i| wave(i, 0.31)).collect();
        let with = |index: usize, value: f32| {
            let mut gradient = spread.clone();
            gradient[index] = value;
            gradient
        };
        let rows: Vec<f32> = (0..LEN).map(|i| if i / 256 % 16 == 5 { 1.0 } else { 0.0 }).collect();
        let cases = [
            ("a few rows", rows, 1e-3),
            ("one element", with(40_000, 100.0), 1e-3),
            ("NaN", with(40_000, f32::NAN), 1e-3),
            ("near overflow", spread.iter().map(|g| 1e19 * g).collect(), 1e-25),
            ("a large part", spread.clone(), 0.1),
        ];
        for (name, gradient, rate) in cases {
            let after = moved(&before, &gradient, rate);
            for seed in 0..20 {
                assert_eq!(told(&before, &after, &gradient, sample_seed(seed, 0)), None, "{name}");
            }
        }
        let after = moved(&before, &spread, 1e-3);
        let known = told(&before, &after, &spread, 1).map(|update| (update.len, update.nonfinite));
        assert_eq!(known, Some((LEN as u64, 0)));
    }

    #[test]
    fn a_broken_parameter_is_found_by_the_reading_of_its_turn() {
        let before: Vec<f32> = (0..LEN).map(|i| wave(i, 0.7)).collect();
        let gradient: Vec<f32> = (0..LEN).map(|i| wave(i, 0.31)).collect();
        let mut after = moved(&before, &gradient, 1e-3);
        after[40_000] = f32::NAN;
        let told = |seed, is_read| {
            let (before, after) = (TensorRef::F32(&before), TensorRef::F32(&after));
            told_by_sample(before, after, Some(scan(&gradient)), sample_seed(seed, 0), is_read)
        };
        let met = (0..4096).filter(|seed| told(*seed, false).is_none()).count();
        assert!((32..128).contains(&met), "one sample in 64 meets one element: {met}");
        assert!((0..64).all(|seed| told(seed, true).is_none()));
    }

    #[derive(Module, Debug)]
    struct Net {
        weight: Param<Tensor<1>>,
        tied: Param<Tensor<1>>,
    }

    /// A network of one tensor in two places.
    fn net(id: ParamId, values: &[f32]) -> Net {
        let tensor = Tensor::from_data(values, &Device::flex().autodiff()).require_grad();
        let weight = Param::initialized(id, tensor);
        Net { tied: weight.clone(), weight }
    }

    #[test]
    fn a_module_is_told_by_samples_and_what_was_broken_in_full() {
        let id = ParamId::new();
        let spread: Vec<f32> = (0..LEN).map(|i| wave(i, 0.31)).collect();
        let mut values: Vec<f32> = (0..LEN).map(|i| wave(i, 0.7)).collect();
        let updates = |values: &[f32], nonfinite: u64| {
            let (before, after) = (net(id, values), net(id, &moved(values, &spread, 1e-3)));
            let table = ParameterTable::new(&before, None);
            let known = Update { change_norm: 1.0, weight_norm: 1.0, len: LEN as u64, nonfinite };
            let tracks = [TensorTrack { latest_update: Some(known), ..TensorTrack::default() }];
            let (gradients, mut buffers) = ([Some(scan(&spread))], ListStats::default());
            let exact = measure(&table, &before, &after, &mut buffers);
            let told =
                estimate(&table, &before, &after, &gradients, &tracks, Step(5), &mut buffers);
            (told, exact)
        };
        let (told, exact) = updates(&values, 0);
        let ratio = |updates: &[Option<Update>]| updates[0].map_or(0.0, |update| update.ratio());
        assert_eq!(told.len(), 1);
        assert_ne!(told, exact);
        assert!((ratio(&told) / ratio(&exact) - 1.0).abs() < 0.1, "{told:?} {exact:?}");
        values[40_000] = f32::NAN;
        let (told, exact) = updates(&values, 1);
        assert_eq!(told, exact);
        assert_eq!(told[0].map(|update| update.nonfinite), Some(1));
    }
}
