//! Running baselines: constant memory and time, and never shaken by the event they judge.

use std::collections::VecDeque;

use crate::rules::{BaselineRule, RULES};

/// Mean and spread of a stream by exponential averages, for the logarithm of a positive number.
///
/// Values are winsorised ([`BaselineRule`]) before they enter (an outlier moves the baseline by at most
/// that much), non-finite values never enter, and sigma has a floor.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Baseline {
    decay: f64,
    sigma_floor: f64,
    count: u32,
    mean: f64,
    variance: f64,
}

/// The numbers.
const RULE: BaselineRule = RULES.baseline;
/// Times the median distance from the median, which is the standard deviation of a normal distribution.
pub(crate) const SIGMAS_OF_MAD: f64 = 1.4826;

impl Baseline {
    /// A baseline whose averages keep `decay` of their past at each value (0.98: about the last
    /// 50 values).
    pub fn new(decay: f64, sigma_floor: f64) -> Self {
        Self { decay, sigma_floor, count: 0, mean: 0.0, variance: 0.0 }
    }

    /// Number of values that entered.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The spread, at least the floor.
    pub fn sigma(&self) -> f64 {
        // Never negative or NaN, whatever a state held that was read back.
        self.variance.sqrt().max(self.sigma_floor).max(0.0)
    }

    /// How many sigmas a value lies above the mean.
    pub fn z(&self, value: f64) -> f64 {
        (value - self.mean) / self.sigma()
    }

    /// Takes in a value. A non-finite one is ignored.
    pub fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.count = self.count.saturating_add(1);
        // A plain average until the exponential window is full, so that the start has no bias.
        let keep = self.decay.min(1.0 - 1.0 / f64::from(self.count));
        let (mut delta, mut spread) = (value - self.mean, value - self.mean);
        if self.count > RULE.winsor_after {
            let sigma = self.sigma();
            delta = delta.clamp(-RULE.winsor_sigmas * sigma, RULE.winsor_sigmas * sigma);
            // An outlier moves the mean by its bound, but hardly the spread: otherwise an event
            // that lasts would widen the very baseline that judges it.
            if delta.abs() >= RULE.winsor_sigmas * sigma {
                spread = RULE.outlier_spread * sigma;
            }
        }
        self.mean += (1.0 - keep) * delta;
        self.variance = keep * (self.variance + (1.0 - keep) * spread * spread);
    }

    /// Puts the mean at a level; the spread stays.
    pub fn accept_level(&mut self, value: f64) {
        if value.is_finite() {
            self.mean = value;
        }
    }
}

/// One-sided cumulative sum (Page 1954): grows while values lie more than `k` sigmas above the
/// baseline, and shows a slow drift that no single value shows.
///
/// In a stream whose neighbours are alike the sum wanders further by chance: the threshold is
/// widened by sqrt((1 + rho) / (1 - rho)), rho being the correlation of neighbours while calm, for
/// that is how much wider the sum's spread is (Johnson and Bagshaw 1974, Technometrics 16).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cusum {
    k: f64,
    sum: f64,
    previous: f64,
    /// Averages of z times the z before it, and of z squared, while calm; they begin as for white noise.
    product: f64,
    square: f64,
}

impl Cusum {
    /// Slack `k` in sigmas.
    pub fn new(k: f64) -> Self {
        Self { k, sum: 0.0, previous: 0.0, product: 0.0, square: 1.0 }
    }

    /// Takes in a z-score; true when the sum is above the threshold `h` (in sigmas), widened for
    /// the stream's correlation. One value adds at most a third of the threshold: a drift needs
    /// several.
    pub fn push(&mut self, z: f64, h: f64) -> bool {
        let rho = self.correlation();
        let h = h * ((1.0 + rho) / (1.0 - rho)).sqrt();
        if z.is_finite() {
            // A drift is all alike: what it adds to the correlation would hide it.
            if self.sum < h / 3.0 {
                let bounded = z.clamp(-3.0, 3.0);
                let keep = RULES.drift.correlation_decay;
                let average = |old: f64, new: f64| keep * old + (1.0 - keep) * new;
                self.product = average(self.product, bounded * self.previous);
                self.square = average(self.square, bounded * bounded);
                self.previous = bounded;
            }
            self.sum = (self.sum + (z - self.k).min(h / 3.0)).clamp(0.0, 2.0 * h);
        }
        self.sum > h
    }

