//! Remedy: leave rows out of the data, or repair them.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "filter-rows",
    title: "Filter or repair rows of the data",
    what: "The rows of the batch that are not finite, or unlike all others, are repaired at their \
           source or left out.",
    why: "A bad row comes back in every epoch. Skipping its step leaves out the other rows of its \
          batch as well, and clipping lets it pull the weights a little each time.",
    rule: |_| {
        "Proposed when the data is the cause. The numbers of the rows are given where they are known."
            .to_owned()
    },
    example: "Rows 3 and 17 of input `x` are NaN: drop them when the data set is built.",
    remedy: "x, y = x[ok], y[ok] with ok = torch.isfinite(x).flatten(1).all(1).",
    source: "The cure in 19 of 112 public reports of broken training whose outcome is known.",
};

/// Proposes it for data that is the cause.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if case.is_log || !case.has_cause(CauseName::Data) {
        return Vec::new();
    }
    let broken = case.inspection.and_then(|seen| seen.rows.first());
    let change = Change::FilterRows {
        input: broken.and_then(|broken| broken.input.clone()),
        rows: broken.map(|broken| broken.rows.clone()).unwrap_or_default(),
    };
    vec![case.proposal(RemedyName::FilterRows, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::{BrokenRows, Inspection};
    use crate::remedies::check::{Exploded, exploded};

    #[test]
    fn the_rows_are_named_where_they_are_known() {
        let rows = vec![BrokenRows { input: Some("x".into()), rows: vec![3, 17], count: 2 }];
        let inspection = Some(Inspection { rows, ..Inspection::default() });
        let given = Exploded { inspection, ..exploded(CauseName::Data) };
        let change = Change::FilterRows { input: Some("x".into()), rows: vec![3, 17] };
        assert_eq!(given.changes(propose), [change]);
        assert_eq!(exploded(CauseName::LearningRate).changes(propose), []);
    }
}
