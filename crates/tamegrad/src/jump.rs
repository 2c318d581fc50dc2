//! A jump of the loss that the data made: other labels, a harder batch, another task.
//!
//! An explosion comes from an update: before the loss leaves its calm level, an update or a gradient
//! does. Where neither did, the network is what it was, the batch is not, and the network shall
//! learn from it, unless its numbers are out of all proportion to those before (a bad batch). Such a
//! jump is no trouble up to its own height and half as much again, until the loss is back.
//!
//! The rule is tamegrad's own; `docs/torch.md` has the runs that it was made for.

use crate::observe::{Observation, TensorInfo};
use crate::record::TensorTrack;
use crate::rules::{JumpRule, RULES};
use crate::run::{Jump, Run};
use crate::running::{Baseline, median};

/// The numbers.
const RULE: JumpRule = RULES.jump;

/// Goes on with the jump of the run, or begins one; its record does not hold the step yet.
pub(crate) fn follow(run: &mut Run, seen: &Observation<'_>) {
    let Some(loss) = seen.loss else { return };
    let goes_on = run.jump.take().filter(|jump| loss <= jump.loss_ceiling);
    run.jump = match goes_on {
        Some(jump) => jump.next(run, loss),
        None => Jump::begins(run, loss, seen),
    };
}

impl Jump {
    /// The jump that this loss begins, if it is one.
    fn begins(run: &Run, loss: f64, seen: &Observation<'_>) -> Option<Self> {
        let (record, warm_up) = (&run.record, RULES.warm_up.live);
        let before = record.now()?.loss?;
        let total = &record.total;
        let has_usual_update = |(track, info): (&TensorTrack, &TensorInfo)| {
            let judged = track.latest_update.filter(|update| info.is_judged_by(update));
            judged.is_none_or(|update| is_usual(&track.update, update.ratio()))
        };
        let matrices = || {
            let known = record.tensors.iter().zip(&record.layout.tensors);
            known.filter(|(_, info)| info.is_matrix)
        };
        let is_known = total.gradient.count() >= warm_up
            && matrices().any(|(track, _)| track.update.count() >= warm_up);
        // Where not every update is looked at, the learning rate tells of those between.
        let rates = || record.recent(RULE.steps).iter().filter_map(|row| row.learning_rate);
        let has_usual_rate = || {
            let usual = median(rates());
            rates().next_back().zip(usual).is_none_or(|(rate, usual)| rate <= RULE.usual * usual)
        };
        let from_data = is_known
            && loss.is_finite()
            && run.departs(loss)
            && !run.departs(before)
            && !run.is_troubled(RULE.calm_steps)
            && is_usual(&total.gradient, record.now()?.gradient_norm?)
            && matrices().all(has_usual_update)
            && has_usual_rate()
            && record.batch.unlike(seen.inputs, seen.targets).is_none()
            && seen.whole_norm()? <= RULE.gradient * total.gradient.mean().exp();
        from_data.then(|| Self { loss_ceiling: ceiling(run, loss), losses: [loss].into() })
    }

    /// What it is after a next loss under its ceiling; `None` when it is over. The ceiling comes down
    /// with the loss.
    fn next(mut self, run: &Run, loss: f64) -> Option<Self> {
        self.losses.push_back(loss);
        if self.losses.len() <= RULE.steps {
            return Some(self);
        }
        self.losses.pop_front();
        let highest = self.losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.loss_ceiling = self.loss_ceiling.min(ceiling(run, highest));
        run.departs(highest).then_some(self)
    }
}

/// Whether a value is no more than its stream usually shows.
pub(crate) fn is_usual(baseline: &Baseline, value: f64) -> bool {
    let above = value.ln() - baseline.mean();
    above <= RULE.usual.ln().max(RULE.usual_sigmas * baseline.sigma())
}

