//! The chain of per-layer gains: the factors that the chain rule multiplies.

use tamegrad_stats::TensorStats;

use crate::observe::{LayerId, LayerSample, LayerTrace, Layout, Step};
use crate::rules::RULES;
use crate::running::median;

/// The gains outside of which a layer is marked: it more than doubles or halves what passes.
pub const USUAL_GAIN: std::ops::RangeInclusive<f64> =
    RULES.origin.gain_low..=RULES.origin.gain_high;

/// One layer's factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// The layer.
    pub layer: LayerId,
    /// RMS of its output over RMS of its input; infinite when the output is not finite.
    pub forward: Option<f64>,
    /// |gradient wrt its input| over |gradient wrt its output| (L2 norms): the factor that this
    /// layer adds in back-propagation; infinite when the gradient is not finite.
    pub backward: Option<f64>,
    /// The first of the layers that lie within this one, a block with branches of its own; the layer
    /// itself when none does.
    pub first_inner: LayerId,
    /// As in [`LayerInfo::only_normalises`](crate::LayerInfo::only_normalises).
    pub only_normalises: bool,
}

impl Link {
    /// Whether a factor lies outside [`USUAL_GAIN`], and not by design.
    pub fn is_marked(&self) -> bool {
        let gains = [self.forward, self.backward];
        !self.only_normalises && gains.into_iter().flatten().any(|gain| !USUAL_GAIN.contains(&gain))
    }

    /// Whether another layer lies within this one.
    pub fn encloses(&self, layer: LayerId) -> bool {
        (self.first_inner..self.layer).contains(&layer)
    }
}

/// How much signal and gradient grow from one end of a network to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ends {
    /// RMS of the last output over that of the network's input, or of the first output where that
    /// is not known.
    pub forward: Option<f64>,
    /// Norm of the gradient there over that at the last output.
    pub backward: Option<f64>,
}

/// The gains of all layers in one pass, in order of execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The step at which they were measured.
    pub step: Step,
    /// One link a layer.
    pub links: Vec<Link>,
    /// For a network that branches: its layers' gains are no factors of one product. `None` where
    /// each layer takes in what the one before it gives; then the ends are their product.
    pub ends: Option<Ends>,
}

impl Chain {
    /// The gains of a pass that was probed.
    pub fn measure(step: Step, trace: &LayerTrace, layout: &Layout) -> Self {
        let branches = trace.layers.iter().any(LayerSample::branches);
        let sources: Vec<Option<usize>> =
            (0..trace.layers.len()).map(|index| source(index, trace)).collect();
        let links = (0..trace.layers.len()).map(|index| {
            let here = &trace.layers[index];
            let before = sources[index].and_then(|place| sample_at(place, trace));
            let first_inner = first_inner(index, trace, layout);
            // The gradient of a tensor that others take in as well is no factor of this layer; it is
            // one of a block whose own layers are those others.
            let is_alone = || {
                let users = sources.iter().enumerate().filter(|(_, of)| **of == sources[index]);
                users.map(|(user, _)| user).all(|user| (first_inner.0..=index).contains(&user))
            };
            let input = here.input.or(before.map(|before| before.output));
            let input_delta = here
                .input_delta
                .or_else(|| before.filter(|_| !branches || is_alone()).and_then(|b| b.delta));
            Link {
                layer: LayerId(index),
                forward: input.and_then(|input| ratio(&here.output, &input, TensorStats::rms)),
                backward: input_delta
                    .zip(here.delta)
                    .and_then(|(before, after)| ratio(&before, &after, |stats| stats.l2)),
                first_inner,
                only_normalises: layout.layers.get(index).is_some_and(|info| info.only_normalises),
            }
        });
        Self { step, links: links.collect(), ends: branches.then(|| ends(trace)) }
    }

    /// Number of layers that have this gain.
    pub fn count(&self, gain: impl Fn(&Link) -> Option<f64>) -> usize {
        self.links.iter().filter(|link| gain(link).is_some()).count()
    }

    /// How much the signal grows from input to output: the product of the forward gains, but for
    /// [`Chain::ends`]. 1 when no gain is known.
    pub fn forward_product(&self) -> f64 {
        match self.ends {
            Some(ends) => ends.forward.unwrap_or(1.0),
            None => product(self.links.iter().filter_map(|link| link.forward)),
        }
    }

