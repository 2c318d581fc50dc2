//! Remedy: clip each element.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "clip-value",
    title: "Clip the gradient by value",
    what: "Each element of the gradient is clamped to an interval.",
    why: "It bounds every single update without a norm, so one layer cannot take the others down. \
          It bends the direction: large elements lose, small ones stay.",
    rule: "element = clamp(element, -limit, limit). The limit proposed is 3 times the largest \
           usual RMS of a tensor's gradient when the first alarm came. Inf would become the limit \
           and be hidden: non-finite steps are skipped before.",
    example: "limit 0.01: elements 0.004, -0.3, 20 become 0.004, -0.01, 0.01.",
    remedy: "In a recipe: [clip] by = \"value\", limit = 0.01. In PyTorch: \
             torch.nn.utils.clip_grad_value_.",
    source: "Mikolov 2012, Statistical Language Models Based on Neural Networks, section 3.2.2.",
};

/// Proposes a limit from the calm gradients' RMS.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::causes::CauseName::Recurrence;
    let rms = |track: &crate::record::TensorTrack| {
        let elements = track.latest.map(|stats| stats.len).filter(|len| *len > 0)?;
        Some(track.calm_norm? / (elements as f64).sqrt())
    };
    let calm = case.usual_norm().is_some();
    let largest = case.record.tensors.iter().filter_map(rms).fold(0.0, f64::max);
    let limit = if calm && largest > 0.0 { 3.0 * largest } else { 0.1 };
    let limit = super::two_digits(limit);
    let why = format!("bounds every element at {limit}; bends the direction of the gradient");
    vec![case.on_request(RemedyName::ClipValue, Change::ClipValue { limit }, &[Recurrence], why)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::CauseName;
    use crate::observe::{ActivationKind, RunFacts};
    use crate::remedies::check::proposals;

    #[test]
    fn without_known_tensors_the_limit_is_a_tenth() {
        let found = proposals(
            3,
            ActivationKind::Linear,
            CauseName::Recurrence,
            RunFacts::default(),
            propose,
        );
        let [only] = &found[..] else { panic!("{found:?}") };
        assert_eq!(only.change, Change::ClipValue { limit: 0.1 });
    }
}
