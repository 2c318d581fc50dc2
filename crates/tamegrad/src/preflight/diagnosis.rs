//! What a first step shows, as the diagnosis that all other sources give.

use super::{Direction, OverflowAt, Preflight, RULE, Warning, headroom_min};
use crate::causes::{Cause, CauseName, Ground};
use crate::diagnosis::{Diagnosis, Seen, Verdict, summaries};
use crate::evidence::{Measure, Names, Place, Quantity, Reference};
use crate::finding::{Finding, Severity, SignName};
use crate::observe::{RunFacts, Step};
use crate::origin::{Origin, first_seen};
use crate::remedies::{Case, propose_for};
use crate::rules::RULES;

impl Preflight {
    /// The diagnosis of the run before it begins: exploded where the first pass or the first update is
    /// not finite, exploding where the first gradient is absurd; otherwise it is too early to say, and
    /// the warnings are strains.
    pub fn diagnosis(&self) -> Diagnosis {
        let warnings = self.warnings();
        let findings: Vec<Finding> = warnings.iter().map(|of| self.finding(of)).collect();
        let alarm = findings.iter().find(|finding| finding.is_alarm()).cloned();
        let verdict = match alarm.as_ref().map(|alarm| alarm.sign) {
            Some(SignName::LossNonFinite) => Verdict::Exploded,
            Some(_) => Verdict::Exploding,
            None => Verdict::TooEarly,
        };
        let origin = self.origin();
        let causes: Vec<Cause> = warnings.iter().filter_map(|of| self.cause(of)).collect();
        let onset = alarm.as_ref().map(|_| Step(0));
        let case = Case {
            layout: &self.layout,
            facts: RunFacts::default(),
            origin: origin.as_ref(),
            causes: &causes,
            inspection: None,
            usual_norm: None,
            usual_rms: None,
            learning_rate: None,
            critical_multiple: None,
            broke_at_once: false,
            is_log: false,
            onset,
            is_broken: verdict == Verdict::Exploded,
        };
        let remedies = if warnings.is_empty() { Vec::new() } else { propose_for(&case) };
        Diagnosis {
            onset,
            decided_by: alarm.map(|alarm| alarm.sign),
            signs: summaries(findings),
            chain: self.chain.clone(),
            remedies,
            origin,
            causes,
            ..Diagnosis::empty(verdict, Seen::Steps(1), Names::of(&self.layout))
        }
    }

    /// Where the first number that is not finite comes up.
    fn origin(&self) -> Option<Origin> {
        let broken = self.broken.map(Place::Tensor);
        let place = self.overflow.map(place).or(broken)?;
        // A layer is at fault, not the place at which it shows.
        let at = place.layer().map_or(place, Place::Layer);
        Some(Origin::new(at, vec![first_seen(place, Step(0))]))
    }

    fn finding(&self, warning: &Warning) -> Finding {
        let (sign, severity) = match warning {
            Warning::Overflow(_) | Warning::BrokenUpdate { .. } => {
                (SignName::LossNonFinite, Severity::Alarm)
            }
            Warning::AbsurdGradient { .. } => (SignName::GradientSpikes, Severity::Alarm),
            Warning::LittleHeadroom { .. } => (SignName::LossNonFinite, Severity::Strain),
            Warning::Gains { .. } => (SignName::GradientSpikes, Severity::Strain),
            Warning::LargeUpdate { .. } => (SignName::UpdatesTooLarge, Severity::Strain),
            Warning::LearningRate { .. } => (SignName::LearningRateFalls, Severity::Strain),
        };
        let measure = self.measure(warning);
        let place = if measure.place.tensor().is_some() { measure.place } else { Place::Run };
        Finding::new(sign, Step(0), severity, vec![measure]).at(place)
    }

    /// The number behind a warning.
    fn measure(&self, warning: &Warning) -> Measure {
        let branches = self.chain.as_ref().is_some_and(|chain| chain.ends.is_some());
        match *warning {
            Warning::Overflow(at) => first_seen(place(at), Step(0)),
            Warning::BrokenUpdate { tensor } => first_seen(Place::Tensor(tensor), Step(0)),
            Warning::LittleHeadroom { layer, bits } => {
                let least = self.dtype_max.map_or(0.0, headroom_min);
                Measure::new(Quantity::HeadroomBits, bits)
                    .at(Place::Output(layer))
                    .against(Reference::Limit, least)
            }
            Warning::Gains { direction, product, layers } => {
                let quantity = match (direction, branches) {
                    (Direction::Forward, false) => Quantity::ForwardProduct,
                    (Direction::Forward, true) => Quantity::ForwardGrowth,
                    (Direction::Backward, false) => Quantity::BackwardProduct,
                    (Direction::Backward, true) => Quantity::BackwardGrowth,
                };
                Measure::new(quantity, product)
                    .over(layers as u64)
                    .against(Reference::Limit, RULES.initialisation.product)
            }
            Warning::AbsurdGradient { norm } => Measure::new(Quantity::GradientNorm, norm)
                .at(Place::Gradients)
                .against(Reference::Limit, RULES.high_gradient.live.absurd),
            Warning::LargeUpdate { tensor, ratio } => Measure::new(Quantity::UpdateRatio, ratio)
                .at(Place::Tensor(tensor))
                .against(Reference::Limit, RULE.update),
            Warning::LearningRate { times } => {
                Measure::new(Quantity::CriticalMultiple, 1.0 / times)
                    .against(Reference::Limit, RULE.critical)
            }
        }
    }

