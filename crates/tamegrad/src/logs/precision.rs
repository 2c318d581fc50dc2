//! What the loss scale of mixed precision says: it halves at each overflow.

use super::{Alarm, History};
use crate::diagnosis::Verdict;
use crate::evidence::{Measure, Quantity, Reference};
use crate::finding::SignName;
use crate::rules::RULES;

/// A loss scale that falls and falls: every step overflows, whatever the scale. The first scale of a
/// run is guessed, and may fall for long from a high guess: so the fall must lead below 1, or end at the
/// least scale that there is and stay there.
pub(super) fn scale_collapse(history: &History<'_>) -> Option<Alarm> {
    let rule = RULES.loss_scale;
    let scale = history.loss_scale;
    let (mut begin, mut at_minimum) = (0, 0);
    for at in 1..scale.len() {
        let (now, before) = (scale[at].value, scale[at - 1].value);
        let has_fallen = scale[begin].value >= now * 2f64.powi(rule.halvings as i32);
        let is_lowest = now <= 1.0 && now == before && has_fallen;
        if !(now < before || is_lowest) {
            (begin, at_minimum) = (at, 0);
            continue;
        }
        at_minimum += usize::from(is_lowest);
        let ends_low = at + 1 == scale.len() && at - begin >= rule.last_halvings && now <= rule.low;
        if ends_low || has_fallen && (now < 1.0 || at_minimum >= rule.at_minimum) {
            let factor = scale[begin].value / now;
            let evidence = vec![
                Measure::new(Quantity::LossScale, now)
                    .against(Reference::Before, scale[begin].value),
                Measure::new(Quantity::LossScaleHalvings, factor.log2().round()),
            ];
            let (sign, onset) = (SignName::LossNonFinite, scale[begin].step);
            return Some(Alarm::new(sign, onset, Verdict::Exploding, evidence));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::check::samples;
    use super::*;

    #[test]
    fn a_collapse_is_told_from_a_search() {
        let fall = |from: f64, count: i32| (0..count).map(move |i| from / 2f64.powi(i));
        let onset = |values: Vec<f64>| {
            let loss_scale = samples(&values);
            let history = History { loss_scale: &loss_scale, ..History::default() };
            scale_collapse(&history).map(|alarm| alarm.onset)
        };
        let collapse: Vec<f64> = [0.5; 3].into_iter().chain(fall(0.25, 12)).collect();
        assert_eq!(onset(collapse), Some(2));
        assert_eq!(onset(fall(65536.0, 12).collect()), None);
        assert_eq!(onset(vec![1024.0, 512.0, 1024.0, 512.0, 256.0]), None);
        assert_eq!(onset(vec![]), None);
        // It ends at the least scale that there is, and every step overflows there.
        let to_one: Vec<f64> = fall(65536.0, 17).chain([1.0; 4]).collect();
        assert_eq!(onset(to_one), Some(0));
        let rests: Vec<f64> = fall(65536.0, 17).chain([1.0]).collect();
        assert_eq!(onset(rests.into_iter().chain([2.0, 2.0, 2.0, 4.0]).collect()), None);
        // The log ends while it falls, from where no search begins.
        assert_eq!(onset(fall(64.0, 6).collect()), Some(0));
        assert_eq!(onset(fall(2f64.powi(32), 6).collect()), None);
    }
}
