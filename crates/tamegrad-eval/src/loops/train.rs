//! A loop, with a fault and with remedies.

use burn::nn::Initializer;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use tamegrad::remedies::{Change, Scheme};
use tamegrad_burn::{Clip, Guard, Mode, default_device, input};

use super::nets::{Classifier, Conv, Mlp, Net, Recurrent, Residual, Shape};
use super::{BAD_STEP, Fault, STEPS};

/// What a loop does otherwise than at first.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    mode: Mode,
    rate_factor: f64,
    warm_up: u64,
    clip: Option<Clip>,
    batch: usize,
    scales_inputs: bool,
    scales_targets: bool,
    shape: Shape,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            rate_factor: 1.0,
            warm_up: 0,
            clip: None,
            batch: 32,
            scales_inputs: false,
            scales_targets: false,
            shape: Shape::default(),
        }
    }
}

impl Plan {
    /// Does as a remedy says. What it has no place for here is left as it is.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Guard | Change::Rewind { .. } => self.mode = Mode::Protect,
            Change::ClipGlobalNorm { max_norm } => self.clip = Some(Clip::GlobalNorm(*max_norm)),
            Change::ClipTensorNorm { max_norm } => self.clip = Some(Clip::TensorNorm(*max_norm)),
            Change::ClipValue { limit } => self.clip = Some(Clip::Value(*limit)),
            Change::WarmUp { steps } => self.warm_up = *steps,
            Change::LearningRate { factor, .. } => self.rate_factor = *factor,
            Change::ScaleTarget => self.scales_targets = true,
            Change::ScaleInput => self.scales_inputs = true,
            Change::BatchSize { samples } => self.batch = (*samples).max(1) as usize,
            Change::Reinitialise { scheme, .. } => {
                self.shape.initializer = Some(match scheme {
                    Scheme::He => Initializer::KaimingNormal {
                        gain: std::f64::consts::SQRT_2,
                        fan_out_only: false,
                    },
                    Scheme::Xavier => Initializer::XavierNormal { gain: 1.0 },
                    Scheme::Orthogonal => Initializer::Orthogonal { gain: 1.0 },
                });
            }
            Change::BatchNorm { place } => self.shape.norm = Some(*place),
            Change::Activation { name, .. } => self.shape.activation = Some(name.clone()),
            Change::Depth { layers } => self.shape.depth = Some((*layers).max(1) as usize),
            // Penalties, and what is to be mended in code or data.
            _ => {}
        }
    }
}

/// How a run ended.
pub(super) struct Trained {
    pub(super) report: tamegrad_burn::Report,
    /// Part of the variance of unseen targets that the outputs explain; 0 where it is not a number.
    pub(super) explained: f64,
    /// The first step whose loss is not finite or 100 times the lowest before; the number of steps where
    /// none is.
    pub(super) ruined: u64,
}

/// Trains a network by its name.
pub(super) fn trained(net: &str, seed: u64, fault: Option<Fault>, plan: &Plan) -> Trained {
    match net {
        "mlp" => train::<Mlp>(seed, fault, plan),
        "conv" => train::<Conv>(seed, fault, plan),
        "residual" => train::<Residual>(seed, fault, plan),
        "gru" => train::<Recurrent>(seed, fault, plan),
        _ => train::<Classifier>(seed, fault, plan),
    }
}

fn train<N: Net>(seed: u64, fault: Option<Fault>, plan: &Plan) -> Trained {
    let device = default_device();
    device.seed(1000 + seed);
    let mut plan = plan.clone();
    if fault == Some(Fault::Exp) && plan.shape.activation.is_none() {
        plan.shape.activation = Some("exp".to_owned());
    }
    let shape = &plan.shape;
    let mut model = N::new(shape, &device);
    let mut optimizer = N::optimizer();
    let rate = N::RATE * plan.rate_factor * if fault == Some(Fault::Rate) { 1000.0 } else { 1.0 };
    let mut guard = Guard::new(&model, plan.mode).with_clip(plan.clip);
    let (mut lowest, mut ruined) = (f64::INFINITY, STEPS);
    for step in 0..STEPS {
        let (x, y) = batch::<N>(plan.batch, fault.filter(|of| of.is_in(step)), &plan, &device);
        let outputs = model.forward(shape, input(x));
        let loss = N::loss(outputs, y);
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let warmth = ((step + 1) as f64 / plan.warm_up.max(1) as f64).min(1.0);
        model = guard.step(&mut optimizer, rate * warmth, model, gradients, value);
        if value.is_nan() || value > 100.0 * lowest {
            ruined = ruined.min(step);
        }
        lowest = lowest.min(value);
        if guard.should_stop() {
            break;
        }
    }
    let (x, y) = batch::<N>(512, fault.filter(|of| *of == Fault::Targets), &plan, &device);
    let explained = N::explained(model.valid().forward(shape, x.inner()), y.inner());
    Trained { report: guard.diagnosis(), explained: explained.max(0.0), ruined }
}

impl Fault {
    /// Whether it is in the batch of a step.
    fn is_in(self, step: u64) -> bool {
        self == Fault::Targets || step == BAD_STEP
    }
}

/// A batch with a fault: standard normal inputs, and targets that a small network can learn.
fn batch<N: Net>(
    samples: usize,
    fault: Option<Fault>,
    plan: &Plan,
    device: &Device,
) -> (Tensor<2>, Tensor<2>) {
    let normal = Distribution::Normal(0.0, 1.0);
    let mut x = Tensor::<2>::random([samples, N::INPUTS], normal, device);
    let half = N::INPUTS / 2;
    let difference =
        x.clone().narrow(1, 0, half).sum_dim(1) - x.clone().narrow(1, half, half).sum_dim(1);
    let mut y = difference / (N::INPUTS as f64).sqrt() + x.clone().narrow(1, 0, 1).sin() * 0.5;
    match fault {
        Some(Fault::NanBatch) => {
            let nan = Tensor::<2>::full([1, 1], f32::NAN, device);
            x = x.slice_assign([0..1, 0..1], nan);
        }
        Some(Fault::OutlierBatch) => x = x * 1e4,
        Some(Fault::Targets) => y = y * 1e4,
        Some(Fault::Rate | Fault::Exp) | None => {}
    }
    if plan.scales_inputs {
        x = standardised(x);
    }
    if plan.scales_targets {
        y = standardised(y);
    }
    (x, y)
}

/// By the batch's own mean and deviation, which for these are those of all batches.
fn standardised(x: Tensor<2>) -> Tensor<2> {
    let mean = x.clone().mean().unsqueeze();
    let centred = x - mean;
    let deviation = centred.clone().square().mean().sqrt().unsqueeze();
    centred / deviation
}
