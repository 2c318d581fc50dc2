//! A measure in words: `update ratio of fc1.weight: 0.8 (usually 0.002)`.

use tamegrad::batch::INPUTS_MAX;
use tamegrad::{Measure, Names, Place, Quantity, Reference};

use crate::number::{count, counted, number};

/// A measure with its place, its value and what it is compared with.
///
/// ```
/// use tamegrad::{Measure, Names, Quantity, Reference};
///
/// let rate = Measure::new(Quantity::LearningRate, 0.3).against(Reference::Before, 0.01);
/// let text = tamegrad_report::measure(&rate, &Names::default());
/// assert_eq!(text, "learning rate: 0.3 (0.01 before)");
/// ```
pub fn measure(measure: &Measure, names: &Names) -> String {
    let mut text = quantity(measure, names);
    if let Some(step) = measure.step {
        text.push_str(&format!(" at step {}", count(step.0)));
    }
    text.push_str(&format!(": {}", number(measure.value)));
    if let Some((reference, value)) = measure.against {
        text.push_str(&format!(" ({})", against(measure, reference, value)));
    }
    text
}

/// Several measures on one line.
pub(crate) fn measures(all: &[Measure], names: &Names) -> String {
    all.iter().map(|of| measure(of, names)).collect::<Vec<_>>().join("; ")
}

fn quantity(of: &Measure, names: &Names) -> String {
    let over = |what: &str| of.over.map(|number| format!(" {what} {}", count(number)));
    let of_place = |what: &str| match names.name(of.place) {
        Some(name) => format!("{what} of {name}"),
        None => what.to_owned(),
    };
    match of.quantity {
        Quantity::Loss => "loss".into(),
        Quantity::LossChange => "change in loss".into(),
        Quantity::WildChanges => {
            format!("large changes{}", over("in the last").unwrap_or_default())
        }
        Quantity::PeakLoss => "peak loss".into(),
        Quantity::LossSigmas => "standard deviations above the usual loss".into(),
        Quantity::LossEpisodes => "times the loss left its usual level".into(),
        Quantity::Sharpness => "sharpness along the update".into(),
        Quantity::LossScale => "loss scale".into(),
        Quantity::LossScaleHalvings => "halvings of the loss scale in a row".into(),
        Quantity::NonFiniteElements if of.place == Place::Run => "NaN and Inf elements".into(),
        Quantity::NonFiniteElements => {
            format!("NaN and Inf elements in {}", place(of.place, names))
        }
        Quantity::NonFiniteRecords => {
            let what = if of.place == Place::Loss { "loss" } else { "gradient norm" };
            format!("records with a NaN or Inf {what}")
        }
        Quantity::FirstNonFinite => match of.place {
            Place::Tensor(_) => {
                format!("step whose update left NaN or Inf in {}", place(of.place, names))
            }
            // Seen in a later pass than the first.
            _ if of.against.is_some() => {
                format!("step at which NaN or Inf was seen in {}", place(of.place, names))
            }
            _ => format!("first step with NaN or Inf in {}", place(of.place, names)),
        },
        Quantity::GradientNorm => of_place("gradient norm"),
        Quantity::DriftingGradientNorm => of_place("drifting gradient norm"),
        Quantity::LowestGradientNorm => {
            format!("lowest gradient norm{} steps", over("in the first").unwrap_or_default())
        }
        Quantity::InnerGradientNorm => "gradient norm of the inner layers at the end".into(),
        Quantity::GradientSigmas => "standard deviations above its mean (log scale)".into(),
        Quantity::GradientSpikes => "gradient norm spikes".into(),
        Quantity::RisingRecords => "consecutive rising records".into(),
        Quantity::ForwardGain => of_place("forward gain"),
        Quantity::BackwardGain => of_place("backward gain"),
        Quantity::LargestGain => of_place("largest gain"),
        Quantity::ForwardProduct => product("forward", "layer", of),
        Quantity::BackwardProduct => product("backward", "layer", of),
        Quantity::ForwardGrowth => "growth of the signal from input to output".into(),
        Quantity::BackwardGrowth => "growth of the gradient from output to input".into(),
        Quantity::TimeStepProduct => product("backward", "time step", of),
        Quantity::LyapunovExponent => "Lyapunov exponent per time step".into(),
        Quantity::MeanBackwardGain => "mean backward gain per layer".into(),
        Quantity::BatchNormLayers => "layers with batch norm and no skip connection".into(),
        Quantity::PlainLayers => "layers without normalisation".into(),
        Quantity::UpdateRatio => match of.over {
            Some(steps) => {
                format!("largest update ratio, median of {}", counted(steps, "step"))
            }
            None => of_place("update ratio"),
        },
        Quantity::MedianUpdateRatio => "median update ratio".into(),
        Quantity::ParameterNormChange => "relative change of the parameter norm".into(),
        Quantity::CriticalMultiple => {
            "smallest multiple of the update that raises the loss of its batch".into()
        }
        Quantity::WeightGain => of_place("initial gain"),
        Quantity::SecondMomentLag => of_place("RMS of g^2/v"),
        Quantity::LearningRate => "learning rate".into(),
        Quantity::LearningRateCuts => "cuts of the learning rate".into(),
        Quantity::LearningRateLeft => "fraction of the learning rate left after all cuts".into(),
        Quantity::Metric => "metric".into(),
        Quantity::BestMetric => "best metric".into(),
        Quantity::LargestElement if of.place == Place::Run => {
            "largest number in the operation's input".into()
        }
        Quantity::LargestElement => format!("largest value in {}", place(of.place, names)),
        Quantity::DataRms => format!("RMS of {}", place(of.place, names)),
        Quantity::LargestOutput => "largest output of the pass".into(),
        Quantity::LargestMagnitude => "largest magnitude of outputs and gradients".into(),
        Quantity::PassStep => "step of the pass".into(),
        Quantity::StepsSinceAlarm => "steps since the last alarm".into(),
        Quantity::RecordsSinceAlarm => "records since the alarm".into(),
        Quantity::RecordsBeforeAlarm => "records before the first alarm".into(),
        Quantity::HeadroomBits => of_place("powers of 2 below the number type's maximum"),
        Quantity::SmallestLabel => "smallest label".into(),
        Quantity::LargestLabel => "largest label".into(),
        Quantity::IgnoredLabels => "labels that the loss ignores".into(),
        Quantity::SummedLabels => "labels that the loss sums over".into(),
        Quantity::BatchElements => "elements of the batch".into(),
        Quantity::LongTargets => "label sequences longer than their inputs".into(),
        Quantity::SmallestElement => format!("smallest value in {}", place(of.place, names)),
        Quantity::AveragedElements => "elements in the average".into(),
        Quantity::MaskedRows => "softmax rows that are entirely -inf".into(),
        Quantity::MetInfinities => "mask infinities that met 0 or another infinity".into(),
        Quantity::ZeroElements => match of.place {
            Place::Tensor(_) => {
                format!("zeros in the optimizer's state of {}", place(of.place, names))
            }
            _ => "zeros in the operation's input".into(),
        },
        Quantity::NegativeElements => "negative numbers in the operation's input".into(),
        Quantity::BrokenRows => "rows of the batch with NaN or Inf".into(),
        Quantity::OptimizerEps => "the optimizer's eps in the number type of its state".into(),
        Quantity::GradientLeft => "gradient norm left by the step before".into(),
        Quantity::LossElasticity => "loss change in % when all weights grow by 1%".into(),
    }
}

