//! Remedy: fewer samples in a batch.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "smaller-batch",
    title: "Use a smaller batch",
    what: "Each step averages over fewer samples, and an epoch has more steps.",
    why: "With a summed loss, or with a rate that was scaled up with the batch, the gradient grows \
          with the number of samples. Small batches are also noisier, which keeps them out of \
          sharp valleys, where gradients are large.",
    rule: |rules| {
        format!(
            "Half the batch, at least {} samples. When the loss is a mean, this treats the effect, \
             not the cause.",
            rules.remedy.batch_min,
        )
    },
    example: "64 samples become 32.",
    remedy: "In a recipe: [training] batch = 32.",
    source: "Keskar et al. 2017, On Large-Batch Training for Deep Learning.",
};

/// Proposes half the batch.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    let Some(batch) = case.facts.batch_size else { return Vec::new() };
    let samples = (batch / 2).max(RULES.remedy.batch_min);
    if samples >= batch {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::SmallerBatch, Change::BatchSize { samples })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, Exploded, RunFacts, exploded};

    #[test]
    fn half_but_not_under_eight() {
        let to = |samples| vec![Change::BatchSize { samples }];
        for (batch_size, changes) in [(Some(64), to(32)), (Some(8), vec![]), (None, vec![])] {
            let facts = RunFacts { batch_size, ..RunFacts::default() };
            let given = Exploded { facts, ..exploded(CauseName::LearningRate) };
            assert_eq!(given.changes(propose), changes, "{batch_size:?}");
        }
    }
}