    /// How much the gradient grows from the loss to the input, in the same way.
    pub fn backward_product(&self) -> f64 {
        match self.ends {
            Some(ends) => ends.backward.unwrap_or(1.0),
            None => product(self.links.iter().filter_map(|link| link.backward)),
        }
    }
}

/// Where what a layer takes in comes from: 0 for the network's input, else one more than the layer
/// whose output it is. A layer with an input of its own takes in the latest output with the same
/// statistics; `None` when there is none.
fn source(index: usize, trace: &LayerTrace) -> Option<usize> {
    let here = &trace.layers[index];
    if !here.branches() {
        return Some(index);
    }
    let input = here.input.filter(|input| input.len > 0)?;
    (0..=index)
        .rev()
        .find(|place| sample_at(*place, trace).is_some_and(|sample| sample.output == input))
}

fn sample_at(place: usize, trace: &LayerTrace) -> Option<&LayerSample> {
    place.checked_sub(1).map_or(trace.input.as_ref(), |layer| trace.layers.get(layer))
}

/// The first layer within a block: those before it, one after the other, whose names go on from its
/// own; all of them where the last layer takes in what the network does, which is the whole network.
/// A layer whose input is not its own is no block.
fn first_inner(index: usize, trace: &LayerTrace, layout: &Layout) -> LayerId {
    let here = &trace.layers[index];
    if !here.branches() {
        return LayerId(index);
    }
    let network_input = trace.input.map(|input| input.output);
    if index + 1 == trace.layers.len() && here.input.is_some() && here.input == network_input {
        return LayerId(0);
    }
    // A module that is called again has the number of the call behind its name.
    let path = layout.layer_name(LayerId(index)).split('@').next().unwrap_or_default();
    let is_inner = |info: &&crate::LayerInfo| {
        info.name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
    };
    let before = layout.layers.iter().take(index).rev();
    LayerId(index - before.take_while(is_inner).count())
}

fn ends(trace: &LayerTrace) -> Ends {
    let seen = |sample: &&LayerSample| sample.output.len > 0;
    let ways = || trace.input.iter().chain(&trace.layers).filter(seen);
    let last = trace.layers.iter().rev().find(seen);
    let first_delta = ways().find_map(|sample| sample.delta);
    let last_delta = trace.layers.iter().rev().find_map(|sample| sample.delta);
    Ends {
        forward: ways()
            .next()
            .zip(last)
            .and_then(|(first, last)| ratio(&last.output, &first.output, TensorStats::rms)),
        backward: first_delta
            .zip(last_delta)
            .and_then(|(first, last)| ratio(&first, &last, |stats| stats.l2)),
    }
}

/// A layer whose gain stands out from its siblings'.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StandsOut {
    /// The layer.
    pub layer: LayerId,
    /// Its gain.
    pub gain: f64,
    /// The median gain of its siblings and itself.
    pub usual: f64,
    /// Whether it is the forward gain.
    pub is_forward: bool,
}

/// The layer whose gain is above usual and most times the median, if that is far enough. The first and the
/// last of the links change the width by design and are not held against the others; neither are
/// layers that only normalise and blocks, whose layers speak for themselves.
pub fn stands_out(links: &[&Link]) -> Option<StandsOut> {
    let of_side = |is_forward: bool| {
        let gain = |link: &Link| if is_forward { link.forward } else { link.backward };
        let known: Vec<(LayerId, f64)> = links
            .iter()
            .filter(|link| !link.only_normalises && link.first_inner == link.layer)
            .filter_map(|link| Some((link.layer, gain(link)?)))
            .collect();
        let inner = known.get(1..known.len().checked_sub(1)?)?;
        let usual = median(inner.iter().map(|(_, gain)| *gain))?;
        let (layer, gain) = *inner.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let limit = USUAL_GAIN.end().max(RULES.origin.stands_out * usual);
        let found = StandsOut { layer, gain, usual, is_forward };
        (inner.len() >= 3 && gain > limit).then_some(found)
    };
    let sides = [of_side(true), of_side(false)];
    sides.into_iter().flatten().max_by(|a, b| (a.gain / a.usual).total_cmp(&(b.gain / b.usual)))
}

/// The product of the factors, by the sum of their logarithms; 1 when there are none.
pub fn product(factors: impl Iterator<Item = f64>) -> f64 {
    factors.map(f64::ln).sum::<f64>().exp()
}

