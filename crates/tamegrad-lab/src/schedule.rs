//! The learning rate as a function of the step.

use crate::recipe::{Decay, Schedule};

/// The learning rate of a step, of which `full` is the recipe's: a linear warm-up from 0 (step 0 has
/// the first part of it), then as [`Decay`] says.
pub(crate) fn learning_rate(full: f64, schedule: &Schedule, step: u64, planned_steps: u64) -> f64 {
    if step < schedule.warm_up {
        return full * (step + 1) as f64 / (schedule.warm_up + 1) as f64;
    }
    let span = planned_steps.saturating_sub(schedule.warm_up).max(1) as f64;
    let done = ((step - schedule.warm_up) as f64 / span).min(1.0);
    match schedule.decay {
        Decay::Constant => full,
        Decay::Cosine => full * half_cosine(done),
        Decay::Restarts => full * half_cosine((4.0 * done).fract()),
        Decay::Step if done < 0.5 => full,
        Decay::Step if done < 0.75 => 0.1 * full,
        Decay::Step => 0.01 * full,
    }
}

/// From 1 at 0 down to 0 at 1.
fn half_cosine(done: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_decays() {
        for (warm_up, decay, step, rate) in [
            (0, Decay::Constant, 0, 1.0),
            (4, Decay::Constant, 0, 0.2),
            (4, Decay::Constant, 3, 0.8),
            (4, Decay::Constant, 4, 1.0),
            (0, Decay::Cosine, 0, 1.0),
            (0, Decay::Cosine, 50, 0.5),
            (0, Decay::Cosine, 100, 0.0),
            (0, Decay::Restarts, 25, 1.0),
            (0, Decay::Restarts, 87, 0.5 * (1.0 + (0.48 * std::f64::consts::PI).cos())),
            (0, Decay::Step, 49, 1.0),
            (0, Decay::Step, 50, 0.1),
            (0, Decay::Step, 75, 0.01),
        ] {
            let schedule = Schedule { warm_up, decay };
            let got = learning_rate(1.0, &schedule, step, 100);
            assert!((got - rate).abs() < 1e-12, "{warm_up} {decay:?} {step}: {got}");
        }
    }
}
