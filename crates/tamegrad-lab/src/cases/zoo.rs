//! Small networks that train well: what faults are planted in.

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The parts of a recipe, as TOML that stands after `data = `, `model = ` and so on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parts {
    pub(super) data: String,
    pub(super) model: String,
    pub(super) optimizer: &'static str,
    pub(super) rate: f64,
    pub(super) schedule: String,
    pub(super) batch: usize,
    pub(super) steps: u64,
    /// Lines of their own: `clip = { ... }`, `fault = { ... }`.
    pub(super) more: Vec<String>,
    /// More keys of `[training]`.
    pub(super) training: String,
    /// Rows that are trained on: with the batch they make the steps of an epoch.
    pub(super) rows: usize,
}

impl Parts {
    /// The recipe.
    pub(super) fn recipe(&self, name: &str, seed: u64) -> String {
        let Self { data, model, optimizer, rate, schedule, batch, training, .. } = self;
        let epochs = (self.steps as usize).div_ceil((self.rows / batch).max(1)).max(1);
        let mut lines = vec![
            format!("name = \"{name}\""),
            format!("seed = {seed}"),
            format!("data = {{ {data} }}"),
            format!("model = {{ {model} }}"),
            format!("optimizer = {{ {optimizer}, learning_rate = {rate:e} }}"),
            format!("schedule = {{ {schedule} }}"),
            format!("training = {{ batch = {batch}, epochs = {epochs}{training} }}"),
        ];
        lines.extend(self.more.iter().cloned());
        lines.join("\n") + "\n"
    }
}

pub(super) const SGD: &str = "kind = \"sgd\", momentum = 0.9";
pub(super) const PLAIN_SGD: &str = "kind = \"sgd\"";
pub(super) const ADAM: &str = "kind = \"adam\"";
pub(super) const ADAMW: &str = "kind = \"adamw\", weight_decay = 0.01";
pub(super) const RMSPROP: &str = "kind = \"rmsprop\"";

pub(super) const DIGITS: &str = "source = \"digits\"";
pub(super) const DIGITS_ROWS: usize = 1438;

/// A network of the zoo.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) parts: Parts,
    /// Number of hidden layers that can differ from the rest; 0 where none is to.
    pub(super) layers: usize,
}

/// All networks.
pub(super) fn all() -> Vec<Kind> {
    let digits = |name, layers, model: &str, optimizer, rate| Kind {
        name,
        layers,
        parts: Parts {
            data: DIGITS.into(),
            model: model.into(),
            optimizer,
            rate,
            schedule: String::new(),
            batch: 32,
            steps: 400,
            more: vec![],
            training: String::new(),
            rows: DIGITS_ROWS,
        },
    };
    let curve = |name, model: &str, optimizer, rate| {
        let mut kind = digits(name, 0, model, optimizer, rate);
        kind.parts.data = "source = \"polynomial\", samples = 1000, coefficients = [1, 0, 3, 2], \
                           range = [-1, 1], noise = 0.05, scale_target = \"standard\""
            .into();
        kind.parts.rows = 700;
        kind
    };
    vec![
        digits("mlp-relu", 6, r#"kind = "mlp", depth = 6, width = 32"#, SGD, 0.01),
        digits(
            "mlp-selu",
            12,
            r#"kind = "mlp", depth = 12, width = 32, activation = "selu", init = { scheme = "lecun" }"#,
            SGD,
            0.003,
        ),
        digits(
            "mlp-tanh",
            5,
            r#"kind = "mlp", depth = 5, width = 32, activation = "tanh", init = { scheme = "xavier" }"#,
            ADAM,
            2e-3,
        ),
        digits(
            "mlp-batch-norm",
            6,
            r#"kind = "mlp", depth = 6, width = 32, normalisation = { kind = "batch" }"#,
            SGD,
            0.02,
        ),
        digits(
            "mlp-residual",
            10,
            r#"kind = "mlp", depth = 10, width = 32, activation = "gelu", residual = true, normalisation = { kind = "layer" }"#,
            ADAMW,
            1e-3,
        ),
        digits(
            "conv",
            0,
            r#"kind = "conv", channels = [8, 16], kernel = 3, dense = [32]"#,
            ADAM,
            2e-3,
        ),
        digits("rnn", 0, r#"kind = "rnn", hidden = 32"#, ADAM, 2e-3),
        digits("lstm", 0, r#"kind = "rnn", cell = "lstm", hidden = 32"#, ADAM, 5e-3),
        digits("gru", 0, r#"kind = "rnn", cell = "gru", hidden = 32"#, RMSPROP, 2e-3),
        digits(
            "transformer",
            0,
            r#"kind = "transformer", depth = 2, width = 32, heads = 4"#,
            ADAMW,
            2e-3,
        ),
        curve("curve-relu", r#"kind = "mlp", depth = 3, width = 32"#, ADAM, 2e-3),
        curve(
            "curve-tanh",
            r#"kind = "mlp", depth = 3, width = 32, activation = "tanh", init = { scheme = "xavier" }"#,
            SGD,
            0.02,
        ),
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
