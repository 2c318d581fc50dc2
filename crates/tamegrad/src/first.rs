//! Which value was the first that is not finite, and what was still finite then.

use crate::evidence::{Place, named_enum};
use crate::observe::{LayerTrace, Step};
use crate::record::NonFiniteAt;
use crate::run::Run;

named_enum! {
    /// The stages that numbers pass through in a training step, in their order. Where the first NaN or Inf
    /// is seen says most about why.
    Stage {
        /// The batch's inputs.
        Inputs => "inputs",
        /// The batch's targets.
        Targets => "targets",
        /// The outputs of the model's layers.
        Outputs => "outputs",
        /// The loss.
        Loss => "loss",
        /// The gradient of the loss with respect to the model's output.
        OutputGradient => "output-gradient",
        /// The gradients of the layers and parameters.
        Gradients => "gradients",
        /// The parameters, after an update.
        Parameters => "parameters",
    }
}

/// The first value of a run that is not finite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstNonFinite {
    /// The step.
    pub step: Step,
    /// The stage at which it was seen.
    pub stage: Stage,
    /// The input, layer output or parameter that it was seen in; [`Place::Gradients`] where it is not known
    /// of which parameter.
    pub place: Place,
    /// Stages of that step that are known to have been finite, in their order.
    pub finite: Vec<Stage>,
}

/// The first value that is not finite; `None` where all were finite.
pub fn find(run: &Run) -> Option<FirstNonFinite> {
    let record = &run.record;
    let (step, at) = record.first_nonfinite?;
    let passes = [&record.alarm_trace, &record.calm_trace, &record.first_trace];
    let pass = passes.into_iter().flatten().find(|(seen, _)| *seen == step).map(|(_, pass)| pass);
    let broken_before = run.broken_by().and_then(|found| found.parameter);
    let (stage, place) = match at {
        NonFiniteAt::Output(_) | NonFiniteAt::Loss | NonFiniteAt::Gradient(_)
            if let Some((tensor, _)) = broken_before =>
        {
            (Stage::Parameters, Place::Tensor(tensor))
        }
        NonFiniteAt::Input(input) => (Stage::Inputs, Place::Input(input)),
        NonFiniteAt::Targets => (Stage::Targets, Place::Targets),
        NonFiniteAt::Output(layer) => (Stage::Outputs, Place::Output(layer)),
        NonFiniteAt::Loss => (Stage::Loss, Place::Loss),
        NonFiniteAt::Gradient(_) if has_broken_output_gradient(pass) => {
            (Stage::OutputGradient, Place::LossGradient)
        }
        NonFiniteAt::Gradient(tensor) => {
            (Stage::Gradients, tensor.map_or(Place::Gradients, Place::Tensor))
        }
        NonFiniteAt::Parameter(tensor) => (Stage::Parameters, Place::Tensor(tensor)),
    };
    let row = record.rows.iter().find(|row| row.step == step);
    let is_seen = |of: Stage| match of {
        Stage::Inputs => !record.batch.inputs.is_empty(),
        Stage::Targets => record.batch.targets.latest.is_some(),
        Stage::Outputs => pass.is_some_and(|pass| pass.first_nonfinite_output().is_none()),
        Stage::Loss => row.and_then(|row| row.loss).is_some_and(f64::is_finite),
        Stage::OutputGradient => last_delta(pass).is_some_and(|delta| delta.is_finite()),
        Stage::Gradients => row.is_some_and(|row| {
            row.nonfinite_gradients == 0 && row.gradient_norm.is_some_and(f64::is_finite)
        }),
        Stage::Parameters => false,
    };
    let finite = Stage::ALL.iter().copied().filter(|of| *of < stage && is_seen(*of)).collect();
    Some(FirstNonFinite { step, stage, place, finite })
}

fn has_broken_output_gradient(pass: Option<&LayerTrace>) -> bool {
    last_delta(pass).is_some_and(|delta| !delta.is_finite())
}

