//! Why it happened: one file a cause. Each weighs the record and brings the numbers that show it.

use crate::doc::enum_of_docs;
use crate::evidence::{Measure, named_enum};
use crate::inspection::{Experiment, Varied};
use crate::observe::LayerId;
use crate::origin::Origin;
use crate::run::Run;

/// Declares the causes from one list, in the order of the alphabet: module, name, whether it may be the
/// cause of what broke outside the model, and what it is.
macro_rules! causes {
    ($($(#[$doc:meta])* $module:ident => $name:ident $($outside:ident)?,)*) => {
        $(pub(crate) mod $module;)*

        enum_of_docs! {
            /// Which cause.
            CauseName { $($(#[$doc])* $module => $name,)* }
        }

        impl CauseName {
            /// Whether it may be the cause of what broke outside the model.
            fn is_outside_model(self) -> bool {
                match self {
                    $(CauseName::$name => !<[&str]>::is_empty(&[$(stringify!($outside))?]),)*
                }
            }
        }

        /// What each cause weighs in a run.
        const WEIGH: &[fn(&Run, Option<&Origin>) -> Option<Cause>] = &[$($module::weigh,)*];
    };
}

causes! {
    /// A gradient that is a sum where a mean is meant.
    accumulation => Accumulation outside,
    /// An activation that grows faster than its input.
    activation => Activation,
    /// A batch unlike its siblings, or non-finite data.
    data => Data outside,
    /// An average over nothing.
    empty_set => EmptySet outside,
    /// Initial weights whose gains multiply far from 1.
    initialisation => Initialisation,
    /// The implementation of an operation, the compiler, or the hardware.
    kernel => Kernel outside,
    /// Labels outside the classes.
    labels => Labels outside,
    /// A learning rate that is too high, or a jump of it.
    learning_rate => LearningRate,
    /// A softmax over a row that is masked altogether.
    masked_row => MaskedRow outside,
    /// Normalisation that is missing or itself multiplies gradients.
    normalisation => Normalisation,
    /// The optimizer divides by 0.
    optimizer_division => OptimizerDivision,
    /// Adam's second moment lags behind the gradient.
    optimizer_state => OptimizerState,
    /// The range of the number type.
    precision => Precision outside,
    /// A recurrent matrix that is multiplied at every time step.
    recurrence => Recurrence,
    /// A function at a point where it is infinite.
    singular_operation => SingularOperation outside,
    /// One huge update left a network that no longer learns.
    spike_then_dead => SpikeThenDead,
    /// Inputs far from the scale that networks are made for.
    unscaled_input => UnscaledInput outside,
    /// Targets far from the scale of the network's output.
    unscaled_target => UnscaledTarget outside,
}

named_enum! {
    /// What a cause rests on, the firmest ground first. Causes are ranked by it.
    Ground {
        /// The step of the alarm was run again with one thing changed.
        Experiment => "experiment",
        /// Data that is not finite.
        BrokenData => "broken-data",
        /// Weights that are not finite before the first update.
        BrokenWeights => "broken-weights",
        /// Targets that are no class or no probability.
        ImpossibleTargets => "impossible-targets",
        /// The first NaN is an average over nothing.
        EmptySet => "empty-set",
        /// The first NaN is the softmax of a row that is masked altogether.
        MaskedRow => "masked-row",
        /// The optimizer's eps is 0 in the number type of its state.
        LostEps => "lost-eps",
        /// A jump of the learning rate right before.
        RateJump => "rate-jump",
        /// The first value that is not finite overflowed a narrow number type, and a wider one has room for
        /// it.
        NarrowType => "narrow-type",
        /// Matrices far larger than any usual initialisation makes them.
        WeightSize => "weight-size",
        /// The first value that is not finite comes from a function where it is infinite.
        Operation => "operation",
        /// A batch far larger than those before.
        UnlikeBatch => "unlike-batch",
        /// An activation that is known, or measured, to grow faster than its input.
        Superlinear => "superlinear",
        /// Targets far larger than outputs.
        TargetSize => "target-size",
        /// Gains that multiply over time steps.
        TimeSteps => "time-steps",
        /// One layer's gain stood out at the first step, and there it began.
        StrayLayer => "stray-layer",
        /// Gains that multiplied to a large number at the first step.
        FirstGains => "first-gains",
        /// Inputs far larger than networks are made for.
        InputSize => "input-size",
        /// A gradient that is a sum where a mean is meant.
        SummedGradient => "summed-gradient",
        /// A learning rate that rose over many steps.
        RateRamp => "rate-ramp",
        /// Batch norm without skip connections in a deep network.
        BatchNormGains => "batch-norm-gains",
        /// One layer's gain stood out at the first step, and it began elsewhere.
        StrayElsewhere => "stray-elsewhere",
        /// Updates that were too large before the alarm.
        LargeUpdates => "large-updates",
        /// An exponential that overflowed.
        Exponential => "exponential",
        /// A layer whose output overflowed in the first pass, or a loss scale that collapsed.
        Overflow => "overflow",
        /// Adam's second moment far below the squared gradient.
        Lag => "lag",
        /// Values close to the largest of their number type.
        Headroom => "headroom",
        /// No gradient and no progress after the alarm.
        NoGradient => "no-gradient",
        /// Gains that drifted apart in a deep network without normalisation.
        DriftingGains => "drifting-gains",
    }
}

impl Ground {
    /// Whether it makes a NaN or Inf out of numbers of usual size, which no smaller gradient or step avoids.
    pub(crate) fn is_sudden(self) -> bool {
        use Ground::{BrokenData, EmptySet, ImpossibleTargets, LostEps, MaskedRow, Operation};
        matches!(self, BrokenData | EmptySet | ImpossibleTargets | LostEps | MaskedRow | Operation)
    }
}

/// A cause that the numbers support.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// Which.
    pub name: CauseName,
    /// What it rests on.
    pub ground: Ground,
    /// The layer that it concerns, if it is one.
    pub layer: Option<LayerId>,
    /// The numbers.
    pub evidence: Vec<Measure>,
}

impl Cause {
    /// A cause that concerns no layer.
    pub fn new(name: CauseName, ground: Ground, evidence: Vec<Measure>) -> Self {
        Self { name, ground, layer: None, evidence }
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

/// The cause that follows when the step of an alarm is run again with one thing changed at a time; `None`
/// where the step does not break again, or whatever is changed.
///
/// ```
/// use tamegrad::causes::{CauseName, by_experiments};
/// use tamegrad::inspection::{Experiment, Varied};
///
/// let experiments = [(Varied::Again, false), (Varied::F32, true)];
/// let experiments = experiments.map(|(varied, is_finite)| Experiment { varied, is_finite });
/// assert_eq!(by_experiments(&experiments), Some(CauseName::Precision));
/// ```
pub fn by_experiments(experiments: &[Experiment]) -> Option<CauseName> {
    let outcome = |varied| {
        let of = experiments.iter().find(|experiment| experiment.varied == varied);
        of.map(|experiment| experiment.is_finite)
    };
    let mends = |all: &[Varied]| all.iter().any(|varied| outcome(*varied) == Some(true));
    let breaks = outcome(Varied::Again) == Some(false);
    if outcome(Varied::Twice) == Some(false) {
        return Some(CauseName::Kernel);
    }
    if breaks && mends(&[Varied::NoCompile, Varied::PlainAttention, Varied::Cpu]) {
        return Some(CauseName::Kernel);
    }
    if breaks && mends(&[Varied::F32, Varied::NoAutocast]) {
        return Some(CauseName::Precision);
    }
    let update_breaks = !breaks && outcome(Varied::Update) == Some(false);
    (update_breaks && mends(&[Varied::LargerEps, Varied::F32State]))
        .then_some(CauseName::OptimizerDivision)
}

/// Weighs all causes of an alarm, the best supported first. Empty when none is supported:
/// "unknown" is an honest answer. Where it broke outside the model only the data can be a cause.
/// Without an alarm only what needs none is weighed: gradients that are never cleared, targets that are not
/// scaled, and a rate that has risen.
pub fn weigh(run: &Run, origin: Option<&Origin>) -> Vec<Cause> {
    if run.first_alarm().is_none() {
        let found =
            [accumulation::left(run), unscaled_target::weigh(run, None), learning_rate::risen(run)];
        return found.into_iter().flatten().collect();
    }
    let mut causes: Vec<Cause> = WEIGH.iter().filter_map(|weigh| weigh(run, origin)).collect();
    if origin.is_some_and(|origin| origin.place.is_loss()) {
        causes.retain(|cause| cause.name.is_outside_model());
    }
    causes.sort_by_key(|cause| cause.ground);
    causes
}

/// A run with an alarm at a step, for the tests of the causes.
#[cfg(test)]
pub(crate) mod check {
    use crate::finding::{Finding, Severity, SignName};
    use crate::inspection::{Inspection, Labels, Operand};
    use crate::observe::{LayerSample, LayerTrace, Layout, Observation, RunFacts, Step};
    use crate::record::NonFiniteAt;
    use crate::run::Run;
    use crate::signs::check::{layout, stats};

    /// A run whose second loss is NaN, and what its integration has found out about it.
    pub(crate) fn looked_into(inspection: Inspection) -> Run {
        let mut run = alarmed(layout(2), RunFacts::default(), 2, |step| Observation {
            loss: Some(if step == 1 { f64::NAN } else { 1.0 }),
            ..Observation::default()
        });
        run.record.first_nonfinite = Some((Step(1), NonFiniteAt::Loss));
        run.record.inspection = Some(inspection);
        run
    }

    /// Labels that are all fine.
    pub(crate) fn labels(len: u64) -> Labels {
        let (min, max, classes) = (0, 9, 10);
        Labels { len, ignored: 0, min, max, classes, too_long: 0, is_summed: false }
    }

    /// An operand of elements that are not 0.
    pub(crate) fn operand(len: u64) -> Operand {
        Operand { dtype: "float32".into(), len, ..Operand::default() }
    }

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