    /// Correlation of successive values while calm, from 0.
    pub fn correlation(&self) -> f64 {
        let rho = if self.square > 0.0 { self.product / self.square } else { 0.0 };
        if rho.is_nan() { 0.0 } else { rho.clamp(0.0, RULES.drift.correlation_max) }
    }
}

/// Centre and robust spread of values: the median, and the median distance from it as a standard deviation.
/// Both are 0 without values.
pub fn centre_and_spread(values: &[f64]) -> (f64, f64) {
    let centre = median(values.iter().copied()).unwrap_or(0.0);
    let distance = median(values.iter().map(|value| (value - centre).abs())).unwrap_or(0.0);
    (centre, SIGMAS_OF_MAD * distance)
}

/// The last `CAP` values, oldest first. They are also held in order of size, because several signs ask for
/// their median at every step.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "Vec<f64>", into = "Vec<f64>")
)]
pub struct Window<const CAP: usize> {
    values: VecDeque<f64>,
    sorted: Vec<f64>,
}

impl<const CAP: usize> Window<CAP> {
    /// Takes in a value and lets the oldest go when full. A non-finite one is ignored.
    pub fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.values.len() == CAP
            && let Some(oldest) = self.values.pop_front()
        {
            let at = self.rank(oldest);
            self.sorted.remove(at);
        }
        self.values.push_back(value);
        self.sorted.insert(self.rank(value), value);
    }

    /// Number of held values that are less.
    fn rank(&self, value: f64) -> usize {
        self.sorted.partition_point(|held| held.total_cmp(&value).is_lt())
    }

    /// Number of values held.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().copied()
    }

    /// The median, or `None` when empty.
    pub fn median(&self) -> Option<f64> {
        self.sorted.get(median_rank(self.len())?).copied()
    }

    /// The median absolute deviation from the median, scaled by 1.4826 to estimate sigma of a
    /// normal distribution; `None` when empty. Where more than half of the values are the same, as the
    /// zeros of a hinge loss, that says nothing, and it is the root mean square distance.
    pub fn spread(&self) -> Option<f64> {
        let middle = self.median()?;
        // The deviations below and above the median are in order already: merge them up to the middle.
        let (below, above) = self.sorted.split_at(self.rank(middle));
        let mut below = below.iter().rev().map(|value| (value - middle).abs()).peekable();
        let mut above = above.iter().map(|value| (value - middle).abs()).peekable();
        let mut deviation = 0.0;
        for _ in 0..=median_rank(self.len())? {
            let is_below = match (below.peek(), above.peek()) {
                (Some(below), Some(above)) => below < above,
                (below, _) => below.is_some(),
            };
            deviation = if is_below { below.next() } else { above.next() }?;
        }
        if deviation > 0.0 {
            return Some(SIGMAS_OF_MAD * deviation);
        }
        let squares: f64 = self.sorted.iter().map(|value| (value - middle).powi(2)).sum();
        Some((squares / self.len() as f64).sqrt())
    }
}

impl<const CAP: usize> From<Vec<f64>> for Window<CAP> {
    fn from(values: Vec<f64>) -> Self {
        let mut window = Self::default();
        values.into_iter().for_each(|value| window.push(value));
        window
    }
}

impl<const CAP: usize> From<Window<CAP>> for Vec<f64> {
    fn from(window: Window<CAP>) -> Self {
        window.values.into()
    }
}

/// The rank of the median among so many values: the nearest below. `None` where there are none.
fn median_rank(count: usize) -> Option<usize> {
    Some(count.checked_sub(1)? / 2)
}

