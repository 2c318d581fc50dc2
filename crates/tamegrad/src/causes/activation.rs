//! Cause: an activation that grows faster than its input (exp, x^2).

use super::{Cause, CauseName};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity};
use crate::origin::Origin;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "activation",
    title: "An activation that grows faster than its input",
    what: "The layer at the origin applies exp, a square or another function whose slope grows \
           with its input.",
    why: "The gain of such a layer is not constant: it grows with the incoming signal. Once inputs \
          drift upward the gain runs away, forward and backward at the same time, and no \
          initialisation prevents it. exp overflows f32 at an input of 88.7.",
    rule: |_| {
        "Supported when the origin is a layer whose activation is known to grow faster than \
         linearly. It ranks above causes that only the numbers support, because such a layer is \
         known to do this."
            .to_owned()
    },
    example: "recipes/exploding-digits.toml, layers.17 (exp): forward gain 6.57 while calm, 1,444 at \
              step 111.",
    remedy: "Replace the activation with a bounded or linear one, normalise before it, or clip the \
             gradient.",
    source: "f32 overflow of exp: IEEE 754. Published failures with exp layers are reproduced in \
             AUTOTRAINER (Zhang 2021).",
};

/// Weighs the origin's activation.
pub(super) fn weigh(run: &Run, origin: Option<&Origin>) -> Option<Cause> {
    let origin = origin?;
    let layer = origin.layer()?;
    run.record.layout.layers.get(layer.0).filter(|layer| layer.is_superlinear())?;
    let mut evidence = origin.evidence.clone();
    let link = run.telling_chain().and_then(|chain| chain.links.get(layer.0).copied());
    let gains = link.into_iter().flat_map(|link| [link.forward, link.backward]).flatten();
    if let Some(largest) = gains.reduce(f64::max) {
        evidence.push(Measure::new(Quantity::LargestGain, largest).at(Place::Layer(layer)));
    }
    Some(Cause::new(CauseName::Activation, 0.95, evidence).of_layer(Some(layer)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed_by, trace};
    use crate::observe::{ActivationKind, LayerId};
    use crate::origin;
    use crate::signs::check::layout;

    #[test]
    fn an_exp_layer_at_the_origin_and_only_there() {
        for (exp_at, kind, found) in [
            (1, ActivationKind::Superlinear, true),
            (1, ActivationKind::Linear, false),
            (2, ActivationKind::Superlinear, false),
        ] {
            let mut layout = layout(3);
            layout.layers[exp_at].activation = Some(("exp".into(), kind));
            let run = alarmed_by(layout, &trace(&[1.0, 40.0, 1.0], &[1.0; 3]));
            let origin = origin::find(&run);
            assert_eq!(origin.as_ref().and_then(Origin::layer), Some(LayerId(1)));
            assert_eq!(weigh(&run, origin.as_ref()).is_some(), found, "{exp_at} {kind:?}");
        }
    }
}
