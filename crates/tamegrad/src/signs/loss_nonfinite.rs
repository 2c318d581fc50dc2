//! Sign: the loss, a gradient or a parameter is NaN or Inf.

use super::Sign;
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity};
use crate::finding::{Finding, Reading, Severity, SignName};
use crate::observe::TensorId;
use crate::record::{Record, TensorTrack};
use crate::run::Run;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "loss-nonfinite",
    title: "Loss is NaN or Inf",
    what: "The loss, or an element of a gradient or a parameter, is not a number (NaN) or is \
           beyond the range of its type (Inf).",
    why: "This is how an explosion ends: a NaN parameter makes every later loss NaN, and no \
          optimizer recovers from that. One Inf in a gradient is enough. Clipping by norm turns it \
          into NaN, because the norm is Inf and Inf times 0 is NaN.",
    rule: |rules| {
        format!(
            "Fires at once, without a warm-up, when the loss is not finite, when a gradient has a \
             non-finite element, or when an update makes a parameter non-finite. NaN and Inf \
             elements are counted separately and never enter a norm or a baseline. In logs it \
             fires on a loss that is not finite (except in gaps of up to {} records), on a gradient norm \
             that is not finite in {} records (more than {} of all, or the last ones), or on a loss \
             scale that halves {} times in a row to below 1 or to where it can fall no further ({} \
             records in a row there), or {} times in a row to {} or less at the end of the log.",
            rules.log_loss.gap_max,
            rules.log_gradient.broken,
            rules.log_gradient.broken_part,
            rules.loss_scale.halvings,
            rules.loss_scale.at_minimum,
            rules.loss_scale.last_halvings,
            rules.loss_scale.low,
        )
    },
    example: "Step 41: loss 3.1e4. Step 42: loss NaN, 64 NaN of 4096 elements in \
              layers.3.linear.weight.",
    remedy: "Skip the step, leaving the parameters and the optimizer state untouched. Then treat \
             what led to it: see the origin and the cause.",
    source: "Goodfellow, Bengio, Courville: Deep Learning (2016), section 10.11.1.",
};

/// State: whether parameters are broken already, which is news only once.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossNonFinite {
    parameters_broken: bool,
}

impl Sign for LossNonFinite {
    fn read(&mut self, run: &Run) -> Reading {
        let record = &run.record;
        let Some(row) = record.now() else { return Reading::TooEarly { needs: 1 } };
        let mut evidence = Vec::new();
        let loss = row.loss.filter(|loss| !loss.is_finite());
        evidence.extend(loss.map(|loss| Measure::new(Quantity::Loss, loss)));
        if row.nonfinite_gradients > 0 {
            let count = row.nonfinite_gradients as f64;
            evidence.push(Measure::new(Quantity::NonFiniteElements, count).at(Place::Gradients));
        }
        if evidence.is_empty() {
            return Reading::Quiet;
        }
        let tensor = if loss.is_none() { telling_gradient(record) } else { None };
        let place = tensor.map_or(Place::Run, Place::Tensor);
        let found = Finding::new(SignName::LossNonFinite, row.step, Severity::Alarm, evidence);
        Reading::Fired(found.at(place))
    }

    fn read_update(&mut self, run: &Run) -> Reading {
        let record = &run.record;
        let broken = record.tensors.iter().enumerate().find_map(|(index, track)| {
            let count = track.latest_update?.nonfinite;
            (count > 0).then_some((TensorId(index), count))
        });
        let was_broken = std::mem::replace(&mut self.parameters_broken, broken.is_some());
        let (Some((tensor, count)), Some(row), false) = (broken, record.now(), was_broken) else {
            return Reading::Quiet;
        };
        let place = Place::Tensor(tensor);
        let evidence = vec![Measure::new(Quantity::NonFiniteElements, count as f64).at(place)];
        let found = Finding::new(SignName::LossNonFinite, row.step, Severity::Alarm, evidence);
        Reading::Fired(found.at(place))
    }
}

/// The broken gradient that is nearest to the loss, where back-propagation met it first; `None` when
/// all are broken, for then the first one says nothing.
fn telling_gradient(record: &Record) -> Option<TensorId> {
    let known = || record.tensors.iter().filter_map(|track| track.latest);
    let is_broken = |track: &TensorTrack| track.latest.is_some_and(|stats| !stats.is_finite());
    known().any(|stats| stats.is_finite()).then(|| record.nearest_to_loss(is_broken)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signs::check::{Given, alarms, run, tensors};

    #[test]
    fn fires_at_the_first_non_finite_value_wherever_it_is() {
        const NAN: f64 = f64::NAN;
        let fine = || Given { ratios: vec![0.01; 3], ..Given::of(1.0, &[1.0; 3]) };
        for (name, broken, tensor) in [
            ("loss NaN", Given { loss: Some(NAN), ..fine() }, None),
            ("loss -Inf", Given { loss: Some(f64::NEG_INFINITY), ..fine() }, None),
            (
                "loss and a gradient",
                Given { ratios: vec![0.01; 3], ..Given::of(NAN, &[1.0, 1.0, NAN]) },
                None,
            ),
            (
                "gradients up to one",
                Given { norms: vec![NAN, f64::INFINITY, 1.0], ..fine() },
                Some(1),
            ),
            ("all gradients", Given { norms: vec![NAN; 3], ..fine() }, None),
            ("parameter NaN", Given { ratios: vec![NAN, 0.01, 0.01], ..fine() }, Some(0)),
        ] {
            let (findings, _) = run(&mut LossNonFinite::default(), &[fine(), fine(), broken]);
            assert_eq!(alarms(&findings), [2], "{name}");
            assert_eq!(tensors(&findings), [tensor.map(TensorId)], "{name}");
        }
    }

    #[test]
    fn broken_parameters_are_news_once() {
        let broken = Given { ratios: vec![f64::NAN], ..Given::default() };
        let given = vec![broken; 5];
        assert_eq!(alarms(&run(&mut LossNonFinite::default(), &given).0), [0]);
    }

    #[test]
    fn large_finite_values_are_not_its_matter() {
        let large = Given::of(1e38, &[1e300]);
        assert_eq!(run(&mut LossNonFinite::default(), &[large]).1, Reading::Quiet);
    }
}
