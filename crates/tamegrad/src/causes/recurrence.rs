//! Cause: a recurrent matrix that is multiplied at every time step.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::observe::LayerId;
use crate::origin::{Origin, recurrent_product, time_step_product};
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "recurrence",
    title: "Recurrent weights multiply at every time step",
    what: "Backpropagation through time multiplies the gradient by the same recurrent matrix once \
           per time step, so its largest singular directions grow exponentially with the length of \
           the sequence.",
    why: "With a gain of only 1.1 per step, 100 steps multiply to 14,000. The gain depends on the \
          sequence, so one batch can explode where the last did not.",
    rule: |rules| {
        format!(
            "Supported when the product of the backward gains over the time steps is above {} at \
             the alarm, in the latest calm pass or at the first step. The mean of the logarithms \
             of these gains is the Lyapunov exponent of the backward pass, and it is then above 0. \
             Where the time steps are not the layers of the first pass, the gradients at the first \
             and the last of them are compared, and the product is divided by their number: each \
             may add a loss of its own.",
            rules.recurrence,
        )
    },
    example: "100 time steps, mean gain 1.12: the product is 83,000, the Lyapunov exponent 0.113.",
    remedy: "Clip by global norm (the published cure), use orthogonal recurrent weights, or lower \
             the learning rate.",
    source: "Pascanu, Mikolov, Bengio 2013, On the difficulty of training recurrent neural \
             networks, section 2.1; Engelken 2023 for the Lyapunov exponent.",
};

/// Weighs the chain over the time steps. The layer is the origin's when that is a time step of
/// the cell, else its first.
pub(super) fn weigh(run: &Run, origin: Option<&Origin>) -> Option<Cause> {
    let record = &run.record;
    let products = run.passes().filter_map(|pass| {
        let (product, count) = recurrent_product(record, &record.chain(pass))?;
        Some((Some(pass.0), product, count))
    });
    let compared = record.inspection.as_ref().and_then(|found| found.time_steps);
    let compared = compared.and_then(|steps| {
        let product = steps.norm_of_first / steps.norm_of_last / steps.calls as f64;
        // The pass may be one after the first alarm.
        Some((None, product, usize::try_from(steps.calls).ok()?))
    });
    let products = products.chain(compared).filter(|(_, product, _)| !product.is_nan());
    let (step, product, count) = products.max_by(|a, b| a.1.total_cmp(&b.1))?;
    if !(product > RULES.recurrence) {
        return None;
    }
    let exponent = product.ln() / count as f64;
    let layout = &record.layout;
    let first = layout.layers.iter().position(|layer| layer.recurrent).map(LayerId);
    let told = record.inspection.as_ref().and_then(|found| found.time_steps?.layer);
    let at_origin = origin.and_then(Origin::layer).filter(|layer| layout.is_recurrent(*layer));
    let compared = time_step_product(product, count);
    let mut evidence = vec![step.map_or(compared, |step| compared.at_step(step))];
    if exponent.is_finite() {
        let exponent = Measure::new(Quantity::LyapunovExponent, exponent);
        evidence.push(exponent.against(Reference::Limit, 0.0));
    }
    Some(
        Cause::new(CauseName::Recurrence, Ground::TimeSteps, evidence)
            .of_layer(at_origin.or(first).or(told)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed_by, looked_into, trace};
    use crate::inspection::{Inspection, TimeSteps};
    use crate::signs::check::layout;

    #[test]
    fn the_product_over_time_steps_and_not_over_depth() {
        for (recurrent, gain, found) in
            [(true, 1.12, true), (false, 1.12, false), (true, 1.01, false)]
        {
            let mut layout = layout(100);
            layout.layers.iter_mut().for_each(|layer| layer.recurrent = recurrent);
            let run = alarmed_by(layout, &trace(&[1.0; 100], &[gain; 100]));
            assert_eq!(weigh(&run, None).is_some(), found, "{recurrent} {gain}");
        }
    }

    #[test]
    fn the_gradients_at_the_first_and_the_last_time_step() {
        for (norm_of_first, calls, found) in
            [(1e4, 40, true), (40.0, 40, false), (f64::INFINITY, 40, true), (f64::NAN, 40, false)]
        {
            let layer = Some(LayerId(1));
            let time_steps = Some(TimeSteps { layer, calls, norm_of_first, norm_of_last: 1.0 });
            let run = looked_into(Inspection { time_steps, ..Inspection::default() });
            let cause = weigh(&run, None);
            assert_eq!(cause.is_some(), found, "{norm_of_first}");
            assert!(cause.is_none_or(|cause| cause.layer == layer));
        }
    }
}
