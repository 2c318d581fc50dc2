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
          their square: inputs of 100 make a stable learning rate 10,000 times smaller.",
    rule: "Proposed when the RMS of the inputs is above 3. Mean and deviation come from the \
           training part only; constant features are left as they are.",
    example: "x = 0..99: standardised to -1.7 .. 1.7.",
    remedy: "In a recipe: [data] scale_input = \"standard\".",
    source: "LeCun et al. 1998, Efficient BackProp, section 4.3.",
};

/// Proposes it for large inputs.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::causes::CauseName::{Data, LearningRate, UnscaledTarget};
    let Some(rms) = case.record.input_rms().filter(|rms| *rms > 3.0) else { return Vec::new() };
    let why =
        format!("the inputs' RMS is {}; curvature grows with its square", super::two_digits(rms));
    vec![case.on_request(
        RemedyName::ScaleInput,
        Change::ScaleInput,
        &[Data, LearningRate, UnscaledTarget],
        why,
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::CauseName;
    use crate::observe::{ActivationKind, RunFacts};
    use crate::remedies::check::proposals;

    #[test]
    fn for_large_inputs_only() {
        for (input_rms, count) in [(Some(57.0), 1), (Some(1.0), 0), (None, 0)] {
            let facts = RunFacts { input_rms, ..RunFacts::default() };
            let found = proposals(3, ActivationKind::Linear, CauseName::Data, facts, propose);
            assert_eq!(found.len(), count, "{input_rms:?}");
        }
    }
}
