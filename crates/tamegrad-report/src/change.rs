//! A change of a run in a few words, such as `clip by global norm at 2.1`.

use tamegrad::inspection::{OperationKind, SourceLine};
use tamegrad::remedies::{Change, Scheme};

use crate::number::{count, counted, number};
use crate::words;

/// What a remedy changes, in a few words: `batch norm before the activation`, `relu in layers.17`.
pub fn describe_change(change: &Change) -> String {
    match change {
        Change::Guard => "run the guard in protect mode".into(),
        Change::FilterRows { rows, .. } if rows.is_empty() => {
            "leave out or repair the rows of the batch that are unlike the others".into()
        }
        Change::FilterRows { input, rows } => {
            let of = match input.as_deref() {
                Some("input") => " of the input".to_owned(),
                Some(name) => format!(" of input {name}"),
                None => String::new(),
            };
            let noun = if rows.len() == 1 { "row" } else { "rows" };
            let rows: Vec<String> = rows.iter().map(|row| count(*row)).collect();
            format!("leave out or repair {noun} {}{of}", rows.join(", "))
        }
        Change::FixLabels { classes: Some(classes) } => {
            format!("number the labels from 0 to {}", count(classes.saturating_sub(1)))
        }
        Change::FixLabels { classes: None } => "make the labels fit the loss function".into(),
        Change::GuardAverage { line } => {
            format!("divide by at least 1 in the average{}", at(line))
        }
        Change::GuardOperation { operation, line } => {
            format!("{}{}", guarded(*operation), at(line))
        }
        Change::UnmaskRow { line } => {
            format!("leave one entry of each row unmasked{}", at(line))
        }
        Change::OptimizerEps { eps } => format!("eps of {} in the optimizer", number(*eps)),
        Change::ClearGradients => "clear the gradients in every step".into(),
        Change::MeanLoss => "use the mean over the labels as the loss".into(),
        Change::DropLastBatch => "drop the last, incomplete batch, or use larger batches".into(),
        Change::WiderType { line: None } => "bfloat16 or float32 in place of float16".into(),
        Change::WiderType { line } => format!("float32 for the operation{}", at(line)),
        Change::OtherKernel => "another kernel or version".into(),
        Change::ClipGlobalNorm { max_norm } => {
            format!("clip by global norm at {}", number(*max_norm))
        }
        Change::ClipTensorNorm { max_norm } => {
            format!("clip each tensor by norm at {}", number(*max_norm))
        }
        Change::ClipValue { limit } => format!("clip each element at {}", number(*limit)),
        Change::WarmUp { steps } => format!("warm up over {}", counted(*steps, "step")),
        Change::LearningRate { factor, from: Some(from) } => format!(
            "reduce the learning rate to {} ({} at onset)",
            number(factor * from),
            number(*from)
        ),
        Change::LearningRate { factor, from: None } => {
            format!("reduce the learning rate to {} of its value", number(*factor))
        }
        Change::Rewind { before } => format!(
            "resume from a checkpoint before step {} and skip the batches after it",
            count(before.0)
        ),
        Change::ScaleTarget => "standardise the targets".into(),
        Change::ScaleInput => "standardise the inputs".into(),
        Change::WeightDecay { rate } => format!("decoupled weight decay of {}", number(*rate)),
        Change::L2Penalty { strength } => format!("L2 penalty of strength {}", number(*strength)),
        Change::L1Penalty { strength } => format!("L1 penalty of strength {}", number(*strength)),
        Change::BatchSize { samples } => format!("batches of {}", counted(*samples, "sample")),
        Change::Reinitialise { scheme, layer } => {
            format!("{} initialisation in {}", scheme_name(*scheme), place(layer))
        }
        Change::BatchNorm { place } => format!("batch norm {} the activation", place.as_str()),
        Change::Activation { name, layer } => format!("{name} in {}", place(layer)),
        Change::Depth { layers } => counted(*layers, "hidden layer"),
    }
}

/// Where a change is to be made.
fn at(line: &Option<SourceLine>) -> String {
    line.as_ref().map_or(String::new(), |line| format!(" in {}", words::line_of(line)))
}

