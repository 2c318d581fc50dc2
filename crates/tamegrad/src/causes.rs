//! Why it happened: one file a cause. Each weighs the record and brings the numbers that show it.

use crate::doc::enum_of_docs;
use crate::evidence::Measure;
use crate::observe::LayerId;
use crate::origin::Origin;
use crate::run::Run;

/// Declares the causes from one list, in the order of the alphabet: module, name, and what it is.
macro_rules! causes {
    ($($(#[$doc:meta])* $module:ident => $name:ident,)*) => {
        $(pub(crate) mod $module;)*

        enum_of_docs! {
            /// Which cause.
            CauseName { $($(#[$doc])* $module => $name,)* }
        }

        /// What each cause weighs in a run.
        const WEIGH: &[fn(&Run, Option<&Origin>) -> Option<Cause>] = &[$($module::weigh,)*];
    };
}

causes! {
    /// An activation that grows faster than its input.
    activation => Activation,
    /// A batch unlike its siblings, or non-finite data.
    data => Data,
    /// Initial weights whose gains multiply far from 1.
    initialisation => Initialisation,
    /// A learning rate that is too high, or a jump of it.
    learning_rate => LearningRate,
    /// Normalisation that is missing or itself multiplies gradients.
    normalisation => Normalisation,
    /// Adam's second moment lags behind the gradient.
    optimizer_state => OptimizerState,
    /// The range of the number type.
    precision => Precision,
    /// A recurrent matrix that is multiplied at every time step.
    recurrence => Recurrence,
    /// One huge update left a network that no longer learns.
    spike_then_dead => SpikeThenDead,
    /// Targets far from the scale of the network's output.
    unscaled_target => UnscaledTarget,
}

impl CauseName {
    /// Whether it may be the cause of what broke outside the model.
    fn is_outside_model(self) -> bool {
        matches!(self, CauseName::Data | CauseName::UnscaledTarget)
    }
}

/// A cause that the numbers support.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// Which.
    pub name: CauseName,
    /// How well the numbers support it, 0 to 1. Causes are ranked by it; it is no probability.
    pub weight: f64,
    /// The layer that it concerns, if it is one.
    pub layer: Option<LayerId>,
    /// The numbers.
    pub evidence: Vec<Measure>,
}

impl Cause {
    /// A cause that concerns no layer.
    pub fn new(name: CauseName, weight: f64, evidence: Vec<Measure>) -> Self {
        Self { name, weight, layer: None, evidence }
    }

    /// The same of a layer.
    pub fn of_layer(self, layer: Option<LayerId>) -> Self {
        Self { layer, ..self }
    }
}

/// Whether the network no longer learns at the end of the run, by the rule of
/// [`CauseName::SpikeThenDead`].
pub fn is_dead(run: &Run) -> bool {
    spike_then_dead::dead(run).is_some()
}

/// Weighs all causes of an alarm, the best supported first. Empty when none is supported:
/// "unknown" is an honest answer. Where it broke outside the model only the data can be a cause.
/// Without an alarm only what is wrong from the start is weighed: targets that are not scaled.
pub fn weigh(run: &Run, origin: Option<&Origin>) -> Vec<Cause> {
    if run.first_alarm().is_none() {
        return unscaled_target::weigh(run, None).into_iter().collect();
    }
    let mut causes: Vec<Cause> = WEIGH.iter().filter_map(|weigh| weigh(run, origin)).collect();
    if origin.is_some_and(|origin| origin.place.is_loss()) {
        causes.retain(|cause| cause.name.is_outside_model());
    }
    causes.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    causes
}

/// A run with an alarm at a step, for the tests of the causes.
#[cfg(test)]
pub(crate) mod check {
    use crate::finding::{Finding, Severity, SignName};
    use crate::observe::{LayerSample, LayerTrace, Layout, Observation, RunFacts, Step};
    use crate::run::Run;
    use crate::signs::check::stats;

    /// A trace with these forward and backward gains; input and last delta of size 1.
    pub(crate) fn trace(forward: &[f64], backward: &[f64]) -> LayerTrace {
        let count = forward.len();
        let mut deltas = vec![1.0; count + 1];
        for i in (0..count).rev() {
            deltas[i] = deltas[i + 1] * backward[i];
        }
        let mut rms = 1.0;
        let input = Some(LayerSample::new(stats(1.0), Some(stats(deltas[0]))));
        let layers = (0..count).map(|i| {
            rms *= forward[i];
            LayerSample::new(stats(rms), Some(stats(deltas[i + 1])))
        });
        LayerTrace { layers: layers.collect(), input }
    }

    /// A run of two steps with these probes that alarms at the second.
    pub(crate) fn alarmed_by(layout: Layout, trace: &LayerTrace) -> Run {
        let seen = Observation { trace: Some(trace), ..Observation::default() };
        alarmed(layout, RunFacts::default(), 2, |_| seen)
    }

    /// Feeds `steps` observations made by `make` and marks an alarm at the last one.
    pub(crate) fn alarmed<'a>(
        layout: Layout,
        facts: RunFacts,
        steps: u64,
        mut make: impl FnMut(u64) -> Observation<'a>,
    ) -> Run {
        let mut run = Run::new(layout, facts);
        for step in 0..steps {
            if step + 1 == steps {
                let (sign, step) = (SignName::GradientSpikes, Step(step));
                run.note([Finding::new(sign, step, Severity::Alarm, vec![])]);
            }
            run.take(&Observation { step: Step(step), ..make(step) });
            run.settle();
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_names_is_that_of_their_texts() {
        let names: Vec<_> = CauseName::ALL.iter().map(|name| name.as_str()).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(CauseName::Activation.as_str(), "activation");
        assert_eq!(CauseName::UnscaledTarget.as_str(), "unscaled-target");
    }
}
