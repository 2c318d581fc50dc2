//! What a run has borne: the learning rate, and the size of updates, at which its loss was at its best.

use crate::evidence::Quantity;
use crate::rules::{OutgrownRule, RULES};

/// The numbers.
const RULE: OutgrownRule = RULES.outgrown;

/// Averages of the loss, with the learning rates that go with them.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Borne {
    count: u32,
    average: f64,
    variance: f64,
    /// The lowest average, and the variance at that time.
    best: f64,
    best_variance: f64,
    /// The rate at that time.
    rate: Option<f64>,
    /// The highest rate at which an average was the lowest so far.
    highest: Option<f64>,
    /// The rate of the latest update.
    latest: Option<f64>,
    /// The average of the logarithm of the updates' ratios over their rates, and what it was when the average
    /// of the loss was the lowest.
    update: Option<f64>,
    best_update: Option<f64>,
    /// Whether the loss has jumped from one step to the next since then: updates that outgrow a run raise it
    /// over many steps.
    jumped: bool,
    latest_loss: Option<f64>,
    /// Steps in a row in which the loss was up and rate or updates were higher than what was borne.
    outgrown: u32,
}

impl Default for Borne {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            count: 0,
            average: 0.0,
            variance: 0.0,
            best: f64::INFINITY,
            best_variance: 0.0,
            rate: None,
            highest: None,
            latest: None,
            update: None,
            best_update: None,
            jumped: false,
            latest_loss: None,
            outgrown: 0,
        }
    }
}

/// A loss that has risen under a learning rate, or updates, larger than any that the run has borne.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outgrown {
    /// The average of the loss, and the lowest that it was.
    pub(crate) loss: f64,
    pub(crate) best_loss: f64,
    /// What has risen.
    pub(crate) quantity: Quantity,
    /// What it is, and the highest that was borne.
    pub(crate) value: f64,
    pub(crate) borne: f64,
}

impl Borne {
    /// Takes in a step before its update: its loss shows what the updates before it have done, of which the
    /// last had this `ratio`.
    pub(crate) fn follow(
        &mut self,
        loss: Option<f64>,
        rate: Option<f64>,
        ratio: Option<f64>,
        loss_range: f64,
    ) {
        let rate = std::mem::replace(&mut self.latest, rate);
        // A schedule makes updates larger; what is looked for is what else does.
        let of_rate = ratio.map(|ratio| (ratio / rate.unwrap_or(1.0)).ln());
        if let Some(log) = of_rate.filter(|log| log.is_finite()) {
            let average = |old| RULE.update_decay * old + (1.0 - RULE.update_decay) * log;
            self.update = Some(self.update.map_or(log, average));
        }
        let Some(loss) = loss.filter(|loss| loss.is_finite()) else { return };
        let spread = RULE.sigmas * self.variance.sqrt();
        let rise = loss - self.latest_loss.replace(loss).unwrap_or(loss);
        self.jumped |= rise > spread.max(RULE.of_descent * loss_range);
        self.take_loss(loss);
        if self.average <= self.best {
            (self.best, self.best_variance) = (self.average, self.variance);
            self.jumped = false;
            self.rate = rate.or(self.rate);
            self.highest = self.highest.into_iter().chain(rate).reduce(f64::max);
            self.best_update = self.update;
        }
        // The spread of an exponential average of independent numbers.
        let sigma = (self.best_variance * (1.0 - RULE.decay) / (1.0 + RULE.decay)).sqrt();
        let rise = self.average - self.best;
        let is_up = rise > RULE.sigmas * sigma && rise > RULE.of_descent * loss_range;
        let has_risen =
            self.has_risen(rate) || !self.jumped && self.times_update() > RULE.update_times;
        let is_outgrown = is_up && has_risen && self.count > RULE.sigma_min;
        self.outgrown = if is_outgrown { self.outgrown.saturating_add(1) } else { 0 };
    }

    fn take_loss(&mut self, loss: f64) {
        self.count = self.count.saturating_add(1);
        if self.count == 1 {
            self.average = loss;
            return;
        }
        let keep = RULE.noise_decay.min(1.0 - 1.0 / f64::from(self.count));
        let mut deviation = loss - self.average;
        if self.count > RULE.sigma_min {
            let most = RULE.winsor_sigmas * self.variance.sqrt();
            deviation = deviation.clamp(-most, most);
        }
        self.average += (1.0 - RULE.decay) * deviation;
        self.variance = keep * self.variance + (1.0 - keep) * deviation * deviation;
    }

