//! A run that explodes, bare and watched: the same weights to the bit. It is alone in its file, because
//! tests in one process would share the generator of the device.

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use tamegrad_burn::{Guard, Probes, Verdict, default_device, weights_hash};

/// Its layers draw their weights in the first pass, and dropout draws at each.
#[derive(Module, Debug)]
struct Net {
    first: Linear,
    norm: BatchNorm,
    dropout: Dropout,
    last: Linear,
    unused: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(4, 32).init(device),
            norm: BatchNormConfig::new(32).init(device),
            dropout: DropoutConfig::new(0.2).init(),
            last: LinearConfig::new(32, 1).init(device),
            unused: LinearConfig::new(2, 2).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>, probes: &Probes) -> Tensor<2> {
        let h = relu(self.norm.forward(self.first.forward(probes.input(x))));
        let h = probes.tap("first", self.dropout.forward(h));
        probes.tap("last", self.last.forward(h))
    }
}

/// The weights after 120 steps, the learning rate of the last 40 of which is 3,000 times as high, with the next
/// random number; and the guard's verdict.
fn train(is_watched: bool) -> (String, Option<Verdict>) {
    let device = default_device();
    device.seed(5);
    let mut model = Net::new(&device);
    let mut optimizer = AdamConfig::new().init();
    let mut guard = is_watched.then(|| Guard::observe(&model));
    for step in 0..120 {
        let x = Tensor::<2>::random([16, 4], Distribution::Normal(0.0, 1.0), &device);
        let y = x.clone().square().sum_dim(1);
        let unarmed = Probes::unarmed();
        let probes = guard.as_ref().map_or(&unarmed, Guard::probes);
        let outputs = model.forward(tamegrad_burn::input(x), probes);
        let loss = MseLoss::new().forward(outputs, y, Reduction::Mean);
        let value = loss.clone().into_scalar::<f32>();
        let rate = if step < 80 { 1e-3 } else { 3.0 };
        model = match &mut guard {
            Some(guard) => {
                let gradients = guard.backward(loss, &model);
                guard.step(&mut optimizer, rate, model, gradients, value)
            }
            None => {
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                optimizer.step(rate, model, gradients)
            }
        };
    }
    // What is drawn now shows whether the generator stands where it should.
    let next = Tensor::<1>::random([1], Distribution::Default, &device).into_scalar::<f32>();
    let end = format!("{} {next}", weights_hash(&model));
    (end, guard.map(|guard| guard.diagnosis().verdict))
}

#[test]
fn watching_a_run_that_explodes_changes_no_bit() {
    let (bare, _) = train(false);
    let (watched, verdict) = train(true);
    assert!(verdict.is_some_and(Verdict::is_explosion), "{verdict:?}");
    assert_eq!(bare, watched);
}
