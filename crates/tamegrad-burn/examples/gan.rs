//! A generative adversarial network: two models, two optimizers, two guards. Run it with `bare`,
//! `observe` or `protect`.

mod shared;

use std::f64::consts::TAU;

use burn::module::Module;
use burn::nn::loss::BinaryCrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, Distribution, Int, Tensor};
use tamegrad_burn::{Guard, Mode, default_device, weights_hash};

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    last: Linear,
}

impl Net {
    fn new([inputs, outputs]: [usize; 2], device: &Device) -> Self {
        Self {
            first: LinearConfig::new(inputs, 32).init(device),
            last: LinearConfig::new(32, outputs).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.last.forward(leaky_relu(self.first.forward(x), 0.2))
    }
}

const BATCH: usize = 32;
const RATE: f64 = 1e-3;

/// Trains with or without guards, and gives the hashes of the final weights and the reports.
fn train(mode: Option<Mode>) -> (String, String) {
    let device = default_device();
    device.seed(3);
    let (mut generator, mut judge) = (Net::new([4, 2], &device), Net::new([2, 1], &device));
    let (mut optimizer_g, mut optimizer_j) = (AdamConfig::new().init(), AdamConfig::new().init());
    let mut guards = mode.map(|mode| (Guard::new(&generator, mode), Guard::new(&judge, mode)));
    let cross_entropy = BinaryCrossEntropyLossConfig::new().with_logits(true).init(&device);
    let labels = |value: i64| Tensor::<2, Int>::full([BATCH, 1], value, &device);
    for _ in 0..100 {
        let noise = || Tensor::<2>::random([BATCH, 4], Distribution::Normal(0.0, 1.0), &device);
        let angle = Tensor::<2>::random([BATCH, 1], Distribution::Uniform(0.0, TAU), &device);
        let real = Tensor::cat(vec![angle.clone().cos(), angle.sin()], 1);

        let fake = generator.forward(noise()).detach();
        let loss = cross_entropy.forward(judge.forward(real), labels(1))
            + cross_entropy.forward(judge.forward(fake), labels(0));
        let value = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &judge);
        judge = match &mut guards {
            Some((_, guard)) => guard.step(&mut optimizer_j, RATE, judge, gradients, value),
            None => optimizer_j.step(RATE, judge, gradients),
        };

        let loss = cross_entropy.forward(judge.forward(generator.forward(noise())), labels(1));
        let value = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &generator);
        generator = match &mut guards {
            Some((guard, _)) => guard.step(&mut optimizer_g, RATE, generator, gradients, value),
            None => optimizer_g.step(RATE, generator, gradients),
        };
    }
    let report = guards.map(|(generator, judge)| {
        format!("Generator\n{}\nJudge\n{}", generator.diagnosis(), judge.diagnosis())
    });
    (format!("{} {}", weights_hash(&generator), weights_hash(&judge)), report.unwrap_or_default())
}

fn main() {
    shared::run(train);
}
