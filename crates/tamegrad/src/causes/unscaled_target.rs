//! Cause: regression targets far from the scale of the network's output.

use super::{Cause, CauseName};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::observe::{LayerId, Step};
use crate::origin::Origin;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "unscaled-target",
    title: "Targets are not scaled",
    what: "The regression targets are tens or thousands in size, while the output of a new network \
           is about 1.",
    why: "The gradient of a squared error is proportional to the error. With targets of 1,000, the \
          first gradients are 1,000 times larger than the initialisation and the learning rate \
          were made for.",
    rule: |rules| {
        let rule = rules.target;
        format!(
            "Supported when the RMS of the targets is above {} and the loss of the first step is \
             at least {}: the size then comes from the targets, from step 0 on, and enters at the \
             last layer. Not supported when the RMS of the inputs is above {} and the targets are \
             at most {} times as large.",
            rule.rms, rule.first_loss, rule.input_rms, rule.like_inputs,
        )
    },
    example: "y = x^4 with x in 0..10: targets up to 10,000, loss 1e7 at step 0.",
    remedy: "Standardise the targets (and the inputs): subtract the mean, divide by the standard \
             deviation, and undo both on the prediction.",
    source: "Re-runs of the public Stack Overflow questions 48934338 and 52800582; LeCun et al. \
             1998, Efficient BackProp, section 4.3.",
};

/// Weighs the targets and the first losses. The last layer carries it.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let (record, rule) = (&run.record, RULES.target);
    let rms = record.target_rms().filter(|rms| *rms > rule.rms)?;
    let loss = record.first_losses.iter().next().filter(|loss| *loss >= rule.first_loss)?;
    // A slope of order 1 on inputs of that size: then it is they that are not scaled.
    let inputs = record.input_rms().filter(|inputs| *inputs > rule.input_rms);
    if inputs.is_some_and(|inputs| rms <= rule.like_inputs * inputs) {
        return None;
    }
    let evidence = vec![
        // The output of a fresh network is about 1.
        Measure::new(Quantity::DataRms, rms).at(Place::Targets).against(Reference::Usual, 1.0),
        Measure::new(Quantity::Loss, loss).at_step(Step(0)),
    ];
    let last = record.layout.layers.len().checked_sub(1).map(LayerId);
    Some(Cause::new(CauseName::UnscaledTarget, 0.93, evidence).of_layer(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{Layout, NamedInput, Observation, RunFacts};
    use crate::signs::check::{seen, stats};

    #[test]
    fn targets_and_inputs_that_only_the_batches_show() {
        for (targets, inputs, found) in
            [(1000.0, 1.0, true), (5.0, 1.0, false), (1000.0, 200.0, false)]
        {
            let batch = [NamedInput { name: "x", stats: stats(inputs) }];
            let run = alarmed(Layout::default(), RunFacts::default(), 3, |step| Observation {
                inputs: &batch,
                targets: Some(stats(targets)),
                ..seen(step, 1e6, &[])
            });
            assert_eq!(weigh(&run, None).is_some(), found, "{targets} {inputs}");
        }
    }

    #[test]
    fn large_targets_with_a_large_first_loss() {
        let is_found = |facts, loss| {
            let run = alarmed(Layout::default(), facts, 3, |step| seen(step, loss, &[]));
            weigh(&run, None).is_some()
        };
        for (rms, loss, found) in
            [(1.0, 1.0, false), (1000.0, 1e6, true), (1000.0, 2.0, false), (5.0, 1e6, false)]
        {
            let facts = RunFacts { target_rms: Some(rms), ..RunFacts::default() };
            assert_eq!(is_found(facts, loss), found, "{rms} {loss}");
        }
        // Inputs of 2 are scaled: targets of 15 do not follow from them.
        for (inputs, targets, found) in
            [(1.0, 1000.0, true), (50.0, 1000.0, true), (200.0, 1000.0, false), (2.0, 15.0, true)]
        {
            let (target_rms, input_rms) = (Some(targets), Some(inputs));
            let facts = RunFacts { target_rms, input_rms, ..RunFacts::default() };
            assert_eq!(is_found(facts, 1e6), found, "{inputs} {targets}");
        }
    }
}
