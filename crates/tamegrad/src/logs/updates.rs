//! What the sizes of updates and parameters in a log say: a step that changes much of a network.

use super::{History, Sample, tensor};
use crate::evidence::{Measure, Names, Place, Quantity, Reference};
use crate::finding::{Finding, SignName};
use crate::rules::{RULES, UpdateRule};
use crate::running::median;

/// The numbers.
const RULE: UpdateRule = RULES.update.logs;
/// Records that a ratio is held against.
const WINDOW: usize = RULES.log_gradient.window;
/// How many there must be.
const WINDOW_MIN: usize = RULES.warm_up.logs as usize;
/// The first records of a tensor that starts at zero have ratios of any size.
const START_RECORDS: usize = RULES.log_update_start;

/// An update that changed a large part of its tensor, or parameters whose norm jumped from one
/// record to the next. The rule is that of the sign [`crate::signs::UpdatesTooLarge`].
pub(super) fn too_large(history: &History<'_>, names: &Names) -> Option<Finding> {
    let ratios = history.update_ratios.iter();
    let found = ratios.filter_map(|(name, ratios)| Some((name, first_large(ratios)?)));
    let first =
        found.min_by(|(_, a), (_, b)| a.step.cmp(&b.step).then(b.value.total_cmp(&a.value)));
    match first {
        Some((name, large)) => strain(Quantity::UpdateRatio, tensor(names, name), &large),
        None => jump_of_norm(history.parameter_norm),
    }
}

/// A ratio beside what it is held against.
struct Large {
    step: i64,
    value: f64,
    against: (Reference, f64),
}

fn first_large(ratios: &[Sample]) -> Option<Large> {
    (START_RECORDS..ratios.len()).find_map(|at| {
        let Sample { step, value } = ratios[at];
        // NaN falls on the side of the sign; most values need no look at those before.
        if value <= RULE.trouble {
            return None;
        }
        let before = &ratios[at.saturating_sub(WINDOW)..at];
        let usual = median(before.iter().map(|sample| sample.value));
        let usual = usual.filter(|_| before.len() >= WINDOW_MIN);
        match usual {
            Some(usual) if !(value <= RULE.times_usual * usual) => {
                Some(Large { step, value, against: (Reference::Usual, usual) })
            }
            _ if !(value <= RULE.overthrow)
                && usual.is_none_or(|usual| usual <= RULE.overthrow) =>
            {
                Some(Large { step, value, against: (Reference::Limit, RULE.trouble) })
            }
            _ => None,
        }
    })
}

/// A norm changes by no more than the updates between two records do: its change over the norm is
/// the least that they were.
fn jump_of_norm(norms: &[Sample]) -> Option<Finding> {
    let changes: Vec<Sample> = norms
        .windows(2)
        .filter(|pair| pair[1].step > pair[0].step && pair[0].value > 0.0)
        .map(|pair| {
            let value = (pair[1].value - pair[0].value).abs() / pair[0].value;
            Sample { step: pair[1].step, value }
        })
        .collect();
    let large = first_large(&changes)?;
    strain(Quantity::ParameterNormChange, Place::Run, &large)
}

fn strain(quantity: Quantity, place: Place, large: &Large) -> Option<Finding> {
    let (reference, limit) = large.against;
    let measure = Measure::new(quantity, large.value).at(place).against(reference, limit);
    let strain = super::strain(SignName::UpdatesTooLarge, large.step, vec![measure])?;
    Some(strain.at(place))
}

#[cfg(test)]
mod tests {
    use super::super::check::{self, calm, samples};
    use super::super::{diagnose, names};
    use super::*;
    use crate::diagnosis::Verdict;

    #[test]
    fn what_update_ratios_say() {
        let usual = calm(0.003, 0.001, 40);
        let then = |more: f64| [&usual[..], &[more], &usual].concat();
        // (what, ratios, onset)
        let cases: [(&str, Vec<f64>, Option<i64>); 8] = [
            ("usual", then(0.003), None),
            ("a small peak", then(0.05), None),
            ("trouble", then(0.3), Some(40)),
            ("NaN", then(f64::NAN), Some(40)),
            ("a tenth that is usual", vec![0.12; 90], None),
            ("one that is usual", vec![1.2; 90], Some(3)),
            ("an overthrow early on", [vec![0.01; 5], vec![3.0, 0.01]].concat(), Some(5)),
            ("from zero", [vec![9.0, 1.5], usual.clone()].concat(), None),
        ];
        for (what, ratios, onset) in cases {
            let (ratios, loss) = (samples(&ratios), samples(&calm(2.0, 0.1, 90)));
            let update_ratios = vec![("fc.weight", &ratios[..])];
            let history = History { update_ratios, loss: &loss, ..History::default() };
            assert_eq!(diagnose(&history).verdict, Verdict::Healthy, "{what}");
            assert_eq!(check::strain(&history), onset, "{what}");
        }
    }

    #[test]
    fn the_tensor_that_was_first_is_named() {
        let first = samples(&[calm(0.003, 0.001, 30), vec![0.4, 0.9]].concat());
        let second = samples(&[calm(0.003, 0.001, 31), vec![2.0]].concat());
        let update_ratios = vec![("a", &second[..]), ("b", &first[..])];
        let history = History { update_ratios, ..History::default() };
        let names = names(&history);
        let strain = too_large(&history, &names).expect("a strain");
        let first = strain.evidence[0];
        assert_eq!((names.name(first.place), first.value), (Some("b"), 0.4));
    }

    #[test]
    fn a_norm_of_parameters_that_jumps_and_one_that_grows() {
        let onset = |norms: Vec<f64>| {
            let norms = samples(&norms);
            let history = History { parameter_norm: &norms, ..History::default() };
            too_large(&history, &Names::default()).map(|strain| strain.step.0)
        };
        assert_eq!(onset([vec![50.0; 30], vec![80.0; 9]].concat()), Some(30));
        assert_eq!(onset((0..60).map(|i| 50.0 * 1.02f64.powi(i)).collect()), None);
        assert_eq!(onset(vec![]), None);
    }
}
