//! Cause: initial weights whose gains multiply far from 1.

use super::{Cause, CauseName, Ground};
use crate::chain::{Chain, Link, stands_out};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::observe::{LayerInfo, NormalisationKind, TensorId};
use crate::origin::{Origin, broken_parameter, stands_out_measure};
use crate::rules::RULES;
use crate::run::Run;

/// Matrices that are shown as evidence.
const SHOWN_MAX: usize = 3;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "initialisation",
    title: "Initial weights too large or not finite",
    what: "Before the first update the layers' gains already multiply to a large number, because \
           all weights, or those of one layer, were drawn with too large a spread. Or a weight is \
           NaN from the start: memory that was never filled (torch.empty), or a damaged checkpoint.",
    why: "Fifty layers with a gain of 2 multiply to 1e15. All values are still finite, so checks \
          for NaN see nothing, yet every gradient is scaled by that product.",
    rule: |rules| {
        let rule = rules.initialisation;
        format!(
            "Supported when a parameter is NaN or Inf before the first update. Else judged from the probes of the first pass, without recurrent steps. Supported when the \
             product of the forward gains, or of the backward gains, is above {}; or when one \
             layer's gain is above {} and above {} times the median of the others. The \
             first and the last layer do not count as that one layer, because they change the \
             width by design. Layers with exp, whose gain does not come from the weights, and \
             normalised layers are left out altogether. If some layers only normalise, the product \
             that includes their gains must be above {} as well. In a network that branches, the \
             growth from its input to its output takes the place of the product, unless something \
             in it normalises, is recurrent or grows faster than its input. Without probes: \
             supported when the run explodes within its first {} steps and the RMS of a weight \
             matrix times the square root of its fan-in is above {}.",
            rule.product,
            rules.origin.gain_high,
            rules.origin.stands_out,
            rule.product,
            rule.steps,
            rule.weight_gain,
        )
    },
    example: "30 layers with 2 times the He spread: product of gains 1e9. One layer at 10 times: \
              its gain 10.1, the others 0.9 to 1.1.",
    remedy: "Redraw the weights with He's scheme (ReLU) or orthogonally (tanh, linear); load a \
             checkpoint that is whole.",
    source: "Glorot and Bengio 2010; He et al. 2015, Delving Deep into Rectifiers, equation 10.",
};

/// Weighs the chain of the first pass, or without probes the weights before the first update.
pub(super) fn weigh(run: &Run, origin: Option<&Origin>) -> Option<Cause> {
    if let Some((tensor, count)) = broken_parameter(run).filter(|_| broke_in_first_step(run)) {
        let place = Place::Tensor(tensor);
        let count = Measure::new(Quantity::NonFiniteElements, count as f64).at(place);
        let cause = Cause::new(CauseName::Initialisation, Ground::BrokenWeights, vec![count]);
        return Some(cause.of_layer(run.record.layout.layer_of(tensor)));
    }
    let record = &run.record;
    let chain = record.first_chain().filter(|chain| chain.step.0 == 0);
    let Some(chain) = chain else { return by_size(run) };
    let links: Vec<&Link> = chain
        .links
        .iter()
        .filter(|link| {
            let layer = record.layout.layers.get(link.layer.0);
            layer.is_some_and(|layer| {
                let is_of_weights = !layer.is_superlinear() && !is_rescaled(layer);
                !layer.recurrent && !layer.only_normalises && is_of_weights
            })
        })
        .collect();
    if let Some(found) = stands_out(&links) {
        let is_origin = origin.is_some_and(|origin| origin.layer() == Some(found.layer));
        let ground = if is_origin { Ground::StrayLayer } else { Ground::StrayElsewhere };
        let evidence = vec![stands_out_measure(&found)];
        let cause = Cause::new(CauseName::Initialisation, ground, evidence);
        return Some(cause.of_layer(Some(found.layer)));
    }
    let branches = chain.ends.is_some();
    let [forward, backward] = if branches {
        [Quantity::ForwardGrowth, Quantity::BackwardGrowth]
    } else {
        [Quantity::ForwardProduct, Quantity::BackwardProduct]
    };
    let growths = [
        (forward, growth(&chain, &links, |link| link.forward, chain.forward_product())),
        (backward, growth(&chain, &links, |link| link.backward, chain.backward_product())),
    ];
    let (quantity, growth) = growths.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let limit = RULES.initialisation.product;
    let measure = Measure::new(quantity, growth)
        .at_step(chain.step)
        .over(links.len() as u64)
        .against(Reference::Limit, limit);
    (growth > limit)
        .then(|| Cause::new(CauseName::Initialisation, Ground::FirstGains, vec![measure]))
}

fn broke_in_first_step(run: &Run) -> bool {
    run.record.first_nonfinite.is_some_and(|(step, _)| step.0 == 0)
}

/// By matrices that are far larger than any usual initialisation makes them, when the run explodes in its
/// first steps.
fn by_size(run: &Run) -> Option<Cause> {
    let (record, rule) = (&run.record, RULES.initialisation);
    let is_early = run.first_alarm()?.step.0 < rule.steps;
    let is_table = |id| {
        let layer = record.layout.layer_of(id).and_then(|layer| record.layout.layers.get(layer.0));
        layer.is_some_and(|layer| layer.is_table)
    };
    let gains = record.first_weight_gains.iter().enumerate();
    let gains = gains.filter_map(|(id, gain)| Some((TensorId(id), (*gain)?)));
    let mut large: Vec<(TensorId, f64)> =
        gains.filter(|(id, gain)| *gain > rule.weight_gain && !is_table(*id)).collect();
    large.sort_by(|a, b| b.1.total_cmp(&a.1));
    let measure = |(id, gain): &(TensorId, f64)| {
        let measure = Measure::new(Quantity::WeightGain, *gain).at(Place::Tensor(*id));
        measure.against(Reference::Limit, rule.weight_gain)
    };
    let evidence: Vec<Measure> = large.iter().take(SHOWN_MAX).map(measure).collect();
    let only = large.first().filter(|_| large.len() == 1);
    let layer = only.and_then(|(id, _)| record.layout.layer_of(*id));
    let cause = Cause::new(CauseName::Initialisation, Ground::WeightSize, evidence).of_layer(layer);
    (is_early && !large.is_empty()).then_some(cause)
}

