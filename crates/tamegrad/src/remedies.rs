//! What to do: one file a remedy, each a proposal of a [`Change`]; and the table of what each treats.

use crate::causes::{Cause, CauseName};
use crate::doc::enum_of_docs;
use crate::evidence::{Measure, named_enum};
use crate::inspection::{Inspection, OperationKind, SourceLine};
use crate::observe::{ActivationKind, LayerId, Layout, RunFacts, Step};
use crate::origin::Origin;
use crate::run::Run;

/// Declares the remedies from one list, the least force first: module, name, the causes that it treats,
/// what else is true of it ([`Property`]), and what it is.
macro_rules! remedies {
    ($(
        $(#[$doc:meta])*
        $module:ident => $name:ident treats [$($cause:ident),*] $(is [$($property:ident),*])?,
    )*) => {
        $(mod $module;)*

        enum_of_docs! {
            /// Which remedy. The order is the order of force: how much of the user's run it changes.
            RemedyName { $($(#[$doc])* $module => $name,)* }
        }

        impl RemedyName {
            /// The causes that it treats; for other causes it treats their effect.
            pub fn treats(self) -> &'static [CauseName] {
                match self {
                    $(RemedyName::$name => &[$(CauseName::$cause),*],)*
                }
            }

            fn is(self, property: Property) -> bool {
                let properties: &[Property] = match self {
                    $(RemedyName::$name => &[$($(Property::$property),*)?],)*
                };
                properties.contains(&property)
            }
        }

        /// What each remedy proposes.
        const PROPOSE: &[fn(&Case<'_>) -> Vec<Proposal>] = &[$($module::propose,)*];
    };
}

remedies! {
    /// Leave a step out.
    skip_step => SkipStep treats [Data, OptimizerState] is [Avoids, ForLogs],
    /// Leave rows out of the data.
    filter_rows => FilterRows treats [Data],
    /// Make the labels fit the classes.
    fix_labels => FixLabels treats [Labels],
    /// Guard an average against an empty set.
    drop_empty_batch => DropEmptyBatch treats [EmptySet],
    /// Keep a function away from where it is infinite.
    guard_operation => GuardOperation treats [SingularOperation],
    /// Leave one entry of each row unmasked.
    unmask_row => UnmaskRow treats [MaskedRow],
    /// A larger eps in the optimizer.
    optimizer_eps => OptimizerEps treats [OptimizerDivision],
    /// Average the gradients of each step.
    normalise_accumulation => NormaliseAccumulation treats [Accumulation],
    /// Clip the whole gradient's norm.
    clip_global_norm => ClipGlobalNorm treats [Recurrence, Data] is [Scales, ForLogs],
    /// Clip each tensor's norm.
    clip_tensor_norm => ClipTensorNorm treats [Recurrence, OptimizerState] is [Scales],
    /// Clip each element.
    clip_value => ClipValue treats [Recurrence] is [Scales],
    /// Warm up the learning rate.
    warm_up => WarmUp treats [LearningRate, OptimizerState] is [ForLogs],
    /// Lower the learning rate.
    lower_learning_rate => LowerLearningRate treats [LearningRate] is [ForLogs],
    /// Go back to a healthy snapshot.
    rewind => Rewind treats [SpikeThenDead] is [Avoids, ForLogs],
    /// Standardise the regression targets.
    scale_target => ScaleTarget treats [UnscaledTarget, SpikeThenDead] is [Scales, ChangesFirstPass, ForLogs],
    /// Standardise the inputs.
    scale_input => ScaleInput treats [Data, LearningRate, UnscaledInput, UnscaledTarget] is [Scales, ChangesFirstPass],
    /// Decoupled weight decay.
    weight_decay => WeightDecay treats [Normalisation],
    /// L2 penalty in the loss.
    l2_penalty => L2Penalty treats [Normalisation],
    /// L1 penalty in the loss.
    l1_penalty => L1Penalty treats [Normalisation],
    /// Fewer samples in a batch.
    smaller_batch => SmallerBatch treats [],
    /// More samples in a batch.
    larger_batch => LargerBatch treats [EmptySet],
    /// A wider number type.
    wider_type => WiderType treats [Precision, OptimizerDivision],
    /// Another implementation of an operation.
    other_kernel => OtherKernel treats [Kernel],
    /// Draw the weights anew by a rule that fits the activation.
    reinitialise => Reinitialise treats [Initialisation, Recurrence] is [ChangesFirstPass],
    /// Batch norm before or after the activation.
    batch_norm => BatchNorm treats [Activation, Initialisation, Normalisation] is [ChangesFirstPass],
    /// Replace an activation that grows faster than linearly.
    bounded_activation => BoundedActivation treats [Activation, Precision] is [ChangesFirstPass],
    /// Fewer layers.
    fewer_layers => FewerLayers treats [Initialisation, Normalisation, Precision] is [ChangesFirstPass],
}

impl RemedyName {
    /// How much of the run it changes: 0 is the least.
    pub fn force(self) -> usize {
        self as usize
    }
}

/// What decides whether a remedy is proposed for a run whose cause it does not treat.
#[derive(Clone, Copy, PartialEq)]
enum Property {
    /// It makes numbers smaller, be they gradients or data.
    Scales,
    /// It changes the network or its data, and not only the steps that follow the first pass.
    ChangesFirstPass,
    /// It skips what is broken, or goes back before it.
    Avoids,
    /// It makes sense where nothing of the model is known.
    ForLogs,
}

named_enum! {
    /// Where batch norm stands.
    #[cfg_attr(
        feature = "serde",
        derive(serde::Serialize, serde::Deserialize),
        serde(rename_all = "kebab-case")
    )]
    NormPlace {
        /// Between the linear map and the activation.
        Before => "before",
        /// After the activation.
        After => "after",
    }
}

named_enum! {
    /// A scheme by which weights are drawn.
    #[cfg_attr(
        feature = "serde",
        derive(serde::Serialize, serde::Deserialize),
        serde(rename_all = "kebab-case")
    )]
    Scheme {
        /// He et al. 2015, for relu and its kin.
        He => "he",
        /// Glorot and Bengio 2010, for tanh and sigmoid.
        Xavier => "xavier",
        /// Saxe et al. 2013, for linear, tanh and recurrent weights.
        Orthogonal => "orthogonal",
    }
}

named_enum! {
    /// Who carries a remedy out.
    Grade {
        /// The guard, at run time, in protect mode.
        Automatic => "automatic",
        /// `tamegrad fix`, or one call of the library.
        OnRequest => "on-request",
        /// The user, in the code or the data.
        Advice => "advice",
    }
}

/// A change of a run, as data. Integrations carry it out. All numbers in it are finite.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "kind", rename_all = "kebab-case")
)]
pub enum Change {
    /// The guard in protect mode: skip, scale, back off, rewind.
    Guard,
    /// Leave rows out of the data, or repair them.
    FilterRows {
        /// Name of the input; `None`: the targets, or not known.
        input: Option<String>,
        /// Numbers of the rows in the batch of the alarm; empty where they are not known.
        rows: Vec<u64>,
    },
    /// Make the labels fit the classes.
    FixLabels {
        /// Number of classes, where it is known.
        classes: Option<u64>,
    },
    /// Divide by at least 1 in an average.
    GuardAverage {
        /// Where it stands.
        line: Option<SourceLine>,
    },
    /// Keep a function away from where it is infinite.
    GuardOperation {
        /// The function.
        operation: OperationKind,
        /// Where it stands.
        line: Option<SourceLine>,
    },
    /// Leave one entry of each row of a mask.
    UnmaskRow {
        /// Where the softmax stands.
        line: Option<SourceLine>,
    },
    /// Set the optimizer's eps.
    OptimizerEps {
        /// The eps.
        eps: f64,
    },
    /// Clear the gradients in each step.
    ClearGradients,
    /// Use the mean in place of the sum in the loss.
    MeanLoss,
    /// Drop the last, incomplete batch of an epoch.
    DropLastBatch,
    /// Use a wider number type.
    WiderType {
        /// Where the operation stands that needs it; `None` for the whole run.
        line: Option<SourceLine>,
    },
    /// Use another implementation of an operation.
    OtherKernel,
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
        /// The learning rate at the onset, where it is known.
        from: Option<f64>,
    },
    /// Go on from a checkpoint before a step, past the batches since then.
    Rewind {
        /// The step.
        before: Step,
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
        /// Name of the layer; `None` for all.
        layer: Option<String>,
    },
    /// Batch norm in every layer.
    BatchNorm {
        /// Where it stands.
        place: NormPlace,
    },
    /// Use this activation, in all layers or in one.
    Activation {
        /// Name of the activation.
        name: String,
        /// Name of the layer; `None` for all.
        layer: Option<String>,
    },
    /// Use this many hidden layers.
    Depth {
        /// Number of layers.
        layers: u64,
    },
}

