//! Sign: the held-out metric stalls or deteriorates.

use super::Sign;
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::finding::{Finding, Reading, Severity, SignName};
use crate::observe::Step;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "metric-stalls",
    title: "Metric stalls or deteriorates",
    what: "The metric on held-out data stays where it began, or falls back from the best it had \
           reached; or the training loss stays far above that of a constant answer.",
    why: "A large update can leave a network dead, with units that never fire or outputs that are \
          saturated. The loss is then finite and flat and no gradient is large any more; only the \
          metric shows that nothing is being learned.",
    rule: |rules| {
        let rule = rules.metric;
        format!(
            "Needs {} measurements. The metric deteriorates when it is below its best, {} times in a \
             row, by more than {:.2} of what it had gained since the first measurement (and by at \
             least {}). It stalls when, after a quarter of the run and at least {} steps, it has \
             gained less than {} since the first measurement and its best is below {}. A plateau \
             at a high level is convergence and does not fire. In logs the rule is the same, in \
             units of the metric, and is judged at the end of the log. It is an alarm when the loss is \
             more than {} times that of the best constant answer for {} steps in a row; that loss is \
             known, for instance, for a mean cross-entropy over K classes: ln K.",
            rule.measurements_min,
            rule.in_a_row,
            rule.lost_of_gained,
            rule.lost_of_unit,
            rule.steps_min,
            rule.gain_min,
            rule.converged,
            rule.constant_times,
            rule.constant_steps,
        )
    },
    example: "Accuracy 0.10, 0.62, 0.88, then 0.31 and 0.10: 0.57 and 0.78 below the best.",
    remedy: "Rewind to a healthy snapshot and lower the learning rate. A dead network does not \
             recover by itself.",
    source: "Patience in the sense of early stopping: Prechelt, Early Stopping - But When? \
             (1998).",
};

/// State: the first and the best measurement, and how often the metric was below it.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MetricStalls {
    first: Option<(Step, f64)>,
    best: f64,
    count: u32,
    below: u32,
    /// Steps in a row whose loss was far above that of a constant answer.
    above_constant: u32,
}

impl MetricStalls {
    /// Whether the network has long been much worse than one that gives the same answer to all: its outputs
    /// are far too large.
    fn is_worse_than_constant(&mut self, run: &Run) -> Option<Finding> {
        let (row, constant) = run.record.now().zip(run.record.facts.constant_loss)?;
        let (loss, rule) = (row.loss?, RULES.metric);
        let is_above = loss > rule.constant_times * constant;
        self.above_constant = if is_above { self.above_constant.saturating_add(1) } else { 0 };
        (self.above_constant >= rule.constant_steps).then(|| {
            let loss = Measure::new(Quantity::Loss, loss).against(Reference::Constant, constant);
            Finding::new(SignName::MetricStalls, row.step, Severity::Alarm, vec![loss])
        })
    }
}

impl Sign for MetricStalls {
    fn read(&mut self, run: &Run) -> Reading {
        if let Some(finding) = self.is_worse_than_constant(run) {
            return Reading::Fired(finding);
        }
        let (record, rule) = (&run.record, RULES.metric);
        let needs = rule.measurements_min.saturating_sub(self.count);
        let unchanged = if needs > 0 { Reading::TooEarly { needs } } else { Reading::Quiet };
        let Some((row, metric)) = record.now().and_then(|row| Some((row, row.metric?))) else {
            return unchanged;
        };
        self.count = self.count.saturating_add(1);
        // NaN falls on the side of the alarm: it is below every best.
        let (first_step, first) = *self.first.get_or_insert((row.step, metric));
        self.best = if self.count == 1 { metric } else { self.best.max(metric) };
        let gained = self.best - first;
        let deep = !(metric >= self.best - (rule.lost_of_gained * gained).max(rule.lost_of_unit));
        self.below = if deep { self.below + 1 } else { 0 };
        if self.count < rule.measurements_min {
            return Reading::TooEarly { needs: rule.measurements_min - self.count };
        }
        let quarter = record.facts.planned_steps.map_or(0, |steps| steps / 4).max(rule.steps_min);
        let stalled = gained < rule.gain_min
            && row.step.0.saturating_sub(first_step.0) >= quarter
            && self.best < rule.converged;
        let evidence = if self.below >= rule.in_a_row {
            Measure::new(Quantity::Metric, metric).against(Reference::Best, self.best)
        } else if stalled {
            Measure::new(Quantity::BestMetric, self.best).against(Reference::First, first)
        } else {
            return Reading::Quiet;
        };
        Reading::Fired(Finding::new(
            SignName::MetricStalls,
            row.step,
            Severity::Strain,
            vec![evidence],
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signs::check::{Given, run, steps};

    fn measured_every_100(metrics: &[f64]) -> Vec<Given> {
        let steps = metrics.iter().flat_map(|m| {
            std::iter::once(Given { metric: Some(*m), ..Given::default() })
                .chain(std::iter::repeat_n(Given::default(), 99))
        });
        steps.collect()
    }

    #[test]
    fn fires_on_decline_and_on_no_gain_and_not_on_convergence() {
        for (name, metrics, fires_at) in [
            ("decline", vec![0.1, 0.62, 0.88, 0.31, 0.10], vec![400]),
            ("one bad measurement", vec![0.1, 0.62, 0.88, 0.31, 0.87], vec![]),
            ("never learns", vec![0.1, 0.11, 0.10, 0.10], vec![200, 300]),
            ("NaN", vec![0.1, 0.8, 0.9, f64::NAN, f64::NAN], vec![400]),
            ("converged", vec![0.1, 0.9, 0.96, 0.97, 0.97, 0.965, 0.97], vec![]),
        ] {
            let (findings, _) = run(&mut MetricStalls::default(), &measured_every_100(&metrics));
            assert_eq!(steps(&findings), fires_at, "{name}");
        }
    }

    #[test]
    fn a_loss_far_above_that_of_a_constant_answer_is_an_alarm() {
        let constant = Some(10f64.ln());
        for (name, loss, constant, fires_at) in [
            ("too large for long", &[20.0; 30][..], constant, Some(19)),
            ("nothing is known", &[20.0; 30], None, None),
            ("too large for 19 steps", &[[20.0; 19], [2.3; 19]].concat(), constant, None),
            ("learns slowly", &[2.31; 30], constant, None),
        ] {
            let mut run = Run::new(crate::observe::Layout::default(), Default::default());
            run.record.facts.constant_loss = constant;
            let mut sign = MetricStalls::default();
            let fired = loss.iter().enumerate().find(|(step, loss)| {
                run.take(&crate::signs::check::seen(*step as u64, **loss, &[]));
                matches!(sign.read(&run), Reading::Fired(found) if found.is_alarm())
            });
            assert_eq!(fired.map(|(step, _)| step), fires_at, "{name}");
        }
    }

    #[test]
    fn too_early_until_three_measurements() {
        let (_, last) = run(&mut MetricStalls::default(), &measured_every_100(&[0.1, 0.2]));
        assert_eq!(last, Reading::TooEarly { needs: 1 });
    }
}
