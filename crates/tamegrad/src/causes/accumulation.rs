//! Cause: a gradient that is a sum where a mean is meant, or that was never cleared.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::inspection::{Accumulation, Labels};
use crate::origin::Origin;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "accumulation",
    title: "The gradient is a sum where a mean is meant",
    what: "The gradient grows with the number of samples, tokens or micro-batches that it is made of, \
           or still holds the gradients of earlier steps.",
    why: "A learning rate that suits the mean over 512 tokens is 512 times too high for their sum. \
          Without zero_grad every step adds to what is there, so the gradient grows from step to \
          step while each pass looks normal.",
    rule: |rules| {
        let rule = rules.accumulation;
        format!(
            "Supported when the gradients of the step before are still there when the first backward \
             pass of a step begins; when the gradient that the optimizer is \
             given at the alarm has more than {} times the norm of that of the only backward pass \
             since the last step; when the loss is a sum over at least {} labels; or when the batch \
             has at least {} times as many elements as usual, and loss and gradient norm have grown \
             by the same factor, give or take a factor of {}.",
            rule.uncleared,
            rule.labels,
            rule.larger,
            1.0 / rule.follows,
        )
    },
    example: "1 backward pass of norm 0.8, but a gradient of norm 61: 75 steps without zero_grad.",
    remedy: "Call optimizer.zero_grad() in every step, divide the loss by the number of micro-batches, \
             and use reduction=\"mean\" or divide by the number of tokens of the whole step.",
    source: "4 of 112 public reports of broken training whose outcome is known; Han and Han 2024, \
             Bug Fixes in LLM Training: Gradient Accumulation (unsloth).",
};

/// Weighs what the gradient at the alarm is made of.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    run.first_alarm()?;
    let seen = run.record.inspection.as_ref();
    let evidence = seen.and_then(|seen| seen.accumulation).and_then(uncleared);
    let evidence = evidence.or_else(|| seen?.labels.and_then(summed));
    evidence.or_else(|| grown_with_batch(run)).map(by)
}

/// Weighs what the first steps have left in the gradients, which needs no alarm.
pub(super) fn left(run: &Run) -> Option<Cause> {
    run.record.inspection.as_ref()?.accumulation.and_then(of_left).map(by)
}

fn by(evidence: Measure) -> Cause {
    Cause::new(CauseName::Accumulation, Ground::SummedGradient, vec![evidence])
}

fn of_left(of: Accumulation) -> Option<Measure> {
    (of.norm_left > 0.0).then(|| Measure::new(Quantity::GradientLeft, of.norm_left))
}

fn uncleared(of: Accumulation) -> Option<Measure> {
    if let Some(left) = of_left(of) {
        return Some(left);
    }
    let is_more = of.norm > RULES.accumulation.uncleared * of.norm_of_one;
    let norm = Measure::new(Quantity::GradientNorm, of.norm);
    let norm = norm.against(Reference::OnePass, of.norm_of_one);
    (of.passes == 1 && of.norm_of_one > 0.0 && is_more).then_some(norm)
}

/// A batch of many more elements than usual, whose loss and gradient have grown as much.
fn grown_with_batch(run: &Run) -> Option<Measure> {
    let (record, rule) = (&run.record, RULES.accumulation);
    let alarm = run.first_alarm()?.step;
    let inputs = record.batch.inputs.iter().map(|(_, track)| track);
    let grown = inputs.chain([&record.batch.targets]).filter_map(|track| {
        Some((track.len_at_alarm? as f64, track.len.median().filter(|usual| *usual > 0.0)?))
    });
    let (now, usual) = grown.max_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)))?;
    let as_large = rule.follows * now / usual..=now / usual / rule.follows;
    let row = record.rows.iter().find(|row| row.step == alarm)?;
    let loss = row.loss? / record.calm_losses.median().filter(|usual| *usual > 0.0)?;
    let norm = row.gradient_norm? / record.total.calm_norm.filter(|usual| *usual > 0.0)?;
    let elements = Measure::new(Quantity::BatchElements, now).against(Reference::Usual, usual);
    let follows = as_large.contains(&loss) && as_large.contains(&norm);
    (now >= rule.larger * usual && follows).then_some(elements)
}

fn summed(labels: Labels) -> Option<Measure> {
    let counted = labels.len.saturating_sub(labels.ignored);
    let is_many = labels.is_summed && counted >= RULES.accumulation.labels;
    is_many.then(|| Measure::new(Quantity::SummedLabels, counted as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad_stats::TensorStats;

    use crate::causes::check::{labels, looked_into};
    use crate::inspection::Inspection;

    #[test]
    fn a_gradient_that_holds_more_than_its_pass() {
        for (passes, norm, norm_left, found) in
            [(1, 61.0, 0.0, true), (1, 0.9, 0.0, false), (1, 0.9, 0.01, true), (8, 6.0, 0.0, false)]
        {
            let accumulation = Some(Accumulation { passes, norm, norm_of_one: 0.8, norm_left });
            let run = looked_into(Inspection { accumulation, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{passes} {norm} {norm_left}");
        }
    }

    #[test]
    fn a_larger_batch_whose_loss_has_grown_as_much() {
        use crate::causes::check::alarmed;
        use crate::observe::{NamedInput, Observation, RunFacts};
        use crate::signs::check::{layout, stats};
        for (len, loss, norm, found) in [
            (5300, 50.0, 60.0, true),
            (5300, 1.0, 1.0, false),
            (5300, 50.0, 1.0, false),
            // A longer recurrence, whose gradient grows with every time step.
            (5300, 5e5, 6e6, false),
            (100, 50.0, 60.0, false),
        ] {
            let input = |len| NamedInput { name: "x", stats: TensorStats { len, ..stats(1.0) } };
            let (usual, last) = ([input(100)], [input(len)]);
            let (calm, grown) = ([Some(stats(1.0))], [Some(stats(norm))]);
            let mut run = alarmed(layout(1), RunFacts::default(), 60, |step| match step {
                59 => Observation {
                    loss: Some(loss),
                    inputs: &last,
                    gradients: &grown,
                    ..Observation::default()
                },
                _ => Observation {
                    loss: Some(1.0),
                    inputs: &usual,
                    gradients: &calm,
                    ..Observation::default()
                },
            });
            run.record.freeze();
            assert_eq!(weigh(&run, None).is_some(), found, "{len} {loss} {norm}");
        }
    }

    #[test]
    fn a_sum_over_many_labels() {
        for (is_summed, len, found) in [(true, 512, true), (false, 512, false), (true, 2, false)] {
            let labels = Some(Labels { is_summed, ..labels(len) });
            let run = looked_into(Inspection { labels, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{is_summed} {len}");
        }
    }
}
