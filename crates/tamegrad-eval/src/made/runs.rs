//! Runs of small networks, healthy or with a planted fault, and what is true of each, step by step.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardUniform};

use super::net::{Activation, Batch, Loss, Net, Optimizer, normal};

/// Which half of the kinds something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Half {
    /// Rules may be fitted on it.
    Fitted,
    /// No rule is.
    Other,
}

/// A network and its data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    pub(super) name: &'static str,
    pub(super) half: Half,
    sizes: &'static [usize],
    activation: Activation,
    loss: Loss,
    time: usize,
    is_adam: bool,
    rate: f64,
    noise: f64,
    /// Whether a second, healthy network is trained beside it.
    has_other: bool,
}

pub(super) const MODELS: &[Model] = &[
    model("linear", Half::Fitted, &[8, 1], Loss::Squared, 0, false, 3e-3, false),
    model("perceptron", Half::Fitted, &[6, 12, 4], Loss::CrossEntropy, 0, true, 5e-3, false),
    model("two-losses", Half::Fitted, &[6, 8, 1], Loss::Squared, 0, false, 5e-3, true),
    model("deep", Half::Other, &[6, 10, 10, 4], Loss::CrossEntropy, 0, false, 1e-2, false),
    model("recurrent", Half::Other, &[10, 8, 1], Loss::Squared, 5, true, 3e-3, false),
    model("two-networks", Half::Other, &[6, 10, 3], Loss::CrossEntropy, 0, true, 5e-3, true),
];

#[allow(clippy::too_many_arguments, reason = "a table of models")]
const fn model(
    name: &'static str,
    half: Half,
    sizes: &'static [usize],
    loss: Loss,
    time: usize,
    is_adam: bool,
    rate: f64,
    has_other: bool,
) -> Model {
    let activation = if time == 0 && sizes.len() > 3 { Activation::Relu } else { Activation::Tanh };
    Model { name, half, sizes, activation, loss, time, is_adam, rate, noise: 0.1, has_other }
}

/// What is done to a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// Nothing, with a constant rate.
    None,
    /// Nothing, with a warm-up and a cosine.
    Cosine,
    /// Nothing, with small batches and noisy targets.
    Noisy,
    /// The rate is multiplied.
    RateJump(f64),
    /// The rate grows by a part in each step.
    RateRamp(f64),
    /// One batch has inputs and targets so many times as large.
    BadBatch(f64),
    /// Every so many steps comes such a batch.
    BadBatches(usize, f64),
    /// An input is NaN.
    NanInput,
    /// All weights are multiplied.
    WeightKick(f64),
    /// The gradient is followed upwards.
    Ascent,
    /// The rate is so many times too large from the first step on.
    LargeRate(f64),
}

pub(super) const FAULTS: &[(Half, &str, Fault)] = &[
    (Half::Fitted, "healthy", Fault::None),
    (Half::Fitted, "healthy-noisy", Fault::Noisy),
    (Half::Fitted, "rate-x100", Fault::RateJump(100.0)),
    (Half::Fitted, "rate-x1000", Fault::RateJump(1000.0)),
    (Half::Fitted, "bad-batch", Fault::BadBatch(300.0)),
    (Half::Fitted, "nan-input", Fault::NanInput),
    (Half::Fitted, "weights-x10", Fault::WeightKick(10.0)),
    (Half::Other, "healthy-cosine", Fault::Cosine),
    (Half::Other, "healthy-constant", Fault::None),
    (Half::Other, "rate-ramp", Fault::RateRamp(0.03)),
    (Half::Other, "bad-batches", Fault::BadBatches(150, 100.0)),
    (Half::Other, "ascent", Fault::Ascent),
    (Half::Other, "large-rate", Fault::LargeRate(300.0)),
    (Half::Other, "rate-x30", Fault::RateJump(30.0)),
    (Half::Other, "weights-x30", Fault::WeightKick(30.0)),
];

/// What was measured at a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    pub(super) loss: f64,
    /// The loss of the second network.
    pub(super) other: f64,
    pub(super) norm: f64,
    pub(super) rate: f64,
    /// The loss on data that is never trained on: what is true of the network before the step.
    pub(super) truth: f64,
}

