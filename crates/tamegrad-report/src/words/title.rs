//! What has happened, according to a finding.

use tamegrad::{Finding, Measure, Place, Quantity, Reference, SignName};

/// What has happened, in words that fit this finding; a sign's own title covers everything that it
/// can show.
pub fn title(finding: &Finding) -> &'static str {
    let own = finding.sign.doc().title;
    finding.evidence.first().and_then(|first| known(finding.sign, first)).unwrap_or(own)
}

fn known(sign: SignName, first: &Measure) -> Option<&'static str> {
    use Quantity as Q;
    use SignName as S;
    Some(match (sign, first.quantity) {
        (S::LossFluctuates, Q::LossChange) => "The loss swings wildly",
        (S::LossFluctuates, Q::Loss) => "The loss rises far above its starting value",
        (S::LossFluctuates, Q::PeakLoss) => "The loss leaves its usual level",
        (S::LossNonFinite, Q::Loss) if first.value.is_nan() => "The loss is NaN",
        (S::LossNonFinite, Q::Loss) => "The loss is infinite",
        (S::LossNonFinite, Q::NonFiniteRecords) => "The gradient norm is NaN or Inf",
        (S::LossNonFinite, Q::LossScale) => "The loss scale collapses",
        (S::LossNonFinite, Q::NonFiniteElements) => match first.place {
            Place::Tensor(_) => "A parameter became NaN or Inf",
            _ => "A gradient is NaN or Inf",
        },
        (S::MetricStalls, Q::Metric) => "The held-out metric deteriorates",
        (S::MetricStalls, Q::Loss) => "The loss stays far above that of a constant prediction",
        (S::MetricStalls, Q::BestMetric) => "The held-out metric does not improve",
        (S::UpdatesTooLarge, Q::UpdateRatio) => "An update changes much of a weight matrix",
        (S::UpdatesTooLarge, Q::MedianUpdateRatio) => "Updates grow with the learning rate",
        (S::UpdatesTooLarge, Q::Loss) => "The loss rises under larger steps than before",
        (S::UpdatesTooLarge, Q::ParameterNormChange) => "The parameter norm jumps",
        (S::GradientSpikes, Q::DriftingGradientNorm) => "A gradient norm drifts upward",
        (S::GradientSpikes, Q::LowestGradientNorm) => "The gradient norm stays very high",
        (S::GradientSpikes, Q::BackwardProduct) => "The layers multiply the gradient",
        (S::GradientSpikes, Q::GradientNorm) => match first.against {
            Some((Reference::Limit, _)) => "The gradient is very large",
            _ => "A gradient norm has jumped",
        },
        (S::LearningRateFalls, Q::LearningRate) => "The learning rate was cut",
        (S::LearningRateFalls, Q::CriticalMultiple) => {
            "The update raises the loss of its own batch"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::{Severity, Step, TensorId};

    #[test]
    fn each_kind_of_finding_has_a_title_that_is_true_for_it() {
        let of = Measure::new;
        let tensor = Place::Tensor(TensorId(0));
        for (sign, first, words) in [
            (SignName::LossNonFinite, of(Quantity::Loss, f64::NAN), "The loss is NaN"),
            (SignName::LossNonFinite, of(Quantity::Loss, f64::INFINITY), "The loss is infinite"),
            (
                SignName::LossNonFinite,
                of(Quantity::NonFiniteElements, 3.0).at(Place::Gradients),
                "A gradient is NaN or Inf",
            ),
            (
                SignName::LossNonFinite,
                of(Quantity::NonFiniteElements, 3.0).at(tensor),
                "A parameter became NaN or Inf",
            ),
            (
                SignName::GradientSpikes,
                of(Quantity::GradientNorm, 1e12).against(Reference::Limit, 1e9),
                "The gradient is very large",
            ),
            (
                SignName::GradientSpikes,
                of(Quantity::GradientNorm, 900.0).against(Reference::Usual, 1.0),
                "A gradient norm has jumped",
            ),
            (
                SignName::UpdatesTooLarge,
                of(Quantity::Loss, 9.0),
                "The loss rises under larger steps than before",
            ),
            (
                SignName::MetricStalls,
                of(Quantity::GradientNorm, 1.0),
                "Metric stalls or deteriorates",
            ),
        ] {
            let finding = Finding::new(sign, Step(1), Severity::Alarm, vec![first]);
            assert_eq!(title(&finding), words, "{first:?}");
        }
    }
}
