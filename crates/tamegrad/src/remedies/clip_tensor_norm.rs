//! Remedy: clip the norm of each tensor.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "clip-tensor-norm",
    title: "Clip the gradient of each tensor by its norm",
    what: "Each tensor whose gradient norm is above a limit is scaled down by itself; the others \
           are left alone.",
    why: "One exploding layer does not shrink the steps of all the others, as it would under a \
          global norm. The direction of the whole gradient changes.",
    rule: |_| {
        "factor = min(1, limit / norm of the tensor). The proposed limit is the calm global norm \
         divided by the square root of the number of weight matrices."
            .to_owned()
    },
    example: "layers.17.linear.weight: norm 900, limit 0.4: scaled by 4e-4; layers.16 at 0.3 is \
              left alone.",
    remedy: "In a recipe: [clip] by = \"tensor-norm\", limit = 0.4.",
    source: "LARS (You 2017) and AGC (Brock 2021) bound each tensor relative to its weights; this \
             is the plain form.",
};

/// Proposes each tensor's share of the calm norm.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    let matrices = case.layout.tensors.iter().filter(|t| t.is_matrix).count().max(1);
    let share = case.usual_norm.unwrap_or(1.0) / (matrices as f64).sqrt();
    let change = Change::ClipTensorNorm { max_norm: super::two_digits(share) };
    vec![case.proposal(RemedyName::ClipTensorNorm, change)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, exploded};

    #[test]
    fn without_known_tensors_the_share_is_the_whole() {
        let found = exploded(CauseName::LearningRate).only(propose);
        assert_eq!(found, (Change::ClipTensorNorm { max_norm: 2.0 }, false));
    }
}
