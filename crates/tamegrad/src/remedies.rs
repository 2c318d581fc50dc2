//! What to do: one file a remedy, each a proposal of a [`Change`]; and `ladder.rs`, what is done at run time.

mod batch_norm;
mod bounded_activation;
mod clip_global_norm;
mod clip_tensor_norm;
mod clip_value;
mod fewer_layers;
mod l1_penalty;
mod l2_penalty;
mod lower_learning_rate;
mod reinitialise;
mod rewind;
mod scale_input;
mod scale_target;
mod skip_step;
mod smaller_batch;
mod warm_up;
mod weight_decay;

use crate::causes::{Cause, CauseName};
use crate::doc::Doc;
use crate::observe::{ActivationKind, LayerId};
use crate::origin::Origin;
use crate::record::Record;

/// The texts of all remedies, in the order of [`RemedyName::ALL`]: the least force first.
pub const DOCS: [&Doc; 17] = [
    &skip_step::DOC,
    &clip_global_norm::DOC,
    &clip_tensor_norm::DOC,
    &clip_value::DOC,
    &warm_up::DOC,
    &lower_learning_rate::DOC,
    &rewind::DOC,
    &scale_target::DOC,
    &scale_input::DOC,
    &weight_decay::DOC,
    &l2_penalty::DOC,
    &l1_penalty::DOC,
    &smaller_batch::DOC,
    &reinitialise::DOC,
    &batch_norm::DOC,
    &bounded_activation::DOC,
    &fewer_layers::DOC,
];

/// Which remedy. The order is the order of force: how much of the user's run it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemedyName {
    /// Leave a step out.
    SkipStep,
    /// Clip the whole gradient's norm.
    ClipGlobalNorm,
    /// Clip each tensor's norm.
    ClipTensorNorm,
    /// Clip each element.
    ClipValue,
    /// Warm the learning rate up.
    WarmUp,
    /// Lower the learning rate.
    LowerLearningRate,
    /// Go back to a healthy snapshot.
    Rewind,
    /// Standardise the regression targets.
    ScaleTarget,
    /// Standardise the inputs.
    ScaleInput,
    /// Decoupled weight decay.
    WeightDecay,
    /// L2 penalty in the loss.
    L2Penalty,
    /// L1 penalty in the loss.
    L1Penalty,
    /// Fewer samples in a batch.
    SmallerBatch,
    /// Draw the weights anew by a rule that fits the activation.
    Reinitialise,
    /// Batch norm before or after the activation.
    BatchNorm,
    /// Replace an activation that grows faster than linearly.
    BoundedActivation,
    /// Fewer layers.
    FewerLayers,
}

impl RemedyName {
    /// All remedies, the least force first.
    pub const ALL: [RemedyName; 17] = [
        RemedyName::SkipStep,
        RemedyName::ClipGlobalNorm,
        RemedyName::ClipTensorNorm,
        RemedyName::ClipValue,
        RemedyName::WarmUp,
        RemedyName::LowerLearningRate,
        RemedyName::Rewind,
        RemedyName::ScaleTarget,
        RemedyName::ScaleInput,
        RemedyName::WeightDecay,
        RemedyName::L2Penalty,
        RemedyName::L1Penalty,
        RemedyName::SmallerBatch,
        RemedyName::Reinitialise,
        RemedyName::BatchNorm,
        RemedyName::BoundedActivation,
        RemedyName::FewerLayers,
    ];

    /// The text that explains it.
    pub fn doc(self) -> &'static Doc {
        DOCS[self as usize]
    }

    /// Kebab-case name.
    pub fn as_str(self) -> &'static str {
        self.doc().name
    }

    /// How much of the run it changes: 0 is the least.
    pub fn force(self) -> usize {
        self as usize
    }
}

/// Who may apply a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// The guard, at run time, in protect mode.
    Automatic,
    /// `fix`, in a recipe; or the user.
    OnRequest,
}

/// Where batch norm stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Between the linear map and the activation.
    Before,
    /// After the activation.
    After,
}

/// A rule by which weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// He et al. 2015, for relu and its kin.
    He,
    /// Glorot and Bengio 2010, for tanh and sigmoid.
    Xavier,
    /// Saxe et al. 2013, for linear, tanh and recurrent weights.
    Orthogonal,
}

