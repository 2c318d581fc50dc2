//! Remedy: lower the learning rate.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "lower-learning-rate",
    title: "Lower the learning rate",
    what: "Every step becomes shorter by the same factor.",
    why: "In a valley of curvature c, gradient descent diverges above a rate of 2/c. Below it, no \
          layer and no batch can make a single step diverge through curvature alone.",
    rule: |_| {
        "To a tenth when the learning rate is the cause or no cause was found; otherwise, and for \
         logs, to 0.3 of its value. It costs training time: the run needs correspondingly more \
         steps."
            .to_owned()
    },
    example: "A rate of 0.1 becomes 0.01.",
    remedy: "In a recipe: [optimizer.sgd] learning_rate = 0.01.",
    source: "LeCun, Simard, Pearlmutter 1993; Cohen 2021.",
};

/// Proposes a cut of the rate.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::causes::CauseName::LearningRate;
    let is_cause = case.first_cause().is_none_or(|cause| cause == LearningRate);
    let factor = if is_cause && !case.is_log { 0.1 } else { 0.3 };
    let change = Change::LearningRate { factor, from: case.learning_rate };
    vec![case.proposal(RemedyName::LowerLearningRate, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, exploded};

    #[test]
    fn harder_when_the_rate_is_the_cause() {
        for (cause, factor) in [(CauseName::LearningRate, 0.1), (CauseName::Activation, 0.3)] {
            let found = exploded(cause).changes(propose);
            assert_eq!(found, [Change::LearningRate { factor, from: Some(0.1) }]);
        }
    }
}