    /// The learning rate at which the loss was last at its best.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Whether a rate is far above all that were borne.
    pub(crate) fn has_risen(&self, rate: Option<f64>) -> bool {
        let both = rate.zip(self.highest);
        both.is_some_and(|(rate, highest)| rate > RULE.rate_times * highest)
    }

    /// How many times as large updates are, at the same rate, as when the loss was at its best; at least 1.
    pub(crate) fn times_update(&self) -> f64 {
        let both = self.update.zip(self.best_update);
        both.map_or(1.0, |(now, best)| (now - best).exp().max(1.0))
    }

    /// What shows that the run does not bear its steps, where that lasts.
    pub(crate) fn outgrown(&self) -> Option<Outgrown> {
        if self.outgrown < RULE.steps {
            return None;
        }
        let (quantity, value, borne) = if self.has_risen(self.latest) {
            (Quantity::LearningRate, self.latest?, self.highest?)
        } else {
            let rate = self.latest.unwrap_or(1.0);
            (Quantity::UpdateRatio, self.update?.exp() * rate, self.best_update?.exp() * rate)
        };
        Some(Outgrown { loss: self.average, best_loss: self.best, quantity, value, borne })
    }

    /// Goes on from where the loss was at its best, as parameters do after a rewind.
    pub(crate) fn rewind(&mut self) {
        if self.best.is_finite() {
            (self.average, self.variance) = (self.best, self.best_variance);
        }
        (self.latest, self.outgrown) = (None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is outgrown after each of these steps: loss, learning rate, and the ratio of the update before.
    fn told(steps: impl IntoIterator<Item = (f64, f64, f64)>) -> Vec<Option<Quantity>> {
        let mut borne = Borne::default();
        let mut tell = |(loss, rate, ratio)| {
            borne.follow(Some(loss), Some(rate), Some(ratio), 1.0);
            borne.outgrown().map(|found| found.quantity)
        };
        steps.into_iter().map(&mut tell).collect()
    }

    /// A loss that falls from 1 to 0.2 in 100 steps and goes up again, with some noise.
    fn loss(step: usize, rises: bool) -> f64 {
        let back = if rises { (step as f64 - 100.0).max(0.0) } else { 0.0 };
        let fallen = (step.min(100)) as f64;
        1.0 - 0.008 * fallen + 0.01 * back + 0.05 * (step as f64 * 2.4).sin()
    }

    #[test]
    fn a_loss_that_jumps_as_at_a_change_of_task_is_not_outgrown() {
        let told_after = |rise: fn(usize) -> f64| {
            let steps = (0..200).map(|at| {
                let (up, ratio) = if at < 130 { (0.0, 0.01) } else { (rise(at - 129), 0.05) };
                (loss(at, false) + up, 0.1, ratio)
            });
            told(steps).iter().any(Option::is_some)
        };
        assert!(!told_after(|_| 2.0));
        assert!(told_after(|since| 0.03 * since as f64));
    }

    #[test]
    fn a_rate_or_updates_that_grow_with_the_loss_are_outgrown() {
        let grown = |step: usize| if step < 100 { 1.0 } else { 1.05_f64.powi(step as i32 - 99) };
        let steps = |rises, rate: fn(f64) -> f64, ratio: fn(f64) -> f64| {
            told(
                (0..200)
                    .map(|at| (loss(at, rises), 0.1 * rate(grown(at)), 0.01 * ratio(grown(at)))),
            )
        };
        let (grows, stays) = (|times: f64| times, |_: f64| 1.0);
        // A schedule makes both grow.
        let by_rate = steps(true, grows, grows);
        assert!((140..190).contains(&by_rate.iter().position(Option::is_some).unwrap_or(0)));
        assert_eq!(by_rate[199], Some(Quantity::LearningRate));
        let by_momentum = steps(true, stays, grows);
        assert!((140..190).contains(&by_momentum.iter().position(Option::is_some).unwrap_or(0)));
        assert_eq!(by_momentum[199], Some(Quantity::UpdateRatio));
        // The loss alone, or the rate alone, is no evidence.
        assert_eq!(steps(true, stays, stays)[199], None);
        assert_eq!(steps(false, grows, grows)[199], None);
    }
}
