//! Remedy: another implementation of the operation that breaks.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "other-kernel",
    title: "Use another kernel or version",
    what: "The operation is computed without compilation, with another attention kernel, or with \
           another version of the framework or driver.",
    why: "What the experiments show to be finite in the same number type is right; the other \
          implementation is not.",
    rule: |_| "Proposed when experiments show that a kernel is the cause.".to_owned(),
    example: "with torch.nn.attention.sdpa_kernel(SDPBackend.MATH): ...",
    remedy: "Leave the module out of torch.compile, choose the attention kernel, or change the \
             version; report the smallest batch to the developers.",
    source: "The cure in 10 of 112 public reports of broken training whose outcome is known.",
};

/// Proposes it for a kernel.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if !case.has_cause(CauseName::Kernel) {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::OtherKernel, Change::OtherKernel)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::exploded;

    #[test]
    fn for_kernels_only() {
        assert_eq!(exploded(CauseName::Kernel).changes(propose), [Change::OtherKernel]);
        assert_eq!(exploded(CauseName::Data).changes(propose), []);
    }
}
