//! Sign: gradients spike or are very large.

use super::Sign;
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::finding::{Finding, Reading, Severity, SignName};
use crate::observe::TensorId;
use crate::record::TensorTrack;
use crate::rules::RULES;
use crate::run::Run;
use crate::running::Cusum;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "gradient-spikes",
    title: "Gradients spike or are very large",
    what: "The norm of a tensor's gradient, or of the whole gradient, is far above its own \
           history: at once (a spike), over a number of steps (a drift), or from the start.",
    why: "The gradient of a weight is a product along the chain rule. When the factors exceed one, \
          it grows exponentially with depth, and it does so before the loss shows anything.",
    rule: |rules| {
        let (spike, drift, high) = (rules.spike.live, rules.drift, rules.high_gradient.live);
        let baseline = rules.baseline;
        let live = format!(
            "The logarithm of each norm is compared with its own exponential average (decay {}, \
             winsorised at {} sigma after {} values, sigma at least {}; a value beyond counts for {} \
             sigma in the spread). A spike is more than {} sigma and {} times the mean. A drift is \
             found by a cumulative sum over a slower average (decay {}), with k = {} and h = {}, and \
             is more than {} times the mean; h is larger where successive norms are correlated (by up \
             to {}, averaged with decay {}). With n tensors the thresholds rise to sqrt({} + 2 ln n) \
             sigma and h + ln n / 2, so that a run with many tensors raises no more false alarms than \
             a run with one. A tensor counts only if a tensor of a neighbouring layer, or the whole \
             gradient, spikes within {} steps of it. ",
            baseline.decay,
            baseline.winsor_sigmas,
            baseline.winsor_after,
            baseline.sigma_floor,
            baseline.outlier_spread,
            spike.sigmas,
            spike.ratio,
            baseline.slow_decay,
            drift.slack,
            drift.sigmas,
            drift.ratio,
            drift.correlation_max,
            drift.correlation_decay,
            spike.sigmas * spike.sigmas,
            rules.agree_steps,
        );
        let alarm = format!(
            "In the first {} steps there is no history. Until then, the sign raises an alarm when the \
             norm is above {} times the first norm and the loss has risen by {} of its first \
             magnitude. At step 0 it raises an alarm when the product of backward gains is above {} \
             and the norm above {}, or when the norm alone is above {:e}. At the end of these steps it \
             raises an alarm when the norm was never below {:e} and the loss has not come below {} of \
             the first. Any later spike or drift raises an alarm if two conditions hold. The norm of \
             the whole gradient is above that of every calm step before. And either the loss departs \
             too (see loss-fluctuates; for a drift, {} steps in a row), or the norm is above {} times \
             its mean. Otherwise it is a strain. For logs, see `explain logs`.",
            rules.warm_up.live,
            high.gross_ratio,
            high.loss_rise,
            high.product,
            high.first_norm,
            high.absurd,
            high.very_high,
            high.loss_fall,
            drift.departed_steps,
            high.gross_ratio,
        );
        live + &alarm
    },
    example: "BLOOM-176B, steps 31214 to 31219: norms 0.242, 0.947, 2.39, 15.9, 145, 960.",
    remedy: "Clip the gradient. If one layer stands out, treat that layer.",
    source: "Page, Continuous Inspection Schemes, Biometrika 41 (1954), for the cumulative sum. \
             BLOOM: the public chronicle of its training.",
};

/// State: one cumulative sum a tensor and one for the whole, and when each last spiked.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GradientSpikes {
    tensors: Vec<Watch>,
    total: Watch,
    first_norm: Option<f64>,
    /// Steps in a row, to the latest, in which the loss departed.
    departed: u32,
}

#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Watch {
    drift: Cusum,
    last_spike: Option<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { drift: Cusum::new(RULES.drift.slack), last_spike: None }
    }
}

/// What one stream shows at this step.
#[derive(Debug, Clone, Copy)]
struct Rise {
    norm: f64,
    usual: f64,
    sigmas: f64,
    is_spike: bool,
}

