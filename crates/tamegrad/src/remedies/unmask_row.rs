//! Remedy: a mask that leaves one entry of each row.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "unmask-row",
    title: "Leave one entry of each row unmasked",
    what: "Rows of a mask that hide everything keep one entry, and their result is thrown away \
           afterwards.",
    why: "The softmax of a row with one finite score is 1 at that score. The result of a row of \
          padding is not used, so its value does not matter as long as it is a number.",
    rule: |_| "Proposed when a row that is masked altogether is the cause.".to_owned(),
    example: "mask[:, :, :, 0] |= ~mask.any(-1): rows without an entry see the first.",
    remedy: "Unmask one entry of empty rows, or fill with torch.finfo(scores.dtype).min in place of \
             -inf.",
    source: "9 of 112 public reports of broken training whose outcome is known.",
};

/// Proposes it for a row that is masked altogether.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if !case.has_cause(CauseName::MaskedRow) {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::UnmaskRow, Change::UnmaskRow { line: case.line() })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::exploded;

    #[test]
    fn for_masked_rows_only() {
        let change = Change::UnmaskRow { line: None };
        assert_eq!(exploded(CauseName::MaskedRow).changes(propose), [change]);
        assert_eq!(exploded(CauseName::Data).changes(propose), []);
    }
}
