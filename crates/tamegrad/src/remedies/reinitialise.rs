//! Remedy: draw the weights anew by a rule that fits the activation.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "reinitialise",
    title: "Re-initialise the weights",
    what: "The weights are drawn with the scheme that lets a layer with this activation pass its \
           signal on at the same scale: He for relu and its kin, Xavier for tanh and sigmoid, \
           orthogonal for any.",
    why: "Every layer starts with a gain of 1, so their product does too, whatever the depth.",
    rule: |_| {
        "He: variance 2 / inputs. Xavier: variance 2 / (inputs + outputs). Orthogonal: a random \
         rotation times sqrt(2) for relu, 1 otherwise. If one layer stands out, only that layer is \
         redrawn."
            .to_owned()
    },
    example: "Normal weights with a spread of 0.25 and 256 inputs have a gain of 2.8; He draws \
              with a spread of 0.088, for a gain of 1.",
    remedy: "In a recipe: [model.mlp] init.he.gain = 1.0.",
    source: "He et al. 2015, equation 10; Glorot and Bengio 2010, equation 16; Saxe et al. 2013.",
};

/// Proposes the rules that fit the activation, for the layer at fault or for all.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use super::Scheme::{He, Orthogonal, Xavier};
    use crate::causes::CauseName::Initialisation;
    use crate::observe::ActivationKind;
    let fitting = match case.activation() {
        Some(ActivationKind::Bounded) => Xavier,
        _ => He,
    };
    let recurrent = case.layout.layers.iter().any(|layer| layer.recurrent);
    let layer = case.layer().filter(|_| case.first_cause() == Some(Initialisation) && !recurrent);
    let proposal = |scheme| {
        let layer = layer.map(|layer| case.layout.layer_name(layer).to_owned());
        case.proposal(RemedyName::Reinitialise, Change::Reinitialise { scheme, layer })
    };
    [fitting, Orthogonal].map(proposal).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::Scheme;
    use crate::remedies::check::{ActivationKind, CauseName, Exploded, exploded};

    #[test]
    fn the_rule_that_fits_and_the_layer_at_fault() {
        use {ActivationKind as Kind, CauseName as Name};
        for (activation, cause, scheme, layer) in [
            (Kind::Linear, Name::Initialisation, Scheme::He, Some("layers.1".to_owned())),
            (Kind::Bounded, Name::LearningRate, Scheme::Xavier, None),
        ] {
            let expected = [scheme, Scheme::Orthogonal]
                .map(|scheme| Change::Reinitialise { scheme, layer: layer.clone() });
            let given = Exploded { activation, ..exploded(cause) };
            assert_eq!(given.changes(propose), expected);
        }
    }
}