fn guarded(operation: OperationKind) -> &'static str {
    match operation {
        OperationKind::Log => "clamp the input of the logarithm above 0",
        OperationKind::Exp => "clamp the input of the exponential",
        OperationKind::Division => "add an eps to the divisor",
        OperationKind::InverseTrigonometric => "clamp the input inside the function's domain",
        OperationKind::Std => "add an eps to the variance before the square root",
        OperationKind::Norm => "add an eps to the input of the norm",
        _ => "add an eps to the function's input",
    }
}

fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::He => "He",
        Scheme::Xavier => "Xavier",
        Scheme::Orthogonal => "orthogonal",
    }
}

fn place(layer: &Option<String>) -> &str {
    layer.as_deref().unwrap_or("all layers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::Step;
    use tamegrad::remedies::NormPlace;

    #[test]
    fn every_change_in_words() {
        let layer = || Some("layers.17".to_owned());
        for (change, words) in [
            (Change::Guard, "run the guard in protect mode"),
            (
                Change::FilterRows { input: Some("x".into()), rows: vec![3, 1700] },
                "leave out or repair rows 3, 1,700 of input x",
            ),
            (
                Change::FilterRows { input: Some("input".into()), rows: vec![14] },
                "leave out or repair row 14 of the input",
            ),
            (Change::FixLabels { classes: Some(10) }, "number the labels from 0 to 9"),
            (
                Change::GuardOperation {
                    operation: OperationKind::Sqrt,
                    line: Some(SourceLine {
                        file: "a.py".into(),
                        line: 7,
                        ..SourceLine::default()
                    }),
                },
                "add an eps to the function's input in a.py, line 7",
            ),
            (Change::OptimizerEps { eps: 1e-4 }, "eps of 1e-4 in the optimizer"),
            (Change::WiderType { line: None }, "bfloat16 or float32 in place of float16"),
            (Change::ClipGlobalNorm { max_norm: 2.1 }, "clip by global norm at 2.1"),
            (Change::ClipTensorNorm { max_norm: 0.5 }, "clip each tensor by norm at 0.5"),
            (Change::ClipValue { limit: 1e-4 }, "clip each element at 1e-4"),
            (Change::WarmUp { steps: 1200 }, "warm up over 1,200 steps"),
            (
                Change::LearningRate { factor: 0.3, from: Some(3e-4) },
                "reduce the learning rate to 9e-5 (3e-4 at onset)",
            ),
            (
                Change::LearningRate { factor: 0.1, from: None },
                "reduce the learning rate to 0.1 of its value",
            ),
            (
                Change::Rewind { before: Step(1200) },
                "resume from a checkpoint before step 1,200 and skip the batches after it",
            ),
            (Change::ScaleTarget, "standardise the targets"),
            (Change::ScaleInput, "standardise the inputs"),
            (Change::WeightDecay { rate: 0.01 }, "decoupled weight decay of 0.01"),
            (Change::L2Penalty { strength: 1e-3 }, "L2 penalty of strength 0.001"),
            (Change::L1Penalty { strength: 1e-5 }, "L1 penalty of strength 1e-5"),
            (Change::BatchSize { samples: 16 }, "batches of 16 samples"),
            (
                Change::Reinitialise { scheme: Scheme::He, layer: None },
                "He initialisation in all layers",
            ),
            (
                Change::Reinitialise { scheme: Scheme::Xavier, layer: layer() },
                "Xavier initialisation in layers.17",
            ),
            (
                Change::Reinitialise { scheme: Scheme::Orthogonal, layer: layer() },
                "orthogonal initialisation in layers.17",
            ),
            (Change::BatchNorm { place: NormPlace::Before }, "batch norm before the activation"),
            (Change::BatchNorm { place: NormPlace::After }, "batch norm after the activation"),
            (Change::Activation { name: "relu".into(), layer: layer() }, "relu in layers.17"),
            (Change::Depth { layers: 1 }, "1 hidden layer"),
            (Change::Depth { layers: 15 }, "15 hidden layers"),
        ] {
            assert_eq!(describe_change(&change), words);
        }
    }
}
