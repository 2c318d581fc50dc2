//! Remedy: keep a function away from the point where it is infinite.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "guard-operation",
    title: "Keep the function away from where it is infinite",
    what: "A small number is added, or the input is clamped, before the function is applied.",
    why: "sqrt(x + 1e-12) differs from sqrt(x) by at most 1e-6, and its slope is at most 5e5, never \
          infinite. Clamping the result instead leaves the slope infinite, and torch.where around \
          the result multiplies that by 0, which is NaN.",
    rule: |_| {
        "Proposed when a function at a singular point is the cause; the line is given where it is \
         known."
            .to_owned()
    },
    example: "dist.sqrt() becomes dist.clamp(min=1e-12).sqrt().",
    remedy: "log(x.clamp(min=eps)), (x + eps).sqrt(), x / (y + eps), exp(x.clamp(max=80)); under a \
             torch.where, replace the input of the branch that is not taken by 1.",
    source: "The cure in 36 of 112 public reports of broken training whose outcome is known.",
};

/// Proposes it for a function at a singular point.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    let operation = case.inspection.and_then(|seen| seen.operation.as_ref());
    let Some(operation) = operation.filter(|_| case.has_cause(CauseName::SingularOperation)) else {
        return Vec::new();
    };
    let change = Change::GuardOperation { operation: operation.kind, line: case.line() };
    vec![case.proposal(RemedyName::GuardOperation, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::{Inspection, Operation, OperationKind};
    use crate::remedies::check::{Exploded, exploded};

    #[test]
    fn for_the_operation_that_broke() {
        let operation = Some(Operation::new(OperationKind::Sqrt));
        let inspection = Some(Inspection { operation, ..Inspection::default() });
        for (cause, count) in [(CauseName::SingularOperation, 1), (CauseName::Data, 0)] {
            let given = Exploded { inspection: inspection.clone(), ..exploded(cause) };
            assert_eq!(given.changes(propose).len(), count, "{cause:?}");
        }
    }
}
