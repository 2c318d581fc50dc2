//! Remedy: the mean of the gradients of a step, and of this step alone.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "normalise-accumulation",
    title: "Average the gradients of each step",
    what: "Gradients are cleared before each step, and those of its micro-batches and tokens are \
           averaged.",
    why: "The gradient then has the same size however many samples it is made of, which is what \
          learning rates are made for.",
    rule: |_| "Proposed when a gradient that is a sum is the cause.".to_owned(),
    example: "A loop without zero_grad: one line per step.",
    remedy: "optimizer.zero_grad() after each step; loss / micro_batches; the sum of the token losses \
             divided by the number of tokens of the whole step.",
    source: "Han and Han 2024, Bug Fixes in LLM Training: Gradient Accumulation (unsloth).",
};

/// Proposes it for a gradient that is a sum.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if !case.has_cause(CauseName::Accumulation) {
        return Vec::new();
    }
    let is_summed = case.inspection.and_then(|seen| seen.labels).is_some_and(|of| of.is_summed);
    let change = if is_summed { Change::MeanLoss } else { Change::ClearGradients };
    vec![case.proposal(RemedyName::NormaliseAccumulation, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::labels;
    use crate::inspection::{Inspection, Labels};
    use crate::remedies::check::{Exploded, exploded};

    #[test]
    fn by_what_is_summed() {
        for (is_summed, change) in [(true, Change::MeanLoss), (false, Change::ClearGradients)] {
            let labels = Some(Labels { is_summed, ..labels(64) });
            let inspection = Some(Inspection { labels, ..Inspection::default() });
            let given = Exploded { inspection, ..exploded(CauseName::Accumulation) };
            assert_eq!(given.changes(propose), [change]);
        }
        assert_eq!(exploded(CauseName::Data).changes(propose), []);
    }
}
