//! Whether the coming update may have to be taken back, so that the door must hold a copy.
//!
//! An update is made of the gradient, the learning rate and the optimizer's memory of gradients before.
//! Where all of them are what they have been for a hundred calm steps, the update is as well: it can
//! neither overthrow a matrix nor break a parameter that such updates have left whole. The rule is
//! tamegrad's own; a copy before every step made a perceptron's step more than a quarter longer.

use crate::jump::is_usual;
use crate::record::{Record, TensorTrack};
use crate::signs::WARM_UP_STEPS;

/// Steps after an alarm or an action in which every update may have to be taken back.
const TROUBLED_STEPS: u64 = 50;
/// Rows whose learning rates are usual ones.
const RATE_ROWS: usize = 20;
/// Growth over the largest of them that makes a step one at risk.
const RATE_GROWTH: f64 = 1.5;

/// Whether the update of the latest step is at risk.
pub(crate) fn is_at_risk(record: &Record) -> bool {
    let Some(row) = record.now() else { return true };
    let is_calm = |track: &TensorTrack| {
        let norm = track.latest.map_or(0.0, |stats| stats.l2);
        norm == 0.0 || (track.gradient.count() >= WARM_UP_STEPS && is_usual(&track.gradient, norm))
    };
    let before = record.recent(RATE_ROWS + 1).iter().rev().skip(1);
    let highest = before.filter_map(|row| row.learning_rate).reduce(f64::max);
    let is_rate_usual = row
        .learning_rate
        .is_none_or(|rate| highest.is_some_and(|highest| rate <= RATE_GROWTH * highest));
    record.is_troubled(TROUBLED_STEPS)
        || record.clock <= u64::from(WARM_UP_STEPS)
        || row.nonfinite_gradients > 0
        || row.loss.is_some_and(|loss| !loss.is_finite() || record.departs(loss))
        || !is_rate_usual
        || !is_calm(&record.total)
        || !record.tensors.iter().all(is_calm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Observation, RunFacts, Step};
    use crate::signs::check::{layout, noise, stats};

    /// A calm run of 150 steps, and one more step of this loss, gradient and learning rate.
    fn after_calm(steps: u64, loss: f64, norm: f64, rate: f64) -> bool {
        let mut record = Record::new(layout(2), RunFacts::default());
        for step in 0..=steps {
            let n = noise(step as usize);
            let (loss, norm, rate) = match step == steps {
                true => (loss, norm, rate),
                false => (1.0 + 0.01 * n, (0.1 * n).exp(), 0.01),
            };
            record.take(&Observation {
                step: Step(step),
                loss: Some(loss),
                learning_rate: Some(rate),
                gradients: &[Some(stats(norm)), Some(stats(norm))],
                ..Observation::default()
            });
            if step < steps {
                record.settle();
            }
        }
        is_at_risk(&record)
    }

    #[test]
    fn a_step_like_those_before_is_not_at_risk() {
        for (name, steps, loss, norm, rate, want) in [
            ("calm", 150, 1.0, 1.1, 0.01, false),
            ("young", 50, 1.0, 1.0, 0.01, true),
            ("large gradient", 150, 1.0, 3.0, 0.01, true),
            ("broken gradient", 150, 1.0, f64::NAN, 0.01, true),
            ("broken loss", 150, f64::NAN, 1.0, 0.01, true),
            ("loss up", 150, 3.0, 1.0, 0.01, true),
            ("rate up", 150, 1.0, 1.0, 0.02, true),
            ("rate a little up", 150, 1.0, 1.0, 0.014, false),
        ] {
            assert_eq!(after_calm(steps, loss, norm, rate), want, "{name}");
        }
    }
}
