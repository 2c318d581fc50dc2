//! Remedy: decoupled weight decay.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "weight-decay",
    title: "Weight decay (decoupled)",
    what: "Each step takes away a small part of every weight, independently of the gradient and \
           its moments.",
    why: "Gains are proportional to the weights. Weights that are pulled towards 0 cannot drift \
          until the product of gains explodes. Because the decay is decoupled, the pull is the \
          same whatever Adam divides by.",
    rule: |rules| {
        format!(
            "weight = weight * (1 - learning rate * {}) at each step. Biases and norm scales are \
             left out.",
            rules.remedy.weight_decay,
        )
    },
    example: "Learning rate 0.01: a weight that gets no gradient halves in 693 steps.",
    remedy: "In a recipe: [optimizer.adam] weight_decay = 0.1.",
    source: "Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization.",
};

/// Proposes the usual strength.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    vec![
        case.proposal(
            RemedyName::WeightDecay,
            Change::WeightDecay { rate: RULES.remedy.weight_decay },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::treats_weights_that_drift;

    #[test]
    fn it_treats_weights_that_drift() {
        treats_weights_that_drift(propose, Change::WeightDecay { rate: 0.1 });
    }
}