/// A remedy that suits a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Which remedy.
    pub remedy: RemedyName,
    /// What it changes.
    pub change: Change,
    /// Whether it treats the first cause, rather than its effect.
    pub treats_cause: bool,
    /// The numbers that it is made from.
    pub evidence: Vec<Measure>,
}

impl Proposal {
    /// Kebab-case name of the remedy with what tells its variants apart, such as
    /// `batch-norm-before`.
    pub fn label(&self) -> String {
        let name = self.remedy.as_str();
        match &self.change {
            Change::BatchNorm { place } => format!("{name}-{}", place.as_str()),
            Change::Reinitialise { scheme, .. } => format!("{name}-{}", scheme.as_str()),
            _ => name.to_owned(),
        }
    }

    /// Whether the guard does it at run time, in protect mode; all others are for `fix` or the user.
    pub fn is_automatic(&self) -> bool {
        self.grade() == Grade::Automatic
    }

    /// Who carries it out.
    pub fn grade(&self) -> Grade {
        match self.change {
            Change::Guard => Grade::Automatic,
            Change::FilterRows { .. }
            | Change::FixLabels { .. }
            | Change::GuardAverage { .. }
            | Change::GuardOperation { .. }
            | Change::UnmaskRow { .. }
            | Change::ClearGradients
            | Change::MeanLoss
            | Change::DropLastBatch
            | Change::WiderType { .. }
            | Change::OtherKernel
            | Change::Rewind { .. } => Grade::Advice,
            Change::OptimizerEps { .. }
            | Change::ClipGlobalNorm { .. }
            | Change::ClipTensorNorm { .. }
            | Change::ClipValue { .. }
            | Change::WarmUp { .. }
            | Change::LearningRate { .. }
            | Change::ScaleTarget
            | Change::ScaleInput
            | Change::WeightDecay { .. }
            | Change::L2Penalty { .. }
            | Change::L1Penalty { .. }
            | Change::BatchSize { .. }
            | Change::Reinitialise { .. }
            | Change::BatchNorm { .. }
            | Change::Activation { .. }
            | Change::Depth { .. } => Grade::OnRequest,
        }
    }
}

