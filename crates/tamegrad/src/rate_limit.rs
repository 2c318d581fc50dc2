//! The highest learning rate at which a run in trouble is let go on, found as TCP finds how fast a network
//! takes packets: halve it at trouble, let it grow while all is well, and slowly near the rate at which
//! trouble came.
//!
//! After Jacobson, Congestion Avoidance and Control (SIGCOMM 1988); that cuts in one trouble count as one is
//! from NewReno (RFC 6582). What takes the place of the last rate without loss there is the rate at which
//! the training loss was last at its best.

use crate::borne::Borne;
use crate::record::Row;
use crate::rules::RULES;

/// State: the limit. Rates are absolute where the integration knows them; otherwise 1 stands for the rate of
/// the schedule.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct RateLimit {
    /// `None`: the schedule's rate is taken as it is.
    limit: Option<f64>,
    /// The rate at which the latest trouble began.
    failed: Option<f64>,
    /// The factor on the schedule's rate.
    factor: f64,
    /// The schedule's rate of the latest step.
    scheduled: f64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { limit: None, failed: None, factor: 1.0, scheduled: 1.0 }
    }
}

impl RateLimit {
    /// Takes in a step before its update; a calm one lets the limit grow.
    pub(crate) fn follow(&mut self, row: &Row, is_calm: bool) {
        let rate = row.learning_rate.filter(|rate| rate.is_finite() && *rate > 0.0);
        self.scheduled = rate.map_or(1.0, |rate| rate / self.factor);
        if is_calm && let Some(limit) = &mut self.limit {
            let rule = RULES.ladder;
            let is_near = self.failed.is_some_and(|failed| *limit >= rule.back_off * failed);
            let steps = if is_near { rule.slow_growth_steps } else { rule.growth_steps };
            *limit *= 1.0 + 1.0 / f64::from(steps);
        }
        self.limit = self.limit.filter(|limit| *limit < self.scheduled);
        self.factor = self.limit.map_or(1.0, |limit| limit / self.scheduled);
    }

    /// Lowers the limit to a fraction of the rate at hand, or to what the run has borne if that is lower.
    /// `is_new`: not in the same trouble as the cut before.
    pub(crate) fn cut(&mut self, left: f64, borne: &Borne, is_new: bool) {
        if is_new {
            self.failed = Some(self.rate());
        }
        let rate = self.rate() * left.min(1.0 / borne.times_update());
        let limit = borne.rate().map_or(rate, |borne| borne.min(rate));
        self.limit = Some(limit);
        self.factor = limit / self.scheduled;
    }

    /// The rate of the coming update.
    pub(crate) fn rate(&self) -> f64 {
        self.scheduled * self.factor
    }

    /// The factor on the schedule's rate; exactly 1 without a limit.
    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(learning_rate: f64) -> Row {
        Row { learning_rate: Some(learning_rate), ..Row::default() }
    }

    /// What a run has borne that learned at this rate.
    fn borne(rate: f64) -> Borne {
        let mut borne = Borne::default();
        (0..20).for_each(|step| borne.follow(Some(-f64::from(step)), Some(rate), None, 1.0));
        borne
    }

    #[test]
    fn a_cut_goes_to_what_was_borne_and_grows_back_to_the_schedule() {
        let mut limit = RateLimit::default();
        limit.follow(&row(10.0), true);
        assert_eq!(limit.factor(), 1.0);
        limit.cut(0.5, &borne(0.1), true);
        assert_eq!((limit.factor(), limit.rate()), (0.01, 0.1));
        // Trouble keeps it where it is, whatever the schedule does.
        for scheduled in [10.0, 20.0, 40.0] {
            let lowered = scheduled * limit.factor();
            limit.scheduled = scheduled;
            limit.follow(&row(lowered), false);
            limit.factor = 0.1 / scheduled;
        }
        assert_eq!(limit.limit, Some(0.1));
        // The rate of one run is no limit where half the rate is less.
        limit.cut(0.5, &borne(7.0), false);
        assert_eq!((limit.limit, limit.failed), (Some(0.05), Some(10.0)));
        let steps = (0..2000).take_while(|_| {
            limit.follow(&row(0.4 * limit.factor()), true);
            limit.factor() < 1.0
        });
        let expected = (8.0f64.ln() * f64::from(RULES.ladder.growth_steps)) as usize;
        assert!(steps.count().abs_diff(expected) < 10);
        assert_eq!((limit.limit, limit.factor(), limit.scheduled), (None, 1.0, 0.4));
    }

    #[test]
    fn above_half_of_the_rate_that_failed_the_limit_grows_slowly() {
        let mut limit = RateLimit::default();
        let steps_to = |limit: &mut RateLimit, rate: f64| {
            let steps = (0..9999).take_while(|_| {
                limit.follow(&row(limit.factor()), true);
                limit.rate() < rate
            });
            steps.count() as f64
        };
        limit.follow(&row(1.0), true);
        limit.cut(0.5, &Borne::default(), true);
        limit.cut(0.5, &Borne::default(), false);
        let rule = RULES.ladder;
        let fast = 2.0_f64.ln() * f64::from(rule.growth_steps);
        assert!((steps_to(&mut limit, 0.5) - fast).abs() < 3.0);
        let slow = 2.0_f64.ln() * f64::from(rule.slow_growth_steps);
        assert!((steps_to(&mut limit, 1.0) - slow).abs() < 3.0);
    }

    #[test]
    fn without_a_rate_the_limit_is_a_fraction_of_the_schedule() {
        let mut limit = RateLimit::default();
        limit.follow(&Row::default(), true);
        limit.cut(0.5, &Borne::default(), true);
        limit.follow(&Row::default(), false);
        assert_eq!(limit.factor(), 0.5);
    }
}
