//! Remedy: more samples in a batch, where an average runs over too few.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "larger-batch",
    title: "Use larger batches",
    what: "Batches are made large enough for every average in the loss to run over several values; \
           the last, incomplete batch of an epoch is dropped.",
    why: "A standard deviation of one value is NaN, and a batch of two is often without any positive \
          sample.",
    rule: |_| "Proposed when an average over nothing is the cause.".to_owned(),
    example: "1,025 samples in batches of 64: the last batch has one, whose advantage has no standard \
              deviation.",
    remedy: "DataLoader(..., drop_last=True), or a larger batch_size.",
    source: "The cure in 2 of 112 public reports, such as DLR-RM/stable-baselines3#440.",
};

/// Proposes it for an average over nothing.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if !case.has_cause(CauseName::EmptySet) {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::LargerBatch, Change::DropLastBatch)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::exploded;

    #[test]
    fn for_empty_sets_only() {
        assert_eq!(exploded(CauseName::EmptySet).changes(propose), [Change::DropLastBatch]);
        assert_eq!(exploded(CauseName::Data).changes(propose), []);
    }
}
