//! Remedies as code for PyTorch Lightning, where it has its own way.

use tamegrad::remedies::Change;

/// The lines that carry out a change; `None` where PyTorch's are right.
pub(super) fn code(change: &Change) -> Option<String> {
    Some(match change {
        Change::Guard => "trainer = Trainer(callbacks=[TamegradCallback(\"protect\")])".to_owned(),
        Change::ClearGradients => {
            "self.automatic_optimization = True  # or optimizer.zero_grad() in training_step"
                .to_owned()
        }
        Change::ClipGlobalNorm { max_norm } => {
            format!("trainer = Trainer(gradient_clip_val={max_norm:?})")
        }
        Change::ClipValue { limit } => format!(
            "trainer = Trainer(gradient_clip_val={limit:?}, gradient_clip_algorithm=\"value\")"
        ),
        Change::Rewind { before } => {
            format!("trainer.fit(model, ckpt_path=checkpoint)  # one from before step {}", before.0)
        }
        Change::WiderType { line: None } => {
            "trainer = Trainer(precision=\"bf16-mixed\")  # or \"32-true\"".to_owned()
        }
        _ => return None,
    })
}
