//! Remedy: standardise the regression targets.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "scale-target",
    title: "Scale the targets",
    what: "The mean of the training targets is subtracted, and the result is divided by their \
           standard deviation. Undo both to use a prediction.",
    why: "A new network gives outputs of about 1. With targets of that size the first gradients \
          are about 1 as well, which is what initialisations and usual learning rates are made \
          for.",
    rule: |rules| {
        format!(
            "Proposed for regression when the RMS of the targets is above {}. Mean and standard \
             deviation come from the training split only.",
            rules.target.rms,
        )
    },
    example: "y = x^4 up to 10,000: standardised to -0.7 .. 2.9; the first loss is 1 instead of \
              1e7.",
    remedy: "In a recipe: [scale] target = \"standard\".",
    source: "LeCun et al. 1998, Efficient BackProp, section 4.3.",
};

/// Proposes it for large targets.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::causes::CauseName::{Initialisation, SpikeThenDead, UnscaledTarget};
    use crate::evidence::{Measure, Place, Quantity};
    let proposal = case.proposal(RemedyName::ScaleTarget, Change::ScaleTarget);
    if case.is_log {
        // A log does not show the targets: what it shows may come from them.
        let may_be = [Some(Initialisation), Some(SpikeThenDead)].contains(&case.first_cause());
        return if may_be { vec![proposal] } else { Vec::new() };
    }
    let limit = crate::rules::RULES.target.rms;
    let Some(rms) = case.facts.target_rms.filter(|rms| *rms > limit) else {
        let is_cause = case.first_cause() == Some(UnscaledTarget);
        return if is_cause && case.facts.target_rms.is_none() {
            vec![proposal]
        } else {
            Vec::new()
        };
    };
    let evidence = vec![Measure::new(Quantity::DataRms, rms).at(Place::Targets)];
    vec![Proposal { evidence, ..proposal }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, Exploded, RunFacts, exploded};

    #[test]
    fn for_targets_that_are_large_or_found_to_be() {
        for (target_rms, count) in [(Some(1000.0), 1), (Some(1.0), 0), (None, 1)] {
            let facts = RunFacts { target_rms, ..RunFacts::default() };
            let given = Exploded { facts, ..exploded(CauseName::UnscaledTarget) };
            assert_eq!(given.proposals(propose).len(), count, "{target_rms:?}");
        }
    }
}
