//! Whether a loss rose because a term was added to it or weighted more, which is no explosion.

use super::{Alarm, History, Judged, Sample};
use crate::finding::SignName;
use crate::rules::{LogPartsRule, RULES};
use crate::running::median;

/// The numbers.
const RULE: LogPartsRule = RULES.log_parts;

/// Whether the loss that an alarm is about was the sum of logged parts, or one of them, and these go on
/// as before: then a term with a growing weight was added.
pub(super) fn have_changed(history: &History<'_>, alarm: &Alarm) -> bool {
    if alarm.sign != SignName::LossFluctuates || alarm.of != Judged::Loss(0) {
        return false;
    }
    let at = history.loss.iter().position(|sample| sample.step >= alarm.onset);
    let Some(at) = at.filter(|at| *at > 0) else { return false };
    let parts: Vec<&[Sample]> =
        history.parts.iter().copied().filter(|part| part.len() == history.loss.len()).collect();
    let explains = |parts: &[&[Sample]]| {
        let left = (0..at).map(|index| {
            let sum: f64 = parts.iter().map(|part| part[index].value).sum();
            let whole = history.loss[index].value;
            ((whole - sum) / whole).abs()
        });
        median(left).is_some_and(|left| left <= RULE.explained)
    };
    let highest = |samples: &[Sample]| samples.iter().map(|s| s.value.abs()).fold(0.0, f64::max);
    let (from, to) = (at.saturating_sub(RULE.near), (at + RULE.near).min(history.loss.len()));
    let is_calm = |part: &[Sample]| highest(&part[at..to]) <= RULE.calm * highest(&part[from..at]);
    let old: Vec<&[Sample]> =
        parts.iter().copied().filter(|part| part[..at].iter().any(|s| s.value != 0.0)).collect();
    let explain = explains(&old) || old.iter().any(|part| explains(&[part]));
    !old.is_empty() && explain && old.iter().all(|part| is_calm(part))
}

#[cfg(test)]
mod tests {
    use super::super::check::{calm, samples};
    use super::super::diagnose;
    use super::*;
    use crate::diagnosis::Verdict;

    #[test]
    fn a_new_term_is_no_explosion_and_a_part_that_rises_is() {
        let first = calm(1.0, 0.05, 60);
        let term: Vec<f64> = (0..60).map(|i| if i < 30 { 0.0 } else { 40.0 }).collect();
        let whole: Vec<f64> = first.iter().zip(&term).map(|(a, b)| a + b).collect();
        let (first, term, whole) = (samples(&first), samples(&term), samples(&whole));
        let verdict = |parts: Vec<&[Sample]>| {
            diagnose(&History { loss: &whole, parts, ..History::default() }).verdict
        };
        assert_eq!(verdict(vec![&first]), Verdict::Healthy);
        assert_eq!(verdict(vec![&first, &term]), Verdict::Healthy);
        assert_eq!(verdict(vec![&whole]), Verdict::Exploding);
        assert_eq!(verdict(vec![]), Verdict::Exploding);
    }
}
