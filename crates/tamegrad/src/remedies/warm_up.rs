//! Remedy: warm the learning rate up.

use super::{Case, Change, Proposal, RemedyName};
use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "warm-up",
    title: "Warm up the learning rate",
    what: "The learning rate rises linearly from near 0 to its value over the first steps.",
    why: "The first steps are the steepest, and the moments of Adam are not yet averages of \
          anything. Small first steps lead to flatter ground, where the full rate is safe.",
    rule: |_| {
        "Over a tenth of the planned steps, at least 10. It helps when the trouble begins early. \
         When the rate itself is too high, it only delays the trouble."
            .to_owned()
    },
    example: "2,000 steps planned: the rate reaches its value at step 200.",
    remedy: "In a recipe: [schedule] warm_up = 200.",
    source: "Goyal et al. 2017; Gilmer et al. 2021 (warm-up lowers the sharpness).",
};

/// Proposes a tenth of the planned steps.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    use crate::causes::CauseName::{Initialisation, LearningRate};
    let may_help = [Some(Initialisation), Some(LearningRate)].contains(&case.first_cause());
    if case.is_log && !may_help {
        return Vec::new();
    }
    let steps = case.facts.planned_steps.map_or(100, |steps| (steps / 10).max(10));
    vec![case.proposal(RemedyName::WarmUp, Change::WarmUp { steps })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedies::check::{CauseName, Exploded, RunFacts, exploded};

    #[test]
    fn a_tenth_of_the_run() {
        for (planned_steps, steps) in [(Some(2000), 200), (Some(40), 10), (None, 100)] {
            let facts = RunFacts { planned_steps, ..RunFacts::default() };
            let given = Exploded { facts, ..exploded(CauseName::LearningRate) };
            assert_eq!(given.only(propose), (Change::WarmUp { steps }, true));
        }
    }
}
