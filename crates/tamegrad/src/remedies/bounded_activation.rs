//! Remedy: replace an activation that grows faster than linearly.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;
use crate::evidence::Quantity;
use crate::observe::LayerId;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "bounded-activation",
    title: "Use a bounded or linear activation",
    what: "exp, squares and the like are replaced with relu (linear growth) in the layer at fault, \
           or in every layer that has one.",
    why: "A gain that grows with the signal is itself the cause; without it, nothing is left to \
          hold down.",
    rule: |_| {
        "Proposed when an activation is known to grow faster than linearly, or was found to be the \
         cause: for the one layer that has it, or for all layers that do."
            .to_owned()
    },
    example: "layers.17: exp becomes relu.",
    remedy: "In a recipe: activation = \"relu\" in the layer that has exp.",
    source: "Glorot, Bordes, Bengio 2011, Deep Sparse Rectifier Neural Networks.",
};

/// Proposes relu for the layer at fault, or for all when several have such an activation.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    let layer = match &layers(case)[..] {
        [] => return Vec::new(),
        [only] => Some(case.layout.layer_name(*only).to_owned()),
        _ => None,
    };
    let change = Change::Activation { name: "relu".to_owned(), layer };
    vec![case.proposal(RemedyName::BoundedActivation, change)]
}

/// The layers that are known to have such an activation, or else those that the cause found.
fn layers(case: &Case<'_>) -> Vec<LayerId> {
    let known = case.layout.layers.iter().enumerate();
    let known = known.filter(|(_, layer)| layer.is_superlinear()).map(|(id, _)| LayerId(id));
    let cause = case.causes.first().filter(|cause| cause.name == CauseName::Activation);
    let evidence = cause.into_iter().flat_map(|cause| &cause.evidence);
    let found = evidence
        .filter(|measure| measure.quantity == Quantity::LossElasticity)
        .filter_map(|measure| case.layout.layer_of(measure.place.tensor()?));
    let known: Vec<LayerId> = known.collect();
    if known.is_empty() { found.collect() } else { known }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{ActivationKind, CauseName, Exploded, exploded};

    #[test]
    fn for_superlinear_layers_only() {
        let relu = |layer| vec![Change::Activation { name: "relu".to_owned(), layer }];
        for (layers, activation, changes) in [
            (1, ActivationKind::Superlinear, relu(Some("layers.0".to_owned()))),
            (3, ActivationKind::Superlinear, relu(None)),
            (3, ActivationKind::Linear, vec![]),
        ] {
            let given = Exploded { layers, activation, ..exploded(CauseName::Activation) };
            assert_eq!(given.changes(propose), changes);
        }
    }
}
