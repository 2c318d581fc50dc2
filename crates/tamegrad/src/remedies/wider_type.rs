//! Remedy: a wider number type, for the run or for one operation.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "wider-type",
    title: "Use a wider number type",
    what: "The operation that overflows, or the whole run, is computed in bfloat16 or float32; \
           parameters and optimizer state stay in float32.",
    why: "float16 ends at 65,504. bfloat16 has the range of float32 at the same size, with three \
          digits less.",
    rule: |_| {
        "Proposed when the number type or the optimizer's division is the cause. Where the operation \
         is known, for that operation alone."
            .to_owned()
    },
    example: "scores = (q.float() @ k.float().transpose(-2, -1)).to(q.dtype)",
    remedy: "Convert the operands with .float(), use torch.autocast(dtype=torch.bfloat16), or a \
             GradScaler with float16.",
    source: "The cure in 18 of 112 public reports; Micikevicius et al. 2018, Mixed Precision Training.",
};

/// Proposes it for the number type and the optimizer's division.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use CauseName::{OptimizerDivision, Precision};
    if case.is_log || !(case.has_cause(Precision) || case.has_cause(OptimizerDivision)) {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::WiderType, Change::WiderType { line: case.line() })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::exploded;

    #[test]
    fn for_number_types_only() {
        for (cause, count) in [
            (CauseName::Precision, 1),
            (CauseName::OptimizerDivision, 1),
            (CauseName::LearningRate, 0),
        ] {
            assert_eq!(exploded(cause).changes(propose).len(), count, "{cause:?}");
        }
    }
}
