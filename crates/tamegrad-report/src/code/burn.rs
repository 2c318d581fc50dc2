//! Remedies as code for burn.

use tamegrad::inspection::OperationKind;
use tamegrad::remedies::{Change, NormPlace, Scheme};

use super::list;
use tamegrad::remedies::two_digits;

/// The lines that carry out a change in a burn program; `None` where there is no line to show.
///
/// Names that a program has of its own are `learning_rate`, `layer`, `h`, `loss`, `y` and so on.
pub(super) fn code(change: &Change) -> Option<String> {
    Some(match change {
        Change::Guard => "let guard = Guard::protect(&model);".to_owned(),
        Change::FilterRows { rows, .. } => match &rows[..] {
            [] => {
                "let x = x.select(0, finite_rows); // leave out rows that are not finite".to_owned()
            }
            rows => format!("let x = x.select(0, rows); // all rows but {}", list(rows)),
        },
        Change::FixLabels { .. } => "let labels = labels - 1; // from 0 to classes - 1".to_owned(),
        Change::GuardAverage { .. } => {
            "let loss = losses.sum() / mask.float().sum().clamp_min(1.0);".to_owned()
        }
        Change::GuardOperation { operation, .. } => match operation {
            OperationKind::Log => "let y = x.clamp_min(1e-12).log();".to_owned(),
            OperationKind::Exp => "let y = x.clamp_max(80.0).exp();".to_owned(),
            OperationKind::Division => "let y = y / (x + 1e-8);".to_owned(),
            _ => "let y = x.clamp_min(1e-12).sqrt();".to_owned(),
        },
        Change::UnmaskRow { .. } => {
            "let scores = scores.mask_fill(mask, -1e4); // not f32::NEG_INFINITY".to_owned()
        }
        Change::OptimizerEps { eps } => {
            format!("let optimizer = AdamConfig::new().with_epsilon({eps:?}).init();")
        }
        // burn's gradients are new in every backward pass.
        Change::ClearGradients => return None,
        Change::MeanLoss => "let loss = losses.mean();".to_owned(),
        Change::DropLastBatch => {
            "if x.dims()[0] < batch_size { continue } // the last batch of an epoch".to_owned()
        }
        Change::WiderType { .. } => "let h = h.cast(FloatDType::F32);".to_owned(),
        Change::OtherKernel => "// run the model on another backend, without fusion".to_owned(),
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