fn product(side: &str, what: &str, of: &Measure) -> String {
    match of.over {
        Some(number) => format!("product of {side} gains over {}", counted(number, what)),
        None => format!("product of {side} gains"),
    }
}

/// A place in the middle of a sentence.
pub(crate) fn place(place: Place, names: &Names) -> String {
    let name = names.name(place).unwrap_or_default();
    match place {
        Place::Run => "the run".into(),
        Place::Data => "the data".into(),
        Place::Input(_) if names.inputs.len() <= 1 => "the input".into(),
        // The last that is told apart stands for all after it.
        Place::Input(index) if index + 1 == INPUTS_MAX => format!("input `{name}` or a later one"),
        Place::Input(_) => format!("input `{name}`"),
        Place::Targets => "the targets".into(),
        Place::Tensor(_) => name.to_owned(),
        Place::Layer(_) => layer(name),
        Place::LayerInput(_) => format!("the input of {}", layer(name)),
        Place::Output(_) => format!("the output of {}", layer(name)),
        Place::Loss => "the loss".into(),
        Place::LossGradient => "the gradient at the model's output".into(),
        Place::Gradients => "the gradients".into(),
    }
}

/// A layer in the middle of a sentence: `fc1`, but `layer 16`, for those of a `Sequential` have numbers.
pub(crate) fn layer(name: &str) -> String {
    format!("{}{name}", before_layer(name))
}

