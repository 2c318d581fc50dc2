//! `[fault]`: what goes wrong on purpose while a run goes on, to see what a guard makes of it.

use serde::Deserialize;

use super::number;

/// `[fault]`: a fault that is planted in a run, such as `[fault.rate-jump]`. Faults of the model or
/// the data that stand from the start need none: a layer's own `init` or `activation`, an unscaled
/// target.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// The learning rate is multiplied.
    RateJump {
        /// The step at which it comes, counted from 0.
        #[serde(deserialize_with = "number::integer::<_, _, 0, 1_000_000_000>")]
        step: u64,
        /// By this; > 0.
        #[serde(deserialize_with = "number::positive")]
        factor: f64,
        /// For so many steps. Default: to the end of the run.
        #[serde(default, deserialize_with = "number::some_count")]
        steps: Option<u64>,
    },
    /// The learning rate grows at every step.
    RateRamp {
        /// From this step on, counted from 0.
        #[serde(deserialize_with = "number::integer::<_, _, 0, 1_000_000_000>")]
        step: u64,
        /// To this multiple of itself, such as 1.01; > 0.
        #[serde(deserialize_with = "number::positive")]
        factor: f64,
    },
    /// The inputs of one batch are multiplied.
    BadBatch {
        /// The step whose batch it is, counted from 0.
        #[serde(deserialize_with = "number::integer::<_, _, 0, 1_000_000_000>")]
        step: u64,
        /// By this; > 0.
        #[serde(deserialize_with = "number::positive")]
        factor: f64,
    },
}

impl Fault {
    /// The step at which it comes, counted from 0.
    pub fn step(&self) -> u64 {
        match *self {
            Fault::RateJump { step, .. }
            | Fault::RateRamp { step, .. }
            | Fault::BadBatch { step, .. } => step,
        }
    }

    /// What the learning rate of a step is multiplied by; exactly 1 without this fault.
    pub fn rate_factor(&self, step: u64) -> f64 {
        let Some(since) = step.checked_sub(self.step()) else { return 1.0 };
        match *self {
            Fault::RateJump { factor, steps, .. } if steps.is_none_or(|steps| since < steps) => {
                factor
            }
            Fault::RateRamp { factor, .. } => {
                factor.powi(i32::try_from(since + 1).unwrap_or(i32::MAX))
            }
            Fault::RateJump { .. } | Fault::BadBatch { .. } => 1.0,
        }
    }

    /// What the inputs of the batch of a step of the data's order are multiplied by; exactly 1
    /// without this fault.
    pub fn input_factor(&self, data_step: u64) -> f64 {
        match *self {
            Fault::BadBatch { step, factor } if step == data_step => factor,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_at_their_step_and_last_as_long_as_they_say() {
        let jump = |steps| Fault::RateJump { step: 5, factor: 30.0, steps };
        let ramp = Fault::RateRamp { step: 5, factor: 1.5 };
        let batch = Fault::BadBatch { step: 5, factor: 100.0 };
        for (fault, rates, inputs) in [
            (jump(None), [1.0, 30.0, 30.0, 30.0], [1.0; 4]),
            (jump(Some(2)), [1.0, 30.0, 30.0, 1.0], [1.0; 4]),
            (ramp, [1.0, 1.5, 2.25, 3.375], [1.0; 4]),
            (batch, [1.0; 4], [1.0, 100.0, 1.0, 1.0]),
        ] {
            assert_eq!([4, 5, 6, 7].map(|step| fault.rate_factor(step)), rates, "{fault:?}");
            assert_eq!([4, 5, 6, 7].map(|step| fault.input_factor(step)), inputs, "{fault:?}");
        }
    }
}