/// What the weights of these layers make of what passes from end to end; 1 where that cannot be told
/// from what the other layers do. `ends` is what all layers together make of it.
fn growth(chain: &Chain, weights: &[&Link], gain: impl Fn(&Link) -> Option<f64>, ends: f64) -> f64 {
    let normalises = chain.links.iter().any(|link| link.only_normalises);
    let product = || crate::chain::product(weights.iter().copied().filter_map(&gain));
    match (chain.ends, normalises) {
        (Some(_), false) if weights.len() == chain.links.len() => ends,
        (Some(_), _) => 1.0,
        (None, false) => product(),
        // A scale that normalisation takes away again is no growth of what passes, and the scale
        // that it sets is none of the weights.
        (None, true) => product().min(ends),
    }
}

/// Whether normalisation takes the scale of the layer's weights away again, so that its gain is not
/// that of the weights.
fn is_rescaled(layer: &LayerInfo) -> bool {
    let normalised = layer.normalisation.is_some_and(|kind| kind != NormalisationKind::None);
    normalised && layer.residual == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed, alarmed_by, trace};
    use crate::observe::{LayerId, Observation, RunFacts};
    use crate::signs::check::layout;

    #[test]
    fn without_probes_the_size_of_the_weights_tells() {
        for (steps, sizes, is_table, found) in [
            (1, [0.6, 0.6, 0.6], false, None),
            (1, [18.0, 17.0, 19.0], false, Some(None)),
            (1, [0.6, 18.0, 0.6], false, Some(Some(LayerId(1)))),
            (1, [18.0, 0.6, 0.6], true, None),
            (50, [18.0, 17.0, 19.0], false, None),
        ] {
            let mut layout = layout(3);
            layout.layers[0].is_table = is_table;
            let mut run = alarmed(layout, RunFacts::default(), steps, |_| Observation::default());
            run.record.first_weight_gains = sizes.map(Some).to_vec();
            let layer = weigh(&run, None).map(|cause| cause.layer);
            assert_eq!(layer, found, "{steps} {sizes:?}");
        }
    }

    #[test]
    fn the_product_or_one_layer() {
        let mut one = vec![1.0; 12];
        one[7] = 10.0;
        for (name, forward, found) in [
            ("all twice", vec![2.0; 12], Some(None)),
            ("one at 10 times", one, Some(Some(LayerId(7)))),
            ("as it should be", vec![1.05; 12], None),
            ("the first layer widens", [vec![3.0], vec![1.0; 11]].concat(), None),
        ] {
            let run = alarmed_by(layout(12), &trace(&forward, &[1.0; 12]));
            assert_eq!(weigh(&run, None).map(|cause| cause.layer), found, "{name}");
        }
    }

    #[test]
    fn gains_of_normalised_layers_are_not_those_of_their_weights() {
        for (kind, found) in [(NormalisationKind::None, true), (NormalisationKind::Batch, false)] {
            let mut layout = layout(30);
            for layer in &mut layout.layers {
                layer.normalisation = Some(kind);
                layer.residual = Some(false);
            }
            let run = alarmed_by(layout, &trace(&[1.0; 30], &[1.5; 30]));
            assert_eq!(weigh(&run, None).is_some(), found, "{kind:?}");
        }
    }

    /// A record of a network of 12 layers that alarms early, with this pass at the start.
    fn found(layout: crate::Layout, pass: &crate::observe::LayerTrace) -> Option<Quantity> {
        weigh(&alarmed_by(layout, pass), None).map(|cause| cause.evidence[0].quantity)
    }

    #[test]
    fn a_normalisation_brings_any_input_to_its_size() {
        // Each linear layer shrinks the signal by 3, or widens it, and is normalised again.
        for (gain, normalises, is_found) in
            [(0.3, true, false), (3.0, true, false), (3.0, false, true)]
        {
            let mut layout = layout(20);
            let gains: Vec<f64> = (0..20).map(|i| [gain, 1.0 / gain][i % 2]).collect();
            if normalises {
                for info in layout.layers.iter_mut().skip(1).step_by(2) {
                    info.normalisation = Some(NormalisationKind::Layer);
                    info.only_normalises = true;
                }
            }
            let gains = if normalises { gains } else { vec![gain; 20] };
            let told = found(layout, &trace(&gains, &[1.0; 20]));
            assert_eq!(told.is_some(), is_found, "{gain} {normalises}: {told:?}");
        }
    }

    #[test]
    fn in_a_network_that_branches_the_growth_from_end_to_end_counts() {
        for (last, normalises, told) in
            [(1.0, false, None), (5e3, false, Some(Quantity::ForwardGrowth)), (5e3, true, None)]
        {
            let mut layout = layout(12);
            layout.layers[3].only_normalises = normalises;
            // Gains of 2 in branches multiply to 4,096, which nothing passes through.
            let mut pass = trace(&[1.0; 12], &[1.0; 12]);
            for layer in &mut pass.layers {
                layer.output = crate::signs::check::stats(2.0);
                layer.input = Some(crate::signs::check::stats(1.0));
            }
            pass.layers[11].output = crate::signs::check::stats(last);
            assert_eq!(found(layout, &pass), told, "{last} {normalises}");
        }
    }
}
