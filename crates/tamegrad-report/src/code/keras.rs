//! Remedies as code for Keras.

use tamegrad::inspection::OperationKind;
use tamegrad::remedies::{Change, NormPlace, Scheme};

use super::list;
use tamegrad::remedies::two_digits;

/// The lines that carry out a change; `None` where there is no line to show.
pub(super) fn code(change: &Change) -> Option<String> {
    Some(match change {
        // Keras clears gradients by itself, and the guard has no part in its loop.
        Change::Guard | Change::ClearGradients | Change::Depth { .. } => return None,
        Change::FilterRows { rows, .. } => {
            let known = match &rows[..] {
                [] => String::new(),
                rows => format!("  # rows {} of the batch", list(rows)),
            };
            format!("ok = np.isfinite(x).reshape(len(x), -1).all(1); x, y = x[ok], y[ok]{known}")
        }
        Change::FixLabels { classes } => {
            let classes = classes.map_or("classes".to_owned(), |classes| classes.to_string());
            format!("assert 0 <= y.min() and y.max() < {classes}  # renumber the labels from 0")
        }
        Change::GuardAverage { .. } => {
            "loss = ops.sum(losses) / ops.maximum(ops.sum(mask), 1)".to_owned()
        }
        Change::GuardOperation { operation, .. } => match operation {
            OperationKind::Log => "ops.log(ops.maximum(x, 1e-12))".to_owned(),
            OperationKind::Sqrt | OperationKind::Norm => {
                "ops.sqrt(ops.maximum(x, 1e-12))".to_owned()
            }
            OperationKind::Exp => "ops.exp(ops.minimum(x, 80.0))".to_owned(),
            _ => "x / (y + keras.config.epsilon())".to_owned(),
        },
        Change::UnmaskRow { .. } => "scores = ops.where(mask, scores, -1e9)  # not -inf".to_owned(),
        Change::OptimizerEps { eps } => {
            format!("keras.optimizers.Adam(learning_rate, epsilon={eps:?})")
        }
        Change::MeanLoss => "model.compile(loss=..., reduction=\"sum_over_batch_size\")".to_owned(),
        Change::DropLastBatch => "data = data.batch(size, drop_remainder=True)".to_owned(),
        Change::WiderType { .. } => {
            "keras.mixed_precision.set_dtype_policy(\"mixed_bfloat16\")".to_owned()
        }
        Change::OtherKernel => "model.compile(..., jit_compile=False)".to_owned(),
        Change::ClipGlobalNorm { max_norm } => {
            format!("keras.optimizers.Adam(learning_rate, global_clipnorm={max_norm:?})")
        }
        Change::ClipTensorNorm { max_norm } => {
            format!("keras.optimizers.Adam(learning_rate, clipnorm={max_norm:?})")
        }
        Change::ClipValue { limit } => {
            format!("keras.optimizers.Adam(learning_rate, clipvalue={limit:?})")
        }
        Change::WarmUp { steps } => format!(
            "keras.optimizers.schedules.CosineDecay(0.0, decay_steps, warmup_target=learning_rate, \
             warmup_steps={steps})"
        ),
        Change::LearningRate { factor, from: Some(from) } => {
            format!("model.optimizer.learning_rate = {:?}", two_digits(factor * from))
        }
        Change::LearningRate { factor, from: None } => {
            format!("model.optimizer.learning_rate = {factor:?} * model.optimizer.learning_rate")
        }
        Change::Rewind { before } => {
            format!("model.load_weights(checkpoint)  # one from before step {}", before.0)
        }
        Change::ScaleTarget => "y = (y - y.mean(0)) / y.std(0)  # undo on the outputs".to_owned(),
        Change::ScaleInput => {
            "normalise = keras.layers.Normalization(); normalise.adapt(x)".to_owned()
        }
        Change::WeightDecay { rate } => {
            format!("keras.optimizers.AdamW(learning_rate, weight_decay={rate:?})")
        }
        Change::L2Penalty { strength } => {
            format!(
                "keras.layers.Dense(units, kernel_regularizer=keras.regularizers.L2({strength:?}))"
            )
        }
        Change::L1Penalty { strength } => {
            format!(
                "keras.layers.Dense(units, kernel_regularizer=keras.regularizers.L1({strength:?}))"
            )
        }
        Change::BatchSize { samples } => format!("model.fit(x, y, batch_size={samples})"),
        Change::Reinitialise { scheme, .. } => {
            let initializer = match scheme {
                Scheme::He => "he_normal",
                Scheme::Xavier => "glorot_normal",
                Scheme::Orthogonal => "orthogonal",
            };
            format!("keras.layers.Dense(units, kernel_initializer=\"{initializer}\")")
        }
        Change::BatchNorm { place: NormPlace::Before } => {
            "Dense(units), BatchNormalization(), Activation(\"relu\")".to_owned()
        }
        Change::BatchNorm { place: NormPlace::After } => {
            "Dense(units, activation=\"relu\"), BatchNormalization()".to_owned()
        }
        Change::Activation { name, .. } => {
            format!("keras.layers.Dense(units, activation=\"{name}\")")
        }
    })
}
