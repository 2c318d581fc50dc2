//! Small networks that train well: what faults are planted in.

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The parts of a recipe. Data, model and optimizer are `NAME: KEYS`, such as `sgd: momentum = 0.9`;
/// the keys, and all other texts, are TOML as it stands in braces.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts {
    pub(super) data: String,
    pub(super) scale: &'static str,
    pub(super) model: String,
    pub(super) optimizer: &'static str,
    pub(super) rate: f64,
    pub(super) schedule: String,
    pub(super) batch: usize,
    pub(super) steps: u64,
    /// Lines of their own, such as `clip = { ... }`.
    pub(super) more: Vec<String>,
    /// More keys of `[training]`.
    pub(super) training: String,
    /// Rows that are trained on: with the batch they make the steps of an epoch.
    pub(super) rows: usize,
}

impl Parts {
    /// The recipe.
    pub(super) fn recipe(&self, name: &str, seed: u64) -> String {
        let Self { scale, schedule, batch, training, .. } = self;
        let optimizer = format!("{}, learning_rate = {:e}", self.optimizer, self.rate);
        let epochs = (self.steps as usize).div_ceil((self.rows / batch).max(1)).max(1);
        let mut lines = vec![
            format!("name = \"{name}\""),
            format!("seed = {seed}"),
            named("data", &self.data),
            format!("scale = {{ {scale} }}"),
            named("model", &self.model),
            named("optimizer", &optimizer),
            format!("schedule = {{ {schedule} }}"),
            format!("training = {{ batch = {batch}, epochs = {epochs}{training} }}"),
        ];
        lines.extend(self.more.iter().cloned());
        lines.join("\n") + "\n"
    }
}

/// Batches of 32, and nothing else that need not be said.
pub(super) fn parts(
    data: &str,
    rows: usize,
    model: &str,
    optimizer: &'static str,
    rate: f64,
    steps: u64,
) -> Parts {
    Parts {
        data: data.into(),
        scale: "",
        model: model.into(),
        optimizer,
        rate,
        schedule: String::new(),
        batch: 32,
        steps,
        more: vec![],
        training: String::new(),
        rows,
    }
}

fn named(section: &str, part: &str) -> String {
    let (name, keys) = part.split_once(':').unwrap_or((part, ""));
    format!("{section}.{name} = {{ {} }}", keys.trim_start_matches([' ', ',']))
}

pub(super) const SGD: &str = "sgd: momentum = 0.9";
pub(super) const PLAIN_SGD: &str = "sgd:";
pub(super) const ADAM: &str = "adam:";
pub(super) const ADAMW: &str = "adamw: weight_decay = 0.01";
pub(super) const RMSPROP: &str = "rmsprop:";

pub(super) const DIGITS: &str = "digits:";
pub(super) const DIGITS_ROWS: usize = 1438;

/// A network of the zoo.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) parts: Parts,
}

/// More keys of a perceptron, which goes with this activation.
pub(super) const SELU: &str = ", activation = \"selu\", init.lecun = {}";
const TANH: &str = ", activation = \"tanh\", init.xavier = {}";

/// A perceptron with more keys.
pub(super) fn mlp(depth: usize, width: usize, more: &str) -> String {
    format!("mlp: depth = {depth}, width = {width}{more}")
}

/// All networks.
pub(super) fn all() -> Vec<Kind> {
    let digits = |name, model: &str, optimizer, rate| Kind {
        name,
        parts: parts(DIGITS, DIGITS_ROWS, model, optimizer, rate, 400),
    };
    let curve = |name, more, optimizer, rate| {
        let data = "polynomial: samples = 1000, coefficients = [1, 0, 3, 2], \
                    range = [-1, 1], noise = 0.05";
        let parts = parts(data, 700, &mlp(3, 32, more), optimizer, rate, 400);
        Kind { name, parts: Parts { scale: "target = \"standard\"", ..parts } }
    };
    let batch_norm = ", normalisation = { kind = \"batch\" }";
    let residual = ", activation = \"gelu\", residual = true, normalisation = { kind = \"layer\" }";
    vec![
        digits("mlp-relu", &mlp(6, 32, ""), SGD, 0.01),
        digits("mlp-selu", &mlp(12, 32, SELU), SGD, 0.003),
        digits("mlp-tanh", &mlp(5, 32, TANH), ADAM, 2e-3),
        digits("mlp-batch-norm", &mlp(6, 32, batch_norm), SGD, 0.02),
        digits("mlp-residual", &mlp(10, 32, residual), ADAMW, 1e-3),
        digits("conv", "conv: channels = [8, 16], kernel = 3, dense = [32]", ADAM, 2e-3),
        digits("rnn", "rnn: hidden = 32", ADAM, 2e-3),
        digits("lstm", r#"rnn: cell = "lstm", hidden = 32"#, ADAM, 5e-3),
        digits("gru", r#"rnn: cell = "gru", hidden = 32"#, RMSPROP, 2e-3),
        digits("transformer", "transformer: depth = 2, width = 32, heads = 4", ADAMW, 2e-3),
        curve("curve-relu", "", ADAM, 2e-3),
        curve("curve-tanh", TANH, SGD, 0.02),
    ]
}

/// The network at another rate, batch and schedule, drawn by the seed.
pub(super) fn varied(parts: &Parts, seed: u64) -> Parts {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut parts = parts.clone();
    let pick = |rng: &mut ChaCha8Rng, of: &[f64]| of.choose(rng).copied().unwrap_or(1.0);
    parts.rate *= pick(&mut rng, &[0.5, 1.0, 1.0, 2.0]);
    parts.batch = pick(&mut rng, &[8.0, 16.0, 32.0, 32.0, 64.0]) as usize;
    parts.schedule = [
        "",
        "",
        "decay = \"cosine\"",
        "warm_up = 50",
        "warm_up = 20, decay = \"cosine\"",
        "decay = \"step\"",
        "decay = \"restarts\"",
    ]
    .choose(&mut rng)
    .copied()
    .unwrap_or_default()
    .to_owned();
    if rng.random_bool(0.25) {
        parts.more.push("clip = { by = \"global-norm\", limit = 1.0 }".into());
    }
    parts
}
