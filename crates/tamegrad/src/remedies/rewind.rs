//! Remedy: go back to a healthy snapshot.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "rewind",
    title: "Rewind to a healthy snapshot",
    what: "Parameters, optimizer state, schedule, random numbers and data position go back to a \
           snapshot taken before the trouble; the batches since then are not used again, and the \
           rate is lowered.",
    why: "A network that was thrown far away often does not come back by itself, and one that is \
          dead never does. A hundred steps lost are cheaper than a run lost.",
    rule: "When the loss has been up by 4 robust spreads for 20 steps, or 10 steps in a row were \
           skipped: the newest healthy snapshot at least 100 steps back, or the oldest there is, \
           learning rate times 0.7; at most 5 times in a run.",
    example: "Loss up from step 250 to 270: back to step 150, batches 150 to 270 left out.",
    remedy: "tamegrad train RECIPE --guard protect does it. By hand: keep checkpoints, restart \
             from one before the spike with other batches.",
    source: "PaLM (Chowdhery 2022), section 5.1: restart about 100 steps before the spike, skip \
             200 to 500 batches.",
};

/// The rewind is part of the guard; see [`super::skip_step`] for the proposal of the guard.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::causes::CauseName::SpikeThenDead;
    if case.first_cause() != Some(SpikeThenDead) {
        return Vec::new();
    }
    let why = "dead units do not come back: only a snapshot from before the spike has them alive";
    let proposal = case.on_request(RemedyName::Rewind, Change::Guard, &[SpikeThenDead], why.into());
    vec![Proposal { grade: super::Grade::Automatic, ..proposal }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::CauseName;
    use crate::observe::{ActivationKind, RunFacts};
    use crate::remedies::check::proposals;

    #[test]
    fn only_for_what_does_not_come_back() {
        for (cause, count) in [(CauseName::SpikeThenDead, 1), (CauseName::LearningRate, 0)] {
            let found = proposals(3, ActivationKind::Linear, cause, RunFacts::default(), propose);
            assert_eq!(found.len(), count, "{cause:?}");
        }
    }
}
