//! A run that is interrupted and resumed from files: the model's and the optimizer's records and the
//! guard's state. Run it with `whole` or `resumed`: both end with the same weights and diagnosis.

#![allow(clippy::print_stdout, reason = "an example prints what it has to tell")]

use std::error::Error;

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Distribution, Tensor};
use tamegrad_burn::{Guard, default_device, weights_hash};

const STEPS: u64 = 80;
const CHECKPOINT: u64 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let is_resumed = std::env::args().nth(1).as_deref() == Some("resumed");
    let folder = std::env::temp_dir().join(format!("tamegrad-resume-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let device = default_device();
    device.seed(6);
    let mut model = LinearConfig::new(4, 1).init(&device);
    let mut optimizer = AdamConfig::new().init();
    let mut guard = Guard::protect(&model);
    for step in 0..STEPS {
        if step == CHECKPOINT && is_resumed {
            model.clone().save_file(folder.join("model"))?;
            optimizer.save(folder.join("optimizer"))?;
            std::fs::write(folder.join("guard"), guard.state()?)?;

            // As in a new process.
            model = LinearConfig::new(4, 1).init(&device).try_load_file(folder.join("model"))?;
            optimizer = AdamConfig::new().init().load(folder.join("optimizer"))?;
            guard = Guard::protect(&model);
            guard.resume(&model, &std::fs::read(folder.join("guard"))?)?;
        }
        device.seed(step);
        model = train_step(&mut guard, &mut optimizer, model);
    }
    std::fs::remove_dir_all(&folder)?;
    println!("weights {}\n{}", weights_hash(&model), guard.diagnosis());
    Ok(())
}

fn train_step(guard: &mut Guard<Linear>, optimizer: &mut ModuleOptimizer, model: Linear) -> Linear {
    let x = Tensor::<2>::random([32, 4], Distribution::Normal(0.0, 1.0), &default_device());
    let y = x.clone().sum_dim(1);
    let outputs = model.forward(tamegrad_burn::input(x));
    let loss = MseLoss::new().forward(outputs, y, Reduction::Mean);
    let value = loss.clone().into_scalar::<f32>();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    guard.step(optimizer, 0.01, model, gradients, value)
}
