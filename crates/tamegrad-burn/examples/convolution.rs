//! A convolutional network with batch norm and dropout, whose layers are tapped for their gains. Run it
//! with `bare`, `observe` or `protect`.

mod shared;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Distribution, Int, Tensor};
use tamegrad_burn::{Guard, Mode, Probes, default_device, weights_hash};

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm,
    dropout: Dropout,
    hidden: Linear,
    last: Linear,
    /// Not used yet: burn draws its weights when they are.
    auxiliary: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([1, 8], [3, 3]).init(device),
            norm: BatchNormConfig::new(8).init(device),
            dropout: DropoutConfig::new(0.3).init(),
            hidden: LinearConfig::new(8 * 3 * 3, 32).init(device),
            last: LinearConfig::new(32, 2).init(device),
            auxiliary: LinearConfig::new(32, 2).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>, probes: &Probes) -> Tensor<2> {
        let h = relu(self.norm.forward(self.conv.forward(probes.input(images))));
        let h = probes.tap("conv", max_pool2d(h, MaxPoolOptions::new([2, 2])));
        let h = relu(self.hidden.forward(self.dropout.forward(h.flatten(1, 3))));
        let h = probes.tap("hidden", h);
        probes.tap("last", self.last.forward(self.dropout.forward(h)))
    }
}

/// Trains with or without a guard, and gives the hash of the final weights and the report.
fn train(mode: Option<Mode>) -> (String, String) {
    let device = default_device();
    device.seed(2);
    let mut model = Net::new(&device);
    let momentum = MomentumConfig::new().with_momentum(0.9);
    let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
    let mut guard = mode.map(|mode| Guard::new(&model, mode));
    for _ in 0..100 {
        // Whether an image is bright on its left side.
        let images = Tensor::<4>::random([16, 1, 8, 8], Distribution::Normal(0.0, 1.0), &device);
        let left = images.clone().narrow(3, 0, 4).mean_dims(&[1, 2, 3]).reshape([16]);
        let labels: Tensor<1, Int> = left.greater_elem(0.0).int();
        let unarmed = Probes::unarmed();
        let probes = guard.as_ref().map_or(&unarmed, Guard::probes);
        let outputs = model.forward(tamegrad_burn::input(images), probes);
        let loss = CrossEntropyLossConfig::new().init(&device).forward(outputs, labels);
        let value = loss.clone().into_scalar::<f32>();
        model = match &mut guard {
            Some(guard) => {
                let gradients = guard.backward(loss, &model);
                guard.step(&mut optimizer, 0.02, model, gradients, value)
            }
            None => {
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                optimizer.step(0.02, model, gradients)
            }
        };
    }
    (weights_hash(&model), guard.map_or_else(String::new, |guard| guard.diagnosis().to_string()))
}

fn main() {
    shared::run(train);
}
