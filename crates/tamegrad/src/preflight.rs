//! Before the first update: what one forward and backward pass and the update that follows tell.

mod diagnosis;

use tamegrad_stats::{TensorStats, merge};

use crate::chain::Chain;
use crate::observe::{LayerId, LayerTrace, Layout, Step, TensorId, Update};
use crate::rules::{PreflightRule, RULES};

/// What an integration measured of a first step, on copies. What it does not know is `None` or empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstStep<'a> {
    /// Loss of the batch before the update.
    pub loss: Option<f64>,
    /// The probes of the pass.
    pub trace: Option<&'a LayerTrace>,
    /// Gradient statistics by [`TensorId`].
    pub gradients: &'a [Option<TensorStats>],
    /// The first update by [`TensorId`].
    pub updates: &'a [Option<Update>],
    /// The smallest multiple of the first update that raises the loss of its own batch: infinite
    /// when [`MULTIPLE_TRIED_MAX`] does not, 0 when [`MULTIPLE_TRIED_MIN`] does. The first update
    /// of SGD, momentum, Adam and RMSprop is proportional to the learning rate, so this is also a
    /// multiple of the learning rate.
    pub critical_multiple: Option<f64>,
    /// Largest finite value of the dtype that the model computes in.
    pub dtype_max: Option<f64>,
}

/// A layer before the first update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerScale {
    /// The layer.
    pub layer: LayerId,
    /// RMS of its output; infinite when an element is not finite, as are all sizes here.
    pub output_rms: f64,
    /// Largest magnitude in its output.
    pub output_max: f64,
    /// RMS of the gradient of the loss with respect to its output.
    pub gradient_rms: Option<f64>,
    /// L2 norm of that gradient.
    pub gradient_norm: Option<f64>,
    /// Powers of 2 between the larger of the largest output and the largest element of that
    /// gradient, and the largest number of the dtype; 0 when one is not finite.
    pub headroom_bits: Option<f64>,
}

/// Where the first number that is not finite comes up, in order of execution: forward from the
/// input to the loss, then back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverflowAt {
    /// The batch's input holds it.
    Input,
    /// A layer's output.
    Output(LayerId),
    /// The loss of finite outputs.
    Loss,
    /// The gradient of a finite loss with respect to the last output.
    LossGradient,
    /// The gradient that a layer passes on to what is before it, made of a finite one.
    Gradient(LayerId),
    /// The gradient of a parameter.
    Parameter(TensorId),
}

/// Which way a chain of gains runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The signal, from the input to the loss.
    Forward,
    /// The gradient, from the loss to the input.
    Backward,
}

/// Something that speaks against starting the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warning {
    /// The first pass overflows.
    Overflow(OverflowAt),
    /// An output or its gradient is within [`headroom_min`] powers of 2 of the dtype's end.
    LittleHeadroom {
        /// The layer with the least.
        layer: LayerId,
        /// Its powers of 2.
        bits: f64,
    },
    /// The gains of the layers multiply to more than the `product` of [`crate::rules::InitialisationRule`].
    Gains {
        /// The way in which they do.
        direction: Direction,
        /// Their product.
        product: f64,
        /// Number of factors.
        layers: usize,
    },
    /// The norm of the whole gradient is above what no healthy run begins with.
    AbsurdGradient {
        /// The norm.
        norm: f64,
    },
    /// The first update is more than [`PreflightRule::update`] of a weight matrix.
    LargeUpdate {
        /// The matrix with the largest ratio.
        tensor: TensorId,
        /// |dW|/|W|.
        ratio: f64,
    },
    /// The first update leaves NaN or Inf in a parameter.
    BrokenUpdate {
        /// The first such parameter.
        tensor: TensorId,
    },
    /// The learning rate is far above the largest that lowers the loss: by more than
    /// 1 / [`PreflightRule::critical`].
    LearningRate {
        /// Times that rate; infinite when no multiple that was tried lowers the loss.
        times: f64,
    },
}

