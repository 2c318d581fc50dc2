//! Remedy: fewer layers.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "fewer-layers",
    title: "Simplify the network: fewer layers",
    what: "The network keeps half of its hidden layers.",
    why: "The gradient is a product with one factor per layer: with half the layers, the same gain \
          of 2 multiplies to 3e4 instead of 1e9.",
    rule: |_| {
        "Half the hidden layers, at least 1. This is the most forceful remedy: it trains another \
         network, which may be less capable."
            .to_owned()
    },
    example: "30 layers become 15.",
    remedy: "In a recipe: [model.mlp] depth = 15.",
    source: "Bengio, Simard, Frasconi 1994 for the product over depth.",
};

/// Proposes half the hidden layers of a network that is not recurrent.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    let layers = &case.layout.layers;
    // The last layer is the output, which stays.
    let hidden = layers.len().saturating_sub(1) as u64;
    if hidden < 2 || layers.iter().any(|layer| layer.recurrent) {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::FewerLayers, Change::Depth { layers: hidden / 2 })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, Exploded, exploded};

    #[test]
    fn half_of_the_hidden_layers() {
        for (layers, changes) in [(31, vec![Change::Depth { layers: 15 }]), (2, vec![])] {
            let given = Exploded { layers, ..exploded(CauseName::Initialisation) };
            assert_eq!(given.changes(propose), changes, "{layers}");
        }
    }
}