/// The gradient at the last output that one came to.
fn last_delta(pass: Option<&LayerTrace>) -> Option<tamegrad_stats::TensorStats> {
    pass?.layers.iter().rev().find_map(|layer| layer.delta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed, trace};
    use crate::observe::{LayerId, NamedInput, Observation, RunFacts, TensorId};
    use crate::signs::check::{layout, stats};

    /// The stage at which the second of two steps broke, and what was finite.
    fn stage(
        input: f64,
        output: f64,
        loss: f64,
        delta: f64,
        gradient: f64,
    ) -> Option<(Stage, usize)> {
        let mut pass = trace(&[1.0, output], &[1.0; 2]);
        pass.layers[1].delta = Some(stats(delta));
        let gradients = [Some(stats(gradient)); 2];
        let inputs = [NamedInput { name: "x", stats: stats(input) }];
        let run = alarmed(layout(2), RunFacts::default(), 2, |step| match step {
            0 => Observation { loss: Some(1.0), ..Observation::default() },
            _ => Observation {
                loss: Some(loss),
                trace: Some(&pass),
                inputs: &inputs,
                gradients: &gradients,
                ..Observation::default()
            },
        });
        find(&run).map(|first| (first.stage, first.finite.len()))
    }

    #[test]
    fn a_parameter_that_was_broken_before_the_pass_comes_first() {
        use crate::inspection::Inspection;
        let pass = trace(&[1.0, f64::NAN], &[1.0; 2]);
        let mut run = alarmed(layout(2), RunFacts::default(), 1, |_| Observation {
            loss: Some(f64::NAN),
            trace: Some(&pass),
            ..Observation::default()
        });
        let stage = |run: &Run| find(run).map(|first| (first.stage, first.place));
        assert_eq!(stage(&run), Some((Stage::Outputs, Place::Output(LayerId(1)))));
        let parameter = Some((TensorId(1), 3));
        run.record.take_inspection(Inspection { parameter, ..Inspection::default() });
        assert_eq!(stage(&run), Some((Stage::Parameters, Place::Tensor(TensorId(1)))));
        let causes = crate::causes::weigh(&run, crate::origin::find(&run).as_ref());
        assert_eq!(causes[0].ground, crate::causes::Ground::BrokenWeights);
    }

    #[test]
    fn the_first_stage_and_what_came_before_it() {
        const NAN: f64 = f64::NAN;
        for (name, [input, output, loss, delta, gradient], found) in [
            ("input", [NAN, NAN, NAN, NAN, NAN], Some((Stage::Inputs, 0))),
            ("output", [1.0, NAN, NAN, NAN, NAN], Some((Stage::Outputs, 1))),
            ("loss", [1.0, 1.0, NAN, NAN, NAN], Some((Stage::Loss, 2))),
            ("loss gradient", [1.0, 1.0, 1.0, NAN, NAN], Some((Stage::OutputGradient, 3))),
            ("gradient", [1.0, 1.0, 1.0, 1.0, NAN], Some((Stage::Gradients, 4))),
            ("nothing", [1.0; 5], None),
        ] {
            assert_eq!(stage(input, output, loss, delta, gradient), found, "{name}");
        }
    }

    #[test]
    fn a_parameter_that_an_update_broke() {
        let mut run = alarmed(layout(2), RunFacts::default(), 2, |_| Observation {
            loss: Some(1.0),
            gradient_norm: Some(1.0),
            ..Observation::default()
        });
        run.record.first_nonfinite = Some((Step(1), NonFiniteAt::Parameter(TensorId(1))));
        let first = find(&run).expect("a parameter broke");
        assert_eq!((first.stage, first.place), (Stage::Parameters, Place::Tensor(TensorId(1))));
        assert_eq!(first.finite, [Stage::Loss, Stage::Gradients]);
    }
}