/// A model before its first update.
#[derive(Debug, Clone, PartialEq)]
pub struct Preflight {
    /// Tensors and layers.
    pub layout: Layout,
    /// Gains of the layers; `None` without probes.
    pub chain: Option<Chain>,
    /// RMS of the network's input, and norm of the gradient with respect to it.
    pub input: Option<(f64, Option<f64>)>,
    /// One row a layer, in order of execution; empty without probes.
    pub layers: Vec<LayerScale>,
    /// Loss of the batch.
    pub loss: Option<f64>,
    /// L2 norm of the gradient; NaN when it has elements that are not finite.
    pub gradient_norm: Option<f64>,
    /// Where the first number comes up that is not finite.
    pub overflow: Option<OverflowAt>,
    /// The least headroom of a layer, in powers of 2.
    pub headroom_bits: Option<f64>,
    /// The weight matrix that the first update changes most, with |dW|/|W|. Infinite when the
    /// update breaks it.
    pub first_update: Option<(TensorId, f64)>,
    /// The first parameter that the update leaves with NaN or Inf.
    pub broken: Option<TensorId>,
    /// As in [`FirstStep::critical_multiple`].
    pub critical_multiple: Option<f64>,
    /// Largest finite value of the dtype.
    pub dtype_max: Option<f64>,
}

/// The numbers.
const RULE: PreflightRule = RULES.preflight;

/// Powers of 2 to the end of a dtype under which there is a warning: 16 of bf16 and f32, 2 of f16,
/// which ends at 65,504.
pub fn headroom_min(dtype_max: f64) -> f64 {
    RULE.headroom * dtype_max.log2()
}

/// The smallest multiple of the first update that an integration tries when it looks for the critical one.
pub const MULTIPLE_TRIED_MIN: f64 = 1.0 / 65_536.0;
/// The largest.
pub const MULTIPLE_TRIED_MAX: f64 = 4.0;

/// What a first step tells of the run that is to come.
pub fn preflight(layout: &Layout, seen: &FirstStep<'_>) -> Preflight {
    let layers = seen.trace.map_or(Vec::new(), |trace| scales(trace, seen.dtype_max));
    let probed = seen.trace.filter(|trace| !trace.layers.is_empty());
    let input = probed.and_then(|trace| trace.input.as_ref());
    let is_judged = |index: usize, update: &Update| {
        layout.tensors.get(index).is_some_and(|info| info.is_judged_by(update))
    };
    let updates = || (0..).zip(seen.updates).filter_map(|(i, update)| Some((i, (*update)?)));
    let ratios = updates().filter(|(index, update)| is_judged(*index, update));
    Preflight {
        layout: layout.clone(),
        chain: probed.map(|trace| Chain::measure(Step(0), trace, layout)),
        input: input.map(|sample| {
            (size(&sample.output, TensorStats::rms), sample.delta.map(|d| size(&d, |d| d.l2)))
        }),
        loss: seen.loss,
        gradient_norm: gradient_norm(seen.gradients),
        overflow: overflow(seen),
        headroom_bits: layers.iter().filter_map(|row| row.headroom_bits).min_by(f64::total_cmp),
        layers,
        first_update: ratios
            .map(|(index, update)| (TensorId(index), update.ratio()))
            .reduce(|most, next| if next.1.total_cmp(&most.1).is_gt() { next } else { most }),
        broken: updates().find(|(_, update)| update.nonfinite > 0).map(|(i, _)| TensorId(i)),
        critical_multiple: seen.critical_multiple,
        dtype_max: seen.dtype_max,
    }
}

