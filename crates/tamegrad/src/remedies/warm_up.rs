//! Remedy: warm the learning rate up.

use super::{Case, Change, Proposal, RemedyName, lower_learning_rate};
use crate::doc::Doc;
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "warm-up",
    title: "Warm up the learning rate",
    what: "The learning rate rises linearly from near 0 to its value over the first steps.",
    why: "The first steps are the steepest, and the moments of Adam are not yet averages of \
          anything. Small first steps lead to flatter ground, where the full rate is safe.",
    rule: |rules| {
        format!(
            "Over a tenth of the planned steps, at least {}, or {} steps where no number is planned. It is not proposed when the trouble \
             begins later than that, or when the rate is more than {} times too high: then it only \
             delays the trouble.",
            rules.remedy.warm_up_min,
            rules.remedy.warm_up_unknown,
            1.0 / rules.lower_rate.cause,
        )
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
    let is_rate = case.first_cause() == Some(LearningRate) && !case.is_log;
    if is_rate && lower_learning_rate::factor(case) < RULES.lower_rate.cause {
        return Vec::new();
    }
    let rule = RULES.remedy;
    let steps = case
        .facts
        .planned_steps
        .map_or(rule.warm_up_unknown, |steps| (steps / 10).max(rule.warm_up_min));
    if case.onset.is_some_and(|onset| onset.0 > steps) {
        return Vec::new();
    }
    vec![case.proposal(RemedyName::WarmUp, Change::WarmUp { steps })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Measure, Quantity};
    use crate::remedies::check::{CauseName, Exploded, RunFacts, exploded};

    #[test]
    fn a_tenth_of_the_run() {
        for (planned_steps, steps) in [(Some(2000), 200), (Some(600), 60), (None, 100)] {
            assert_eq!(given(planned_steps).only(propose), (Change::WarmUp { steps }, true));
        }
    }

    fn given(planned_steps: Option<u64>) -> Exploded {
        let facts = RunFacts { planned_steps, ..RunFacts::default() };
        Exploded { facts, ..exploded(CauseName::LearningRate) }
    }

    #[test]
    fn not_where_it_would_be_over_or_only_delays_the_trouble() {
        assert_eq!(given(Some(400)).changes(propose), [], "the alarm is at step 49");
        let far_off =
            Exploded { evidence: vec![Measure::new(Quantity::UpdateRatio, 5.0)], ..given(None) };
        assert_eq!(far_off.changes(propose), []);
    }
}
