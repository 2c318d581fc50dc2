//! Remedies as code for the Trainer of Hugging Face Transformers, where it has its own way.

use tamegrad::remedies::Change;

use tamegrad::remedies::two_digits;

/// The lines that carry out a change; `None` where PyTorch's are right.
pub(super) fn code(change: &Change) -> Option<String> {
    Some(match change {
        Change::Guard => "trainer.add_callback(TamegradCallback(\"protect\"))".to_owned(),
        Change::ClearGradients => {
            "TrainingArguments(...)  # the Trainer clears gradients: drop your own backward()"
                .to_owned()
        }
        Change::ClipGlobalNorm { max_norm } => {
            format!("TrainingArguments(..., max_grad_norm={max_norm:?})")
        }
        Change::WarmUp { steps } => format!("TrainingArguments(..., warmup_steps={steps})"),
        Change::LearningRate { factor, from: Some(from) } => {
            format!("TrainingArguments(..., learning_rate={:?})", two_digits(factor * from))
        }
        Change::WeightDecay { rate } => format!("TrainingArguments(..., weight_decay={rate:?})"),
        Change::OptimizerEps { eps } => format!("TrainingArguments(..., adam_epsilon={eps:?})"),
        Change::BatchSize { samples } => {
            format!("TrainingArguments(..., per_device_train_batch_size={samples})")
        }
        Change::DropLastBatch => "TrainingArguments(..., dataloader_drop_last=True)".to_owned(),
        Change::Rewind { before } => format!(
            "trainer.train(resume_from_checkpoint=checkpoint)  # one from before step {}",
            before.0
        ),
        Change::WiderType { line: None } => "TrainingArguments(..., bf16=True)".to_owned(),
        _ => return None,
    })
}
