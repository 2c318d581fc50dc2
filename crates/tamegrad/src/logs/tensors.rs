//! Where it began, from the gradient norms of single tensors: which left its own history first.

use super::{History, Sample, centre_and_spread, last, step};
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::observe::TensorId;
use crate::origin::Origin;
use crate::rules::RULES;

/// Sigmas of the logarithm that a tensor has to be away from its history: those of a live spike.
const SIGMAS: f64 = RULES.spike.live.sigmas;
/// The least spread of the logarithm.
const SIGMA_FLOOR: f64 = 0.1;
/// Records of history, and how many there must be.
const WINDOW: usize = 50;
const WINDOW_MIN: usize = 5;
/// Records before the onset in which a tensor may be the first.
const EARLY: usize = 5;

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
        Measure::new(Quantity::GradientSigmas, sigmas).against(Reference::Limit, SIGMAS),
    ];
    Some(Origin::new(place, evidence))
}

/// The first record near the onset that is away from the history before it.
fn departure(norms: &[Sample], onset: i64) -> Option<(usize, f64)> {
    let at_onset = norms.iter().position(|sample| sample.step >= onset).unwrap_or(norms.len());
    let from = at_onset.saturating_sub(EARLY);
    (from..norms.len()).find_map(|at| {
        if !norms[at].value.is_finite() {
            return Some((at, f64::INFINITY));
        }
        let logs: Vec<f64> = norms[..at]
            .iter()
            .filter(|sample| sample.value.is_finite() && sample.value > 0.0)
            .map(|sample| sample.value.ln())
            .collect();
        let window = last(&logs, WINDOW);
        let (centre, spread) = centre_and_spread(window);
        let sigmas = (norms[at].value.ln() - centre) / spread.max(SIGMA_FLOOR);
        (window.len() >= WINDOW_MIN && sigmas > SIGMAS).then_some((at, sigmas))
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
