//! Remedy: clip the norm of the whole gradient.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "clip-global-norm",
    title: "Clip the gradient by its global norm",
    what: "When the L2 norm of the whole gradient is above a limit, all gradients are scaled down \
           by the same factor.",
    why: "The direction stays and only the length is bounded, so a step off a cliff of the loss \
          becomes a small step. It is the published cure for recurrent networks.",
    rule: |rules| {
        format!(
            "factor = min(1, limit / norm), computed in f64. The proposed limit is the median norm \
             of the calm steps ({} times that of the records of a log), or 1 if the trouble began \
             within {} steps. A non-finite gradient is skipped, never scaled. A limit that clips \
             more than half of the steps is a learning-rate cut in disguise.",
            rules.remedy.clip_log, rules.remedy.calm_steps,
        )
    },
    example: "Calm norm 2.1, norm at the alarm 3e5: scaled by 7e-6, to 2.1.",
    remedy: "In a recipe: [clip] by = \"global-norm\", limit = 2.1. In PyTorch: \
             torch.nn.utils.clip_grad_norm_, after unscaling.",
    source: "Pascanu, Mikolov, Bengio 2013, algorithm 1.",
};

/// Proposes the calm norm as the limit.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::evidence::{Measure, Place, Quantity};
    let of_usual = if case.is_log { RULES.remedy.clip_log } else { 1.0 };
    let max_norm = super::two_digits(case.usual_norm.map_or(1.0, |norm| of_usual * norm));
    let usual = case.usual_norm.map(|norm| Measure::new(Quantity::GradientNorm, norm));
    let evidence = usual.map(|norm| norm.at(Place::Gradients)).into_iter().collect();
    let proposal = case.proposal(RemedyName::ClipGlobalNorm, Change::ClipGlobalNorm { max_norm });
    vec![Proposal { evidence, ..proposal }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, exploded};

    #[test]
    fn the_limit_is_the_calm_norm() {
        let found = exploded(CauseName::Recurrence).only(propose);
        assert_eq!(found, (Change::ClipGlobalNorm { max_norm: 2.0 }, true));
    }
}
