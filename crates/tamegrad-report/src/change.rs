//! A change of a run in a few words, such as `clip by global norm at 2.1`.

use tamegrad::remedies::{Change, Scheme};

use crate::number::{count, counted, number};

/// What a remedy changes, in a few words: `batch norm before the activation`, `relu in layers.17`.
pub fn describe_change(change: &Change) -> String {
    match change {
        Change::Guard => "the guard in protect mode".into(),
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
            (Change::Guard, "the guard in protect mode"),
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
