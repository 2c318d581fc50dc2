//! Writes a small run folder and its Parquet files below a path, for `tests/python/open_run.py`.

use std::error::Error;
use std::path::PathBuf;

use tamegrad_runs::{Event, RunFolder, RunInfo, RunWriter, StepRow, TensorInfo, TensorRow, export};

/// The first step at which the loss is NaN.
const BREAKS: u64 = 602;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err("usage: write_run PATH".into());
    };
    let folder = path.join("run");
    let tensor = |name: &str| TensorInfo { name: name.into(), layer: None, len: 100 };
    let tensors = ["fc1.weight", "fc1.bias", "fc2.weight"].map(tensor).into();
    let source = Some("write_run".into());
    let mut run = RunWriter::create(&folder, &RunInfo { tensors, source, ..RunInfo::default() })?;
    for step in 0..1000 {
        run.step(&step_row(step))?;
        run.tensors(step, &[0, 1, 2].map(|tensor| tensor_row(step, tensor)))?;
        if step == BREAKS {
            let (kind, text) = ("finding".into(), "the loss is NaN".into());
            run.event(&Event { step, kind, text, data: serde_json::json!({ "loss": "NaN" }) })?;
            run.incident(step)?;
        }
    }
    run.finish()?;
    export(&RunFolder::open(&folder)?, &path.join("parquet"))?;
    Ok(())
}

fn step_row(step: u64) -> StepRow {
    let breaks = (BREAKS..BREAKS + 3).contains(&step);
    StepRow {
        step,
        segment: 0,
        wall: 1.7e9 + step as f64,
        loss: Some(if breaks { f64::NAN } else { 2.0 / (1.0 + step as f64) }),
        metric: step.is_multiple_of(100).then_some(0.5),
        learning_rate: Some(0.1),
        gradient_norm: Some(if breaks { f64::INFINITY } else { 1.0 + (step % 7) as f64 }),
        nonfinite_gradients: if breaks { 3 } else { 0 },
        update_ratio: None,
    }
}

fn tensor_row(step: u64, tensor: u32) -> TensorRow {
    let is_nan = step == BREAKS && tensor == 0;
    let l2 = if is_nan { f64::NAN } else { f64::from(tensor + 1) * (1.0 + (step % 7) as f64) };
    TensorRow {
        tensor,
        l2,
        max_abs: l2 / 2.0,
        mean: 0.25,
        nans: if is_nan { 3 } else { 0 },
        infs: 0,
        zeros: 10,
    }
}
