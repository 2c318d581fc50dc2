//! The chain of per-layer gains: the factors that the chain rule multiplies.

use tamegrad_stats::TensorStats;

use crate::observe::{LayerId, LayerTrace, Step};
use crate::running::median;

/// The gains outside of which a layer is marked: it more than doubles or halves what passes.
pub const USUAL_GAIN: std::ops::RangeInclusive<f64> = 0.5..=2.0;

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
}

impl Link {
    /// Whether a factor lies outside [`USUAL_GAIN`].
    pub fn is_marked(&self) -> bool {
        [self.forward, self.backward].into_iter().flatten().any(|gain| !USUAL_GAIN.contains(&gain))
    }
}

/// The gains of all layers in one pass, in order of execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The step at which they were measured.
    pub step: Step,
    /// One link a layer.
    pub links: Vec<Link>,
}

impl Chain {
    /// The gains of a pass that was probed.
    pub fn measure(step: Step, trace: &LayerTrace) -> Self {
        let links = (0..trace.layers.len()).map(|index| {
            let before = index.checked_sub(1).map_or(trace.input.as_ref(), |i| trace.layers.get(i));
            let here = &trace.layers[index];
            Link {
                layer: LayerId(index),
                forward: before.and_then(|b| ratio(&here.output, &b.output, TensorStats::rms)),
                backward: before
                    .and_then(|b| Some((b.delta?, here.delta?)))
                    .and_then(|(b, h)| ratio(&b, &h, |stats| stats.l2)),
            }
        });
        Self { step, links: links.collect() }
    }

    /// The product of the forward gains: how much the signal grows from input to output.
    pub fn forward_product(&self) -> f64 {
        product(self.links.iter().filter_map(|link| link.forward))
    }

    /// The product of the backward gains: how much the gradient grows from the loss to the input.
    pub fn backward_product(&self) -> f64 {
        product(self.links.iter().filter_map(|link| link.backward))
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

/// How many times the median of the others a gain must be to stand out.
const STANDS_OUT: f64 = 4.0;

/// The layer whose gain is above 2 and most times the median, if that is above 4. The first and the
/// last of the links change the width by design and are not held against the others.
pub fn stands_out(links: &[&Link]) -> Option<StandsOut> {
    let of_side = |is_forward: bool| {
        let gain = |link: &&Link| if is_forward { link.forward } else { link.backward };
        let known: Vec<(LayerId, f64)> =
            links.iter().filter_map(|link| Some((link.layer, gain(link)?))).collect();
        let inner = known.get(1..known.len().checked_sub(1)?)?;
        let usual = median(inner.iter().map(|(_, gain)| *gain))?;
        let (layer, gain) = *inner.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let limit = USUAL_GAIN.end().max(STANDS_OUT * usual);
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
    use crate::observe::LayerSample;

    fn sample(rms: f64, delta: f64) -> LayerSample {
        let of = |l2| TensorStats { len: 1, l2, max_abs: l2, ..TensorStats::default() };
        LayerSample { output: of(rms), delta: Some(of(delta)) }
    }

    #[test]
    fn gains_are_ratios_of_neighbours_and_multiply_to_the_ends() {
        let trace = LayerTrace {
            input: Some(sample(1.0, 800.0)),
            layers: vec![sample(2.0, 200.0), sample(3.0, 100.0), sample(30.0, 1.0)],
        };
        let chain = Chain::measure(Step(4), &trace);
        let forward: Vec<_> = chain.links.iter().map(|link| link.forward.unwrap()).collect();
        let backward: Vec<_> = chain.links.iter().map(|link| link.backward.unwrap()).collect();
        assert_eq!(forward, [2.0, 1.5, 10.0]);
        assert_eq!(backward, [4.0, 2.0, 100.0]);
        assert!((chain.forward_product() - 30.0).abs() < 1e-9);
        assert!((chain.backward_product() - 800.0).abs() < 1e-9);
        let marked: Vec<_> = chain.links.iter().map(Link::is_marked).collect();
        assert_eq!(marked, [true, false, true]);
    }

    #[test]
    fn the_first_non_finite_output_is_an_infinite_gain_and_the_rest_have_none() {
        let broken = LayerSample {
            output: TensorStats { len: 2, infs: 2, ..TensorStats::default() },
            delta: None,
        };
        let trace = LayerTrace { input: Some(sample(1.0, 1.0)), layers: vec![broken, broken] };
        let chain = Chain::measure(Step(0), &trace);
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
