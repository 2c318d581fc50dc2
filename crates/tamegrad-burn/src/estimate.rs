//! The size of an update by a sample of each tensor, and in full where a sample could mislead.
//!
//! To read all parameters at every step costs a small network several per cent of its step. So of
//! each tensor on the CPU one stretch of 64 elements in 64 is looked at, at places drawn anew for
//! every step. The estimates of |dW|^2 and |W|^2 are without bias. Of 65,536 elements 1024 are
//! looked at: of values that are spread evenly the norm is within some 2% (one sigma), of an update
//! that lies in a third of the rows within some 17%.
//!
//! A tensor is measured in full, by [`measure_those`], in a step in which
//!
//! - the estimated ratio is 0.05 or more: signs look from 0.1 on, so what fires rests on exact
//!   numbers;
//! - its gradient is not finite, or so large that the update or the moments could overflow;
//! - its gradient is concentrated: more than 7/8 of it zeros (an embedding of which few rows move),
//!   or its largest square above 512 times the mean square;
//! - a sampled element is not finite before or after, or an element was not at the step before.
//!
//! What is left to chance is an update that is concentrated though its gradient is not. With its
//! change in n stretches of a tensor it is missed at one step with probability (63/64)^n at most,
//! and at k steps with the k-th power of that. A parameter that becomes NaN from a finite gradient of
//! usual size is seen in the same step if it is in the sample, in the next if the loss depends on
//! it, and within 32 steps in any case: each step reads some of the tensors in full.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use half::{bf16, f16};
use tamegrad::record::TensorTrack;
use tamegrad::{Step, Update};
use tamegrad_stats::{ListStats, TensorRef, TensorStats, scan};

use crate::host::HostTensor;
use crate::parameters::ParameterTable;
use crate::updates::measure_those;

/// Elements that are looked at together. What costs is to go to a place that is in no cache, not to
/// read on from there.
const STRETCH: usize = 64;
/// Stretches of which one is looked at.
const STRATUM: usize = 64;
/// A tensor of at most this many elements is looked at whole.
const WHOLE: usize = 1024;
/// Ratio from which an update is measured in full.
const NOTABLE: f64 = 0.05;
/// Largest square of a gradient by its mean square, above which it counts as concentrated.
const CREST: f64 = 512.0;
/// Steps in which every tensor is read in full once for elements that are not finite.
const ROUND: u64 = 32;

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
            self.held[index] = HostTensor::new(&param.val());
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
        let Some(after) = HostTensor::new(&param.val()) else { return };
        let latest = self.tracks.get(index).and_then(|track| track.latest_update);
        // A sample that misses what was broken before would make it news once more.
        let was_broken = latest.is_some_and(|update| update.nonfinite > 0);
        if !was_broken && before.is_laid_out_like(&after) {
            let gradient = self.gradients.get(index).copied().flatten();
            let seed = mixed(self.step).wrapping_add(index as u64);
            let is_read = (self.step.wrapping_add(index as u64)).is_multiple_of(ROUND);
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
    use TensorRef::{Bf16, F16, F32, F64};
    let sums = match (before, after) {
        (F32(a), F32(b)) => sample(a, b, gradient, f64::from(f32::MAX), seed, is_read, f64::from),
        (F64(a), F64(b)) => sample(a, b, gradient, f64::MAX, seed, is_read, |value| value),
        (F16(a), F16(b)) => sample(a, b, gradient, f64::from(f16::MAX), seed, is_read, f16::to_f64),
        (Bf16(a), Bf16(b)) => {
            sample(a, b, gradient, f64::from(bf16::MAX), seed, is_read, bf16::to_f64)
        }
        _ => None,
    };
    sums.filter(|update| update.ratio() < NOTABLE)
}

/// Whether the update may be concentrated, or overflow a type with this largest number.
fn is_doubtful(gradient: &TensorStats, largest: f64) -> bool {
    let mean_square = gradient.l2 * gradient.l2 / gradient.len.max(1) as f64;
    !gradient.is_finite()
        || gradient.max_abs > largest.sqrt() / 4.0
        || gradient.max_abs * gradient.max_abs > CREST * mean_square
        || (gradient.zeros > gradient.len / 8 * 7 && gradient.zeros < gradient.len)
}

fn sample<T: tamegrad_stats::Element>(
    before: &[T],
    after: &[T],
    gradient: Option<TensorStats>,
    largest: f64,
    seed: u64,
    is_read: bool,
    widen: impl Fn(T) -> f64 + Copy,
) -> Option<Update> {
    let (mut change, mut weight) = (0.0, 0.0);
    if after.len() <= WHOLE {
        (change, weight) = squares(before, after, widen);
    } else {
        if gradient.is_some_and(|gradient| is_doubtful(&gradient, largest))
            || (is_read && !scan(after).is_finite())
        {
            return None;
        }
        let strata = before.chunks(STRETCH * STRATUM).zip(after.chunks(STRETCH * STRATUM));
        for (number, (old, new)) in strata.enumerate() {
            let stretches = old.len().div_ceil(STRETCH);
            let drawn = mixed(seed ^ ((number as u64) << 32)) >> 32;
            let first = ((drawn * stretches as u64) >> 32) as usize * STRETCH;
            let drawn = first..old.len().min(first + STRETCH);
            let (of_change, of_weight) = squares(&old[drawn.clone()], &new[drawn], widen);
            change += stretches as f64 * of_change;
            weight += stretches as f64 * of_weight;
        }
    }
    // A NaN or an infinity before or after leaves none of the sums finite.
    (change + weight).is_finite().then(|| Update {
        change_norm: change.sqrt(),
        weight_norm: weight.sqrt(),
        len: after.len() as u64,
        nonfinite: 0,
    })
}

