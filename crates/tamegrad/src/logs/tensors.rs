//! Where it began, from the gradient norms of single tensors: which left its own history first.

use super::{History, Sample, last, step};
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::observe::TensorId;
use crate::origin::Origin;
use crate::rules::{LogTensorRule, RULES};
use crate::running::centre_and_spread;

/// The numbers.
const RULE: LogTensorRule = RULES.log_tensor;

/// The tensor whose norm left its own history first, near the onset; of several at one step the one
/// that went farthest. Norms are never compared between tensors: a large one is no sign.
pub(super) fn origin(history: &History<'_>, onset: i64) -> Option<Origin> {
    let departures = history.tensors.iter().enumerate().filter_map(|(index, (_, norms))| {
        let (at, sigmas) = departure(norms, onset)?;
        Some((norms[at].step, sigmas, index, norms[at].value))
    });
    let first = departures.min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))?;
    let (at, sigmas, index, value) = first;
    // The names begin with the tensors, in their order.
    let place = Place::Tensor(TensorId(index));
    let evidence = vec![
        Measure::new(Quantity::GradientNorm, value).at(place).at_step(step(at)),
        Measure::new(Quantity::GradientSigmas, sigmas).against(Reference::Limit, RULE.sigmas),
    ];
    Some(Origin::new(place, evidence))
}

/// The first record near the onset that is away from the history before it.
fn departure(norms: &[Sample], onset: i64) -> Option<(usize, f64)> {
    let at_onset = norms.iter().position(|sample| sample.step >= onset).unwrap_or(norms.len());
    let from = at_onset.saturating_sub(RULE.early);
    (from..norms.len()).find_map(|at| {
        if !norms[at].value.is_finite() {
            return Some((at, f64::INFINITY));
        }
        let logs: Vec<f64> = norms[..at]
            .iter()
            .filter(|sample| sample.value.is_finite() && sample.value > 0.0)
            .map(|sample| sample.value.ln())
            .collect();
        let window = last(&logs, RULES.log_gradient.window);
        let (centre, spread) = centre_and_spread(window);
        let sigmas = (norms[at].value.ln() - centre) / spread.max(RULES.log_gradient.sigma_floor);
        (window.len() >= RULE.window_min && sigmas > RULE.sigmas).then_some((at, sigmas))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::{calm, samples};
    use super::*;

    #[test]
    fn the_first_to_leave_is_named_not_the_largest() {
        let small = samples(&[calm(0.01, 0.002, 30), vec![0.5, 3.0, 9.0]].concat());
        let large = samples(&[calm(50.0, 5.0, 31), vec![900.0, 1e5]].concat());
        let quiet = samples(&calm(1.0, 0.2, 33));
        let tensors = vec![("large", &large[..]), ("quiet", &quiet[..]), ("small", &small[..])];
        let history = History { tensors, ..History::default() };
        assert_eq!(origin(&history, 31).and_then(|origin| origin.tensor()), Some(TensorId(2)));
        assert_eq!(origin(&History::default(), 31), None);
    }

    #[test]
    fn a_tensor_that_turns_nan_has_left() {
        let nan = samples(&[calm(1.0, 0.1, 30), vec![f64::NAN]].concat());
        let late = samples(&[calm(1.0, 0.1, 31), vec![f64::NAN]].concat());
        let history = History { tensors: vec![("a", &late), ("b", &nan)], ..History::default() };
        assert_eq!(origin(&history, 30).and_then(|origin| origin.tensor()), Some(TensorId(1)));
    }
}
