//! Remedies as code for burn.

use tamegrad::remedies::{Change, NormPlace, Scheme};

/// The lines that carry out a change in a burn program; `None` where there is no line to show.
///
/// Names that a program has of its own are `learning_rate`, `layer`, `h`, `loss`, `y` and so on.
///
/// ```
/// use tamegrad::remedies::Change;
///
/// let code = tamegrad_burn::burn_code(&Change::ClipGlobalNorm { max_norm: 12.0 });
/// assert_eq!(code.as_deref(), Some("let guard = guard.with_clip(Clip::GlobalNorm(12.0));"));
/// ```
pub fn burn_code(change: &Change) -> Option<String> {
    Some(match change {
        Change::Guard => "let guard = Guard::protect(&model);".to_owned(),
        Change::ClipGlobalNorm { max_norm } => {
            format!("let guard = guard.with_clip(Clip::GlobalNorm({max_norm:?}));")
        }
        Change::ClipTensorNorm { max_norm } => {
            format!("let guard = guard.with_clip(Clip::TensorNorm({max_norm:?}));")
        }
        Change::ClipValue { limit } => {
            format!("let guard = guard.with_clip(Clip::Value({limit:?}));")
        }
        Change::WarmUp { steps } => format!(
            "let warm_up = LinearLrSchedulerConfig::new(learning_rate / {steps}.0, learning_rate, \
             {steps}).init()?;"
        ),
        Change::LearningRate { factor, from: Some(from) } => {
            format!("let learning_rate = {:?};", two_digits(factor * from))
        }
        Change::LearningRate { factor, from: None } => {
            format!("let learning_rate = {factor:?} * learning_rate;")
        }
        Change::Rewind { before } => format!(
            "let model = model.try_load_file(checkpoint)?; // one from before step {before}",
            before = before.0
        ),
        Change::ScaleTarget => {
            "let y = (y - mean) / deviation; // of all targets; undo both on the outputs".to_owned()
        }
        Change::ScaleInput => "let x = (x - mean) / deviation; // of all inputs".to_owned(),
        Change::WeightDecay { rate } => {
            format!("let optimizer = AdamWConfig::new().with_weight_decay({rate:?}).init();")
        }
        Change::L2Penalty { strength } => {
            format!("let loss = loss + layer.weight.val().square().sum() * {strength:?};")
        }
        Change::L1Penalty { strength } => {
            format!("let loss = loss + layer.weight.val().abs().sum() * {strength:?};")
        }
        Change::BatchSize { samples } => {
            format!(
                "let loader = DataLoaderBuilder::new(batcher).batch_size({samples}).build(data);"
            )
        }
        Change::Reinitialise { scheme, .. } => {
            let initializer = match scheme {
                Scheme::He => "KaimingNormal { gain: SQRT_2, fan_out_only: false }",
                Scheme::Xavier => "XavierNormal { gain: 1.0 }",
                Scheme::Orthogonal => "Orthogonal { gain: 1.0 }",
            };
            // burn draws the bias by the same rule, and there is no orthogonal vector.
            let bias = if *scheme == Scheme::Orthogonal { "with_bias(false)." } else { "" };
            format!(
                "let layer = config.{bias}with_initializer(Initializer::{initializer}).init(&device);"
            )
        }
        Change::BatchNorm { place: NormPlace::Before } => {
            "let h = relu(norm.forward(layer.forward(h))); // norm: BatchNormConfig::new(units)"
                .to_owned()
        }
        Change::BatchNorm { place: NormPlace::After } => {
            "let h = norm.forward(relu(layer.forward(h))); // norm: BatchNormConfig::new(units)"
                .to_owned()
        }
        Change::Activation { name, .. } => format!("let h = activation::{name}(layer.forward(h));"),
        Change::Depth { .. } => return None,
    })
}

/// A rate as a person would write it: 0.30000000000000004 becomes 0.3.
fn two_digits(rate: f64) -> f64 {
    format!("{rate:.1e}").parse().unwrap_or(rate)
}
