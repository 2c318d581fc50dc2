//! Remedy: clip each element.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "clip-value",
    title: "Clip the gradient by value",
    what: "Each element of the gradient is clamped to an interval.",
    why: "It bounds every element on its own, without a norm, so one layer cannot take the others \
          down. It changes the direction: large elements are cut, small ones stay.",
    rule: |rules| {
        format!(
            "element = clamp(element, -limit, limit). The proposed limit is {} times the largest \
             usual RMS of a tensor's gradient at the first alarm, or {} where that is not known. \
             Non-finite steps are skipped first, because Inf would become the limit and be hidden.",
            rules.remedy.clip_value, rules.remedy.clip_value_unknown,
        )
    },
    example: "limit 0.01: elements 0.004, -0.3, 20 become 0.004, -0.01, 0.01.",
    remedy: "In a recipe: [clip] by = \"value\", limit = 0.01. In PyTorch: \
             torch.nn.utils.clip_grad_value_.",
    source: "Mikolov 2012, Statistical Language Models Based on Neural Networks, section 3.2.2.",
};

/// Proposes a limit from the calm gradients' RMS.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    let rule = RULES.remedy;
    let limit = case
        .usual_rms
        .filter(|rms| *rms > 0.0)
        .map_or(rule.clip_value_unknown, |rms| rule.clip_value * rms);
    let change = Change::ClipValue { limit: super::two_digits(limit) };
    vec![case.proposal(RemedyName::ClipValue, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, exploded};

    #[test]
    fn without_known_tensors_the_limit_is_a_tenth() {
        let found = exploded(CauseName::Recurrence).changes(propose);
        assert_eq!(found, [Change::ClipValue { limit: 0.1 }]);
    }
}
