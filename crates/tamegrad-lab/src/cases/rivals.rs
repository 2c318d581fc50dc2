//! The rules of other tools, as they were published, on the same runs.

use std::collections::VecDeque;

use crate::cases::stream::Seen;

/// The rivals' names, in the order of [`Rivals::new`].
pub const RIVALS: [&str; 10] = [
    "autotrainer-ratio-70",
    "autotrainer-ratio-70-ungated",
    "thedeepchecker",
    "norm-above-100",
    "norm-above-1000",
    "zclip-z-2.5",
    "olmo-6-sigma-128",
    "megatron-10x-max-100",
    "loss-10x-median",
    "nan-only",
];

/// A rule: true at the step at which it fires.
type Rule = Box<dyn FnMut(&Seen) -> bool + Send>;

/// All rivals on one run.
pub(super) struct Rivals {
    rules: Vec<Rule>,
    /// The step at which each first fired, in the order of [`RIVALS`].
    pub(super) fired: Vec<Option<u64>>,
}

impl Rivals {
    /// Rivals that have seen nothing.
    pub(super) fn new() -> Self {
        let rules = vec![
            autotrainer(true),
            autotrainer(false),
            the_deep_checker(),
            norm_above(100.0),
            norm_above(1000.0),
            zclip(),
            olmo(),
            megatron(),
            loss_above_median(),
            Box::new(|seen: &Seen| !seen.loss.is_finite()) as Rule,
        ];
        let fired = vec![None; rules.len()];
        Self { rules, fired }
    }

    /// Shows a step to all that have not fired.
    pub(super) fn see(&mut self, seen: &Seen) {
        for (rule, fired) in self.rules.iter_mut().zip(&mut self.fired) {
            if fired.is_none() && rule(seen) {
                *fired = Some(seen.step);
            }
        }
    }
}

/// AUTOTRAINER (Zhang et al. 2021, ICSE): non-finite loss or gradient, or the gradient norm of
/// the first layer's kernel above 70 times that of the last; gated, the latter counts only for a
/// run that does not converge: accuracy below 0.7 after 30% of the run, or never up by 0.01 from
/// one measurement to the next.
fn autotrainer(gated: bool) -> Rule {
    const RATIO: f64 = 70.0;
    const ACCURACY: f64 = 0.7;
    const JUDGED_FROM: f64 = 0.3;
    const CHANGE: f64 = 0.01;
    let mut accuracies: Vec<f64> = Vec::new();
    let mut exploded = false;
    Box::new(move |seen| {
        accuracies.extend(seen.metric);
        if !seen.loss.is_finite() || seen.nonfinite_gradients > 0 {
            return true;
        }
        let ends = seen.matrices.first().zip(seen.matrices.last());
        exploded |= ends.is_some_and(|(first, last)| first / last > RATIO);
        let best = accuracies.iter().copied().fold(0.0, f64::max);
        let stands = !accuracies.windows(2).any(|pair| pair[1] - pair[0] >= CHANGE);
        let late = seen.done >= JUDGED_FROM && accuracies.len() >= 2;
        exploded && (!gated || (late && (best < ACCURACY || stands)))
    })
}

/// TheDeepChecker (Ben Braiek and Khomh 2023, TOSEM): non-finite loss or gradient, the mean
/// magnitude of a weight's gradient above 1e8, or doubled four times in a row. (The RMS stands for
/// the mean magnitude.)
fn the_deep_checker() -> Rule {
    const MAGNITUDE: f64 = 1e8;
    const GROWTH: f64 = 2.0;
    const ROW: u32 = 4;
    let mut before: Vec<f64> = Vec::new();
    let mut doubled: Vec<u32> = Vec::new();
    Box::new(move |seen| {
        doubled.resize(seen.matrix_rms.len(), 0);
        for (index, rms) in seen.matrix_rms.iter().enumerate() {
            let grew = before.get(index).is_some_and(|before| *rms >= GROWTH * before);
            doubled[index] = if grew { doubled[index] + 1 } else { 0 };
        }
        before.clone_from(&seen.matrix_rms);
        !seen.loss.is_finite()
            || seen.nonfinite_gradients > 0
            || seen.matrix_rms.iter().any(|rms| *rms > MAGNITUDE)
            || doubled.iter().any(|row| *row >= ROW)
    })
}

/// A threshold on the norm of the whole gradient; Inf and NaN are above it.
fn norm_above(limit: f64) -> Rule {
    Box::new(move |seen| !(seen.norm() <= limit))
}

/// ZClip (Kumar et al. 2025): z above 2.5 of the norm against exponential averages (0.97) that
/// begin with 25 steps; a norm that fires enters them as the mean plus 2.5 sigma squared over z.
fn zclip() -> Rule {
    const LIMIT: f64 = 2.5;
    const DECAY: f64 = 0.97;
    const WARM_UP: usize = 25;
    let mut warm_up: Vec<f64> = Vec::new();
    let mut average: Option<(f64, f64)> = None;
    Box::new(move |seen| {
        let norm = seen.norm();
        let Some((mean, variance)) = &mut average else {
            warm_up.push(norm);
            if warm_up.len() == WARM_UP {
                let mean = warm_up.iter().sum::<f64>() / WARM_UP as f64;
                let squares = warm_up.iter().map(|norm| (norm - mean).powi(2)).sum::<f64>();
                average = Some((mean, squares / WARM_UP as f64));
            }
            return false;
        };
        let sigma = variance.sqrt();
        let z = (norm - *mean) / (sigma + 1e-6);
        let kept = if z > LIMIT { *mean + LIMIT * LIMIT / z * sigma } else { norm };
        *mean = DECAY * *mean + (1.0 - DECAY) * kept;
        *variance = DECAY * *variance + (1.0 - DECAY) * (kept - *mean).powi(2);
        z > LIMIT
    })
}