    /// The cause that a warning supports.
    fn cause(&self, warning: &Warning) -> Option<Cause> {
        let (name, ground) = match warning {
            Warning::Overflow(OverflowAt::Input) => (CauseName::Data, Ground::BrokenData),
            Warning::Overflow(OverflowAt::Output(_) | OverflowAt::Gradient(_))
            | Warning::LittleHeadroom { .. } => (CauseName::Precision, Ground::Overflow),
            Warning::Gains { .. } => (CauseName::Initialisation, Ground::FirstGains),
            Warning::LargeUpdate { .. }
            | Warning::BrokenUpdate { .. }
            | Warning::LearningRate { .. } => (CauseName::LearningRate, Ground::LargeUpdates),
            Warning::Overflow(_) | Warning::AbsurdGradient { .. } => return None,
        };
        let measure = self.measure(warning);
        Some(Cause::new(name, ground, vec![measure]).of_layer(measure.place.layer()))
    }
}

fn place(at: OverflowAt) -> Place {
    match at {
        OverflowAt::Input => Place::Data,
        OverflowAt::Output(layer) => Place::Output(layer),
        OverflowAt::Loss => Place::Loss,
        OverflowAt::LossGradient => Place::LossGradient,
        OverflowAt::Gradient(layer) => Place::Layer(layer),
        OverflowAt::Parameter(tensor) => Place::Tensor(tensor),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FirstStep, preflight};
    use super::*;
    use crate::observe::{LayerId, LayerSample, LayerTrace, TensorId};
    use crate::signs::check::{layout, stats, update};

    /// Of three layers with these outputs, an update of this part of the first weight, and this loss.
    fn seen(outputs: [f64; 3], ratio: f64, loss: f64) -> Diagnosis {
        let sample = |output: f64| LayerSample::new(stats(output), Some(stats(1.0)));
        let trace = LayerTrace { input: Some(sample(1.0)), layers: outputs.map(sample).to_vec() };
        let first = FirstStep {
            loss: Some(loss),
            trace: Some(&trace),
            gradients: &[Some(stats(1.0)); 3],
            updates: &[update(ratio), None, None],
            ..FirstStep::default()
        };
        preflight(&layout(3), &first).diagnosis()
    }

    #[test]
    fn each_first_step_has_its_verdict_place_and_cause() {
        const NAN: f64 = f64::NAN;
        let layer = Place::Layer(LayerId(1));
        for (name, found, verdict, place, cause) in [
            ("calm", seen([1.0; 3], 0.01, 1.0), Verdict::TooEarly, None, None),
            (
                "an output",
                seen([1.0, f64::INFINITY, NAN], 0.01, NAN),
                Verdict::Exploded,
                Some(layer),
                Some("precision"),
            ),
            ("the loss", seen([1.0; 3], 0.01, NAN), Verdict::Exploded, Some(Place::Loss), None),
            (
                "an update that breaks",
                seen([1.0; 3], f64::INFINITY, 1.0),
                Verdict::Exploded,
                Some(Place::Tensor(TensorId(0))),
                Some("learning-rate"),
            ),
            (
                "gains",
                seen([30.0, 900.0, 27_000.0], 0.01, 1.0),
                Verdict::TooEarly,
                None,
                Some("initialisation"),
            ),
            (
                "a large update",
                seen([1.0; 3], 3.0, 1.0),
                Verdict::TooEarly,
                None,
                Some("learning-rate"),
            ),
        ] {
            let origin = found.origin.as_ref().map(|origin| origin.place);
            assert_eq!((found.verdict, origin, found.cause()), (verdict, place, cause), "{name}");
            assert_eq!(found.remedies.is_empty(), name == "calm", "{name}");
            assert_eq!(found.onset.is_some(), found.alarm().is_some(), "{name}");
        }
    }
}