/// Sums of (new - old)^2 and old^2.
#[inline(always)]
fn squares<T: Copy>(before: &[T], after: &[T], widen: impl Fn(T) -> f64 + Copy) -> (f64, f64) {
    const LANES: usize = 8;
    let (mut change, mut weight) = ([0.0; LANES], [0.0; LANES]);
    let (before, rest_before) = before.as_chunks::<LANES>();
    let (after, rest_after) = after.as_chunks::<LANES>();
    for (old, new) in before.iter().zip(after) {
        for lane in 0..LANES {
            let (old, new) = (widen(old[lane]), widen(new[lane]));
            change[lane] += (new - old) * (new - old);
            weight[lane] += old * old;
        }
    }
    for (lane, (old, new)) in rest_before.iter().zip(rest_after).enumerate() {
        let (old, new) = (widen(*old), widen(*new));
        change[lane] += (new - old) * (new - old);
        weight[lane] += old * old;
    }
    (change.iter().sum(), weight.iter().sum())
}

/// A number that looks drawn (Steele, Lea and Flood 2014: SplitMix64).
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::updates::measure;
    use burn::module::ParamId;
    use burn::tensor::Device;

    const LEN: usize = 256 * 256 + 37;

    fn wave(index: usize, pace: f32) -> f32 {
        (index as f32 * pace).sin()
    }

    /// The exact update.
    fn exact(before: &[f32], after: &[f32]) -> Update {
        let (change, weight) = squares(before, after, f64::from);
        Update {
            change_norm: change.sqrt(),
            weight_norm: weight.sqrt(),
            len: after.len() as u64,
            nonfinite: 0,
        }
    }

    fn told(before: &[f32], after: &[f32], gradient: &[f32], seed: u64) -> Option<Update> {
        let gradient = Some(scan(gradient));
        told_by_sample(TensorRef::F32(before), TensorRef::F32(after), gradient, seed, false)
    }

    fn moved(before: &[f32], gradient: &[f32], rate: f32) -> Vec<f32> {
        before.iter().zip(gradient).map(|(w, g)| w - rate * g).collect()
    }

    /// What 400 samples tell of the change, by what it is.
    fn ratios(part: impl Fn(usize) -> f32) -> Vec<f64> {
        let before: Vec<f32> = (0..LEN).map(|i| wave(i, 0.7)).collect();
        let gradient: Vec<f32> = (0..LEN).map(|i| wave(i, 0.31) * part(i)).collect();
        let after = moved(&before, &gradient, 0.01);
        let want = exact(&before, &after);
        let ratio = |seed| {
            let got = told(&before, &after, &gradient, mixed(seed)).expect("by the sample");
            assert!((got.weight_norm / want.weight_norm - 1.0).abs() < 0.05, "{got:?} {want:?}");
            got.change_norm / want.change_norm
        };
        (0..400).map(ratio).collect()
    }

    #[test]
    fn spread_updates_are_told_closely_and_without_bias() {
        let rows = |i: usize| if (i / 256).is_multiple_of(3) { 1.0 } else { 0.01 };
        for (name, ratios, sigma) in
            [("evenly", ratios(|_| 1.0), 0.03), ("a third of the rows", ratios(rows), 0.2)]
        {
            let mean = |f: fn(f64) -> f64| ratios.iter().copied().map(f).sum::<f64>() / 400.0;
            let square = mean(|ratio| ratio * ratio);
            assert!((square - 1.0).abs() < 0.06, "{name}: {square}");
            let spread = mean(|ratio| (ratio - 1.0) * (ratio - 1.0)).sqrt();
            assert!(spread < sigma, "{name}: {spread}");
        }
    }

    #[test]
    fn small_tensors_are_told_to_the_last_digit() {
        let before: Vec<f32> = (0..WHOLE).map(|i| wave(i, 0.7)).collect();
        let mut gradient = vec![0.0; WHOLE];
        gradient[77] = 1.0;
        let after = moved(&before, &gradient, 0.1);
        assert_eq!(told(&before, &after, &gradient, 3), Some(exact(&before, &after)));
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
                assert_eq!(told(&before, &after, &gradient, mixed(seed)), None, "{name}");
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
            told_by_sample(before, after, Some(scan(&gradient)), mixed(seed), is_read)
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
            let table = ParameterTable::new(&before, Vec::new());
            let known = Update { change_norm: 1.0, weight_norm: 1.0, len: LEN as u64, nonfinite };
            let tracks = [TensorTrack { latest_update: Some(known), ..TensorTrack::new() }];
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