/// The ceiling of a jump to `loss`.
fn ceiling(run: &Run, loss: f64) -> f64 {
    let middle = run.record.calm_losses.median().unwrap_or(loss);
    middle + RULE.margin * (loss - middle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{NamedInput, Update};
    use crate::signs::check::{Given, alarms, noise, run, seen, stats, update};
    use crate::signs::{GradientSpikes, LossFluctuates};

    const AT: usize = 300;

    /// A calm run; from step 300 on these losses, with gradients of eight times the usual norm.
    fn jumps_to(losses: &[f64]) -> Vec<Given> {
        let step = |i: usize, loss: f64, norm: f64| Given {
            loss: Some(loss),
            norms: vec![norm * (0.1 * noise(i)).exp(); 2],
            learning_rate: Some(0.01),
            ratios: vec![0.003 * (0.1 * noise(i + 7)).exp(); 2],
            ..Given::default()
        };
        let calm = |i: usize| 2.0 * (-(i as f64) / 60.0).exp() + 0.3 + 0.03 * noise(i);
        let jumped = losses.iter().enumerate().map(|(i, loss)| step(AT + i, *loss, 8.0));
        (0..AT).map(|i| step(i, calm(i), 1.0)).chain(jumped).collect()
    }

    fn all_alarms(given: &[Given]) -> Vec<u64> {
        let spikes = alarms(&run(&mut GradientSpikes::default(), given).0);
        let mut all = alarms(&run(&mut LossFluctuates::default(), given).0);
        all.extend(spikes);
        all
    }

    /// What a network does with another task: it learns.
    const LEARNS: [f64; 12] = [8.0, 8.6, 9.0, 7.5, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.8];

    #[test]
    fn a_jump_that_no_update_made_is_no_alarm_while_the_loss_comes_down() {
        assert_eq!(all_alarms(&jumps_to(&LEARNS)), [0_u64; 0]);
    }

    #[test]
    fn a_jump_after_a_large_update_or_gradient_is_one() {
        type Plant = fn(&mut [Given]);
        let plants: [(&str, Plant); 7] = [
            ("update", |given| given[AT - 1].ratios[1] *= 4.0),
            ("rate", |given| given[AT - 1].learning_rate = Some(0.03)),
            ("gradient before", |given| given[AT - 1].norms = vec![4.0; 2]),
            ("gross gradient", |given| given[AT].norms = vec![30.0; 2]),
            ("loss before", |given| given[AT - 1].loss = Some(1.5)),
            ("alarm before", |given| given[AT - 50].norms = vec![500.0; 2]),
            ("no update known", |given| given.iter_mut().for_each(|step| step.ratios.clear())),
        ];
        for (name, plant) in plants {
            let mut given = jumps_to(&LEARNS);
            plant(&mut given);
            let alarms = all_alarms(&given);
            assert!(alarms.iter().any(|step| *step >= AT as u64), "{name}: {alarms:?}");
        }
    }

    #[test]
    fn a_batch_of_other_size_makes_none_and_neither_does_a_calm_loss() {
        let (mut run, _) = jumped();
        let batch = |size: f64| [NamedInput { name: "x", stats: stats(size) }];
        for i in 0..200 {
            let (loss, gradients) = (0.3 + 0.01 * noise(i as usize), [Some(stats(1.0))]);
            run.take(&Observation { inputs: &batch(1.0), ..seen(i, loss, &gradients) });
            run.record.take_update(&[update(0.003)]);
            run.settle();
        }
        for (loss, size, begins) in [(8.0, 1.2, true), (8.0, 100.0, false), (0.31, 1.2, false)] {
            let seen = Observation {
                inputs: &batch(size),
                gradient_norm: Some(3.0),
                ..Observation::default()
            };
            let jump = Jump::begins(&run, loss, &seen);
            assert_eq!(jump.is_some(), begins, "{loss} {size}");
        }
    }

    #[test]
    fn an_update_of_a_matrix_without_a_size_does_not_make_the_jump() {
        for (fan_in, begins) in [(Some(100), true), (None, false)] {
            let mut layout = crate::signs::check::layout(2);
            layout.tensors[1].fan_in = fan_in;
            let mut run = Run::new(layout, crate::RunFacts::default());
            for i in 0..200 {
                run.take(&seen(i, 0.3 + 0.01 * noise(i as usize), &[Some(stats(1.0)), None]));
                // It moves for the first time in the step before the jump.
                let late = update(0.01).filter(|_| i == 199);
                let late = late.map(|update| Update { weight_norm: 1e-4, ..update });
                run.record.take_update(&[update(0.003), late]);
                if i < 199 {
                    run.settle();
                }
            }
            let seen = Observation { gradient_norm: Some(3.0), ..Observation::default() };
            let jump = Jump::begins(&run, 8.0, &seen);
            assert_eq!(jump.is_some(), begins, "{fan_in:?}");
        }
    }

    #[test]
    fn in_a_rough_stream_more_is_usual() {
        for (spread, usual_at_three) in [(0.05, false), (0.6, true)] {
            let mut baseline = Baseline::new(0.98, 0.1);
            (0..200).for_each(|i| baseline.push(2.0 * spread * noise(i)));
            assert!(is_usual(&baseline, 1.8), "{spread}");
            assert_eq!(is_usual(&baseline, 3.0), usual_at_three, "{spread}");
            assert!(!is_usual(&baseline, 30.0), "{spread}");
        }
    }

    #[test]
    fn a_loss_that_climbs_on_is_an_alarm() {
        let above = all_alarms(&jumps_to(&[8.0, 9.0, 10.0, 11.0, 13.0, 16.0, 20.0]));
        assert_eq!(above.iter().min(), Some(&304), "half as much again as 8 is 12");
    }

    /// A calm run, and a jump from 0.3 to 8.
    fn jumped() -> (Run, Jump) {
        let mut run = Run::new(crate::signs::check::layout(1), crate::RunFacts::default());
        (0..50).for_each(|i| run.record.calm_losses.push(0.3 + 0.01 * noise(i)));
        run.record.first_losses.push(2.3);
        (run, Jump { loss_ceiling: 11.85, losses: [8.0].into() })
    }

    #[test]
    fn the_ceiling_comes_down_with_the_loss() {
        for (steps, above_six) in [(18, true), (25, false)] {
            let (run, jump) = jumped();
            let jump = (0..steps).try_fold(jump, |jump, _| jump.next(&run, 2.0)).expect("lasts");
            assert_eq!(jump.loss_ceiling > 6.0, above_six, "after {steps} steps");
        }
    }

    #[test]
    fn it_ends_when_the_loss_is_back_for_twenty_steps() {
        let (run, jump) = jumped();
        let lasts = std::iter::successors(Some(jump), |jump| jump.clone().next(&run, 0.3));
        assert_eq!(lasts.take(50).count(), 20);
    }

    #[test]
    fn a_rewound_run_is_in_none() {
        let (mut run, jump) = jumped();
        run.jump = Some(jump);
        assert!(!run.departs(8.0));
        run.rewind();
        assert!(run.departs(8.0));
    }

    #[test]
    fn one_may_begin_while_a_small_one_lasts() {
        let mut given = jumps_to(&LEARNS);
        given[AT - 5].loss = Some(1.2);
        assert_eq!(all_alarms(&given), [0_u64; 0]);
    }
}