/// A change of a run, as data. Doors carry it out.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The guard in protect mode: skip, scale, back off, rewind.
    Guard,
    /// Scale the whole gradient down to this L2 norm.
    ClipGlobalNorm {
        /// Largest norm of the whole gradient.
        max_norm: f64,
    },
    /// Scale each tensor's gradient down to this L2 norm.
    ClipTensorNorm {
        /// Largest norm of a tensor's gradient.
        max_norm: f64,
    },
    /// Clamp each element to this magnitude.
    ClipValue {
        /// Largest magnitude of an element.
        limit: f64,
    },
    /// Rise linearly to the learning rate.
    WarmUp {
        /// Number of steps.
        steps: u64,
    },
    /// Multiply the learning rate.
    LearningRate {
        /// The factor, under 1.
        factor: f64,
    },
    /// Standardise the regression targets.
    ScaleTarget,
    /// Standardise the inputs.
    ScaleInput,
    /// Decoupled weight decay.
    WeightDecay {
        /// Part of a weight that a step of learning rate 1 takes away.
        rate: f64,
    },
    /// Add `strength` times the sum of squares of the weights to the loss.
    L2Penalty {
        /// The factor.
        strength: f64,
    },
    /// Add `strength` times the sum of magnitudes of the weights to the loss.
    L1Penalty {
        /// The factor.
        strength: f64,
    },
    /// Use this many samples in a batch.
    BatchSize {
        /// Number of samples.
        samples: u64,
    },
    /// Draw the weights by a rule, of all layers or of one.
    Reinitialise {
        /// The rule.
        scheme: Scheme,
        /// The layer; `None` for all.
        layer: Option<LayerId>,
    },
    /// Batch norm in every layer.
    BatchNorm {
        /// Where it stands.
        place: Place,
    },
    /// Use this activation, in all layers or in one.
    Activation {
        /// Name of the activation.
        name: &'static str,
        /// The layer; `None` for all.
        layer: Option<LayerId>,
    },
    /// Use this many hidden layers.
    Depth {
        /// Number of layers.
        layers: u64,
    },
}

/// A remedy that suits a run, with the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Which remedy.
    pub remedy: RemedyName,
    /// What it changes.
    pub change: Change,
    /// Who may apply it.
    pub grade: Grade,
    /// Whether it treats the first cause, rather than its effect.
    pub treats_cause: bool,
    /// Why it is proposed, in words.
    pub why: String,
}

impl Proposal {
    /// Kebab-case name of the remedy with what tells its variants apart, such as
    /// `batch-norm-before`.
    pub fn label(&self) -> String {
        let name = self.remedy.as_str();
        match &self.change {
            Change::BatchNorm { place: Place::Before } => format!("{name}-before"),
            Change::BatchNorm { place: Place::After } => format!("{name}-after"),
            Change::Reinitialise { scheme, .. } => format!("{name}-{}", scheme.as_str()),
            _ => name.to_owned(),
        }
    }
}

impl Scheme {
    /// Kebab-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::He => "he",
            Scheme::Xavier => "xavier",
            Scheme::Orthogonal => "orthogonal",
        }
    }
}

/// What remedies are proposed from.
pub(crate) struct Case<'a> {
    pub(crate) record: &'a Record,
    pub(crate) origin: Option<&'a Origin>,
    pub(crate) causes: &'a [Cause],
}

impl Case<'_> {
    /// The best supported cause.
    pub(crate) fn first_cause(&self) -> Option<CauseName> {
        self.causes.first().map(|cause| cause.name)
    }

    /// The layer of the best supported cause, else the origin's.
    pub(crate) fn layer(&self) -> Option<LayerId> {
        let of_cause = self.causes.first().and_then(|cause| cause.layer);
        let of_origin = |origin: &Origin| {
            origin.layer.or_else(|| origin.tensor.and_then(|id| self.record.layout.layer_of(id)))
        };
        of_cause.or_else(|| self.origin.and_then(of_origin))
    }

    /// A proposal that `fix` or the user may apply.
    pub(crate) fn on_request(
        &self,
        remedy: RemedyName,
        change: Change,
        treats: &[CauseName],
        why: String,
    ) -> Proposal {
        let treats_cause = self.first_cause().is_some_and(|cause| treats.contains(&cause));
        Proposal { remedy, change, grade: Grade::OnRequest, treats_cause, why }
    }

    /// The gradient norm that is usual in the run while it was calm: the median over the rows
    /// before the first alarm. `None` when there were fewer than five, or when the run was never
    /// calm because its very first gradients were already the explosion's.
    pub(crate) fn usual_norm(&self) -> Option<f64> {
        let alarm = self.record.first_alarm()?.step;
        let calm = alarm.0 >= 5;
        self.record.calm_gradient_norm(Some(alarm)).filter(|norm| calm && *norm > 0.0)
    }

    /// How the activations grow: the fastest among the layers that are known.
    pub(crate) fn activation(&self) -> Option<ActivationKind> {
        let layers = self.record.layout.layers.iter();
        let kinds = layers.filter_map(|layer| layer.activation.as_ref().map(|(_, kind)| *kind));
        kinds.max_by_key(|kind| *kind as u8)
    }
}

