//! Cause: Adam's second moment lags behind a gradient that has grown.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::origin::Origin;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "optimizer-state",
    title: "The optimizer's second moment lags behind",
    what: "Adam divides by the square root of v, an average of past squared gradients. When the \
           gradient grows faster than v, the division no longer holds the update down.",
    why: "With beta2 = 0.999, v needs hundreds of steps to follow. Until then updates are larger \
          than the learning rate intends, in exactly the tensors that are growing. Afterwards a \
          single spike keeps v high for thousands of steps, and the tensor hardly learns.",
    rule: |rules| {
        format!(
            "RMS of g^2/v (v before it takes in g) above {} for a tensor at the alarm.",
            rules.lag
        )
    },
    example: "Embedding: RMS of g^2/v = 5.1 at the step before the loss spike.",
    remedy: "Lower beta2 (to 0.95), clip before the moments see the gradient, or divide that \
             tensor's rate by the RMS (StableAdamW).",
    source: "Wortsman et al. 2023, Stable and low-precision training for large-scale \
             vision-language models, section 3.4, which gives the threshold.",
};

/// Weighs the largest lag that was measured at the alarm.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let record = &run.record;
    let (tensor, lag) = record.alarm_lag.filter(|(_, lag)| *lag > RULES.lag)?;
    let measure = Measure::new(Quantity::SecondMomentLag, lag)
        .at(Place::Tensor(tensor))
        .against(Reference::Limit, RULES.lag);
    let cause = Cause::new(CauseName::OptimizerState, Ground::Lag, vec![measure]);
    Some(cause.of_layer(record.layout.layer_of(tensor)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{Observation, RunFacts, TensorId};
    use crate::signs::check::layout;

    #[test]
    fn above_the_published_threshold() {
        for (lag, found) in [(2.2, false), (5.1, true)] {
            let mut run = alarmed(layout(2), RunFacts::default(), 2, |_| Observation::default());
            run.record.alarm_lag = Some((TensorId(1), lag));
            assert_eq!(weigh(&run, None).is_some(), found, "{lag}");
        }
    }
}
