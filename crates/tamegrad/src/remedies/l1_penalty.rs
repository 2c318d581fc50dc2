//! Remedy: an L1 penalty in the loss.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "l1-penalty",
    title: "L1 regularisation",
    what: "The loss gets another term: a strength times the sum of the magnitudes of the weights.",
    why: "It pulls every weight towards 0 by the same amount. Many become negligible, so fewer \
          paths multiply.",
    rule: |_| {
        "loss + 0.0001 * sum of |w| over the weight matrices. This adds 0.0001 times the sign of w \
         to the gradient."
            .to_owned()
    },
    example: "100,000 weights of about 0.1: the loss starts 1.0 higher.",
    remedy: "In a recipe: [regularise] l1 = 0.0001.",
    source: "Tibshirani 1996; Pascanu 2013, section 3.1 (an L1 or L2 penalty on recurrent \
             weights).",
};

/// Proposes the usual strength.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    vec![case.on_request(RemedyName::L1Penalty, Change::L1Penalty { strength: 0.0001 })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::CauseName;
    use crate::observe::{ActivationKind, RunFacts};
    use crate::remedies::check::proposals;

    #[test]
    fn treats_weights_that_drift() {
        for (cause, treats) in [(CauseName::Normalisation, true), (CauseName::Data, false)] {
            let found = proposals(3, ActivationKind::Linear, cause, RunFacts::default(), propose);
            let [only] = &found[..] else { panic!("{found:?}") };
            let change = Change::L1Penalty { strength: 0.0001 };
            assert_eq!((&only.change, only.treats_cause), (&change, treats));
        }
    }
}