impl Sign for GradientSpikes {
    fn read(&mut self, run: &Run) -> Reading {
        let (record, warm_up) = (&run.record, RULES.warm_up.live);
        let Some(row) = record.now() else { return Reading::TooEarly { needs: warm_up } };
        self.tensors.resize_with(record.tensors.len(), Watch::default);
        let departs = row.loss.is_some_and(|loss| run.departs(loss));
        self.departed = if departs { self.departed.saturating_add(1) } else { 0 };
        let total =
            row.gradient_norm.and_then(|norm| self.total.rise(&record.total, norm, row.step.0, 1));
        let family = record.tensors.len();
        let risen: Vec<(usize, Rise)> = self
            .tensors
            .iter_mut()
            .zip(&record.tensors)
            .enumerate()
            .filter_map(|(index, (watch, track))| {
                let norm = track.latest.filter(|stats| stats.is_finite())?.l2;
                Some((index, watch.rise(track, norm, row.step.0, family)?))
            })
            .collect();
        if let Some(finding) = self.high_from_the_start(run) {
            return Reading::Fired(finding);
        }
        let agreed = risen.into_iter().filter(|(index, _)| self.agrees(run, *index, row.step.0));
        let most = agreed.max_by(|a, b| a.1.sigmas.total_cmp(&b.1.sigmas));
        if let Some((index, rise)) = most {
            return Reading::Fired(self.finding(run, Place::Tensor(TensorId(index)), rise));
        }
        if let Some(rise) = total {
            return Reading::Fired(self.finding(run, Place::Gradients, rise));
        }
        match record.total.gradient.count() {
            count if count < warm_up => Reading::TooEarly { needs: warm_up - count },
            _ => Reading::Quiet,
        }
    }
}

impl GradientSpikes {
    fn agrees(&self, run: &Run, index: usize, now: u64) -> bool {
        let record = &run.record;
        let near = |watch: &Watch| {
            watch.last_spike.is_some_and(|at| now.abs_diff(at) <= RULES.agree_steps)
        };
        let Some(layer) = record.layout.tensors[index].layer else { return near(&self.total) };
        near(&self.total)
            || self.tensors.iter().enumerate().any(|(other, watch)| {
                let neighbour = record.layout.tensors[other]
                    .layer
                    .is_some_and(|l| l != layer && l.0.abs_diff(layer.0) == 1);
                neighbour && near(watch)
            })
    }

    fn finding(&self, run: &Run, place: Place, rise: Rise) -> Finding {
        let record = &run.record;
        let row = record.now().copied().unwrap_or_default();
        // One hard batch departs; a drift has time to wait for a second.
        let departs = self.departed >= if rise.is_spike { 1 } else { RULES.drift.departed_steps };
        let gross = rise.norm > RULES.high_gradient.live.gross_ratio * rise.usual;
        // Near convergence a hard batch is a spike against tiny norms, and no explosion.
        let record_high = row.gradient_norm.is_some_and(|n| !(n <= record.highest_calm_norm));
        let is_alarm = (departs || gross) && record_high;
        let norm =
            if rise.is_spike { Quantity::GradientNorm } else { Quantity::DriftingGradientNorm };
        let evidence = vec![
            Measure::new(norm, rise.norm).at(place).against(Reference::Usual, rise.usual),
            Measure::new(Quantity::GradientSigmas, rise.sigmas)
                .against(Reference::Limit, RULES.spike.live.sigmas),
        ];
        let severity = if is_alarm { Severity::Alarm } else { Severity::Strain };
        let place = if place == Place::Gradients { Place::Run } else { place };
        Finding::new(SignName::GradientSpikes, row.step, severity, evidence).at(place)
    }

