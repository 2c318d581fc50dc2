//! Remedy: leave a step out.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "skip-step",
    title: "Skip the step",
    what: "A step is left out when its loss or gradient is not finite, or when its update would \
           break a parameter. Parameters and optimizer state stay as they were.",
    why: "One Inf in one gradient is enough to make every parameter NaN: through clipping (Inf \
          times 0 is NaN) or through the moments of Adam, which never forget a NaN.",
    rule: |rules| {
        format!(
            "The gradients are removed, not multiplied by 0. {} skips in a row rewind the run. If \
             that is not possible, the run is stopped after {}, because a rule that skips forever \
             starves the run.",
            rules.ladder.skips,
            2 * rules.ladder.skips,
        )
    },
    example: "Step 812: 3 Inf in layers.0.linear.weight. The step is left out; step 813 goes on as \
              usual.",
    remedy: "tamegrad train RECIPE --guard protect does this. In PyTorch, set p.grad = None for \
             all parameters and skip optimizer.step().",
    source: "PaLM (Chowdhery 2022), section 5.1; Micikevicius et al. 2018 for loss scaling.",
};

/// Proposes the guard when single steps or batches are the trouble.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    if case.is_log && !case.is_broken {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::SkipStep, Change::Guard)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, exploded};

    #[test]
    fn it_is_automatic_and_treats_a_bad_batch() {
        for (cause, treats) in [(CauseName::Data, true), (CauseName::Initialisation, false)] {
            let found = exploded(cause).proposals(propose);
            let [only] = &found[..] else { panic!("{found:?}") };
            assert_eq!((only.is_automatic(), only.treats_cause), (true, treats));
        }
    }
}
