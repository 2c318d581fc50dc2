//! Remedy: an L2 penalty in the loss.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "l2-penalty",
    title: "L2 regularisation",
    what: "The loss gets another term: a strength times the sum of the squared weights.",
    why: "Large weights make large gains. The penalty pulls each weight back in proportion to its \
          size. It acts through the gradient, so clipping and momentum see it as well.",
    rule: |rules| {
        let strength = rules.remedy.l2;
        format!(
            "loss + {strength} * sum of w^2 over the weight matrices. This adds {} w to the gradient.",
            2.0 * strength,
        )
    },
    example: "Weights of 30 layers with a sum of squares of 3,800: the loss starts 3.8 higher.",
    remedy: "In a recipe: [regularise] l2 = 0.001.",
    source: "Krogh and Hertz 1992, A Simple Weight Decay Can Improve Generalization; Pascanu 2013 \
             section 3 for recurrent weights.",
};

/// Proposes the usual strength.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    vec![case.proposal(RemedyName::L2Penalty, Change::L2Penalty { strength: RULES.remedy.l2 })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::treats_weights_that_drift;

    #[test]
    fn it_treats_weights_that_drift() {
        treats_weights_that_drift(propose, Change::L2Penalty { strength: 0.001 });
    }
}
