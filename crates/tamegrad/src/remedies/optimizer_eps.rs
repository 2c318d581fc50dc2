//! Remedy: an eps that the optimizer's number type can hold.

use super::{Case, Change, Proposal, RemedyName};
use crate::causes::CauseName;
use crate::doc::Doc;
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "optimizer-eps",
    title: "Use a larger eps in the optimizer",
    what: "What the optimizer adds to its divisor is raised to a number that its state's type can \
           hold.",
    why: "The divisor is never 0 then, and an element whose second moment has rounded to 0 gets a \
          bounded update.",
    rule: |rules| {
        format!("{:e}, proposed when the optimizer's division is the cause.", rules.optimizer_eps)
    },
    example: "torch.optim.Adam(parameters, lr, eps=1e-4) for float16 parameters.",
    remedy: "Set eps; better, keep the optimizer's state in float32.",
    source: "afiaka87/glide-finetune#5; the cure in 7 of 112 public reports.",
};

/// Proposes it for a division of the optimizer's.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if !case.has_cause(CauseName::OptimizerDivision) {
        return Vec::new();
    }
    let change = Change::OptimizerEps { eps: RULES.optimizer_eps };
    vec![case.proposal(RemedyName::OptimizerEps, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::exploded;

    #[test]
    fn for_the_optimizer_s_division_only() {
        let change = Change::OptimizerEps { eps: 1e-4 };
        assert_eq!(exploded(CauseName::OptimizerDivision).changes(propose), [change]);
        assert_eq!(exploded(CauseName::Data).changes(propose), []);
    }
}
