//! Why it happened: one file a cause. Each weighs the record and brings the numbers that show it.

mod activation;
pub(crate) mod data;
mod initialisation;
mod learning_rate;
mod normalisation;
mod optimizer_state;
mod precision;
mod recurrence;
mod spike_then_dead;
mod unscaled_target;

use crate::doc::Doc;
use crate::finding::Evidence;
use crate::observe::LayerId;
use crate::origin::Origin;
use crate::record::Record;

/// The texts of all causes, in the order of [`CauseName::ALL`].
pub const DOCS: [&Doc; 10] = [
    &activation::DOC,
    &data::DOC,
    &initialisation::DOC,
    &learning_rate::DOC,
    &normalisation::DOC,
    &optimizer_state::DOC,
    &precision::DOC,
    &recurrence::DOC,
    &spike_then_dead::DOC,
    &unscaled_target::DOC,
];

/// Which cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CauseName {
    /// An activation that grows faster than its input.
    Activation,
    /// A batch unlike its siblings, or non-finite data.
    Data,
    /// Initial weights whose gains multiply far from 1.
    Initialisation,
    /// A learning rate that is too high, or a jump of it.
    LearningRate,
    /// Normalisation that is missing or itself multiplies gradients.
    Normalisation,
    /// Adam's second moment lags behind the gradient.
    OptimizerState,
    /// The range of the number type.
    Precision,
    /// A recurrent matrix that is multiplied at every time step.
    Recurrence,
    /// One huge update left a network that no longer learns.
    SpikeThenDead,
    /// Targets far from the scale of the network's output.
    UnscaledTarget,
}

impl CauseName {
    /// All causes.
    pub const ALL: [CauseName; 10] = [
        CauseName::Activation,
        CauseName::Data,
        CauseName::Initialisation,
        CauseName::LearningRate,
        CauseName::Normalisation,
        CauseName::OptimizerState,
        CauseName::Precision,
        CauseName::Recurrence,
        CauseName::SpikeThenDead,
        CauseName::UnscaledTarget,
    ];

    /// The text that explains it.
    pub fn doc(self) -> &'static Doc {
        DOCS[self as usize]
    }

    /// Kebab-case name.
    pub fn as_str(self) -> &'static str {
        self.doc().name
    }
}

/// A cause that the record supports.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// Which.
    pub name: CauseName,
    /// How well the numbers support it, 0 to 1. Causes are ranked by it; it is no probability.
    pub weight: f64,
    /// The layer that it concerns, if it is one.
    pub layer: Option<LayerId>,
    /// The numbers.
    pub evidence: Vec<Evidence>,
}

/// Whether the network no longer learns at the end of the run, by the rule of
/// [`CauseName::SpikeThenDead`].
pub fn is_dead(record: &Record) -> bool {
    spike_then_dead::dead(record).is_some()
}

/// Weighs all causes of an alarm, the best supported first. Empty when none is supported:
/// "unknown" is an honest answer. Where it broke outside the model only the data can be a cause.
pub fn weigh(record: &Record, origin: Option<&Origin>) -> Vec<Cause> {
    if record.first_alarm().is_none() {
        return Vec::new();
    }
    if origin.is_some_and(|origin| origin.place.is_loss()) {
        // Nothing in the model made it.
        let weighed = [data::weigh(record), unscaled_target::weigh(record)];
        return ranked(weighed.into_iter().flatten().collect());
    }
    let weighed = [
        activation::weigh(record, origin),
        data::weigh(record),
        initialisation::weigh(record, origin),
        learning_rate::weigh(record),
        normalisation::weigh(record),
        optimizer_state::weigh(record),
        precision::weigh(record),
        recurrence::weigh(record, origin),
        spike_then_dead::weigh(record),
        unscaled_target::weigh(record),
    ];
    ranked(weighed.into_iter().flatten().collect())
}

fn ranked(mut causes: Vec<Cause>) -> Vec<Cause> {
    causes.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    causes
}

/// A record with an alarm at a step, for the tests of the causes.
#[cfg(test)]
pub(crate) mod check {
    use crate::finding::SignName;
    use crate::finding::{Finding, Severity};
    use crate::observe::{LayerSample, LayerTrace, Layout, Observation, RunFacts, Step};
    use crate::record::Record;
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

    /// Feeds `steps` observations made by `make` and marks an alarm at the last one.
    pub(crate) fn alarmed<'a>(
        layout: Layout,
        facts: RunFacts,
        steps: u64,
        mut make: impl FnMut(u64) -> Observation<'a>,
    ) -> Record {
        let mut record = Record::new(layout, facts);
        for step in 0..steps {
            if step + 1 == steps {
                record.note([Finding {
                    sign: SignName::GradientSpikes,
                    step: Step(step),
                    severity: Severity::Alarm,
                    tensor: None,
                    layer: None,
                    evidence: vec![],
                }]);
            }
            record.take(&Observation { step: Step(step), ..make(step) });
            record.settle();
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_names_is_that_of_their_texts() {
        let names = CauseName::ALL.map(CauseName::as_str);
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(CauseName::Activation.as_str(), "activation");
        assert_eq!(CauseName::UnscaledTarget.as_str(), "unscaled-target");
    }
}
