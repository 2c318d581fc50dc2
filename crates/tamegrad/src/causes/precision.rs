//! Cause: the range of the number type.

use super::{Cause, CauseName};
use crate::doc::Doc;
use crate::finding::Evidence;
use crate::record::{NonFiniteAt, Record};

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "precision",
    title: "The number type is too narrow",
    what: "Values came within a factor of 8 of the largest number that the type can hold.",
    why: "f16 ends at 65,504, bf16 and f32 at 3.4e38. A product of gains that f32 still holds is \
          Inf in f16, and Inf minus Inf is NaN.",
    rule: "The largest magnitude in the probed outputs or the gradients at the alarm is above an \
           eighth of the type's maximum; or a layer's output overflowed at step 0.",
    example: "f16, step 812: largest gradient 61,000 of 65,504.",
    remedy: "Loss scaling with back-off, bf16 in place of f16, or treat what made the values \
             large.",
    source: "Micikevicius et al. 2018, Mixed Precision Training.",
};

const HEADROOM: f64 = 8.0;

/// Weighs the largest magnitude against the type's maximum.
pub(super) fn weigh(record: &Record) -> Option<Cause> {
    let max = record.facts.dtype_max?;
    let cause = |weight, layer, evidence| {
        Some(Cause { name: CauseName::Precision, weight, layer, evidence: vec![evidence] })
    };
    if let Some((step, NonFiniteAt::Output(layer))) = record.first_nonfinite
        && step.0 == 0
    {
        let what = format!("step at which {} overflows", record.layout.layer_name(layer));
        return cause(0.5, Some(layer), Evidence::of(what, 0.0));
    }
    let traced = record.alarm_pass().into_iter().flat_map(|(_, trace)| &trace.layers);
    let outputs = traced.map(|layer| layer.output.max_abs);
    let gradients = record.tensors.iter().filter_map(|track| track.at_alarm.map(|s| s.max_abs));
    let largest = outputs.chain(gradients).fold(0.0, f64::max);
    (largest > max / HEADROOM)
        .then(|| {
            cause(
                0.4,
                None,
                Evidence::against("largest magnitude", largest, "the type's maximum", max),
            )
        })
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{Observation, RunFacts};
    use crate::signs::check::{layout, stats};

    #[test]
    fn within_a_factor_of_eight_of_the_maximum() {
        for (largest, found) in [(8_000.0, false), (9_000.0, true)] {
            let facts = RunFacts { dtype_max: Some(65_504.0), ..RunFacts::default() };
            let gradients = [Some(stats(largest))];
            let mut record = alarmed(layout(1), facts, 2, |_| Observation {
                gradients: &gradients,
                ..Observation::default()
            });
            record.tensors[0].at_alarm = gradients[0];
            assert_eq!(weigh(&record).is_some(), found, "{largest}");
        }
    }
}
