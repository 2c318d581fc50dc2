//! Cause: regression targets far from the scale of the network's output.

use super::{Cause, CauseName};
use crate::doc::Doc;
use crate::finding::Evidence;
use crate::observe::LayerId;
use crate::record::Record;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "unscaled-target",
    title: "Targets are not scaled",
    what: "The regression targets are tens or thousands in size, while a fresh network's output \
           is about 1.",
    why: "The gradient of a squared error is proportional to the error: with targets of 1,000 the \
          first gradients are 1,000 times larger than the initialisation and the learning rate \
          were made for.",
    rule: "RMS of the targets above 10, and the loss of the first steps at least 100: the size \
           comes from the target, from step 0 on, and enters at the last layer. Not where the \
           inputs' RMS is above 3 and the targets are at most 10 times as large.",
    example: "y = x^4 with x in 0..10: targets up to 10,000, loss 1e7 at step 0.",
    remedy: "Standardise the targets (and the inputs): subtract the mean, divide by the standard \
             deviation, undo it on the prediction.",
    source: "Re-runs of the public questions 48934338 and 52800582 on Stack Overflow; LeCun et \
             al. 1998, Efficient BackProp, section 4.3.",
};

const TARGET_RMS: f64 = 10.0;
const FIRST_LOSS: f64 = 100.0;
/// Inputs above this are not standardised.
const INPUT_RMS: f64 = 3.0;
/// Targets at most this many times as large as large inputs follow from them.
const LIKE_INPUTS: f64 = 10.0;

/// Weighs the targets and the first losses. The last layer carries it.
pub(super) fn weigh(record: &Record) -> Option<Cause> {
    let rms = record.target_rms().filter(|rms| *rms > TARGET_RMS)?;
    let loss = record.first_losses.iter().next().filter(|loss| *loss >= FIRST_LOSS)?;
    // A slope of order 1 on inputs of that size: then it is they that are not scaled.
    let inputs = record.input_rms().filter(|inputs| *inputs > INPUT_RMS);
    if inputs.is_some_and(|inputs| rms <= LIKE_INPUTS * inputs) {
        return None;
    }
    Some(Cause {
        name: CauseName::UnscaledTarget,
        weight: 0.93,
        layer: record.layout.layers.len().checked_sub(1).map(LayerId),
        evidence: vec![
            Evidence::against("RMS of the targets", rms, "output of a fresh network, about", 1.0),
            Evidence::of("loss at the first step", loss),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{Layout, NamedInput, Observation, RunFacts};
    use crate::signs::check::stats;

    #[test]
    fn targets_and_inputs_that_only_the_batches_show() {
        for (targets, inputs, found) in
            [(1000.0, 1.0, true), (5.0, 1.0, false), (1000.0, 200.0, false)]
        {
            let batch = [NamedInput { name: "x", stats: stats(inputs) }];
            let record = alarmed(Layout::default(), RunFacts::default(), 3, |_| Observation {
                loss: Some(1e6),
                inputs: &batch,
                targets: Some(stats(targets)),
                ..Observation::default()
            });
            assert_eq!(weigh(&record).is_some(), found, "{targets} {inputs}");
        }
    }

    #[test]
    fn large_targets_with_a_large_first_loss() {
        for (rms, loss, found) in
            [(1.0, 1.0, false), (1000.0, 1e6, true), (1000.0, 2.0, false), (5.0, 1e6, false)]
        {
            let facts = RunFacts { target_rms: Some(rms), ..RunFacts::default() };
            let record = alarmed(Layout::default(), facts, 3, |_| Observation {
                loss: Some(loss),
                ..Observation::default()
            });
            assert_eq!(weigh(&record).is_some(), found, "{rms} {loss}");
        }
        // Inputs of 2 are scaled: targets of 15 do not follow from them.
        for (inputs, targets, found) in
            [(1.0, 1000.0, true), (50.0, 1000.0, true), (200.0, 1000.0, false), (2.0, 15.0, true)]
        {
            let (target_rms, input_rms) = (Some(targets), Some(inputs));
            let facts = RunFacts { target_rms, input_rms, ..RunFacts::default() };
            let record = alarmed(Layout::default(), facts, 3, |_| Observation {
                loss: Some(1e6),
                ..Observation::default()
            });
            assert_eq!(weigh(&record).is_some(), found, "{inputs} {targets}");
        }
    }
}