impl Preflight {
    /// What speaks against starting the run, the first to happen first; empty when nothing does.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings: Vec<Warning> = self.overflow.map(Warning::Overflow).into_iter().collect();
        if self.overflow.is_none() {
            warnings.extend(self.little_headroom());
        }
        warnings.extend(
            [Direction::Forward, Direction::Backward].map(|d| self.gains(d)).into_iter().flatten(),
        );
        let absurd = self.gradient_norm.filter(|norm| *norm > RULES.high_gradient.live.absurd);
        warnings.extend(absurd.map(|norm| Warning::AbsurdGradient { norm }));
        match (self.broken, self.first_update) {
            (Some(tensor), _) => warnings.push(Warning::BrokenUpdate { tensor }),
            (None, Some((tensor, ratio))) if !(ratio <= RULE.update) => {
                warnings.push(Warning::LargeUpdate { tensor, ratio });
            }
            _ => {}
        }
        // Of an update that breaks the weights no multiple says anything.
        let multiple = self.critical_multiple.filter(|_| self.broken.is_none());
        if let Some(multiple) = multiple.filter(|multiple| !(*multiple >= RULE.critical)) {
            warnings.push(Warning::LearningRate { times: 1.0 / multiple });
        }
        warnings
    }

    /// The layer that a first overflow belongs to, if it belongs to one.
    pub fn overflow_layer(&self) -> Option<LayerId> {
        match self.overflow? {
            OverflowAt::Output(layer) | OverflowAt::Gradient(layer) => Some(layer),
            OverflowAt::Parameter(tensor) => self.layout.layer_of(tensor),
            OverflowAt::Input | OverflowAt::Loss | OverflowAt::LossGradient => None,
        }
    }

    /// How much the signal or the gradient grows from end to end, and the number of layers with a
    /// gain; `None` where no layer has one, for a product of none would read as a calm 1.
    pub fn product(&self, direction: Direction) -> Option<(f64, usize)> {
        let chain = self.chain.as_ref()?;
        let (product, layers) = match direction {
            Direction::Forward => (chain.forward_product(), chain.count(|link| link.forward)),
            Direction::Backward => (chain.backward_product(), chain.count(|link| link.backward)),
        };
        (layers > 0).then_some((product, layers))
    }

    fn gains(&self, direction: Direction) -> Option<Warning> {
        let (product, layers) = self.product(direction)?;
        // An infinite factor is an overflow, which is told already, with its place.
        (product > RULES.initialisation.product && product.is_finite()).then_some(Warning::Gains {
            direction,
            product,
            layers,
        })
    }

    fn little_headroom(&self) -> Option<Warning> {
        let rows = self.layers.iter().filter_map(|row| Some((row.layer, row.headroom_bits?)));
        let (layer, bits) = rows.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let min = self.dtype_max.map_or(0.0, headroom_min);
        (bits < min).then_some(Warning::LittleHeadroom { layer, bits })
    }
}

fn scales(trace: &LayerTrace, dtype_max: Option<f64>) -> Vec<LayerScale> {
    let rows = trace.layers.iter().enumerate().map(|(index, sample)| {
        let delta = sample.delta.as_ref();
        let output_max = size(&sample.output, |stats| stats.max_abs);
        let largest = delta.map_or(output_max, |d| output_max.max(size(d, |d| d.max_abs)));
        LayerScale {
            layer: LayerId(index),
            output_rms: size(&sample.output, TensorStats::rms),
            output_max,
            gradient_rms: delta.map(|delta| size(delta, TensorStats::rms)),
            gradient_norm: delta.map(|delta| size(delta, |stats| stats.l2)),
            // Zeros alone are infinitely far from the end, which says nothing.
            headroom_bits: dtype_max
                .filter(|_| largest > 0.0)
                .map(|max| if largest.is_finite() { (max / largest).log2() } else { 0.0 }),
        }
    });
    rows.collect()
}

/// A size of a tensor, which counts the finite elements only; infinite when there are others.
fn size(stats: &TensorStats, of: impl Fn(&TensorStats) -> f64) -> f64 {
    if stats.is_finite() { of(stats) } else { f64::INFINITY }
}

/// The norm of the whole gradient. That of the finite part would be a calm 0 where all is broken.
fn gradient_norm(gradients: &[Option<TensorStats>]) -> Option<f64> {
    let known: Vec<&TensorStats> = gradients.iter().flatten().collect();
    let total = (!known.is_empty()).then(|| merge(known))?;
    Some(if total.is_finite() { total.l2 } else { f64::NAN })
}

