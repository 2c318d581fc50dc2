//! A run that is interrupted and resumed from files: the model's and the optimizer's records and the
//! guard's state. Run it with `bare`, `observe` or `protect`, and with `resumed` after that: it ends with
//! the same weights and diagnosis as without.

mod shared;

use std::error::Error;

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Distribution, Tensor};
use tamegrad_burn::{Guard, Mode, default_device, weights_hash};

const STEPS: u64 = 80;
const CHECKPOINT: u64 = 50;

/// Trains with or without a guard, and gives the hash of the final weights and the report.
fn train(mode: Option<Mode>) -> Result<(String, String), Box<dyn Error>> {
    let is_resumed = std::env::args().nth(2).as_deref() == Some("resumed");
    let folder = std::env::temp_dir().join(format!("tamegrad-resume-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let device = default_device();
    device.seed(6);
    let mut model = LinearConfig::new(4, 1).init(&device);
    let mut optimizer = AdamConfig::new().init();
    let mut guard = mode.map(|mode| Guard::new(&model, mode));
    for step in 0..STEPS {
        if step == CHECKPOINT && is_resumed {
            model.clone().save_file(folder.join("model"))?;
            optimizer.save(folder.join("optimizer"))?;
            if let Some(guard) = &guard {
                std::fs::write(folder.join("guard"), guard.state()?)?;
            }

            // As in a new process.
            model = LinearConfig::new(4, 1).init(&device).try_load_file(folder.join("model"))?;
            optimizer = AdamConfig::new().init().load(folder.join("optimizer"))?;
            guard = mode.map(|mode| Guard::new(&model, mode));
            if let Some(guard) = &mut guard {
                guard.resume(&model, &std::fs::read(folder.join("guard"))?)?;
            }
        }
        device.seed(step);
        model = train_step(guard.as_mut(), &mut optimizer, model);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok((
        weights_hash(&model),
        guard.map_or_else(String::new, |guard| guard.diagnosis().to_string()),
    ))
}

fn train_step(
    guard: Option<&mut Guard<Linear>>,
    optimizer: &mut ModuleOptimizer,
    model: Linear,
) -> Linear {
    let x = Tensor::<2>::random([32, 4], Distribution::Normal(0.0, 1.0), &default_device());
    let y = x.clone().sum_dim(1);
    let outputs = model.forward(tamegrad_burn::input(x));
    let loss = MseLoss::new().forward(outputs, y, Reduction::Mean);
    let value = loss.clone().into_scalar::<f32>();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    match guard {
        Some(guard) => guard.step(optimizer, 0.01, model, gradients, value),
        None => optimizer.step(0.01, model, gradients),
    }
}

fn main() {
    shared::run(|mode| train(mode).expect("the temporary folder can be written"));
}