/// How many equal factors it takes until the product is above `limit`; `None` when it never is.
pub fn depth_to_exceed(factor: f64, limit: f64) -> Option<u64> {
    if !(factor > 1.0 && limit > 0.0) {
        return None;
    }
    let estimate = limit.ln() / factor.ln();
    if estimate > 1e6 {
        // Off by a few at most, of a million: the exact depth has no use, and counting no end.
        return Some(estimate.ceil() as u64);
    }
    // The logarithms may be off by one in either direction where the limit is a power.
    let mut depth = (estimate.floor() - 1.0).max(0.0);
    while factor.powf(depth) <= limit {
        depth += 1.0;
    }
    Some(depth as u64)
}

fn ratio(
    after: &TensorStats,
    before: &TensorStats,
    size: impl Fn(&TensorStats) -> f64,
) -> Option<f64> {
    if after.nonfinite() > 0 && before.nonfinite() == 0 {
        return Some(f64::INFINITY);
    }
    let (after, before) = (size(after), size(before));
    (after > 0.0 && before > 0.0).then(|| after / before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signs::check::layout;

    fn sample(rms: f64, delta: f64) -> LayerSample {
        let of = |l2| TensorStats { len: 1, l2, max_abs: l2, ..TensorStats::default() };
        LayerSample::new(of(rms), Some(of(delta)))
    }

    #[test]
    fn gains_are_ratios_of_neighbours_and_multiply_to_the_ends() {
        let trace = LayerTrace {
            input: Some(sample(1.0, 800.0)),
            layers: vec![sample(2.0, 200.0), sample(3.0, 100.0), sample(30.0, 1.0)],
        };
        let chain = Chain::measure(Step(4), &trace, &layout(3));
        let forward: Vec<_> = chain.links.iter().map(|link| link.forward.unwrap()).collect();
        let backward: Vec<_> = chain.links.iter().map(|link| link.backward.unwrap()).collect();
        assert_eq!(forward, [2.0, 1.5, 10.0]);
        assert_eq!(backward, [4.0, 2.0, 100.0]);
        assert!((chain.forward_product() - 30.0).abs() < 1e-9);
        assert!((chain.backward_product() - 800.0).abs() < 1e-9);
        let marked: Vec<_> = chain.links.iter().map(Link::is_marked).collect();
        assert_eq!(marked, [true, false, true]);
    }

    /// A layer whose own input has this RMS and gradient.
    fn branching(output: (f64, f64), input: (f64, f64)) -> LayerSample {
        let own = sample(input.0, input.1);
        LayerSample {
            input: Some(own.output),
            input_delta: own.delta,
            ..sample(output.0, output.1)
        }
    }

    fn named(names: &[&str]) -> Layout {
        let layers = names.iter().map(|name| crate::LayerInfo::named(*name)).collect();
        Layout { layers, ..Layout::default() }
    }

    #[test]
    fn gains_of_branches_are_those_of_own_inputs_and_the_growth_is_that_of_the_ends() {
        // A block x + b(a(x)) behind a layer, and an embedding of ids in between.
        let trace = LayerTrace {
            input: Some(sample(1.0, 60.0)),
            layers: vec![
                sample(2.0, 30.0),
                LayerSample { input: Some(TensorStats::default()), ..sample(0.02, 5.0) },
                branching((0.5, 4.0), (2.0, 12.0)),
                sample(0.25, 20.0),
                branching((4.0, 10.0), (2.0, 30.0)),
            ],
        };
        let layout = named(&["in", "wpe", "h.0.a", "h.0.b", "h.0"]);
        let chain = Chain::measure(Step(0), &trace, &layout);
        let gains: Vec<_> = chain.links.iter().map(|link| (link.forward, link.backward)).collect();
        let of = |forward, backward| (Some(forward), Some(backward));
        assert_eq!(gains, [of(2.0, 2.0), (None, None), of(0.25, 3.0), of(0.5, 0.2), of(2.0, 3.0)]);
        assert_eq!((chain.forward_product(), chain.backward_product()), (4.0, 6.0));
        assert_eq!(chain.count(|link| link.forward), 4);
    }

    #[test]
    fn a_gradient_that_is_the_sum_of_several_uses_is_a_factor_of_none_of_them() {
        // The output of `ln` goes to `q` and `k`; that of `in` to a block and its first layer alone.
        let takes = |output: (f64, f64), input: &LayerSample| LayerSample {
            input: Some(input.output),
            ..sample(output.0, output.1)
        };
        let (first, normed) = (sample(1.25, 12.0), sample(1.5, 8.0));
        let trace = LayerTrace {
            input: Some(sample(1.0, 24.0)),
            layers: vec![
                first,
                normed,
                sample(1.75, 0.01),
                takes((1.8, 0.02), &normed),
                takes((2.0, 4.0), &first),
                sample(2.0, 1.0),
            ],
        };
        let layout = named(&["in", "h.ln", "h.q", "h.k", "h", "head"]);
        let chain = Chain::measure(Step(0), &trace, &layout);
        let backward: Vec<_> = chain.links.iter().map(|link| link.backward).collect();
        assert_eq!(backward, [Some(2.0), None, None, None, Some(3.0), Some(4.0)]);
        assert!(chain.links.iter().all(|link| link.forward.is_some()));
    }

    #[test]
    fn without_a_float_input_the_ends_begin_at_the_first_output() {
        let trace = LayerTrace {
            input: None,
            layers: vec![sample(0.5, 12.0), branching((3.0, 4.0), (0.1, 1.0))],
        };
        let chain = Chain::measure(Step(0), &trace, &layout(2));
        assert_eq!((chain.forward_product(), chain.backward_product()), (6.0, 3.0));
    }

    #[test]
    fn a_block_encloses_the_layers_whose_names_go_on_from_its_own() {
        let own = branching((1.0, 1.0), (2.0, 1.0));
        let plain = sample(1.0, 1.0);
        let network = branching((1.0, 1.0), (1.0, 1.0));
        for (names, samples, first_inner) in [
            (&["h.1.a", "h.1.b", "h.1"][..], vec![plain, plain, own], 0),
            (&["h.10.a", "h.1.b", "h.1"], vec![plain, plain, own], 1),
            (&["e.0@0", "e@0", "e.0@1", "e@1"], vec![plain, own, plain, own], 2),
            (&["q", "k", "v"], vec![plain, own, own], 2),
            (&["a", "b", "Net"], vec![plain, plain, network], 0),
            // A layer that takes in what the one before it gives is none.
            (&["h.1.a", "h.1.b", "h.1"], vec![plain, plain, plain], 2),
        ] {
            let trace = LayerTrace { input: Some(plain), layers: samples };
            let chain = Chain::measure(Step(0), &trace, &named(names));
            let last = chain.links.last().map(|link| link.first_inner);
            assert_eq!(last, Some(LayerId(first_inner)), "{names:?}");
        }
    }

    #[test]
    fn what_only_normalises_and_a_block_do_not_stand_out() {
        let gains = [1.0, 0.9, 12.0, 1.0, 1.1, 1.0];
        let link = |(index, gain): (usize, &f64)| Link {
            layer: LayerId(index),
            forward: Some(*gain),
            backward: Some(1.0),
            first_inner: LayerId(index),
            only_normalises: false,
        };
        let links: Vec<Link> = gains.iter().enumerate().map(link).collect();
        let found =
            |links: &[Link]| stands_out(&links.iter().collect::<Vec<_>>()).map(|found| found.layer);
        assert_eq!(found(&links), Some(LayerId(2)));
        for change in [
            |link: &mut Link| link.only_normalises = true,
            |link: &mut Link| link.first_inner = LayerId(1),
        ] {
            let mut links = links.clone();
            change(&mut links[2]);
            assert_eq!(found(&links), None);
        }
        let normalises = Link { only_normalises: true, ..links[2] };
        assert_eq!((links[2].is_marked(), normalises.is_marked()), (true, false));
    }

    #[test]
    fn the_first_non_finite_output_is_an_infinite_gain_and_the_rest_have_none() {
        let broken =
            LayerSample::new(TensorStats { len: 2, infs: 2, ..TensorStats::default() }, None);
        let trace = LayerTrace { input: Some(sample(1.0, 1.0)), layers: vec![broken, broken] };
        let chain = Chain::measure(Step(0), &trace, &layout(2));
        assert_eq!(chain.links[0].forward, Some(f64::INFINITY));
        assert_eq!(chain.links[1].forward, None);
    }

    #[test]
    fn depth_at_which_a_product_overflows() {
        for (factor, limit, depth) in [
            (2.0, 65504.0, Some(16)),
            (10.0, 1e3, Some(4)),
            (10.0, 999.0, Some(3)),
            (1.0, 10.0, None),
        ] {
            assert_eq!(depth_to_exceed(factor, limit), depth, "{factor} {limit}");
        }
        let deep = depth_to_exceed(1.0 + 1e-9, 10.0).expect("it exceeds 10 some day") as f64;
        assert!((deep / 2.302_585e9 - 1.0).abs() < 1e-3, "{deep}");
    }
}