fn overflow(seen: &FirstStep<'_>) -> Option<OverflowAt> {
    let forward = seen.trace.and_then(|trace| {
        let input = trace.input.iter().map(|sample| (OverflowAt::Input, sample));
        let layers = trace.layers.iter().enumerate();
        let outputs = layers.map(|(index, sample)| (OverflowAt::Output(LayerId(index)), sample));
        input.chain(outputs).find(|(_, sample)| !sample.output.is_finite()).map(|(at, _)| at)
    });
    let loss = || seen.loss.filter(|loss| !loss.is_finite()).map(|_| OverflowAt::Loss);
    let parameter = || {
        let broken = |stats: &Option<TensorStats>| stats.is_some_and(|stats| !stats.is_finite());
        seen.gradients.iter().position(broken).map(|i| OverflowAt::Parameter(TensorId(i)))
    };
    forward.or_else(loss).or_else(|| backward_overflow(seen.trace?)).or_else(parameter)
}

/// The gradient at a layer's output is made by the layer after it.
fn backward_overflow(trace: &LayerTrace) -> Option<OverflowAt> {
    let is_broken = |delta: Option<TensorStats>| delta.is_some_and(|delta| !delta.is_finite());
    let last = trace.layers.len().checked_sub(1)?;
    match trace.layers.iter().rposition(|sample| is_broken(sample.delta)) {
        Some(index) if index == last => Some(OverflowAt::LossGradient),
        Some(index) => Some(OverflowAt::Gradient(LayerId(index + 1))),
        None => {
            let input = trace.input.as_ref().and_then(|sample| sample.delta);
            is_broken(input).then_some(OverflowAt::Gradient(LayerId(0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::LayerSample;
    use crate::signs::check::{layout, stats, update};

    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;

    /// Tensors of one element: (output, gradient with respect to it), the input first.
    fn trace(samples: &[(f64, f64)]) -> LayerTrace {
        let mut samples = samples
            .iter()
            .map(|(output, delta)| LayerSample::new(stats(*output), Some(stats(*delta))));
        LayerTrace { input: samples.next(), layers: samples.collect() }
    }

    /// A first step of which nothing is to be said.
    const CALM: [(f64, f64); 4] = [(1.0, 1.0), (1.5, 2.0), (1.0, 1.0), (2.0, 1.0)];

    /// Of three layers `fc0`, `fc1`, `fc2` with a weight each, in f32.
    fn look(
        samples: &[(f64, f64)],
        loss: f64,
        gradients: [f64; 3],
        ratios: [f64; 3],
        multiple: Option<f64>,
    ) -> Preflight {
        preflight(
            &layout(3),
            &FirstStep {
                loss: Some(loss),
                trace: Some(&trace(samples)),
                gradients: &gradients.map(|norm| Some(stats(norm))),
                updates: &ratios.map(update),
                critical_multiple: multiple,
                dtype_max: Some(f64::from(f32::MAX)),
            },
        )
    }

    fn calm(samples: &[(f64, f64)]) -> Preflight {
        look(samples, 1.0, [1.0; 3], [0.01; 3], Some(INF))
    }

    #[test]
    fn a_calm_first_step_is_told_in_numbers_without_a_warning() {
        let seen = look(&CALM, 0.7, [3.0, 0.0, 4.0], [0.01, 0.02, 0.005], Some(3.0));
        assert_eq!(seen.warnings(), []);
        assert_eq!((seen.loss, seen.gradient_norm), (Some(0.7), Some(5.0)));
        assert_eq!(seen.first_update, Some((TensorId(1), 0.02)));
        assert_eq!(seen.input, Some((1.0, Some(1.0))));
        assert_eq!(seen.critical_multiple, Some(3.0));
        let (product, factors) = seen.product(Direction::Forward).expect("three gains");
        assert!((product - 2.0).abs() < 1e-12 && factors == 3, "{product} of {factors}");
        let (product, factors) = seen.product(Direction::Backward).expect("three gains");
        assert!((product - 1.0).abs() < 1e-12 && factors == 3, "{product} of {factors}");
        // 2^128 and a little less, over 2.
        assert!(
            (seen.headroom_bits.expect("f32") - 127.0).abs() < 1e-6,
            "{:?}",
            seen.headroom_bits
        );
    }

    #[test]
    fn headroom_is_that_of_the_larger_of_output_and_gradient() {
        let wide = |l2, len: u64| TensorStats { len, l2, max_abs: 2.0, ..TensorStats::default() };
        let trace = LayerTrace {
            input: None,
            layers: vec![
                LayerSample::new(wide(4.0, 4), Some(stats(256.0))),
                LayerSample::new(wide(6.0, 9), None),
                LayerSample::new(stats(0.0), None),
                LayerSample::new(stats(INF), None),
            ],
        };
        let seen = preflight(
            &layout(4),
            &FirstStep { trace: Some(&trace), dtype_max: Some(1024.0), ..FirstStep::default() },
        );
        let bits: Vec<_> = seen.layers.iter().map(|row| row.headroom_bits).collect();
        assert_eq!(bits, [Some(2.0), Some(9.0), None, Some(0.0)]);
        let rms: Vec<_> = seen.layers.iter().map(|row| row.output_rms).collect();
        assert_eq!(rms, [2.0, 2.0, 0.0, INF]);
        let gradients: Vec<_> = seen.layers.iter().map(|row| row.gradient_norm).collect();
        assert_eq!(gradients, [Some(256.0), None, None, None]);
    }

    #[test]
    fn an_overflow_has_the_place_of_its_maker() {
        let layer = |index| Some(LayerId(index));
        for (name, change, loss, gradients, at, of) in [
            (
                "input",
                vec![(0, (NAN, 1.0)), (1, (NAN, 1.0))],
                1.0,
                [1.0; 3],
                OverflowAt::Input,
                None,
            ),
            (
                "the first output of several",
                vec![(2, (INF, NAN)), (3, (NAN, NAN))],
                NAN,
                [NAN; 3],
                OverflowAt::Output(LayerId(1)),
                layer(1),
            ),
            ("the loss", vec![(3, (2.0, NAN))], INF, [NAN; 3], OverflowAt::Loss, None),
            (
                "behind a finite loss",
                vec![(0, (1.0, NAN)), (3, (2.0, INF))],
                1.0,
                [NAN; 3],
                OverflowAt::LossGradient,
                None,
            ),
            (
                "a layer's way back",
                vec![(0, (1.0, NAN)), (1, (1.0, INF))],
                1.0,
                [INF, 1.0, 1.0],
                OverflowAt::Gradient(LayerId(1)),
                layer(1),
            ),
            (
                "the first layer's way back",
                vec![(0, (1.0, INF))],
                1.0,
                [1.0; 3],
                OverflowAt::Gradient(LayerId(0)),
                layer(0),
            ),
            (
                "a parameter alone",
                vec![],
                1.0,
                [1.0, 1.0, INF],
                OverflowAt::Parameter(TensorId(2)),
                layer(2),
            ),
        ] {
            let mut samples = CALM;
            change.into_iter().for_each(|(index, sample)| samples[index] = sample);
            let seen = look(&samples, loss, gradients, [0.01; 3], None);
            assert_eq!((seen.overflow, seen.overflow_layer()), (Some(at), of), "{name}");
            assert_eq!(seen.warnings()[0], Warning::Overflow(at), "{name}");
        }
        assert_eq!(calm(&CALM).overflow, None);
    }

    #[test]
    fn a_norm_of_broken_gradients_is_not_that_of_their_finite_part() {
        let seen = look(&CALM, 1.0, [1.0, INF, 0.0], [0.01; 3], None);
        assert!(seen.gradient_norm.is_some_and(f64::is_nan), "{:?}", seen.gradient_norm);
    }

    #[test]
    fn each_thing_that_speaks_against_the_start_is_told() {
        let rising = [(1.0, 1.0), (30.0, 1.0), (900.0, 1.0), (27_000.0, 1.0)];
        let falling = [(1.0, 4096.0), (1.0, 256.0), (1.0, 16.0), (1.0, 1.0)];
        let gains = |direction| {
            move |warning: &Warning| match warning {
                Warning::Gains { direction: d, product, layers: 3 } => {
                    *d == direction
                        && [27_000.0, 4096.0].iter().any(|p| (product / p - 1.0).abs() < 1e-9)
                }
                _ => false,
            }
        };
        for (samples, direction) in [(rising, Direction::Forward), (falling, Direction::Backward)] {
            let warnings = calm(&samples).warnings();
            assert!(warnings.len() == 1 && gains(direction)(&warnings[0]), "{warnings:?}");
        }

        let near = f64::from(f32::MAX) / 1024.0;
        let warnings = calm(&[(near, 1.0), (near, 1.0), (near, 1.0), (near / 2.0, 1.0)]).warnings();
        assert_eq!(warnings, [Warning::LittleHeadroom { layer: LayerId(0), bits: 10.0 }]);

        let updated = |ratios, multiple| look(&CALM, 1.0, [1.0; 3], ratios, multiple).warnings();
        for (ratios, multiple, want) in [
            ([0.01, 1.0, 0.0], None, vec![]),
            (
                [0.01, 2.0, 3.0],
                None,
                vec![Warning::LargeUpdate { tensor: TensorId(2), ratio: 3.0 }],
            ),
            // What a broken update does to the loss says nothing more.
            ([0.3, INF, 0.3], Some(0.0), vec![Warning::BrokenUpdate { tensor: TensorId(1) }]),
            ([0.01; 3], Some(RULE.critical), vec![]),
            ([0.01; 3], Some(1.0 / 64.0), vec![Warning::LearningRate { times: 64.0 }]),
            ([0.01; 3], Some(0.0), vec![Warning::LearningRate { times: INF }]),
            ([0.01; 3], Some(INF), vec![]),
        ] {
            assert_eq!(updated(ratios, multiple), want, "{ratios:?} {multiple:?}");
        }
    }

    #[test]
    fn a_norm_that_is_no_gradient_is_told() {
        for (norm, want) in [(1e9, vec![]), (6e21, vec![Warning::AbsurdGradient { norm: 6e21 }])] {
            let seen = look(&CALM, 1.0, [norm, 0.0, 0.0], [0.01; 3], None);
            assert_eq!(seen.warnings(), want, "{norm}");
        }
    }

    #[test]
    fn the_headroom_that_is_wanted_is_an_eighth_of_what_the_type_has() {
        let (half, single) = (65_504.0, f64::from(f32::MAX));
        for (dtype_max, largest, warns) in [
            (half, 100.0, false),
            (half, half / 5.0, false),
            (half, half / 3.0, true),
            (single, single / 1e5, false),
            (single, single / 1e4, true),
        ] {
            let trace = trace(&[(1.0, 1.0), (largest, 1.0)]);
            let (trace, dtype_max) = (Some(&trace), Some(dtype_max));
            let seen = preflight(&layout(1), &FirstStep { trace, dtype_max, ..Default::default() });
            assert_eq!(seen.little_headroom().is_some(), warns, "{largest} of {dtype_max:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_neither_guessed_nor_warned_of() {
        let seen = preflight(&layout(3), &FirstStep::default());
        assert_eq!(seen.warnings(), []);
        assert_eq!(
            (seen.chain.as_ref(), seen.gradient_norm, seen.first_update),
            (None, None, None)
        );
        assert_eq!(seen.product(Direction::Forward), None, "a product of no gain is not 1");
        let no_input = LayerTrace { input: None, ..trace(&CALM[..2]) };
        let seen =
            preflight(&layout(1), &FirstStep { trace: Some(&no_input), ..FirstStep::default() });
        assert_eq!(seen.product(Direction::Forward), None);
        assert_eq!(seen.layers[0].headroom_bits, None, "of a dtype that is not known");
    }

    #[test]
    fn a_bias_that_starts_at_zero_is_not_the_first_update() {
        let mut layout = layout(2);
        layout.tensors[1].is_matrix = false;
        let updates = [update(0.01), update(1000.0)];
        let seen = preflight(&layout, &FirstStep { updates: &updates, ..FirstStep::default() });
        assert_eq!(seen.first_update, Some((TensorId(0), 0.01)));
        let updates = [update(0.01), update(INF)];
        let seen = preflight(&layout, &FirstStep { updates: &updates, ..FirstStep::default() });
        assert_eq!(seen.broken, Some(TensorId(1)), "but it can break");
    }
}
