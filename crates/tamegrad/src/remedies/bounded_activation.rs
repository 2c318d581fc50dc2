//! Remedy: replace an activation that grows faster than linearly.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "bounded-activation",
    title: "Use a bounded or linear activation",
    what: "exp, squares and the like are replaced with relu (linear growth) in the layer at fault, \
           or in every layer that has one.",
    why: "A gain that grows with the signal is itself the cause; without it, nothing is left to \
          hold down.",
    rule: |_| {
        "Proposed when an activation is known to grow faster than linearly: for the one layer that \
         has it, or for all layers that do."
            .to_owned()
    },
    example: "layers.17: exp becomes relu.",
    remedy: "In a recipe: activation = \"relu\" in the layer that has exp.",
    source: "Glorot, Bordes, Bengio 2011, Deep Sparse Rectifier Neural Networks.",
};

/// Proposes relu for the layer at fault, or for all when several have such an activation.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::observe::{ActivationKind, LayerId, LayerInfo};
    let is_superlinear = |layer: &LayerInfo| {
        layer.activation.as_ref().is_some_and(|(_, kind)| *kind == ActivationKind::Superlinear)
    };
    let layers = case.layout.layers.iter().enumerate();
    let layers = layers.filter(|(_, layer)| is_superlinear(layer)).map(|(index, _)| LayerId(index));
    let layer = match &layers.collect::<Vec<_>>()[..] {
        [] => return Vec::new(),
        [only] => Some(*only),
        _ => None,
    };
    let change = Change::Activation { name: "relu".to_owned(), layer };
    vec![case.on_request(RemedyName::BoundedActivation, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::CauseName;
    use crate::observe::{ActivationKind, RunFacts};
    use crate::remedies::check::proposals;

    #[test]
    fn for_superlinear_layers_only() {
        for (depth, kind, layer) in [
            (1, ActivationKind::Superlinear, Some(Some(crate::LayerId(0)))),
            (3, ActivationKind::Superlinear, Some(None)),
            (3, ActivationKind::Linear, None),
        ] {
            let found = proposals(depth, kind, CauseName::Activation, RunFacts::default(), propose);
            let changes: Vec<_> = found.into_iter().map(|p| p.change).collect();
            let expected: Vec<_> =
                layer.into_iter().map(|layer| Change::Activation { name: "relu".to_owned(), layer }).collect();
            assert_eq!(changes, expected);
        }
    }
}
