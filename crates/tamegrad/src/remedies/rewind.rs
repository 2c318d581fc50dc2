//! Remedy: go back to a healthy snapshot.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "rewind",
    title: "Rewind to a healthy snapshot",
    what: "Parameters, optimizer state, schedule, random numbers and data position go back to a \
           snapshot taken before the trouble. The batches since then are not used again, and the \
           learning rate is lowered.",
    why: "A network that was thrown far away often does not come back by itself, and a dead one \
          never does. Losing a hundred steps is cheaper than losing the run.",
    rule: |rules| {
        let ladder = rules.ladder;
        format!(
            "The run is rewound when the loss has been up by {} robust spreads for {} steps, or \
             when {} steps in a row were skipped. It goes back to the newest healthy snapshot at \
             least {} steps back, or else to the oldest there is. The learning rate is multiplied \
             by {}. A run is rewound at most {} times.",
            rules.departure.spreads,
            ladder.loss_up_steps,
            ladder.skips,
            ladder.rewind_steps,
            ladder.after_rewind,
            ladder.rewinds,
        )
    },
    example: "Loss up from step 250 to 270: back to step 150; batches 150 to 270 are left out.",
    remedy: "tamegrad train RECIPE --guard protect does this. By hand: keep checkpoints, and \
             restart from one before the spike with other batches.",
    source: "PaLM (Chowdhery 2022), section 5.1: restart about 100 steps before the spike, skip \
             200 to 500 batches.",
};

/// The rewind is part of the guard, see [`super::skip_step`]; from a log it is done by hand.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::causes::CauseName::SpikeThenDead;
    if let Some(before) = case.onset.filter(|_| case.is_log) {
        return vec![case.proposal(RemedyName::Rewind, Change::Rewind { before })];
    }
    if case.first_cause() != Some(SpikeThenDead) {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::Rewind, Change::Guard)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, exploded};

    #[test]
    fn only_for_what_does_not_come_back() {
        for (cause, count) in [(CauseName::SpikeThenDead, 1), (CauseName::LearningRate, 0)] {
            assert_eq!(exploded(cause).proposals(propose).len(), count, "{cause:?}");
        }
    }
}
