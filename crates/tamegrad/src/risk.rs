//! Whether the coming update may have to be taken back, so that the integration must hold a copy.
//!
//! An update is made of the gradient, the learning rate and the optimizer's memory of gradients before.
//! Where all of them are what they have been for a hundred calm steps, the update is as well: it can
//! neither overthrow a matrix nor break a parameter that such updates have left whole. The rule is
//! tamegrad's own; a copy before every step made a perceptron's step more than a quarter longer.

use crate::jump::is_usual;
use crate::record::TensorTrack;
use crate::rules::{LadderRule, RULES};
use crate::run::Run;

/// The numbers.
const RULE: LadderRule = RULES.ladder;

/// Whether the update of the latest step is at risk.
pub(crate) fn is_at_risk(run: &Run) -> bool {
    let (record, warm_up) = (&run.record, RULES.warm_up.live);
    let Some(row) = record.now() else { return true };
    let is_calm = |track: &TensorTrack| {
        let norm = track.latest.map_or(0.0, |stats| stats.l2);
        norm == 0.0 || (track.gradient.count() >= warm_up && is_usual(&track.gradient, norm))
    };
    run.is_troubled(RULE.trouble_steps)
        || record.clock <= u64::from(warm_up)
        || row.nonfinite_gradients > 0
        || row.loss.is_some_and(|loss| !loss.is_finite() || run.departs(loss))
        || !is_rate_within(run, RULE.rate_growth)
        || !is_calm(&record.total)
        || !record.tensors.iter().all(is_calm)
}

/// Whether the latest step's learning rate is above those of the steps before it, so that nothing they
/// have shown tells how large its update is: a rate that ramps up breaks a run while its gradients are
/// still usual.
pub(crate) fn is_rate_untried(run: &Run) -> bool {
    !is_rate_within(run, 1.0)
}

/// Whether the latest learning rate is at most this many times the highest of the steps before it.
fn is_rate_within(run: &Run, growth: f64) -> bool {
    let before = run.record.recent(RULE.rate_steps + 1).iter().rev().skip(1);
    let highest = before.filter_map(|row| row.learning_rate).reduce(f64::max);
    let rate = run.record.now().and_then(|row| row.learning_rate);
    rate.is_none_or(|rate| highest.is_some_and(|highest| rate <= growth * highest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Finding, Severity, SignName};
    use crate::observe::{Observation, RunFacts, Step};
    use crate::signs::check::{layout, noise, seen, stats};

    /// The last step of a run that was calm before it.
    #[derive(Clone, Copy)]
    struct Last {
        steps: u64,
        loss: f64,
        norms: [f64; 2],
        rate: f64,
        /// Steps since an alarm.
        alarm: Option<u64>,
        /// Steps in which the second tensor had no gradient.
        without: u64,
    }

    const CALM: Last =
        Last { steps: 150, loss: 1.0, norms: [1.1; 2], rate: 0.01, alarm: None, without: 0 };

    fn run(last: &Last) -> Run {
        let mut run = Run::new(layout(2), RunFacts::default());
        for step in 0..=last.steps {
            let n = noise(step as usize);
            let (loss, norms, rate) = if step == last.steps {
                (last.loss, last.norms, last.rate)
            } else {
                (1.0 + 0.01 * n, [(0.1 * n).exp(); 2], 0.01)
            };
            let second = (step >= last.without).then(|| stats(norms[1]));
            let (learning_rate, gradients) = (Some(rate), [Some(stats(norms[0])), second]);
            run.take(&Observation { learning_rate, ..seen(step, loss, &gradients) });
            if last.alarm == Some(last.steps - step) {
                let (sign, severity) = (SignName::LossFluctuates, Severity::Alarm);
                run.note([Finding::new(sign, Step(step), severity, vec![])]);
            }
            if step < last.steps {
                run.settle();
            }
        }
        run
    }

    #[test]
    fn a_step_like_those_before_is_not_at_risk() {
        for (name, last, want) in [
            ("calm", CALM, false),
            ("young", Last { steps: 99, ..CALM }, true),
            ("old enough", Last { steps: 100, ..CALM }, false),
            ("large gradient", Last { norms: [3.0; 2], ..CALM }, true),
            (
                "one large gradient, and the whole is usual",
                Last { norms: [0.1, 2.3], ..CALM },
                true,
            ),
            ("no gradient", Last { norms: [0.0; 2], ..CALM }, false),
            ("broken gradient", Last { norms: [1.0, f64::NAN], ..CALM }, true),
            ("broken loss", Last { loss: f64::NAN, ..CALM }, true),
            ("loss up", Last { loss: 3.0, ..CALM }, true),
            ("rate up", Last { rate: 0.016, ..CALM }, true),
            ("rate a little up", Last { rate: 0.014, ..CALM }, false),
            ("an alarm 49 steps before", Last { alarm: Some(49), ..CALM }, true),
            ("an alarm 50 steps before", Last { alarm: Some(50), ..CALM }, false),
            ("a tensor with few gradients", Last { without: 51, ..CALM }, true),
            ("a tensor with enough", Last { without: 50, ..CALM }, false),
        ] {
            assert_eq!(is_at_risk(&run(&last)), want, "{name}");
        }
    }

    #[test]
    fn a_rate_is_untried_above_those_before() {
        for (rate, want) in [(0.009, false), (0.01, false), (0.0101, true), (f64::NAN, true)] {
            assert_eq!(is_rate_untried(&run(&Last { rate, ..CALM })), want, "{rate}");
        }
    }
}
