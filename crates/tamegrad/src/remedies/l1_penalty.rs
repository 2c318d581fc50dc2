//! Remedy: an L1 penalty in the loss.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "l1-penalty",
    title: "L1 regularisation",
    what: "The loss gets another term: a strength times the sum of the magnitudes of the weights.",
    why: "It pulls every weight towards 0 by the same amount. Many become negligible, so fewer \
          paths multiply.",
    rule: |rules| {
        let strength = rules.remedy.l1;
        format!(
            "loss + {strength} * sum of |w| over the weight matrices. This adds {strength} times the \
             sign of w to the gradient."
        )
    },
    example: "100,000 weights of about 0.1: the loss starts 1.0 higher.",
    remedy: "In a recipe: [regularise] l1 = 0.0001.",
    source: "Tibshirani 1996; Pascanu 2013, section 3.1 (an L1 or L2 penalty on recurrent \
             weights).",
};

/// Proposes the usual strength.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    vec![case.proposal(RemedyName::L1Penalty, Change::L1Penalty { strength: RULES.remedy.l1 })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::treats_weights_that_drift;

    #[test]
    fn it_treats_weights_that_drift() {
        treats_weights_that_drift(propose, Change::L1Penalty { strength: 0.0001 });
    }
}
