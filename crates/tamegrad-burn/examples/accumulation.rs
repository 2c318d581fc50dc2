//! Gradients of four small batches accumulated into one step, with a learning rate of its own for a
//! group of parameters. Run it with `bare`, `observe` or `protect`.

mod shared;

use burn::module::{Module, ParamGroup};
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use tamegrad_burn::{Guard, Mode, default_device, weights_hash};

#[derive(Module, Debug)]
struct Net {
    words: Embedding,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            words: EmbeddingConfig::new(50, 16).init(device),
            head: LinearConfig::new(16, 1).init(device),
        }
    }

    fn forward(&self, words: Tensor<2, Int>) -> Tensor<2> {
        self.head.forward(self.words.forward(words).mean_dim(1).squeeze_dim::<2>(1))
    }
}

/// Trains with or without a guard, and gives the hash of the final weights and the report.
fn train(mode: Option<Mode>) -> (String, String) {
    let device = default_device();
    device.seed(4);
    let mut model = Net::new(&device);
    let mut optimizer = AdamWConfig::new().init();
    let mut scheduler = ModuleLrScheduler::new(ConstantLr::from(1e-3))
        .with_group(ParamGroup::from_path("words.weight"), ConstantLr::from(1e-2));
    let mut guard = mode.map(|mode| Guard::new(&model, mode));
    for _ in 0..100 {
        let mut accumulator = GradientsAccumulator::new();
        let mut value = 0.0;
        for _ in 0..4 {
            let uniform = Distribution::Uniform(0.0, 50.0);
            let words = Tensor::<2>::random([8, 12], uniform, &device).int();
            let y = words.clone().float().mean_dim(1) / 50.0;
            let loss = MseLoss::new().forward(model.forward(words), y, Reduction::Mean) / 4.0;
            value += loss.clone().into_scalar::<f32>();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            accumulator.accumulate(&model, gradients);
        }
        let (rates, gradients) = (scheduler.step(), accumulator.grads());
        model = match &mut guard {
            Some(guard) => guard.step(&mut optimizer, rates, model, gradients, value),
            None => optimizer.step(rates, model, gradients),
        };
    }
    (weights_hash(&model), guard.map_or_else(String::new, |guard| guard.diagnosis().to_string()))
}

fn main() {
    shared::run(train);
}