/// What remedies are proposed from: a live run, or as much of it as a log shows.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) layout: &'a Layout,
    /// With what the batches show of them.
    pub(crate) facts: RunFacts,
    pub(crate) origin: Option<&'a Origin>,
    pub(crate) causes: &'a [Cause],
    /// What the integration has found out about the alarm.
    pub(crate) inspection: Option<&'a Inspection>,
    pub(crate) onset: Option<Step>,
    /// The gradient norm that was usual while the run was calm; `None` where it never was.
    pub(crate) usual_norm: Option<f64>,
    /// The largest usual RMS of a tensor's gradient.
    pub(crate) usual_rms: Option<f64>,
    pub(crate) learning_rate: Option<f64>,
    /// The critical step size at the first alarm, in steps.
    pub(crate) critical_multiple: Option<f64>,
    /// Whether only a log is known, and nothing of the model.
    pub(crate) is_log: bool,
    /// Whether the first alarm was of something not finite.
    pub(crate) is_broken: bool,
    /// Whether it was so in the first pass, and not because of its data or the loss function.
    pub(crate) broke_at_once: bool,
}

impl<'a> Case<'a> {
    fn of_run(run: &'a Run, origin: Option<&'a Origin>, causes: &'a [Cause]) -> Self {
        let record = &run.record;
        let onset = run.first_alarm().map(|alarm| alarm.step);
        // The first gradients may already be the explosion's.
        let is_calm = onset.is_some_and(|onset| onset.0 >= crate::rules::RULES.remedy.calm_steps);
        let norm = record.calm_gradient_norm(onset).filter(|norm| is_calm && *norm > 0.0);
        let rms = |track: &crate::record::TensorTrack| {
            let elements = track.latest.map(|stats| stats.len).filter(|len| *len > 0)?;
            Some(track.calm_norm? / (elements as f64).sqrt())
        };
        let known = record.rows.iter().filter(|row| onset.is_none_or(|onset| row.step <= onset));
        let (target_rms, input_rms) = (record.target_rms(), record.input_rms());
        let facts = RunFacts { target_rms, input_rms, ..record.facts.clone() };
        Self {
            layout: &record.layout,
            facts,
            origin,
            causes,
            inspection: record.inspection.as_ref(),
            onset,
            usual_norm: norm,
            usual_rms: norm.and_then(|_| record.tensors.iter().filter_map(rms).reduce(f64::max)),
            critical_multiple: record.critical_step.map(|critical| critical.multiple),
            learning_rate: known.filter_map(|row| row.learning_rate).rfind(|rate| rate.is_finite()),
            is_log: false,
            is_broken: record
                .first_nonfinite
                .is_some_and(|(step, _)| onset.is_none_or(|onset| step <= onset)),
            broke_at_once: record.broke_at_once()
                && !origin.is_some_and(|origin| origin.place.is_loss()),
        }
    }

