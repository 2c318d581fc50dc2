//! What the sizes of updates and parameters in a log say: a step that changes much of a network.

use super::{History, Sample, Strain};
use crate::finding::Evidence;
use crate::finding::SignName;
use crate::running::median;

/// An update ratio above this, and so many times its own usual, is trouble.
const TROUBLE: f64 = 0.1;
const TIMES_USUAL: f64 = 4.0;
/// A ratio above this is one whatever is usual.
const OVERTHROW: f64 = 1.0;
/// Records that a ratio is held against, and how many there must be.
const WINDOW: usize = 50;
const WINDOW_MIN: usize = 20;
/// The first records of a tensor that starts at zero have ratios of any size.
const START_RECORDS: usize = 3;

/// An update that changed a large part of its tensor, or parameters whose norm jumped from one
/// record to the next. The rule is that of the sign [`crate::signs::UpdatesTooLarge`].
pub(super) fn too_large(history: &History<'_>) -> Option<Strain> {
    let ratios = history.update_ratios.iter();
    let found = ratios.filter_map(|(name, ratios)| Some((name, first_large(ratios)?)));
    let first =
        found.min_by(|(_, a), (_, b)| a.step.cmp(&b.step).then(b.value.total_cmp(&a.value)));
    match first {
        Some((name, large)) => Some(strain(large.step, format!("update ratio of {name}"), &large)),
        None => jump_of_norm(history.parameter_norm),
    }
}

/// A ratio beside what it is held against.
struct Large {
    step: i64,
    value: f64,
    against: &'static str,
    limit: f64,
}

fn first_large(ratios: &[Sample]) -> Option<Large> {
    (START_RECORDS..ratios.len()).find_map(|at| {
        let Sample { step, value } = ratios[at];
        // NaN falls on the side of the sign; most values need no look at those before.
        if value <= TROUBLE {
            return None;
        }
        let before = &ratios[at.saturating_sub(WINDOW)..at];
        let usual = median(before.iter().map(|sample| sample.value));
        let usual = usual.filter(|_| before.len() >= WINDOW_MIN);
        match usual {
            Some(usual) if !(value <= TIMES_USUAL * usual) => {
                Some(Large { step, value, against: "its usual", limit: usual })
            }
            _ if !(value <= OVERTHROW) && usual.is_none_or(|usual| usual <= OVERTHROW) => {
                let (against, limit) = ("trouble begins at", TROUBLE);
                Some(Large { step, value, against, limit })
            }
            _ => None,
        }
    })
}

/// A norm changes by no more than the updates between two records do: its change over the norm is
/// the least that they were.
fn jump_of_norm(norms: &[Sample]) -> Option<Strain> {
    let changes: Vec<Sample> = norms
        .windows(2)
        .filter(|pair| pair[1].step > pair[0].step && pair[0].value > 0.0)
        .map(|pair| {
            let value = (pair[1].value - pair[0].value).abs() / pair[0].value;
            Sample { step: pair[1].step, value }
        })
        .collect();
    let large = first_large(&changes)?;
    Some(strain(large.step, "change of the norm of the parameters".to_owned(), &large))
}

fn strain(onset: i64, what: String, large: &Large) -> Strain {
    let evidence = vec![Evidence::against(what, large.value, large.against, large.limit)];
    Strain { sign: SignName::UpdatesTooLarge, onset, evidence }
}

#[cfg(test)]
mod tests {
    use super::super::check::{calm, samples};
    use super::super::judge;
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
            let judgement = judge(&History { update_ratios, loss: &loss, ..History::default() });
            assert_eq!(judgement.verdict, Verdict::Healthy, "{what}");
            assert_eq!(judgement.strains.first().map(|strain| strain.onset), onset, "{what}");
        }
    }

    #[test]
    fn the_tensor_that_was_first_is_named() {
        let first = samples(&[calm(0.003, 0.001, 30), vec![0.4, 0.9]].concat());
        let second = samples(&[calm(0.003, 0.001, 31), vec![2.0]].concat());
        let update_ratios = vec![("a", &second[..]), ("b", &first[..])];
        let strain = too_large(&History { update_ratios, ..History::default() });
        let evidence = strain.map(|strain| strain.evidence[0].clone());
        assert_eq!(
            evidence.map(|e| (e.what, e.value)),
            Some(("update ratio of b".to_owned(), 0.4))
        );
    }

    #[test]
    fn a_norm_of_parameters_that_jumps_and_one_that_grows() {
        let onset = |norms: Vec<f64>| {
            let norms = samples(&norms);
            let history = History { parameter_norm: &norms, ..History::default() };
            too_large(&history).map(|strain| strain.onset)
        };
        assert_eq!(onset([vec![50.0; 30], vec![80.0; 9]].concat()), Some(30));
        assert_eq!(onset((0..60).map(|i| 50.0 * 1.02f64.powi(i)).collect()), None);
        assert_eq!(onset(vec![]), None);
    }
}
