//! Remedy: batch norm before or after the activation.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "batch-norm",
    title: "Batch normalisation",
    what: "Each unit is normalised to mean 0 and variance 1 over the batch, before the activation \
           or after it, and then scaled and shifted by two learned numbers.",
    why: "The scale of the signal is reset at every layer, so the weights can drift without the \
          product of gains following.",
    rule: |_| {
        "Proposed where layers have no normalisation, in both places; each is tried separately. In \
         a deep network without skip connections, batch norm itself multiplies gradients (by about \
         1.21 per layer); the trial shows whether it helps."
            .to_owned()
    },
    example: "recipes/exploding-digits.toml explodes at step 111; with batch norm before the \
              activation it is healthy to the end.",
    remedy: "In a recipe: [model.mlp] normalisation = { kind = \"batch\", place = \"before\" }.",
    source: "Ioffe and Szegedy 2015; Yang et al. 2019 for the harm in deep plain networks.",
};

/// Proposes both places where a layer has no normalisation and is not recurrent.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use super::NormPlace::{After, Before};
    use crate::observe::NormalisationKind;
    let layers = &case.layout.layers;
    let missing = layers.iter().any(|layer| layer.normalisation == Some(NormalisationKind::None));
    if !missing || layers.iter().any(|layer| layer.recurrent) {
        return Vec::new();
    }
    let proposal = |place| case.proposal(RemedyName::BatchNorm, Change::BatchNorm { place });
    [Before, After].map(proposal).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, exploded};

    #[test]
    fn both_places() {
        let found = exploded(CauseName::Activation).proposals(propose);
        let labels: Vec<_> = found.iter().map(Proposal::label).collect();
        assert_eq!(labels, ["batch-norm-before", "batch-norm-after"]);
        assert!(found.iter().all(|proposal| proposal.treats_cause));
    }
}
