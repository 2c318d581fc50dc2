//! Cause: the range of the number type.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::inspection::NARROW_MAX;
use crate::origin::{Origin, broken_parameter, first_seen};
use crate::record::NonFiniteAt;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "precision",
    title: "The number type is too narrow",
    what: "Values came close to the largest number that their type can hold.",
    why: "f16 ends at 65,504, bf16 and f32 at 3.4e38. A product of gains that still fits in f32 is \
          Inf in f16, and Inf minus Inf is NaN.",
    rule: |rules| {
        format!(
            "Supported when the operation that made the first value that is not finite overflowed a \
             16-bit type, and gives finite values in a wider one. With less support, when the \
             largest magnitude in the probed outputs or the gradients at the \
             alarm is above {} of the maximum of float16, or when a layer's output overflowed at step \
             0. In logs: when the loss scale collapsed before the alarm.",
            rules.precision,
        )
    },
    example: "f16, step 812: largest gradient 61,000 of 65,504.",
    remedy: "Use loss scaling with back-off, use bf16 instead of f16, or treat what made the \
             values large.",
    source: "Micikevicius et al. 2018, Mixed Precision Training.",
};

/// Weighs the largest magnitude against the type's maximum.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    if let Some(cause) = operation(run).or_else(|| experiments(run)) {
        return Some(cause);
    }
    let record = &run.record;
    let max = record.facts.dtype_max?;
    let cause = |ground, measure| Cause::new(CauseName::Precision, ground, vec![measure]);
    if let Some((step, NonFiniteAt::Output(layer))) = record.first_nonfinite
        && step.0 == 0
        && broken_parameter(run).is_none()
    {
        return Some(
            cause(Ground::Overflow, first_seen(Place::Output(layer), step)).of_layer(Some(layer)),
        );
    }
    let traced = run.alarm_pass().into_iter().flat_map(|(_, trace)| &trace.layers);
    let outputs = traced.map(|layer| layer.output.max_abs);
    let gradients = record.tensors.iter().filter_map(|track| track.at_alarm.map(|s| s.max_abs));
    let largest = outputs.chain(gradients).fold(0.0, f64::max);
    let largest =
        Measure::new(Quantity::LargestMagnitude, largest).against(Reference::TypeMax, max);
    // What is near the end of a wide type has been made large, and a wider one would only be reached later.
    let is_narrow = max <= NARROW_MAX;
    (is_narrow && largest.value > max * RULES.precision).then(|| cause(Ground::Headroom, largest))
}

/// The operation that made the first value that is not finite, where a wider number type has room for it.
fn operation(run: &Run) -> Option<Cause> {
    let operation = run.broken_by()?.operation.as_ref()?;
    let largest = operation.operands.iter().filter_map(|operand| operand.largest);
    let largest = largest.reduce(f64::max).unwrap_or(0.0);
    let largest = Measure::new(Quantity::LargestElement, largest);
    let evidence = operation.dtype_max.map(|max| largest.against(Reference::TypeMax, max));
    let layer = operation.module.as_deref().and_then(|name| run.record.layout.layer_named(name));
    let evidence = evidence.into_iter().collect();
    operation
        .overflows_narrow_type()
        .then(|| Cause::new(CauseName::Precision, Ground::NarrowType, evidence).of_layer(layer))
}

fn experiments(run: &Run) -> Option<Cause> {
    let experiments = &run.record.inspection.as_ref()?.experiments;
    let shown = super::by_experiments(experiments) == Some(CauseName::Precision);
    shown.then(|| Cause::new(CauseName::Precision, Ground::Experiment, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{Observation, RunFacts};
    use crate::signs::check::{layout, stats};

    #[test]
    fn within_a_factor_of_eight_of_the_maximum() {
        let (half, single) = (65_504.0, f64::from(f32::MAX));
        for (max, largest, found) in
            [(half, 8_000.0, false), (half, 9_000.0, true), (single, 3e38, false)]
        {
            let facts = RunFacts { dtype_max: Some(max), ..RunFacts::default() };
            let gradients = [Some(stats(largest))];
            let mut run = alarmed(layout(1), facts, 2, |_| Observation {
                gradients: &gradients,
                ..Observation::default()
            });
            run.record.tensors[0].at_alarm = gradients[0];
            assert_eq!(weigh(&run, None).is_some(), found, "{largest}");
        }
    }
}
