//! Which series behaves as a loss, where no name says which one is.

use tamegrad::running::median;

use crate::log::{Log, Series};
use crate::vocabulary::{HELD_OUT, has, is_gradient_norm, normal};

/// Numbers that a series needs to show how it behaves.
const POINTS_MIN: usize = 20;
/// The last quarter of a loss lies below this part of its first.
const FALL: f64 = 0.9;
/// A loss is noisy: at least this part of its numbers are above the one before. A schedule is smooth.
const NOISE: f64 = 0.05;
/// Words of what falls, or is no number, and is no loss.
const OTHER: &[&str] = &[
    "lr",
    "rate",
    "time",
    "sec",
    "seconds",
    "eta",
    "epsilon",
    "eps",
    "entropy",
    "memory",
    "mem",
    "gpu",
    "cpu",
    "temperature",
    "temp",
    "beta",
    "momentum",
    "decay",
    "grad",
    "norm",
    "std",
    "var",
    "scale",
    "steps",
    "step",
    "epoch",
    "throughput",
    "speed",
    "tokens",
    "samples",
    "fps",
    "acc",
    "accuracy",
    "reward",
    "return",
    "score",
    "len",
    "length",
    "lambda",
    "alpha",
    "sigma",
    "kl",
    "util",
    "disk",
    "power",
    "clip",
    "fraction",
    "frac",
];

/// The series that fall as a loss does, the one that falls farthest first.
pub(super) fn losses(log: &Log) -> Vec<&Series> {
    let mut found: Vec<(f64, &Series)> =
        log.series.iter().filter_map(|series| Some((fall(series)?, series))).collect();
    found.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    found.into_iter().take(1).map(|(_, series)| series).collect()
}

/// What is left of a series that falls as a loss does.
fn fall(series: &Series) -> Option<f64> {
    let name = normal(&series.name);
    if has(&name, OTHER) || has(&name, HELD_OUT) || is_gradient_norm(&name) {
        return None;
    }
    let begin = series.points.iter().position(|point| !point.value.is_finite());
    let finite: Vec<f64> =
        series.points.iter().take(begin.unwrap_or(usize::MAX)).map(|point| point.value).collect();
    let quarter = finite.len() / 4;
    if finite.len() < POINTS_MIN || finite.iter().any(|value| *value <= 0.0) {
        return None;
    }
    let rises = finite.windows(2).filter(|pair| pair[1] > pair[0]).count();
    let of = |values: &[f64]| median(values.iter().copied());
    let left = of(&finite[finite.len() - quarter..])? / of(&finite[..quarter])?;
    let is_noisy = rises as f64 >= NOISE * finite.len() as f64;
    // Whole numbers count something.
    let is_counted = finite.iter().all(|value| value.fract() == 0.0);
    (left < FALL && is_noisy && !is_counted).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::log_of;

    #[test]
    fn a_noisy_fall_is_a_loss_and_a_schedule_is_none() {
        let noisy: Vec<f64> =
            (0..60).map(|i| 3.0 * 0.97_f64.powi(i) + 0.1 * f64::from(i % 3)).collect();
        let smooth: Vec<f64> = (0..60).map(|i| 0.97_f64.powi(i)).collect();
        let level: Vec<f64> = (0..60).map(|i| 1.0 + 0.1 * f64::from(i % 3)).collect();
        let counted: Vec<f64> = noisy.iter().map(|value| (100.0 * value).round()).collect();
        let names = |log: &Log| losses(log).iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        let log = log_of(&[("a", &smooth), ("b", &level), ("c", &noisy), ("d", &counted)]);
        assert_eq!(names(&log), ["c"]);
        assert_eq!(names(&log_of(&[("lr", &noisy), ("val_x", &noisy), ("b", &level)])), [""; 0]);
        let broken = [&noisy[..], &[f64::NAN; 9]].concat();
        assert_eq!(names(&log_of(&[("q", &broken)])), ["q"]);
    }
}