    /// Whether the run broke out of the calm, from what no smaller gradient or step avoids.
    fn broke_suddenly(&self) -> bool {
        self.is_broken && self.causes.first().is_some_and(|cause| cause.ground.is_sudden())
    }

    /// The best supported cause.
    pub(crate) fn first_cause(&self) -> Option<CauseName> {
        self.causes.first().map(|cause| cause.name)
    }

    /// Whether a cause is among those that are supported.
    pub(crate) fn has_cause(&self, name: CauseName) -> bool {
        self.causes.iter().any(|cause| cause.name == name)
    }

    /// Where the operation stands that made the first value that is not finite.
    pub(crate) fn line(&self) -> Option<SourceLine> {
        self.inspection?.operation.as_ref()?.line.clone()
    }

    /// The layer of the best supported cause, else the origin's.
    pub(crate) fn layer(&self) -> Option<LayerId> {
        let of_cause = self.causes.first().and_then(|cause| cause.layer);
        let of_origin = |origin: &Origin| {
            origin.layer().or_else(|| origin.tensor().and_then(|id| self.layout.layer_of(id)))
        };
        of_cause.or_else(|| self.origin.and_then(of_origin))
    }

    /// A proposal that needs no numbers to show for it.
    pub(crate) fn proposal(&self, remedy: RemedyName, change: Change) -> Proposal {
        let treats_cause = self.first_cause().is_some_and(|cause| remedy.treats().contains(&cause));
        Proposal { remedy, change, treats_cause, evidence: Vec::new() }
    }

    /// How the activations grow: the fastest among the layers that are known.
    pub(crate) fn activation(&self) -> Option<ActivationKind> {
        let layers = self.layout.layers.iter();
        let kinds = layers.filter_map(|layer| layer.activation.as_ref().map(|(_, kind)| *kind));
        kinds.max_by_key(|kind| *kind as u8)
    }
}

/// All remedies that suit a run, those that treat its cause first, then the least force first. Where
/// it broke outside the model, only those that treat the cause, skip the step or go back.
pub fn propose(run: &Run, origin: Option<&Origin>, causes: &[Cause]) -> Vec<Proposal> {
    propose_for(&Case::of_run(run, origin, causes))
}

pub(crate) fn propose_for(case: &Case<'_>) -> Vec<Proposal> {
    let mut ranked: Vec<Proposal> = PROPOSE.iter().flat_map(|propose| propose(case)).collect();
    let is_in_loss = case.origin.is_some_and(|origin| origin.place.is_loss());
    if case.broke_suddenly() {
        // Numbers that are not finite can't be scaled.
        ranked.retain(|proposal| !proposal.remedy.is(Property::Scales));
    }
    if is_in_loss || case.broke_suddenly() {
        // What changes the model or its steps mends no loss function, and no data.
        ranked.retain(|proposal| proposal.treats_cause || proposal.remedy.is(Property::Avoids));
    }
    if case.broke_at_once {
        // No update has been made yet: a smaller one, or none, changes nothing.
        ranked.retain(|proposal| {
            proposal.treats_cause || proposal.remedy.is(Property::ChangesFirstPass)
        });
    }
    if case.is_log {
        ranked.retain(|proposal| proposal.treats_cause || proposal.remedy.is(Property::ForLogs));
    }
    ranked.sort_by_key(|proposal| (!proposal.treats_cause, proposal.remedy.force()));
    ranked
}

/// A number with two significant digits, as a person would set it: 0.30000000000000004 becomes 0.3.
///
/// ```
/// assert_eq!(tamegrad::remedies::two_digits(0.1 + 0.2), 0.3);
/// ```
pub fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

/// Cases for the tests of the remedies.
#[cfg(test)]
pub(crate) mod check {
    use super::{Case, Cause, Change, Inspection, LayerId, Layout, Measure, Proposal};
    use crate::causes::Ground;
    use crate::causes::check::alarmed;
    use crate::observe::{LayerInfo, NormalisationKind, Observation};

    pub(crate) use crate::causes::CauseName;
    pub(crate) use crate::observe::{ActivationKind, RunFacts};

