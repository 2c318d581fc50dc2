//! Healthy runs with one fault whose layer and cause are known.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tamegrad::causes::CauseName;

use super::zoo::{self, Kind, Parts};
use super::{Case, Group, Truth};

/// The step at which faults that come later come.
const FAULT: u64 = 200;

/// So many seeds of each fault in each network that can have it.
pub(super) fn cases(seeds: u64) -> Vec<Case> {
    let zoo = zoo::all();
    let mut cases: Vec<Case> = in_layers()
        .iter()
        .flat_map(|kind| (0..seeds).flat_map(|seed| [large_init(kind, seed), exp(kind, seed)]))
        .collect();
    for kind in &zoo {
        let few = seeds.div_ceil(2);
        cases.extend((0..few).flat_map(|seed| {
            [
                rate_jump(kind, seed),
                rate_spike(kind, seed),
                rate_ramp(kind, seed),
                bad_batch(kind, seed),
            ]
        }));
    }
    for seed in 0..2 * seeds {
        cases.extend([unscaled_target(seed), spectral_radius(seed), f16_overflow(seed)]);
    }
    cases
}

fn case(fault: &str, kind: &str, parts: &Parts, seed: u64, truth: Truth) -> Case {
    Case {
        name: format!("planted/{fault}/{kind}/{seed:02}"),
        group: Group::Planted,
        recipe: parts.recipe(&format!("planted-{fault}-{kind}"), seed),
        truth,
    }
}

fn truth(cause: CauseName) -> Truth {
    Truth { causes: vec![cause], ..Truth::default() }
}

/// Deep plain networks that train well by themselves, and that one bad layer ruins; shallow or
/// normalised ones bear it.
fn in_layers() -> Vec<Kind> {
    let zoo = zoo::all();
    let like = |name: &'static str, of: &str, model: &str, layers, rate, loss: &str| {
        let parts = zoo.iter().find(|kind| kind.name == of).unwrap_or(&zoo[0]).parts.clone();
        let training = format!(", loss = \"{loss}\"");
        let model = model.into();
        Kind { name, layers, parts: Parts { model, optimizer: zoo::SGD, rate, training, ..parts } }
    };
    let selu = "activation = \"selu\", init.lecun = {}";
    let mse = "mean-squared-error";
    vec![
        like("curve-relu-8", "curve-relu", "mlp: depth = 8, width = 32", 8, 0.01, mse),
        like(
            "curve-selu-8",
            "curve-relu",
            &format!("mlp: depth = 8, width = 32, {selu}"),
            8,
            0.005,
            mse,
        ),
        like(
            "digits-selu-12",
            "mlp-selu",
            &format!("mlp: depth = 12, width = 48, {selu}"),
            12,
            0.02,
            mse,
        ),
        like("digits-relu-8", "mlp-relu", "mlp: depth = 8, width = 48", 8, 0.05, mse),
        like(
            "digits-selu-20",
            "mlp-selu",
            &format!("mlp: depth = 20, width = 48, {selu}"),
            20,
            0.01,
            "cross-entropy",
        ),
        like(
            "digits-relu-16",
            "mlp-relu",
            "mlp: depth = 16, width = 48",
            16,
            0.01,
            "cross-entropy",
        ),
    ]
}

/// One layer's weights are drawn ten times too large.
fn large_init(kind: &Kind, seed: u64) -> Case {
    let scheme = if kind.name.contains("selu") { "lecun" } else { "he" };
    let own = format!("init.{scheme}.gain = 10");
    in_a_layer("init-x10", kind, seed, &own, CauseName::Initialisation)
}

/// One layer applies exp.
fn exp(kind: &Kind, seed: u64) -> Case {
    in_a_layer("exp-layer", kind, seed, "activation = \"exp\"", CauseName::Activation)
}

fn in_a_layer(fault: &str, kind: &Kind, seed: u64, own: &str, cause: CauseName) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(1000 + seed);
    // The first layer changes the width; the ones after it have neighbours of their own kind.
    let layer = rng.random_range(1..kind.layers);
    let mut parts = kind.parts.clone();
    parts.model.push_str(&format!(", layer = [{{ index = {layer}, {own} }}]"));
    let truth = Truth { layer: Some(format!("layers.{layer}")), ..truth(cause) };
    case(fault, kind.name, &parts, seed, truth)
}