/// All remedies that suit a run, those that treat its cause first, then the least force first. Where
/// it broke outside the model, only those that treat the cause, skip the step or go back.
pub fn propose(record: &Record, origin: Option<&Origin>, causes: &[Cause]) -> Vec<Proposal> {
    let case = Case { record, origin, causes };
    let proposals = [
        skip_step::propose(&case),
        clip_global_norm::propose(&case),
        clip_tensor_norm::propose(&case),
        clip_value::propose(&case),
        warm_up::propose(&case),
        lower_learning_rate::propose(&case),
        rewind::propose(&case),
        scale_target::propose(&case),
        scale_input::propose(&case),
        weight_decay::propose(&case),
        l2_penalty::propose(&case),
        l1_penalty::propose(&case),
        smaller_batch::propose(&case),
        reinitialise::propose(&case),
        batch_norm::propose(&case),
        bounded_activation::propose(&case),
        fewer_layers::propose(&case),
    ];
    let mut ranked: Vec<Proposal> = proposals.into_iter().flatten().collect();
    if origin.is_some_and(|origin| origin.place.is_loss()) {
        // What changes the model or its steps mends no loss function.
        ranked.retain(|proposal| {
            proposal.treats_cause
                || matches!(proposal.remedy, RemedyName::SkipStep | RemedyName::Rewind)
        });
    }
    ranked.sort_by_key(|proposal| (!proposal.treats_cause, proposal.remedy.force()));
    ranked
}

/// A size with two significant digits, as a person would set it.
pub(crate) fn two_digits(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return value;
    }
    let scale = 10f64.powf(value.log10().floor() - 1.0);
    // Through text, so that 0.30000000000000004 becomes 0.3.
    format!("{:e}", (value / scale).round() * scale)
        .parse()
        .map_or(value, |v: f64| format!("{v:.1e}").parse().unwrap_or(v))
}

/// Cases for the tests of the remedies.
#[cfg(test)]
pub(crate) mod check {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{LayerInfo, Layout, NormalisationKind, Observation, RunFacts};

    /// The proposals for a network of `depth` layers of this activation that was calm at a
    /// gradient norm of 2 for 50 steps and then exploded from a cause.
    pub(crate) fn proposals(
        depth: usize,
        kind: ActivationKind,
        cause: CauseName,
        facts: RunFacts,
        propose: fn(&Case<'_>) -> Vec<Proposal>,
    ) -> Vec<Proposal> {
        let layer = |i: usize| LayerInfo {
            activation: Some(("its own".into(), kind)),
            normalisation: Some(NormalisationKind::None),
            ..LayerInfo::named(format!("layers.{i}"))
        };
        let layout = Layout { tensors: vec![], layers: (0..depth).map(layer).collect() };
        let record = alarmed(layout, facts, 50, |_| Observation {
            gradient_norm: Some(2.0),
            learning_rate: Some(0.1),
            ..Observation::default()
        });
        let causes =
            [Cause { name: cause, weight: 1.0, layer: Some(LayerId(1)), evidence: vec![] }];
        propose(&Case { record: &record, origin: None, causes: &causes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_names_is_that_of_their_texts() {
        for (index, name) in RemedyName::ALL.into_iter().enumerate() {
            assert_eq!(name.force(), index);
            assert_eq!(name.doc(), DOCS[index]);
        }
    }

    #[test]
    fn two_digits_as_a_person_would_write_them() {
        for (value, rounded) in
            [(0.30000000000000004, 0.3), (1.2345, 1.2), (987.0, 990.0), (0.0, 0.0)]
        {
            assert_eq!(two_digits(value), rounded);
        }
    }
}