    /// Growth in the warm-up, where no baseline can judge yet.
    fn high_from_the_start(&mut self, run: &Run) -> Option<Finding> {
        let (record, high, warm_up) = (&run.record, RULES.high_gradient.live, RULES.warm_up.live);
        let row = record.now()?;
        let norm = row.gradient_norm.filter(|norm| norm.is_finite())?;
        let first = *self.first_norm.get_or_insert(norm);
        let of_norm = |reference, limit| {
            let norm = Measure::new(Quantity::GradientNorm, norm).at(Place::Gradients);
            norm.against(reference, limit)
        };
        let first_loss = record.first_losses.iter().next();
        let has_risen = |(now, first): (f64, f64)| !(now <= first + high.loss_rise * first.abs());
        let is_first = record.rows.len() == 1;
        let measure = if record.total.gradient.count() < warm_up
            && norm > high.gross_ratio * first
            && row.loss.zip(first_loss).is_some_and(has_risen)
        {
            of_norm(Reference::First, first)
        } else if record.clock == u64::from(warm_up)
            && row.loss.is_some_and(|loss| record.never_came_down(loss))
        {
            let lowest = record.lowest_norm.unwrap_or(norm);
            Measure::new(Quantity::LowestGradientNorm, lowest)
                .over(u64::from(warm_up))
                .against(Reference::Limit, high.very_high)
        } else if is_first && norm > high.absurd {
            of_norm(Reference::Limit, high.absurd)
        } else if is_first && norm > high.first_norm {
            let product = record.first_chain()?.backward_product();
            if !(product > high.product) {
                return None;
            }
            Measure::new(Quantity::BackwardProduct, product).against(Reference::Limit, high.product)
        } else {
            return None;
        };
        Some(Finding::new(SignName::GradientSpikes, row.step, Severity::Alarm, vec![measure]))
    }
}

