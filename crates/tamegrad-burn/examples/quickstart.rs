//! The loop of the README, with a model and batches.

#![allow(clippy::print_stdout, reason = "an example prints what it has to tell")]

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Distribution, Tensor};
use tamegrad_burn::{Guard, default_device};

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    last: Linear,
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.last.forward(relu(self.first.forward(x)))
    }
}

fn main() {
    let device = default_device();
    device.seed(7);
    let mut model = Net {
        first: LinearConfig::new(4, 64).init(&device),
        last: LinearConfig::new(64, 1).init(&device),
    };
    let mut optimizer = SgdConfig::new().init();
    let learning_rate = 0.01;
    // Targets of some thousands, which nobody has scaled.
    let batches = (0..200).map(|_| {
        let x = Tensor::<2>::random([32, 4], Distribution::Normal(0.0, 1.0), &device);
        let y = x.clone().square().sum_dim(1) * 3000.0;
        (x, y)
    });
    let mse = MseLoss::new();

    let mut guard = Guard::protect(&model);
    for (x, y) in batches {
        let outputs = model.forward(tamegrad_burn::input(x));
        let loss = mse.forward(outputs, y, Reduction::Mean);
        let value = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = guard.step(&mut optimizer, learning_rate, model, gradients, value);
        if guard.should_stop() {
            break;
        }
    }
    println!("{}", guard.diagnosis());
}