    /// A network that was calm at a gradient norm of 2 for 50 steps and then exploded from a cause.
    pub(crate) struct Exploded {
        pub(crate) layers: usize,
        /// Of each layer.
        pub(crate) activation: ActivationKind,
        pub(crate) facts: RunFacts,
        pub(crate) cause: CauseName,
        /// Of the cause.
        pub(crate) evidence: Vec<Measure>,
        pub(crate) inspection: Option<Inspection>,
    }

    type Propose = fn(&Case<'_>) -> Vec<Proposal>;

    /// One of three linear layers.
    pub(crate) fn exploded(cause: CauseName) -> Exploded {
        let facts = RunFacts::default();
        let activation = ActivationKind::Linear;
        Exploded { layers: 3, activation, facts, cause, evidence: Vec::new(), inspection: None }
    }

    impl Exploded {
        pub(crate) fn proposals(self, propose: Propose) -> Vec<Proposal> {
            let layer = |i: usize| LayerInfo {
                activation: Some(("its own".into(), self.activation)),
                normalisation: Some(NormalisationKind::None),
                ..LayerInfo::named(format!("layers.{i}"))
            };
            let layers = (0..self.layers).map(layer).collect();
            let mut run =
                alarmed(Layout { tensors: vec![], layers }, self.facts, 50, |_| Observation {
                    gradient_norm: Some(2.0),
                    learning_rate: Some(0.1),
                    ..Observation::default()
                });
            run.record.inspection = self.inspection;
            let cause = Cause::new(self.cause, Ground::Experiment, self.evidence);
            let causes = [cause.of_layer(Some(LayerId(1)))];
            propose(&Case::of_run(&run, None, &causes))
        }

        pub(crate) fn changes(self, propose: Propose) -> Vec<Change> {
            self.proposals(propose).into_iter().map(|proposal| proposal.change).collect()
        }

        /// The change of a remedy that proposes one, and whether it treats the cause.
        pub(crate) fn only(self, propose: Propose) -> (Change, bool) {
            let [only] = &self.proposals(propose)[..] else { panic!("not one proposal") };
            (only.change.clone(), only.treats_cause)
        }
    }

    /// Of a remedy that makes one change whatever the run: it treats weights that drift.
    pub(crate) fn treats_weights_that_drift(propose: Propose, change: Change) {
        for (cause, treats) in [(CauseName::Normalisation, true), (CauseName::Data, false)] {
            assert_eq!(exploded(cause).only(propose), (change.clone(), treats));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_remedy() {
        for cause in CauseName::ALL {
            assert!(RemedyName::ALL.iter().any(|name| name.treats().contains(cause)), "{cause:?}");
        }
    }

    #[test]
    fn a_first_pass_that_is_not_finite_is_answered_with_another_network_or_data() {
        use crate::causes::check::alarmed;
        use crate::observe::Observation;
        for (broken_at, skips) in [(0, false), (1, true)] {
            let run = alarmed(Layout::default(), RunFacts::default(), 2, |step| Observation {
                loss: Some(if step < broken_at { 1.0 } else { f64::NAN }),
                ..Observation::default()
            });
            let proposals = propose(&run, None, &[]);
            let proposes = |name| proposals.iter().any(|proposal| proposal.remedy == name);
            assert!(proposes(RemedyName::Reinitialise), "{broken_at}");
            for name in [RemedyName::SkipStep, RemedyName::WarmUp, RemedyName::ClipGlobalNorm] {
                assert_eq!(proposes(name), skips, "{broken_at} {name:?}");
            }
        }
    }

    #[test]
    fn no_clip_is_proposed_for_data_that_are_not_finite() {
        use crate::causes::check::alarmed;
        use crate::observe::{NamedInput, Observation};
        use crate::signs::check::stats;
        for (size, proposed) in [(f64::NAN, false), (1e4, true)] {
            let data = [NamedInput { name: "x", stats: stats(size) }];
            let usual = [NamedInput { name: "x", stats: stats(1.0) }];
            let run = alarmed(Layout::default(), RunFacts::default(), 60, |step| Observation {
                loss: Some(if step == 58 && size.is_nan() { size } else { 1.0 }),
                inputs: if step == 58 { &data } else { &usual },
                ..Observation::default()
            });
            let causes = crate::causes::weigh(&run, None);
            assert_eq!(causes[0].name, CauseName::Data, "{size}");
            let proposals = propose(&run, None, &causes);
            for remedy in [RemedyName::ClipGlobalNorm, RemedyName::ClipValue] {
                let is_there = proposals.iter().any(|proposal| proposal.remedy == remedy);
                assert_eq!(is_there, proposed, "{size} {remedy:?}");
            }
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
