//! Cause: regression targets far from the scale of the network's output.

use super::{Cause, CauseName, Ground};
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
             last layer. Not supported when the median RMS of the first {} batches of inputs is above {} and the targets are \
             at most {} times as large. Where the targets are not seen: supported when the loss of \
             the first step is at least {} and 1% larger weights, in any one matrix, change it by \
             less than {}%. Outputs that are too large would change it by about 2%.",
            rule.rms,
            rule.first_loss,
            rules.data.first,
            rule.input_rms,
            rule.like_inputs,
            rule.first_loss,
            rule.elasticity,
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
    // Classes have no scale.
    let has_classes = record.inspection.as_ref().is_some_and(|seen| seen.labels.is_some());
    let loss = record.first_losses.iter().next();
    let loss = loss.filter(|loss| *loss >= rule.first_loss && !has_classes)?;
    let size = match record.target_rms() {
        Some(rms) => size_of_targets(rms, record.input_rms()),
        None => independence(record.first_elasticities.as_deref()?),
    }?;
    let evidence = vec![size, Measure::new(Quantity::Loss, loss).at_step(Step(0))];
    let last = record.layout.layers.len().checked_sub(1).map(LayerId);
    Some(Cause::new(CauseName::UnscaledTarget, Ground::TargetSize, evidence).of_layer(last))
}

/// The size of targets that are far from the scale of outputs.
fn size_of_targets(rms: f64, inputs: Option<f64>) -> Option<Measure> {
    let rule = RULES.target;
    // A slope of order 1 on inputs of that size: then it is they that are not scaled.
    let inputs = inputs.filter(|inputs| *inputs > rule.input_rms);
    let follows = inputs.is_some_and(|inputs| rms <= rule.like_inputs * inputs);
    let measure = Measure::new(Quantity::DataRms, rms).at(Place::Targets);
    // The output of a fresh network is about 1.
    (rms > rule.rms && !follows).then(|| measure.against(Reference::Usual, 1.0))
}

/// That the loss does not come from the outputs. For a squared error of outputs o and targets t, the
/// sum of W * G of the last layer is the mean of 2 (o - t) o: about 2 of the loss if o is far larger
/// than t, and hardly any of it if t is far larger than o.
fn independence(elasticities: &[Option<f64>]) -> Option<Measure> {
    let limit = RULES.target.elasticity;
    let largest = elasticities.iter().flatten().copied().reduce(f64::max);
    let elasticity = largest.filter(|elasticity| *elasticity < limit)?;
    Some(Measure::new(Quantity::LossElasticity, elasticity).against(Reference::Limit, limit))
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
    fn targets_that_nobody_sees_and_a_loss_that_no_weights_explain() {
        let layout = Layout::default;
        for (elasticity, loss, found) in [
            (Some(0.001), 1e6, true),
            // Outputs are too large.
            (Some(2.0), 1e6, false),
            (Some(0.001), 5.0, false),
            (None, 1e6, false),
        ] {
            let mut run = alarmed(layout(), RunFacts::default(), 3, |step| seen(step, loss, &[]));
            run.record.first_elasticities = elasticity.map(|largest| vec![Some(largest), None]);
            assert_eq!(weigh(&run, None).is_some(), found, "{elasticity:?} {loss}");
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