impl Watch {
    /// What one stream of a family of so many shows. The more streams, the higher the thresholds, so
    /// that the false alarms of the run stay those of one stream: a normal tail is as much thinner
    /// at z' = sqrt(z^2 + 2 ln n) as there are streams (Bonferroni), and the time to a false alarm
    /// of a cumulative sum is exp(2 k h) (Siegmund 1985).
    fn rise(&mut self, track: &TensorTrack, norm: f64, now: u64, family: usize) -> Option<Rise> {
        if !(norm.is_finite() && norm > 0.0) || track.gradient.count() < RULES.warm_up.live {
            return None;
        }
        let log = norm.ln();
        let (fast, slow) = (&track.gradient, &track.gradient_slow);
        let many = (family.max(1) as f64).ln();
        let (spike, drift) = (RULES.spike.live, RULES.drift);
        let sigmas = (spike.sigmas * spike.sigmas + 2.0 * many).sqrt();
        let h = drift.sigmas + many / (2.0 * drift.slack);
        let is_spike = fast.z(log) > sigmas && log - fast.mean() > spike.ratio.ln();
        let drifts = self.drift.push(slow.z(log), h) && log - slow.mean() > drift.ratio.ln();
        if is_spike {
            self.last_spike = Some(now);
        }
        let baseline = if is_spike { fast } else { slow };
        let usual = baseline.mean().exp();
        (is_spike || drifts).then(|| Rise { norm, usual, sigmas: baseline.z(log), is_spike })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signs::check::{Given, alarms, noise, run, tensors};

    /// Three tensors with noisy norms round 1 for 200 steps, then the given norms.
    fn calm_then(rows: &[[f64; 3]], loss: f64) -> Vec<Given> {
        let calm = (0..200).map(|i| {
            let norm = |k: usize| (0.2 * noise(3 * i + k)).exp();
            Given::of(1.0 + 0.01 * noise(i), &[norm(0), norm(1), norm(2)])
        });
        calm.chain(rows.iter().map(|norms| Given::of(loss, norms))).collect()
    }

    fn found(given: &[Given]) -> Vec<Finding> {
        run(&mut GradientSpikes::default(), given).0
    }

    #[test]
    fn quiet_on_noise_and_on_a_tensor_that_is_alone() {
        let alone = calm_then(&[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], 1.0);
        assert_eq!(found(&alone), []);
        // One small tensor at 5 times its norm: the whole gradient does not move.
        let small =
            |g: Given| Given { norms: vec![g.norms[0], 100.0 * g.norms[1], g.norms[2]], ..g };
        let given: Vec<_> = calm_then(&[[6.0, 1.0, 1.0]], 1.0).into_iter().map(small).collect();
        assert_eq!(found(&given), []);
    }

    #[test]
    fn a_spike_that_the_neighbours_confirm_names_the_largest() {
        let given = calm_then(&[[1.0, 19.7, 6.0]], 1.0);
        let findings = found(&given);
        assert_eq!(tensors(&findings), [Some(TensorId(1))]);
        assert_eq!(
            alarms(&findings),
            [0_u64; 0],
            "the loss did not move and 19.7 is not gross: a strain"
        );
    }

    #[test]
    fn it_is_an_alarm_when_the_loss_departs() {
        assert_eq!(alarms(&found(&calm_then(&[[1.0, 19.7, 6.0]], 4.8))), [200]);
    }

    #[test]
    fn slow_growth_is_seen_as_drift() {
        let growth: Vec<[f64; 3]> = (0..200).map(|i| [1.03f64.powi(i); 3]).collect();
        let findings = found(&calm_then(&growth, 1.0));
        let first = findings.first().expect("a drift");
        assert!((200..280).contains(&first.step.0), "{first:?}");
    }

    #[test]
    fn a_drift_alarms_when_the_loss_departs_twice_in_a_row() {
        let growth: Vec<[f64; 3]> = (0..100).map(|i| [1.02f64.powi(i); 3]).collect();
        for (hard, fires) in [(vec![280], vec![]), (vec![280, 281], vec![281])] {
            let mut given = calm_then(&growth, 1.0);
            hard.iter().for_each(|step| given[*step as usize].loss = Some(5.0));
            let findings = found(&given);
            assert!(findings.iter().any(|finding| finding.step.0 < 280), "it drifts");
            assert_eq!(alarms(&findings), fires);
        }
    }

    #[test]
    fn growth_in_the_warm_up_needs_a_rising_loss() {
        for (losses, fires) in [([1.0, 2.0, 900.0], vec![2]), ([1.0, 0.9, 0.8], vec![])] {
            let norms = [1.0, 50.0, 500.0];
            let steps = losses.iter().zip(norms);
            let given: Vec<_> = steps.map(|(loss, norm)| Given::of(*loss, &[norm])).collect();
            assert_eq!(alarms(&found(&given)), fires);
        }
    }

    /// Steps with a finding among `runs` runs of 1,000 steps of `tensors` tensors whose log norms
    /// are correlated normal noise, shared in part, as those of a healthy run are.
    fn false_findings(runs: usize, tensors: usize) -> usize {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        let mut normal =
            || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let runs = (0..runs).filter(|_| {
            let (mut shared, mut own) = (0.0, vec![0.0; tensors]);
            let given: Vec<Given> = (0..1000)
                .map(|_| {
                    shared = 0.7 * shared + 0.1 * normal();
                    let mut norm = |own: &mut f64| {
                        *own = 0.7 * *own + 0.1 * normal();
                        (shared + *own).exp()
                    };
                    Given::of(1.0, &own.iter_mut().map(&mut norm).collect::<Vec<_>>())
                })
                .collect();
            !found(&given).is_empty()
        });
        runs.count()
    }

    #[test]
    fn a_spike_at_the_threshold_counts_among_few_tensors_and_not_among_many() {
        // Uniform noise of width 0.8 has a sigma of about 0.23; two neighbours rise to 6.5 of it.
        let spiking = |count: usize| {
            let noisy = |i: usize, k: usize| 0.4 * noise(i * count + k);
            let norm = |i: usize, k: usize| match (i, k) {
                (300, 1 | 2) => (6.5 * 0.4 / 3f64.sqrt()).exp(),
                _ => noisy(i, k).exp(),
            };
            let norms = |i: usize| (0..count).map(|k| norm(i, k)).collect::<Vec<_>>();
            let given: Vec<_> = (0..=300).map(|i| Given::of(1.0, &norms(i))).collect();
            found(&given).iter().any(|finding| finding.step.0 == 300)
        };
        assert!(spiking(3));
        assert!(!spiking(1000));
    }

    #[test]
    fn many_tensors_are_no_more_false_findings() {
        assert_eq!(false_findings(40, 1), 0);
        assert_eq!(false_findings(3, 300), 0);
    }

    #[test]
    fn bloom_is_seen_at_31216() {
        let chronicle = [0.242, 0.947, 2.39, 15.9, 145.0, 960.0];
        let losses = [2.199, 2.220, 2.595, 2.242, 2.345, 5.098];
        let norm = |i: usize| 0.24 * (0.15 * noise(i + 7)).exp();
        let calm = (0..300).map(|i| Given::of(2.2 + 0.02 * noise(i), &[norm(i)]));
        let spike = chronicle.iter().zip(losses).map(|(norm, loss)| Given::of(loss, &[*norm]));
        let findings = found(&calm.chain(spike).collect::<Vec<_>>());
        let first = findings.first().expect("a finding").step.0;
        assert!(first <= 302, "31214 is row 300: fired at row {first}");
    }
}