/// A run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) model: &'static str,
    pub(super) fault: &'static str,
    pub(super) half: Half,
    /// Whether something was done to it that may make it explode.
    pub(super) is_planted: bool,
    pub(super) has_other: bool,
    pub(super) steps: Vec<Measured>,
}

/// Steps of a run.
const STEPS: usize = 1200;
const BATCH: usize = 8;

/// Trains a network with a fault.
pub(super) fn train(model: &Model, half: Half, name: &'static str, fault: Fault, seed: u64) -> Run {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rng = &mut rng;
    let uniform = |rng: &mut ChaCha8Rng| -> f64 { StandardUniform.sample(rng) };
    let new =
        |rng: &mut ChaCha8Rng| Net::new(model.sizes, model.activation, model.loss, model.time, rng);
    let (mut net, mut other, teacher) = (new(rng), new(rng), new(rng));
    let noise = if fault == Fault::Noisy { 5.0 * model.noise } else { model.noise };
    let count = if fault == Fault::Noisy { 2 } else { BATCH };
    let draw = |rng: &mut ChaCha8Rng, count: usize| -> Batch {
        (0..count)
            .map(|_| {
                let input: Vec<f64> = (0..model.sizes[0]).map(|_| normal(rng)).collect();
                let outputs = teacher.outputs(&input).into_iter();
                let target = outputs.map(|o| 2.0 * o + noise * normal(rng)).collect();
                (input, target)
            })
            .collect()
    };
    let held_out = draw(rng, 24);
    let rate = model.rate * 3f64.powf(uniform(rng) - 0.5);
    let at = (STEPS as f64 * (0.3 + 0.4 * uniform(rng))) as usize;
    let mut optimizers = [
        Optimizer::new(model.is_adam, net.parameters.len()),
        Optimizer::new(model.is_adam, other.parameters.len()),
    ];
    let is_planted = !matches!(fault, Fault::None | Fault::Cosine | Fault::Noisy);
    let mut steps = Vec::with_capacity(STEPS);
    for step in 0..STEPS {
        let mut batch = draw(rng, count);
        let since = (step as f64 - at as f64).max(0.0);
        let is_at = step == at;
        let is_repeated = |every: usize| step >= at && (step - at).is_multiple_of(every);
        match fault {
            Fault::BadBatch(times) if is_at => enlarge(&mut batch, times),
            Fault::BadBatches(every, times) if is_repeated(every) => enlarge(&mut batch, times),
            Fault::NanInput if is_at => batch[0].0[0] = f64::NAN,
            Fault::WeightKick(times) if is_at => {
                net.parameters.iter_mut().for_each(|weight| *weight *= times);
            }
            _ => {}
        }
        let rate = rate
            * match fault {
                Fault::RateJump(times) if step >= at => times,
                Fault::RateRamp(part) => (1.0 + part).powf(since.min(600.0)),
                Fault::LargeRate(times) => times,
                Fault::Cosine => cosine(step),
                _ => 1.0,
            };
        let truth = net.loss_of(&held_out);
        let (loss, mut gradient) = net.loss_and_gradient(&batch);
        let mut norm = size(&gradient);
        if fault == Fault::Ascent && step >= at {
            gradient.iter_mut().for_each(|g| *g = -*g);
        }
        optimizers[0].update(&mut net.parameters, &gradient, rate);
        let mut measured = Measured { loss, norm, rate, truth, ..Measured::default() };
        if model.has_other {
            let (loss, gradient) = other.loss_and_gradient(&draw(rng, count));
            norm = (norm * norm + size(&gradient).powi(2)).sqrt();
            optimizers[1].update(&mut other.parameters, &gradient, model.rate);
            measured = Measured { other: loss, norm, ..measured };
        }
        steps.push(measured);
    }
    Run { model: model.name, fault: name, half, is_planted, has_other: model.has_other, steps }
}

fn cosine(step: usize) -> f64 {
    let part = step as f64 / STEPS as f64;
    (20.0 * part).min(0.5 + 0.5 * (std::f64::consts::PI * part).cos())
}

fn enlarge(batch: &mut Batch, times: f64) {
    for (input, target) in batch {
        input.iter_mut().chain(target).for_each(|x| *x *= times);
    }
}

fn size(gradient: &[f64]) -> f64 {
    gradient.iter().map(|g| g * g).sum::<f64>().sqrt()
}
