//! Cause: the optimizer divides by what is 0 in its number type.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::inspection::Division;
use crate::origin::Origin;
use crate::record::NonFiniteAt;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "optimizer-division",
    title: "The optimizer divides by 0",
    what: "Adam and its kin divide by the square root of an average of squared gradients, plus eps. \
           In a 16-bit type, the squares of small gradients and eps itself round to 0.",
    why: "eps = 1e-8 is 0 in float16, whose smallest number is 6e-8, and the square of a gradient of \
          1e-4 is 0 as well. The first update is then 0 / 0 or x / 0, from gradients that are all \
          finite.",
    rule: |rules| {
        format!(
            "Supported when an update from finite gradients raised the alarm or left NaN or Inf in a \
             parameter, and eps is 0 in the number type of the optimizer's state; or when more than \
             {} of the elements of that state are 0 though their gradients are not, and are far \
             larger than eps.",
            rules.lost_squares,
        )
    },
    example: "float16 weights, Adam with eps 1e-8: 1,180 of 1,280 elements of the second moment are 0, \
              and so is eps.",
    remedy: "eps = 1e-4 for a float16 state; better, keep parameters and optimizer state in float32 \
             and use automatic mixed precision.",
    source: "7 of 112 public reports of broken training whose outcome is known, such as \
             afiaka87/glide-finetune#5.",
};

/// Weighs what the optimizer divided by.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let record = &run.record;
    let experiments = record.inspection.as_ref().map(|seen| &seen.experiments[..]);
    if super::by_experiments(experiments.unwrap_or_default()) == Some(CauseName::OptimizerDivision)
    {
        return Some(Cause::new(CauseName::OptimizerDivision, Ground::Experiment, Vec::new()));
    }
    // An update that was taken back has broken nothing.
    let by_update = |(_, at)| matches!(at, NonFiniteAt::Parameter(_));
    let alarm = run.first_alarm()?;
    let later = |(step, _)| step > alarm.step;
    record.first_nonfinite.is_none_or(|first| by_update(first) || later(first)).then_some(())?;
    let division = record.inspection.as_ref()?.division.as_ref()?;
    let cause = Cause::new(CauseName::OptimizerDivision, Ground::LostEps, evidence(division)?);
    Some(cause.of_layer(record.layout.layer_of(division.tensor)))
}

fn evidence(division: &Division) -> Option<Vec<Measure>> {
    let place = Place::Tensor(division.tensor);
    let eps = Measure::new(Quantity::OptimizerEps, division.eps_in_type);
    let eps = eps.against(Reference::Given, division.eps);
    let zeros = Measure::new(Quantity::ZeroElements, division.zeros as f64).at(place);
    let zeros = zeros.against(Reference::Total, division.len as f64);
    let is_lost = division.lost as f64 > RULES.lost_squares * division.len as f64;
    (division.eps_in_type == 0.0 || is_lost).then(|| vec![eps, zeros])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::looked_into;
    use crate::inspection::Inspection;
    use crate::observe::{Step, TensorId};

    #[test]
    fn an_eps_that_rounds_to_zero_in_an_update_that_broke() {
        for (eps_in_type, lost, is_broken, found) in [
            (0.0, 0, true, true),
            (1e-4, 0, true, false),
            (1e-30, 9, true, true),
            (0.0, 0, false, false),
        ] {
            let division = Some(Division {
                tensor: TensorId(0),
                optimizer: "Adam".into(),
                eps: 1e-8,
                dtype: "float16".into(),
                eps_in_type,
                zeros: 9,
                lost,
                len: 10,
            });
            let mut run = looked_into(Inspection { division, ..Inspection::default() });
            let loss = run.record.first_nonfinite;
            let broken = (Step(1), NonFiniteAt::Parameter(TensorId(0)));
            run.record.first_nonfinite = if is_broken { Some(broken) } else { loss };
            assert_eq!(weigh(&run, None).is_some(), found, "{eps_in_type} {is_broken}");
        }
    }
}
