//! A perceptron: the least that a loop needs. Run it with `bare`, `observe` or `protect`.

mod shared;

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig};
use burn::optim::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Distribution, Tensor};
use tamegrad_burn::{Guard, Mode, default_device, weights_hash};

#[derive(Module, Debug)]
struct Mlp {
    first: Linear,
    hidden: Vec<Linear>,
    last: Linear,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(4, 64).init(device),
            hidden: (0..3).map(|_| LinearConfig::new(64, 64).init(device)).collect(),
            last: LinearConfig::new(64, 1).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let h =
            self.hidden.iter().fold(gelu(self.first.forward(x)), |h, layer| gelu(layer.forward(h)));
        self.last.forward(h)
    }
}

/// Trains with or without a guard, and gives the hash of the final weights and the report.
fn train(mode: Option<Mode>) -> (String, String) {
    let device = default_device();
    device.seed(1);
    let mut model = Mlp::new(&device);
    let mut optimizer = AdamConfig::new().init();
    let steps = 120;
    let mut scheduler =
        CosineAnnealingLrSchedulerConfig::new(2e-3, steps).init().expect("valid options");
    let mut guard = mode.map(|mode| Guard::new(&model, mode));
    for _ in 0..steps {
        let x = Tensor::<2>::random([32, 4], Distribution::Normal(0.0, 1.0), &device);
        let y = x.clone().square().sum_dim(1);
        let outputs = model.forward(tamegrad_burn::input(x));
        let loss = MseLoss::new().forward(outputs, y, Reduction::Mean);
        let value = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let rate = scheduler.step();
        model = match &mut guard {
            Some(guard) => guard.step(&mut optimizer, rate, model, gradients, value),
            None => optimizer.step(rate, model, gradients),
        };
    }
    (weights_hash(&model), guard.map_or_else(String::new, |guard| guard.diagnosis().to_string()))
}

fn main() {
    shared::run(train);
}
