//! Words for the first value that was not finite, and for the operation that made it.

use tamegrad::inspection::{Operation, OperationKind, SourceLine};
use tamegrad::{Diagnosis, FirstNonFinite, Names, Place, Stage};

use super::measure::place;
use crate::number::count;

/// What the checklist says where no cause is supported, the most frequent first: of 112 public reports of
/// broken training whose outcome is known, by cause.
pub(crate) const CHECKLIST: [&str; 8] = [
    "data: NaN, Inf or corrupt rows in the batch, targets longer than their inputs",
    "number type: does the same batch stay finite in float32?",
    "log(0), sqrt(0), a norm of zeros, a division by 0, in the value or in the gradient alone",
    "an empty average: all labels ignored, no positive sample, an empty mask",
    "a mask that hides every entry of a row, or torch.where around a NaN",
    "a kernel or compiler: does the same batch stay finite without compilation, with plain attention?",
    "the optimizer's eps, which is 0 in float16 when it is below 6e-8",
    "the learning rate: was it scaled to the batch and to the number of devices?",
];

/// Where the first NaN or Inf was seen, and what was finite: `the loss, at step 100; the inputs and all layer
/// outputs were still finite`.
pub(crate) fn first_nonfinite(first: &FirstNonFinite, names: &Names) -> String {
    let what = match first.stage {
        Stage::Inputs | Stage::Targets | Stage::Outputs | Stage::Parameters => {
            place(first.place, names)
        }
        Stage::Loss => "the loss".into(),
        Stage::OutputGradient => "the gradient at the model's output".into(),
        Stage::Gradients if first.place == Place::Gradients => "a gradient".into(),
        Stage::Gradients => format!("the gradient of {}", place(first.place, names)),
    };
    let finite: Vec<&str> = first.finite.iter().map(|of| stage(*of)).collect();
    let step = count(first.step.0);
    match &finite[..] {
        [] => format!("{what}, at step {step}"),
        [one @ ("the loss" | "the gradient at the model's output")] => {
            format!("{what}, at step {step}; {one} was still finite")
        }
        [one] => format!("{what}, at step {step}; {one} were still finite"),
        [some @ .., last] => {
            format!("{what}, at step {step}; {} and {last} were still finite", some.join(", "))
        }
    }
}

fn stage(of: Stage) -> &'static str {
    match of {
        Stage::Inputs => "the inputs",
        Stage::Targets => "the targets",
        Stage::Outputs => "all layer outputs",
        Stage::Loss => "the loss",
        Stage::OutputGradient => "the gradient at the model's output",
        Stage::Gradients => "the gradients",
        Stage::Parameters => "the parameters",
    }
}

/// An operation with its place and its line: `sqrt in losses.py, line 24, outside the model (its gradient is
/// not finite): d = x.sqrt()`.
pub(crate) fn operation(of: &Operation) -> String {
    let mut text = match of.kind {
        OperationKind::Other | OperationKind::Custom => of.name.clone(),
        kind => kind.as_str().replace('-', " "),
    };
    if let Some(line) = &of.line {
        text.push_str(&format!(" in {}", line_of(line)));
    }
    text.push_str(&match &of.module {
        Some(module) if module.is_empty() => ", in the model".to_owned(),
        Some(module) => format!(", in {module}"),
        None => ", outside the model".to_owned(),
    });
    if of.is_compiled {
        text.push_str(", in a compiled region");
    }
    if of.is_backward {
        text.push_str(" (its gradient is not finite)");
    }
    if let Some(line) = of.line.as_ref().filter(|line| !line.code.is_empty()) {
        text.push_str(&format!(": {}", line.code.trim()));
    }
    text
}

/// A line's place: `losses.py, line 24`.
pub(crate) fn line_of(line: &SourceLine) -> String {
    format!("{}, line {}", line.file, line.line)
}

/// What to look at where no cause is supported and something was NaN or Inf.
pub fn checklist(diagnosis: &Diagnosis) -> &'static [&'static str] {
    let is_broken = diagnosis.decided_by == Some(tamegrad::SignName::LossNonFinite);
    // Of the loss function the report says more.
    let is_outside = diagnosis.origin.as_ref().is_some_and(|origin| origin.place.is_loss());
    let is_unknown = diagnosis.causes.is_empty() && diagnosis.operation.is_none() && !is_outside;
    if is_broken && is_unknown { &CHECKLIST } else { &[] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::{LayerId, Place, Step};

    #[test]
    fn operations_with_what_is_known_of_them() {
        let sqrt = Operation::new(OperationKind::Sqrt);
        let line = SourceLine {
            file: "losses.py".into(),
            line: 24,
            function: "distance".into(),
            code: "    d = x.sqrt()".into(),
        };
        let lined = Operation { line: Some(line), is_backward: true, ..sqrt.clone() };
        let within = Operation { module: Some("encoder.3".into()), ..sqrt.clone() };
        let custom = Operation { name: "MyClamp".into(), ..Operation::new(OperationKind::Custom) };
        for (of, words) in [
            (sqrt, "sqrt, outside the model"),
            (
                lined,
                "sqrt in losses.py, line 24, outside the model (its gradient is not finite): \
                 d = x.sqrt()",
            ),
            (within, "sqrt, in encoder.3"),
            (custom, "MyClamp, outside the model"),
        ] {
            assert_eq!(operation(&of), words);
        }
    }

    #[test]
    fn the_first_value_and_what_was_finite() {
        let names = Names { layers: vec!["fc1".into()], ..Names::default() };
        let first = |stage, place, finite: &[Stage]| FirstNonFinite {
            step: Step(1200),
            stage,
            place,
            finite: finite.to_vec(),
        };
        for (of, words) in [
            (
                first(Stage::Outputs, Place::Output(LayerId(0)), &[]),
                "the output of fc1, at step 1,200",
            ),
            (
                first(Stage::OutputGradient, Place::LossGradient, &[Stage::Outputs, Stage::Loss]),
                "the gradient at the model's output, at step 1,200; all layer outputs and the loss \
                 were still finite",
            ),
            (
                first(Stage::Outputs, Place::Output(LayerId(0)), &[Stage::Inputs]),
                "the output of fc1, at step 1,200; the inputs were still finite",
            ),
        ] {
            assert_eq!(first_nonfinite(&of, &names), words);
        }
    }
}
