//! Cause: initial weights whose gains multiply far from 1.

use super::{Cause, CauseName};
use crate::chain::{Link, StandsOut, stands_out};
use crate::explain::Doc;
use crate::finding::Evidence;
use crate::observe::{ActivationKind, NormalisationKind};
use crate::origin::Origin;
use crate::record::Record;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "initialisation",
    title: "Initial weights too large",
    what: "Before the first update the layers' gains already multiply to a large number, because \
           all weights, or one layer's, were drawn with too large a spread.",
    why: "Fifty layers of gain 2 multiply to 1e15. All values are still finite, so checks for NaN \
          see nothing, yet every gradient is scaled by that product.",
    rule: "From the probes of the first pass, recurrent steps left out: the product of the \
           forward or of the backward gains is above 1,000; or one layer's gain is above 2 and 4 \
           times the median of the others. The first and the last layer change the width by \
           design, layers of exp have a gain that is not the weights', and normalisation takes \
           the weights' scale away again; they are left out.",
    example: "30 layers with 2 times the He spread: product of gains 1e9. One layer at 10 times: \
              its gain 10.1, the others 0.9 to 1.1.",
    remedy: "Draw the weights anew by He's rule (ReLU) or orthogonally (tanh, linear).",
    source: "Glorot and Bengio 2010; He et al. 2015, Delving Deep into Rectifiers, equation 10.",
};

const PRODUCT_MAX: f64 = 1e3;

/// Weighs the chain of the first pass.
pub(super) fn weigh(record: &Record, origin: Option<&Origin>) -> Option<Cause> {
    let chain = record.first_chain().filter(|chain| chain.step.0 == 0)?;
    let links: Vec<&Link> = chain
        .links
        .iter()
        .filter(|link| {
            let layer = record.layout.layers.get(link.layer.0);
            layer.is_some_and(|layer| {
                !layer.recurrent && !is_superlinear(layer) && !is_rescaled(layer)
            })
        })
        .collect();
    if let Some(StandsOut { layer, gain, usual, is_forward }) = stands_out(&links) {
        let side = if is_forward { "forward" } else { "backward" };
        let is_origin = origin.is_some_and(|origin| origin.layer == Some(layer));
        let name = record.layout.layer_name(layer);
        let what = format!("{side} gain of {name} at the first step");
        return Some(Cause {
            name: CauseName::Initialisation,
            weight: if is_origin { 0.9 } else { 0.6 },
            layer: Some(layer),
            evidence: vec![Evidence::against(what, gain, "median of the layers", usual)],
        });
    }
    let products = [
        ("forward", crate::chain::product(links.iter().filter_map(|link| link.forward))),
        ("backward", crate::chain::product(links.iter().filter_map(|link| link.backward))),
    ];
    let (side, product) = products.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (product > PRODUCT_MAX).then(|| Cause {
        name: CauseName::Initialisation,
        weight: 0.85,
        layer: None,
        evidence: vec![Evidence::against(
            format!("product of the {side} gains of {} layers at the first step", links.len()),
            product,
            "allowed",
            PRODUCT_MAX,
        )],
    })
}

fn is_superlinear(layer: &crate::observe::LayerInfo) -> bool {
    layer.activation.as_ref().is_some_and(|(_, kind)| *kind == ActivationKind::Superlinear)
}

/// Whether normalisation takes the scale of the layer's weights away again, so that its gain is not
/// that of the weights.
fn is_rescaled(layer: &crate::observe::LayerInfo) -> bool {
    let normalised = layer.normalisation.is_some_and(|kind| kind != NormalisationKind::None);
    normalised && layer.residual == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed, trace};
    use crate::observe::{LayerId, Observation, RunFacts};
    use crate::signs::check::layout;

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
            let trace = trace(&forward, &[1.0; 12]);
            let record = alarmed(layout(12), RunFacts::default(), 2, |step| Observation {
                trace: (step == 0).then_some(&trace),
                ..Observation::default()
            });
            assert_eq!(weigh(&record, None).map(|cause| cause.layer), found, "{name}");
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
            let trace = trace(&[1.0; 30], &[1.5; 30]);
            let record = alarmed(layout, RunFacts::default(), 2, |step| Observation {
                trace: (step == 0).then_some(&trace),
                ..Observation::default()
            });
            assert_eq!(weigh(&record, None).is_some(), found, "{kind:?}");
        }
    }
}
