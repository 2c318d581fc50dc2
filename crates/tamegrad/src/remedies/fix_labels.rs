//! Remedy: labels that are classes of the model.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "fix-labels",
    title: "Make the labels fit the classes",
    what: "Class numbers run from 0 to the number of outputs less 1; targets of a binary \
           cross-entropy lie between 0 and 1.",
    why: "No learning rate and no clipping gives a meaning to a class that does not exist.",
    rule: |_| "Proposed when the labels are the cause.".to_owned(),
    example: "Labels 1 to 10 become 0 to 9; masks of 0 and 255 are divided by 255.",
    remedy: "labels = labels - 1, or one output more in the last layer; ignore_index for what is to \
             be left out.",
    source: "3 of 112 public reports of broken training whose outcome is known.",
};

/// Proposes it for labels that are the cause.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if !case.has_cause(CauseName::Labels) {
        return Vec::new();
    }
    let classes = case.inspection.and_then(|seen| seen.labels).map(|labels| labels.classes);
    let change = Change::FixLabels { classes: classes.filter(|classes| *classes > 0) };
    vec![case.proposal(RemedyName::FixLabels, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::exploded;

    #[test]
    fn for_labels_only() {
        let change = Change::FixLabels { classes: None };
        assert_eq!(exploded(CauseName::Labels).changes(propose), [change]);
        assert_eq!(exploded(CauseName::Data).changes(propose), []);
    }
}