/// The learning rate is 30 times as high from one step on.
fn rate_jump(kind: &Kind, seed: u64) -> Case {
    let fault = format!("fault.rate-jump = {{ factor = 30, step = {FAULT} }}");
    with_fault("rate-x30", kind, seed, fault, CauseName::LearningRate)
}

/// The learning rate is 100 times as high at one step.
fn rate_spike(kind: &Kind, seed: u64) -> Case {
    let fault = format!("fault.rate-jump = {{ factor = 100, steps = 1, step = {FAULT} }}");
    with_fault("rate-x100-once", kind, seed, fault, CauseName::LearningRate)
}

/// The learning rate grows by 1% a step.
fn rate_ramp(kind: &Kind, seed: u64) -> Case {
    let fault = format!("fault.rate-ramp = {{ factor = 1.01, step = {FAULT} }}");
    let mut case = with_fault("rate-ramp", kind, seed, fault, CauseName::LearningRate);
    case.truth.grows = true;
    case
}

/// The inputs of one batch are 1,000 times too large.
fn bad_batch(kind: &Kind, seed: u64) -> Case {
    let fault = format!("fault.bad-batch = {{ factor = 1000, step = {FAULT} }}");
    with_fault("bad-batch", kind, seed, fault, CauseName::Data)
}

fn with_fault(name: &str, kind: &Kind, seed: u64, fault: String, cause: CauseName) -> Case {
    let mut parts = kind.parts.clone();
    parts.more.push(fault);
    // A ramp of 1% needs 464 steps for a factor of 100.
    parts.steps = if name == "rate-ramp" { 900 } else { 400 };
    case(name, kind.name, &parts, seed, truth(cause))
}

/// The target of a regression is some thousands.
fn unscaled_target(seed: u64) -> Case {
    let zoo = zoo::all();
    let is_curve = |kind: &&Kind| kind.name == "curve-relu";
    let mut parts =
        zoo.iter().find(is_curve).map_or_else(|| zoo[0].parts.clone(), |k| k.parts.clone());
    parts.data = "polynomial: samples = 1000, coefficients = [0, 1000, 3000], \
                  range = [-1, 1], noise = 1"
        .into();
    parts.scale = "";
    parts.optimizer = zoo::SGD;
    parts.rate = 0.02;
    case("unscaled-target", "curve-relu", &parts, seed, truth(CauseName::UnscaledTarget))
}

/// A plain recurrent network whose matrix multiplies by 1.5 at each of 50 steps.
fn spectral_radius(seed: u64) -> Case {
    let zoo = zoo::all();
    let mut parts = zoo[0].parts.clone();
    let activation = if seed.is_multiple_of(2) { "relu" } else { "linear" };
    parts.data = "adding: samples = 1000, length = 50".into();
    parts.model = format!("rnn: hidden = 32, activation = \"{activation}\", spectral_radius = 1.5");
    parts.rows = 1000;
    let truth = Truth { layer: Some("cell".into()), ..truth(CauseName::Recurrence) };
    case("radius", "rnn", &parts, seed, truth)
}

/// Inputs that f16 holds, but not their products with the first weights; f32 holds both, and layer
/// norm brings them down again.
fn f16_overflow(seed: u64) -> Case {
    let zoo = zoo::all();
    let mut parts = zoo[0].parts.clone();
    parts.data = "polynomial: samples = 1000, coefficients = [0, 1, 0.1], powers = 3, \
                  range = [-39, 39], noise = 1"
        .into();
    parts.scale = "target = \"standard\"";
    parts.model = "mlp: depth = 3, width = 32, normalisation = { kind = \"layer\" }".into();
    parts.rows = 700;
    parts.optimizer = zoo::ADAM;
    parts.rate = 2e-3;
    parts.training = ", dtype = \"f16\"".into();
    let truth = Truth { layer: Some("layers.0".into()), ..truth(CauseName::Precision) };
    case("f16-overflow", "mlp", &parts, seed, truth)
}