/// OLMo's skip rule (OLMo 2, 2025): the loss or the norm more than 6 standard deviations above
/// its mean over the last 128 steps, from 64 steps on; what fires enters the window as well.
fn olmo() -> Rule {
    const WINDOW: usize = 128;
    const SIGMAS: f64 = 6.0;
    let mut losses = VecDeque::new();
    let mut norms = VecDeque::new();
    Box::new(move |seen| {
        let departs = |window: &mut VecDeque<f64>, value: f64| {
            let count = window.len() as f64;
            let mean = window.iter().sum::<f64>() / count;
            let squares = window.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
            let sigma = (squares / (count - 1.0)).sqrt();
            let fires = window.len() >= WINDOW / 2 && value > mean + SIGMAS * sigma;
            if window.len() == WINDOW {
                window.pop_front();
            }
            window.push_back(value);
            fires
        };
        let loss = departs(&mut losses, seen.loss);
        departs(&mut norms, seen.norm()) || loss
    })
}

/// Megatron-LM's check of unexpectedly large values: the norm at least 10 times the maximum of
/// the first 100.
fn megatron() -> Rule {
    const FIRST: u32 = 100;
    const FACTOR: f64 = 10.0;
    let (mut seen_so_far, mut largest) = (0, 0.0_f64);
    Box::new(move |seen| {
        if seen_so_far < FIRST {
            seen_so_far += 1;
            largest = largest.max(seen.norm());
            return false;
        }
        !(seen.norm() < FACTOR * largest)
    })
}

/// The loss above 10 times the median of the last 100; not finite counts as above.
fn loss_above_median() -> Rule {
    const FACTOR: f64 = 10.0;
    let mut losses = tamegrad::running::Window::<100>::default();
    Box::new(move |seen| {
        let median = losses.median().filter(|_| losses.len() >= 10);
        losses.push(seen.loss);
        !seen.loss.is_finite() || median.is_some_and(|median| seen.loss > FACTOR * median.abs())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps at which the rivals first fire on a run of 300 steps.
    fn fired(at: impl Fn(u64) -> (f64, Vec<f64>)) -> Vec<(&'static str, u64)> {
        let mut rivals = Rivals::new();
        for step in 0..300 {
            let (loss, matrices) = at(step);
            rivals.see(&Seen {
                step,
                done: step as f64 / 300.0,
                loss,
                metric: step.is_multiple_of(50).then_some(0.5),
                nonfinite_gradients: matrices.iter().filter(|m| !m.is_finite()).count() as u64,
                matrix_rms: matrices.clone(),
                matrices,
            });
        }
        let named = RIVALS.iter().zip(&rivals.fired);
        named.filter_map(|(name, at)| Some((*name, (*at)?))).collect()
    }

    /// A norm that goes up and down a little.
    fn calm(step: u64) -> f64 {
        1.0 + 0.1 * ((step % 7) as f64 - 3.0)
    }

    #[test]
    fn none_fires_on_a_calm_run() {
        assert_eq!(fired(|step| (1.0 / calm(step), vec![calm(step), calm(step + 3)])), []);
    }

    #[test]
    fn each_fires_as_published() {
        let jump = |step, to| vec![if step < 200 { calm(step) } else { to }, 1.0];
        let of_norms = ["zclip-z-2.5", "olmo-6-sigma-128"];
        let at = |names: &[&'static str]| names.iter().map(|n| (*n, 200)).collect::<Vec<_>>();
        assert_eq!(fired(|step| (1.0, jump(step, 5.0))), at(&of_norms));
        let far = fired(|step| (1.0, jump(step, 2000.0)));
        let names: Vec<_> = far.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "autotrainer-ratio-70",
                "autotrainer-ratio-70-ungated",
                "norm-above-100",
                "norm-above-1000",
                "zclip-z-2.5",
                "olmo-6-sigma-128",
                "megatron-10x-max-100",
            ]
        );
        assert!(far.iter().all(|(_, step)| *step == 200), "{far:?}");
        let doubling = fired(|step| (1.0, vec![2f64.powi(step.saturating_sub(20) as i32), 1.0]));
        assert!(doubling.contains(&("thedeepchecker", 24)), "{doubling:?}");
        let loss = fired(|step| (if step < 200 { 1.0 } else { 11.0 }, vec![calm(step)]));
        assert_eq!(loss, [("olmo-6-sigma-128", 200), ("loss-10x-median", 200)]);
        let nan = fired(|step| (if step < 200 { 1.0 } else { f64::NAN }, vec![calm(step)]));
        let names: Vec<_> = nan.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "autotrainer-ratio-70",
                "autotrainer-ratio-70-ungated",
                "thedeepchecker",
                "loss-10x-median",
                "nan-only"
            ]
        );
    }

    #[test]
    fn the_gate_of_the_ratio_is_accuracy_after_a_third_of_the_run() {
        let far = fired(|_| (1.0, vec![100.0, 1.0]));
        assert_eq!(far[..2], [("autotrainer-ratio-70", 90), ("autotrainer-ratio-70-ungated", 0)]);
    }
}
