//! Remedy: a loss of 0 where there is nothing to average over.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "drop-empty-batch",
    title: "Guard the average against an empty set",
    what: "The sum is divided by at least 1, or a batch with nothing to average over is left out.",
    why: "0 / 1 is 0, and so is its gradient: such a batch then teaches nothing and breaks nothing.",
    rule: |_| "Proposed when an average over nothing is the cause.".to_owned(),
    example: "loss.sum() / mask.sum() becomes loss.sum() / mask.sum().clamp(min=1).",
    remedy: "Divide by count.clamp(min=1); for cross_entropy with ignore_index, use reduction=\"sum\" \
             and divide yourself.",
    source: "Among the 36 guards in code that cured 112 public reports of broken training.",
};

/// Proposes it for an average over nothing.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if !case.has_cause(CauseName::EmptySet) {
        return Vec::new();
    }
    let change = Change::GuardAverage { line: case.line() };
    vec![case.proposal(RemedyName::DropEmptyBatch, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::exploded;

    #[test]
    fn for_empty_sets_only() {
        let change = Change::GuardAverage { line: None };
        assert_eq!(exploded(CauseName::EmptySet).changes(propose), [change]);
        assert_eq!(exploded(CauseName::Data).changes(propose), []);
    }
}