/// The median of finite values by the nearest rank below; `None` when there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    let rank = median_rank(values.len())?;
    Some(*values.select_nth_unstable_by(rank, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_moves_the_baseline_by_no_more_than_three_sigma() {
        let mut baseline = Baseline::new(0.98, 0.1);
        for i in 0..200 {
            baseline.push(1.0 + 0.1 * f64::from(i % 3));
        }
        let before = baseline.mean();
        let sigma = baseline.sigma();
        baseline.push(1e6);
        assert!(baseline.mean() - before <= 0.02 * 3.0 * sigma + 1e-12);
        baseline.push(f64::NAN);
        assert!(baseline.mean().is_finite());
    }

    #[test]
    fn an_event_that_lasts_does_not_blind_its_baseline() {
        let mut baseline = Baseline::new(0.98, 0.1);
        (0..200).for_each(|i| baseline.push(0.1 * f64::from(i % 3)));
        let sigma = baseline.sigma();
        (0..100).for_each(|_| baseline.push(1e6f64.ln()));
        assert!(baseline.sigma() < 1.6 * sigma, "{} {sigma}", baseline.sigma());
        assert!(baseline.mean() < 1.5, "{}", baseline.mean());
    }

    #[test]
    fn the_first_values_have_no_bias() {
        let mut baseline = Baseline::new(0.98, 0.1);
        baseline.push(5.0);
        baseline.push(7.0);
        assert!((baseline.mean() - 6.0).abs() < 1e-12);
    }

    #[test]
    fn cusum_fires_on_a_drift_and_not_on_one_spike() {
        let mut spike = Cusum::new(1.0);
        assert!(!spike.push(100.0, 12.0));
        assert!((0..20).all(|_| !spike.push(0.0, 12.0)));
        let mut drift = Cusum::new(1.0);
        assert_eq!((0..20).position(|_| drift.push(3.0, 12.0)), Some(6));
    }

    #[test]
    fn cusum_knows_how_alike_neighbours_are_and_forgets_none_of_it_in_a_drift() {
        let noise = |i: u32| {
            let x = (f64::from(i) * 12.9898).sin() * 43758.5453;
            3.0 * (x - x.floor()) - 1.5
        };
        let (mut alike, mut apart) = (Cusum::new(1.0), Cusum::new(1.0));
        let mut z = 0.0;
        for i in 0..2000 {
            z = 0.8 * z + 0.6 * noise(i);
            alike.push(z, 12.0);
            apart.push(noise(i), 12.0);
        }
        assert!((0.65..0.9).contains(&alike.correlation()), "{}", alike.correlation());
        assert!(apart.correlation() < 0.25, "{}", apart.correlation());
        let before = apart.correlation();
        assert!((0..30).any(|_| apart.push(3.0, 12.0)), "the drift is seen");
        assert!(apart.correlation() < before + 0.2, "{}", apart.correlation());
    }

    #[test]
    fn numbers_that_no_run_gives_are_borne() {
        for (variance, sigma_floor) in [(f64::NAN, f64::NAN), (-1.0, -1.0), (f64::NAN, -1.0)] {
            let mut baseline =
                Baseline { decay: 0.98, sigma_floor, count: 50, mean: 0.0, variance };
            assert_eq!(baseline.sigma(), 0.0);
            baseline.push(1.0);
            assert_eq!(baseline.count(), 51);
        }
        let mut cusum = Cusum { product: f64::NAN, ..Cusum::new(1.0) };
        assert_eq!(cusum.correlation(), 0.0);
        assert!(!cusum.push(1.0, 12.0));
    }

    #[test]
    fn a_window_has_the_median_and_spread_of_its_values() {
        let mut window = Window::<7>::default();
        for i in 0..200u32 {
            // Some values come twice.
            window.push(f64::from(i * 37 % 23).sin().mul_add(8.0, 0.5).round());
            let middle = median(window.iter());
            assert_eq!(window.median(), middle, "{i}");
            let deviations = window.iter().map(|value| (value - middle.unwrap_or(0.0)).abs());
            let expected = median(deviations).map(|mad| 1.4826 * mad).filter(|mad| *mad > 0.0);
            let spread = window.spread();
            assert!(expected.is_none_or(|expected| spread == Some(expected)), "{i}");
            assert_eq!(Window::from(Vec::from(window.clone())), window, "{i}");
        }
    }

    #[test]
    fn median_and_spread_of_known_values() {
        let mut window = Window::<4>::default();
        for v in [9.0, 1.0, 2.0, 3.0, 4.0, f64::INFINITY] {
            window.push(v);
        }
        assert_eq!(window.iter().collect::<Vec<_>>(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(window.median(), Some(2.0));
        assert_eq!(window.spread(), Some(1.4826));
        // More than half are the same: the root mean square of 0, 0, 0 and 2.
        assert_eq!(Window::<4>::from(vec![1.0, 1.0, 3.0, 1.0]).spread(), Some(1.0));
        assert_eq!(median([]), None);
    }
}
