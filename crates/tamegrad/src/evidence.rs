//! Evidence as numbers: what was measured, where, its value, and what it is compared with.

use crate::observe::{LayerId, Layout, Step, TensorId};

/// Declares an enum from the list of its values, each with its kebab-case name.
macro_rules! named_enum {
    ($(#[$attribute:meta])* $enum:ident { $($(#[$doc:meta])* $value:ident => $name:literal,)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum {
            $($(#[$doc])* $value,)*
        }

        impl $enum {
            /// All there are, in the order of their list.
            pub const ALL: &'static [$enum] = &[$($enum::$value,)*];

            /// Kebab-case name, as in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($enum::$value => $name,)*
                }
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// What a [`Measure`] measures. The set is closed; the words for it are made in reports.
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    Quantity {
        /// The loss.
        Loss => "loss",
        /// Change of the loss from one step to the next.
        LossChange => "loss-change",
        /// Changes of the loss beyond the usual, among the last 20.
        WildChanges => "wild-changes",
        /// Largest loss of an episode above its level.
        PeakLoss => "peak-loss",
        /// Sigmas by which that loss lies above its level.
        LossSigmas => "loss-sigmas",
        /// Times that the loss left its usual level.
        LossEpisodes => "loss-episodes",
        /// Sharpness of the loss along the update, u^T H u / |u|^2.
        Sharpness => "sharpness",
        /// Scale of the loss in mixed precision.
        LossScale => "loss-scale",
        /// Halvings of that scale in a row.
        LossScaleHalvings => "loss-scale-halvings",
        /// Elements that are NaN or Inf.
        NonFiniteElements => "nonfinite-elements",
        /// Logged records with a value that is NaN or Inf.
        NonFiniteRecords => "nonfinite-records",
        /// Step at which a place was first seen with NaN or Inf.
        FirstNonFinite => "first-nonfinite",
        /// L2 norm of a gradient.
        GradientNorm => "gradient-norm",
        /// L2 norm of a gradient that has drifted upward over several steps.
        DriftingGradientNorm => "drifting-gradient-norm",
        /// Smallest L2 norm of the whole gradient over all steps.
        LowestGradientNorm => "lowest-gradient-norm",
        /// Largest L2 norm of the inner layers' gradients at the end of the run.
        InnerGradientNorm => "inner-gradient-norm",
        /// Sigmas by which the logarithm of a gradient's norm lies above its mean.
        GradientSigmas => "gradient-sigmas",
        /// Spikes of the gradient norm.
        GradientSpikes => "gradient-spikes",
        /// Records in a row in which the gradient norm rises.
        RisingRecords => "rising-records",
        /// RMS of a layer's output over that of its input.
        ForwardGain => "forward-gain",
        /// Norm of the gradient at a layer's input over that at its output.
        BackwardGain => "backward-gain",
        /// The larger of a layer's two gains.
        LargestGain => "largest-gain",
        /// Product of the layers' forward gains.
        ForwardProduct => "forward-product",
        /// Product of the layers' backward gains.
        BackwardProduct => "backward-product",
        /// Growth of the signal from the network's input to its output.
        ForwardGrowth => "forward-growth",
        /// Growth of the gradient from the network's output to its input.
        BackwardGrowth => "backward-growth",
        /// Product of the backward gains over the time steps of a recurrent cell.
        TimeStepProduct => "time-step-product",
        /// Mean logarithm of those gains.
        LyapunovExponent => "lyapunov-exponent",
        /// Geometric mean of the layers' backward gains.
        MeanBackwardGain => "mean-backward-gain",
        /// Layers with batch norm and no skip connection.
        BatchNormLayers => "batch-norm-layers",
        /// Layers without normalisation.
        PlainLayers => "plain-layers",
        /// |dW|/|W| of a tensor, or the largest of all.
        UpdateRatio => "update-ratio",
        /// Median of the matrices' update ratios.
        MedianUpdateRatio => "median-update-ratio",
        /// Change of the norm of all parameters from one record to the next, over that norm.
        ParameterNormChange => "parameter-norm-change",
        /// Smallest multiple of the update that raises the loss of its own batch.
        CriticalMultiple => "critical-multiple",
        /// RMS of a weight matrix times the square root of its fan-in: its gain by its size alone.
        WeightGain => "weight-gain",
        /// RMS of g^2/v: how far Adam's second moment lags behind the gradient.
        SecondMomentLag => "second-moment-lag",
        /// The learning rate.
        LearningRate => "learning-rate",
        /// Cuts of the learning rate.
        LearningRateCuts => "learning-rate-cuts",
        /// What those cuts together leave of the learning rate.
        LearningRateLeft => "learning-rate-left",
        /// A metric on held-out data.
        Metric => "metric",
        /// The best value of that metric.
        BestMetric => "best-metric",
        /// Largest magnitude in a batch's data.
        LargestElement => "largest-element",
        /// RMS of a batch's data.
        DataRms => "data-rms",
        /// Largest magnitude in the outputs of a pass.
        LargestOutput => "largest-output",
        /// Largest magnitude in outputs and gradients.
        LargestMagnitude => "largest-magnitude",
        /// Step of the pass in which the neighbouring numbers were measured.
        PassStep => "pass-step",
        /// Steps since the last alarm.
        StepsSinceAlarm => "steps-since-alarm",
        /// Records since the alarm.
        RecordsSinceAlarm => "records-since-alarm",
        /// Records before the alarm.
        RecordsBeforeAlarm => "records-before-alarm",
        /// Powers of 2 between the largest number seen and the largest of the number type.
        HeadroomBits => "headroom-bits",
        /// Smallest class number among the targets.
        SmallestLabel => "smallest-label",
        /// Largest class number among the targets.
        LargestLabel => "largest-label",
        /// Targets that the loss leaves out.
        IgnoredLabels => "ignored-labels",
        /// Targets over which a loss is a sum.
        SummedLabels => "summed-labels",
        /// Elements of a batch.
        BatchElements => "batch-elements",
        /// Sequences of targets that are longer than their inputs.
        LongTargets => "long-targets",
        /// Smallest value in a batch's data.
        SmallestElement => "smallest-element",
        /// Elements that an average ran over.
        AveragedElements => "averaged-elements",
        /// Rows of a softmax of which every score is negative infinity.
        MaskedRows => "masked-rows",
        /// Infinities of a mask that met 0, or each other.
        MetInfinities => "met-infinities",
        /// Elements that are 0.
        ZeroElements => "zero-elements",
        /// Elements below 0.
        NegativeElements => "negative-elements",
        /// Rows of a batch's data that are not finite.
        BrokenRows => "broken-rows",
        /// What the optimizer adds to its divisor, in the number type of its state.
        OptimizerEps => "optimizer-eps",
        /// The largest relative change of the loss for a relative change of a weight matrix's scale.
        LossElasticity => "loss-elasticity",
        /// L2 norm of what the step before left in the gradients when a backward pass began.
        GradientLeft => "gradient-left",
    }
}

named_enum! {
    /// What a value is compared with.
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    Reference {
        /// The limit of a rule.
        Limit => "limit",
        /// What is usual for it: its own mean, median or level while calm.
        Usual => "usual",
        /// What it was before: a step, a record or some steps earlier.
        Before => "before",
        /// What it was at first.
        First => "first",
        /// Its best value.
        Best => "best",
        /// The median of the layers.
        Layers => "layers",
        /// The usual spread of its changes.
        Spread => "spread",
        /// How far the loss has come down so far.
        Descent => "descent",
        /// What the best constant answer would have.
        Constant => "constant",
        /// How many there are in all.
        Total => "total",
        /// What it was set to.
        Given => "given",
        /// The gradient of one backward pass.
        OnePass => "one-pass",
        /// The largest finite value of the number type.
        TypeMax => "type-max",
    }
}

/// A place in a training run. [`Names`] gives it a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Place {
    /// The run as a whole.
    #[default]
    Run,
    /// The batch: one of its inputs or its targets.
    Data,
    /// One of the batch's inputs: its place in [`Names::inputs`].
    Input(usize),
    /// The batch's targets.
    Targets,
    /// A layer.
    Layer(LayerId),
    /// A layer's input.
    LayerInput(LayerId),
    /// A layer's output.
    Output(LayerId),
    /// The loss, outside the model.
    Loss,
    /// The gradient of the loss with respect to the model's output.
    LossGradient,
    /// The gradients of all parameters.
    Gradients,
    /// A parameter, or its gradient.
    Tensor(TensorId),
}

impl Place {
    /// What kind of place it is, as in JSON.
    pub fn kind(self) -> &'static str {
        match self {
            Place::Run => "run",
            Place::Data => "data",
            Place::Input(_) => "input",
            Place::Targets => "targets",
            Place::Layer(_) => "layer",
            Place::LayerInput(_) => "layer-input",
            Place::Output(_) => "layer-output",
            Place::Loss => "loss",
            Place::LossGradient => "loss-gradient",
            Place::Gradients => "gradients",
            Place::Tensor(_) => "tensor",
        }
    }

    /// The tensor, if it is one.
    pub fn tensor(self) -> Option<TensorId> {
        match self {
            Place::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The layer, if it is one, its input or its output.
    pub fn layer(self) -> Option<LayerId> {
        match self {
            Place::Layer(layer) | Place::LayerInput(layer) | Place::Output(layer) => Some(layer),
            _ => None,
        }
    }

    /// Whether it is the loss function, outside the model.
    pub fn is_loss(self) -> bool {
        matches!(self, Place::Loss | Place::LossGradient)
    }
}

/// The names of the places of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// Of the parameter tensors, by [`TensorId`].
    pub tensors: Vec<String>,
    /// Of the layers, by [`LayerId`].
    pub layers: Vec<String>,
    /// Of the batch's inputs.
    pub inputs: Vec<String>,
}

impl Names {
    /// Those of a layout; inputs have none there.
    pub fn of(layout: &Layout) -> Self {
        Self {
            tensors: layout.tensors.iter().map(|tensor| tensor.name.clone()).collect(),
            layers: layout.layers.iter().map(|layer| layer.name.clone()).collect(),
            inputs: Vec::new(),
        }
    }

    /// The name of a place; `None` where it has none.
    ///
    /// ```
    /// use tamegrad::evidence::{Names, Place};
    /// use tamegrad::LayerId;
    ///
    /// let names = Names { layers: vec!["fc1".to_owned()], ..Names::default() };
    /// assert_eq!(names.name(Place::Output(LayerId(0))), Some("fc1"));
    /// assert_eq!(names.name(Place::Loss), None);
    /// ```
    pub fn name(&self, place: Place) -> Option<&str> {
        let (names, index) = match place {
            Place::Tensor(TensorId(index)) => (&self.tensors, index),
            Place::Input(index) => (&self.inputs, index),
            Place::Layer(layer) | Place::LayerInput(layer) | Place::Output(layer) => {
                (&self.layers, layer.0)
            }
            _ => return None,
        };
        Some(names.get(index).map_or("?", String::as_str))
    }
}

/// One number that shows a finding, an origin or a cause.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Measure {
    /// What is measured.
    pub quantity: Quantity,
    /// Where.
    pub place: Place,
    /// At which step, where that is not the step of the finding.
    pub step: Option<Step>,
    /// Of how many layers, time steps or steps the value is made, where that matters.
    pub over: Option<u64>,
    /// The value.
    pub value: f64,
    /// What it is held against.
    pub against: Option<(Reference, f64)>,
}

impl Measure {
    /// A number of the whole run, held against nothing.
    ///
    /// ```
    /// use tamegrad::evidence::{Measure, Place, Quantity, Reference};
    /// use tamegrad::TensorId;
    ///
    /// let ratio = Measure::new(Quantity::UpdateRatio, 0.8)
    ///     .at(Place::Tensor(TensorId(5)))
    ///     .against(Reference::Usual, 0.002);
    /// assert_eq!(ratio.against, Some((Reference::Usual, 0.002)));
    /// ```
    pub fn new(quantity: Quantity, value: f64) -> Self {
        Self { quantity, place: Place::Run, step: None, over: None, value, against: None }
    }

    /// The same at a place.
    pub fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The same at a step.
    pub fn at_step(self, step: Step) -> Self {
        Self { step: Some(step), ..self }
    }

    /// The same, made of so many.
    pub fn over(self, count: u64) -> Self {
        Self { over: Some(count), ..self }
    }

    /// The same, held against a value.
    pub fn against(self, reference: Reference, value: f64) -> Self {
        Self { against: Some((reference, value)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_kebab_case() {
        let keys: Vec<&str> = Quantity::ALL.iter().map(|quantity| quantity.as_str()).collect();
        for (index, key) in keys.iter().enumerate() {
            assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{key}");
            assert!(!keys[index + 1..].contains(key), "{key} stands twice");
        }
    }

    #[test]
    fn a_place_that_is_not_in_the_names_is_a_question_mark() {
        let names = Names { tensors: vec!["w".to_owned()], ..Names::default() };
        for (place, name) in [
            (Place::Tensor(TensorId(0)), Some("w")),
            (Place::Tensor(TensorId(1)), Some("?")),
            (Place::Input(0), Some("?")),
            (Place::Gradients, None),
        ] {
            assert_eq!(names.name(place), name, "{place:?}");
        }
    }
}
