//! Healthy runs with one fault whose layer and cause are known.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tamegrad::causes::CauseName;

use super::zoo::{self, Kind, Parts, SELU, mlp};
use super::{Case, Group, Truth};

/// The step at which faults that come later come.
const FAULT: u64 = 200;

/// So many seeds of each fault in each network that can have it.
pub(super) fn cases(seeds: u64) -> Vec<Case> {
    let zoo = zoo::all();
    let mut cases: Vec<Case> = in_layers()
        .iter()
        .flat_map(|deep| (0..seeds).flat_map(|seed| [large_init(deep, seed), exp(deep, seed)]))
        .collect();
    for kind in &zoo {
        let few = seeds.div_ceil(2);
        let of_seed = |seed| FAULTS.iter().map(move |fault| with_fault(*fault, kind, seed));
        cases.extend((0..few).flat_map(of_seed));
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
/// normalised ones bear it. Each with its number of hidden layers.
fn in_layers() -> Vec<(Kind, usize)> {
    let like = |name: &'static str, of: &str, (depth, width), more, rate, loss: &str| {
        let (model, training) = (mlp(depth, width, more), format!(", loss = \"{loss}\""));
        let parts = Parts { model, optimizer: zoo::SGD, rate, training, ..parts_of(of) };
        (Kind { name, parts }, depth)
    };
    let mse = "mean-squared-error";
    let cross_entropy = "cross-entropy";
    vec![
        like("curve-relu-8", "curve-relu", (8, 32), "", 0.01, mse),
        like("curve-selu-8", "curve-relu", (8, 32), SELU, 0.005, mse),
        like("digits-selu-12", "mlp-selu", (12, 48), SELU, 0.02, mse),
        like("digits-relu-8", "mlp-relu", (8, 48), "", 0.05, mse),
        like("digits-selu-20", "mlp-selu", (20, 48), SELU, 0.01, cross_entropy),
        like("digits-relu-16", "mlp-relu", (16, 48), "", 0.01, cross_entropy),
    ]
}

/// The parts of a network of the zoo.
fn parts_of(name: &str) -> Parts {
    let zoo = zoo::all();
    zoo.iter().find(|kind| kind.name == name).unwrap_or(&zoo[0]).parts.clone()
}

/// One layer's weights are drawn ten times too large.
fn large_init(deep: &(Kind, usize), seed: u64) -> Case {
    let scheme = if deep.0.name.contains("selu") { "lecun" } else { "he" };
    let own = format!("init.{scheme}.gain = 10");
    in_a_layer("init-x10", deep, seed, &own, CauseName::Initialisation)
}

/// One layer applies exp.
fn exp(deep: &(Kind, usize), seed: u64) -> Case {
    in_a_layer("exp-layer", deep, seed, "activation = \"exp\"", CauseName::Activation)
}

fn in_a_layer(
    fault: &str,
    (kind, layers): &(Kind, usize),
    seed: u64,
    own: &str,
    cause: CauseName,
) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(1000 + seed);
    // The first layer changes the width; the ones after it have neighbours of their own kind.
    let layer = rng.random_range(1..*layers);
    let mut parts = kind.parts.clone();
    parts.model.push_str(&format!(", layer = [{{ index = {layer}, {own} }}]"));
    let truth = Truth { layer: Some(format!("layers.{layer}")), ..truth(cause) };
    case(fault, kind.name, &parts, seed, truth)
}

/// What comes at step [`FAULT`]: its name here, its name and keys in a recipe, and the cause.
const FAULTS: [(&str, &str, &str, CauseName); 4] = [
    ("rate-x30", "rate-jump", "factor = 30", CauseName::LearningRate),
    ("rate-x100-once", "rate-jump", "factor = 100, steps = 1", CauseName::LearningRate),
    ("rate-ramp", "rate-ramp", "factor = 1.01", CauseName::LearningRate),
    ("bad-batch", "bad-batch", "factor = 1000", CauseName::Data),
];

fn with_fault(
    (name, fault, keys, cause): (&str, &str, &str, CauseName),
    kind: &Kind,
    seed: u64,
) -> Case {
    let mut parts = kind.parts.clone();
    parts.more.push(format!("fault.{fault} = {{ {keys}, step = {FAULT} }}"));
    let grows = fault == "rate-ramp";
    // A ramp of 1% needs 464 steps for a factor of 100.
    parts.steps = if grows { 900 } else { 400 };
    case(name, kind.name, &parts, seed, Truth { grows, ..truth(cause) })
}

/// The target of a regression is some thousands.
fn unscaled_target(seed: u64) -> Case {
    let mut parts = parts_of("curve-relu");
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
    let mut parts = parts_of("mlp-relu");
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
    let mut parts = parts_of("mlp-relu");
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