/// What stands before the name of a layer, for it to read as one.
pub(crate) fn before_layer(name: &str) -> &'static str {
    let is_number = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_digit());
    if is_number { "layer " } else { "" }
}

fn against(of: &Measure, reference: Reference, value: f64) -> String {
    let value = number(value);
    match reference {
        Reference::Limit => format!("limit {value}"),
        Reference::Usual => format!("usually {value}"),
        Reference::Before => match of.over {
            Some(steps) => format!("{value}, {} earlier", counted(steps, "step")),
            None => format!("{value} before"),
        },
        Reference::First if of.quantity == Quantity::FirstNonFinite => {
            format!("first NaN or Inf at step {value}")
        }
        Reference::First => format!("initially {value}"),
        Reference::Best => format!("best {value}"),
        Reference::Layers => format!("layer median {value}"),
        Reference::Spread => format!("usual spread {value}"),
        Reference::Descent => format!("descent so far {value}"),
        Reference::Total => format!("of {value}"),
        Reference::Given => format!("set to {value}"),
        Reference::Constant => format!("constant prediction {value}"),
        Reference::OnePass => format!("single backward pass {value}"),
        Reference::TypeMax => format!("number type's maximum {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::{LayerId, Step, TensorId};

    fn names() -> Names {
        Names {
            tensors: vec!["fc1.weight".into()],
            layers: vec!["fc1".into()],
            inputs: vec!["x".into(), "mask".into()],
        }
    }

    #[test]
    fn measures_name_place_step_value_and_reference() {
        use Quantity as Q;
        use Reference as R;
        let of = Measure::new;
        for (given, words) in [
            (of(Q::Loss, f64::NAN), "loss: NaN"),
            (
                of(Q::UpdateRatio, 0.8).at(Place::Tensor(TensorId(0))).against(R::Usual, 0.002),
                "update ratio of fc1.weight: 0.8 (usually 0.002)",
            ),
            (
                of(Q::ForwardGain, 38.04).at(Place::Layer(LayerId(0))).at_step(Step(1200)),
                "forward gain of fc1 at step 1,200: 38",
            ),
            (
                of(Q::LearningRate, 0.3).over(100).against(R::Before, 0.1),
                "learning rate: 0.3 (0.1, 100 steps earlier)",
            ),
            (
                of(Q::TimeStepProduct, 8e4).over(100).against(R::Limit, 30.0),
                "product of backward gains over 100 time steps: 80,000 (limit 30)",
            ),
            (
                of(Q::FirstNonFinite, 7.0).at(Place::Input(1)),
                "first step with NaN or Inf in input `mask`: 7",
            ),
            (
                of(Q::FirstNonFinite, 61.0).at(Place::Output(LayerId(0))).against(R::First, 60.0),
                "step at which NaN or Inf was seen in the output of fc1: 61 (first NaN or Inf at \
                 step 60)",
            ),
            (
                of(Q::FirstNonFinite, 4.0).at(Place::Tensor(TensorId(0))),
                "step whose update left NaN or Inf in fc1.weight: 4",
            ),
            (
                of(Q::NonFiniteRecords, 3.0).at(Place::Loss).against(R::Total, 9.0),
                "records with a NaN or Inf loss: 3 (of 9)",
            ),
        ] {
            assert_eq!(measure(&given, &names()), words);
        }
    }

    #[test]
    fn an_only_input_needs_no_name_and_the_last_may_be_a_later_one() {
        let of = |count: usize, index| {
            let inputs = (0..count).map(|i| format!("input{i}")).collect();
            place(Place::Input(index), &Names { inputs, ..Names::default() })
        };
        assert_eq!(of(1, 0), "the input");
        assert_eq!(of(2, 0), "input `input0`");
        assert_eq!(of(INPUTS_MAX, INPUTS_MAX - 1), "input `input31` or a later one");
    }

    #[test]
    fn every_quantity_and_reference_has_words() {
        for quantity in Quantity::ALL {
            for reference in Reference::ALL {
                let given = Measure::new(*quantity, 1.0).against(*reference, 2.0);
                let text = measure(&given, &names());
                assert!(text.len() > 8 && !text.contains("  "), "{text}");
            }
        }
    }

    #[test]
    fn a_layer_that_is_called_by_a_number_reads_as_one() {
        assert_eq!(["16", "blocks.3", "fc1"].map(layer), ["layer 16", "blocks.3", "fc1"]);
    }
}
