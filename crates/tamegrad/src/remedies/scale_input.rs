//! Remedy: standardise the inputs.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "scale-input",
    title: "Scale the inputs",
    what: "Each input feature is shifted to mean 0 and divided by its standard deviation over the \
           training data.",
    why: "The gradient of the first layer is proportional to its inputs, and the curvature to \
          their square: inputs of 100 make the largest stable learning rate 10,000 times smaller.",
    rule: |rules| {
        format!(
            "Proposed when the RMS of the inputs is above {}. Mean and standard deviation come \
             from the training split only. Constant features are left as they are.",
            rules.target.input_rms,
        )
    },
    example: "x = 0..99: standardised to -1.7 .. 1.7.",
    remedy: "In a recipe: [scale] input = \"standard\".",
    source: "LeCun et al. 1998, Efficient BackProp, section 4.3.",
};

/// Proposes it for large inputs.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::evidence::{Measure, Place, Quantity};
    let limit = crate::rules::RULES.target.input_rms;
    let Some(rms) = case.facts.input_rms.filter(|rms| *rms > limit) else { return Vec::new() };
    let proposal = case.proposal(RemedyName::ScaleInput, Change::ScaleInput);
    let evidence = vec![Measure::new(Quantity::DataRms, rms).at(Place::Data)];
    vec![Proposal { evidence, ..proposal }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, Exploded, RunFacts, exploded};

    #[test]
    fn for_large_inputs_only() {
        for (input_rms, count) in [(Some(57.0), 1), (Some(1.0), 0), (None, 0)] {
            let facts = RunFacts { input_rms, ..RunFacts::default() };
            let found = Exploded { facts, ..exploded(CauseName::Data) }.proposals(propose);
            assert_eq!(found.len(), count, "{input_rms:?}");
        }
    }
}
