//! Cause: one huge update left a network that no longer learns.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::origin::Origin;
use crate::record::Record;
use crate::rules::{DEAD_STEPS, RULES};
use crate::run::Run;
use crate::running::{Window, median};

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "spike-then-dead",
    title: "A spike left the network dead",
    what: "After one very large update, the gradients of the inner layers are 0 or next to \
           nothing, and the loss is flat.",
    why: "A ReLU whose bias was thrown far below zero never fires again and has no gradient; a \
          saturated tanh or sigmoid has almost none. Nothing is NaN, so nothing complains: the run \
          goes on to the end and learns nothing.",
    rule: |rules| {
        format!(
            "Supported when two conditions hold. First, the largest gradient norm of the weight \
             matrices at the last step, without the last layer, is 0 or below {:e} of the median \
             up to the alarm (where individual tensors are unknown, the norm of the whole gradient \
             is used). Second, the loss of the last {} steps is flat and above {} of the first \
             loss, because a gradient of 0 at a loss of 0 is convergence.",
            rules.dead.gradient, rules.dead.steps, rules.dead.converged,
        )
    },
    example: "y = 5x^2 unscaled, SGD 0.1: gradient 100 times larger at step 2, then 0; loss flat \
              at 1,380.",
    remedy: "Treat the spike (scale the target, lower the rate, clip) and start again, because \
             dead units do not come back.",
    source: "Re-run of the public Stack Overflow question 48934338.",
};

/// Weighs the gradients at the end of the run.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let (now, before) = dead(run)?;
    let norm = Measure::new(Quantity::InnerGradientNorm, now).against(Reference::Before, before);
    Some(Cause::new(CauseName::SpikeThenDead, Ground::NoGradient, vec![norm]))
}

/// The gradient norm at the end and before the alarm, when the inner layers are dead: most
/// tensors, the last layer's left out, have no gradient to speak of any more.
pub(super) fn dead(run: &Run) -> Option<(f64, f64)> {
    let record = &run.record;
    let alarm = run.first_alarm()?.step;
    // A NaN gradient is no small gradient.
    if record.recent(DEAD_STEPS).iter().any(|row| row.nonfinite_gradients > 0) {
        return None;
    }
    let last_layer = record.layout.tensors.iter().filter_map(|t| t.layer).max();
    let inner: Vec<f64> = record
        .tensors
        .iter()
        .zip(&record.layout.tensors)
        .filter(|(_, info)| info.is_matrix && info.layer != last_layer)
        .filter_map(|(track, _)| track.latest.filter(|s| s.is_finite()).map(|s| s.l2))
        .collect();
    let now = if inner.is_empty() {
        median(record.recent(DEAD_STEPS).iter().filter_map(|row| row.gradient_norm))?
    } else {
        inner.iter().copied().fold(0.0, f64::max)
    };
    let early = record.rows.iter().filter(|row| row.segment == 0 && row.step <= alarm);
    let before = median(early.filter_map(|row| row.gradient_norm))?;
    (before > 0.0 && now <= RULES.dead.gradient * before && is_flat_and_high(record))
        .then_some((now, before))
}

/// Whether the loss of the last steps stays where it is, above what convergence would reach. A
/// run without losses counts as such.
fn is_flat_and_high(record: &Record) -> bool {
    let mut end = Window::<DEAD_STEPS>::default();
    record.recent(DEAD_STEPS).iter().filter_map(|row| row.loss).for_each(|loss| end.push(loss));
    let Some((level, spread)) = end.median().zip(end.spread()) else { return true };
    // The very first loss: those after it may be the explosion's already.
    let first = record.first_losses.iter().next().unwrap_or(0.0);
    level > RULES.dead.converged * first.abs() && spread < level.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{Layout, Observation, RunFacts, Step};

    #[test]
    fn a_converged_run_is_not_dead_and_the_last_layer_does_not_count() {
        use crate::signs::check::{layout, seen, stats};
        for (loss, inner, last, found) in
            [(5.0, 0.0, 1.0, true), (0.0001, 0.0, 1.0, false), (5.0, 1.0, 0.0, false)]
        {
            let first = [Some(stats(2.0)), Some(stats(2.0))];
            let mut run =
                alarmed(layout(2), RunFacts::default(), 10, |step| seen(step, 4.0, &first));
            let gradients = [Some(stats(inner)), Some(stats(last))];
            for step in 10..60 {
                run.take(&seen(step, loss, &gradients));
            }
            assert_eq!(weigh(&run, None).is_some(), found, "{loss} {inner} {last}");
        }
    }

    #[test]
    fn gradients_that_vanish_after_the_alarm() {
        for (after, found) in [(0.0, true), (1e-9, true), (0.01, false), (f64::NAN, false)] {
            let mut run = alarmed(Layout::default(), RunFacts::default(), 10, |_| Observation {
                gradient_norm: Some(2.0),
                ..Observation::default()
            });
            for step in 10..60 {
                run.take(&Observation {
                    step: Step(step),
                    gradient_norm: Some(after),
                    ..Observation::default()
                });
            }
            assert_eq!(weigh(&run, None).is_some(), found, "{after}");
        }
    }
}
