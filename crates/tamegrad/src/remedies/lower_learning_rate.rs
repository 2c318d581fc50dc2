//! Remedy: lower the learning rate.

use super::{Case, Change, Proposal, RemedyName, two_digits};
use crate::causes::CauseName;
use crate::doc::Doc;
use crate::evidence::{Quantity, Reference};
use crate::rules::RULES;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "lower-learning-rate",
    title: "Lower the learning rate",
    what: "Every step becomes shorter by the same factor.",
    why: "In a valley of curvature c, gradient descent diverges above a rate of 2/c. Below it, no \
          layer and no batch can make a single step diverge through curvature alone.",
    rule: |rules| {
        let rule = rules.lower_rate;
        format!(
            "When the learning rate is the cause: back to the rate before it rose; or to one whose \
             updates are {} of the weights, and at most 1/{} of the critical step size, but to no \
             less than {} of it; or to {} of it where none of these is known, and at most to {} of \
             it where it never rose. Where no cause was found, to {} of its value; for other causes, and for logs, to {}. \
             It costs training time: the run needs correspondingly more steps.",
            rule.update, rule.critical, rule.least, rule.cause, rule.cause, rule.cause, rule.other,
        )
    },
    example: "A rate of 0.1 becomes 0.01.",
    remedy: "In a recipe: [optimizer.sgd] learning_rate = 0.01.",
    source: "LeCun, Simard, Pearlmutter 1993; Cohen 2021.",
};

/// Proposes a cut of the rate.
pub(super) fn propose(case: &Case<'_>) -> Vec<Proposal> {
    // A negative rate is not to be made smaller.
    let is_negative = case.learning_rate.is_some_and(|rate| rate < 0.0);
    let factor = if is_negative { 0.0 } else { factor(case) };
    let change = Change::LearningRate { factor, from: case.learning_rate };
    vec![case.proposal(RemedyName::LowerLearningRate, change)]
}

/// The factor on the rate.
pub(super) fn factor(case: &Case<'_>) -> f64 {
    let rule = RULES.lower_rate;
    match case.first_cause() {
        _ if case.is_log => rule.other,
        Some(CauseName::LearningRate) => factor_for_cause(case),
        Some(_) => rule.other,
        None => rule.cause,
    }
}

/// By the numbers that show that the rate is the cause.
fn factor_for_cause(case: &Case<'_>) -> f64 {
    let rule = RULES.lower_rate;
    let measures = || case.causes.iter().take(1).flat_map(|cause| &cause.evidence);
    let risen = measures().find_map(|measure| {
        let is_rise = measure.quantity == Quantity::LearningRate;
        let (_, before) = measure.against.filter(|(of, _)| is_rise && *of == Reference::Before)?;
        Some(before / measure.value)
    });
    if let Some(back) = risen {
        return two_digits(back);
    }
    let updates = measures().filter(|measure| measure.quantity == Quantity::UpdateRatio);
    let for_updates = updates.map(|measure| rule.update / measure.value);
    let for_critical = case.critical_multiple.map(|multiple| multiple / rule.critical);
    let factors = for_updates.chain(for_critical).filter(|factor| *factor > 0.0);
    two_digits(factors.fold(rule.cause, f64::min).max(rule.least))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Measure;
    use crate::remedies::check::{Exploded, exploded};

    #[test]
    fn harder_when_the_rate_is_the_cause() {
        for (cause, factor) in [(CauseName::LearningRate, 0.1), (CauseName::Activation, 0.3)] {
            let found = exploded(cause).changes(propose);
            assert_eq!(found, [Change::LearningRate { factor, from: Some(0.1) }]);
        }
    }

    #[test]
    fn to_where_the_numbers_of_the_cause_say() {
        let risen = Measure::new(Quantity::LearningRate, 1.5).against(Reference::Before, 0.05);
        let update = |ratio| Measure::new(Quantity::UpdateRatio, ratio);
        for (name, evidence, factor) in [
            ("back to before the jump", risen, 0.033),
            ("to 1% of the weights", update(25.0), 4e-4),
            ("never above a tenth", update(0.02), 0.1),
            ("an update that no rate explains", update(1e9), 1e-4),
            ("an update that is not finite tells nothing", update(f64::INFINITY), 0.1),
        ] {
            let given = Exploded { evidence: vec![evidence], ..exploded(CauseName::LearningRate) };
            let change = Change::LearningRate { factor, from: Some(0.1) };
            assert_eq!(given.changes(propose), [change], "{name}");
        }
    }
}
