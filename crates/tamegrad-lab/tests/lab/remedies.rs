//! Each remedy, by a run that explodes without it and is healthy with it.

use tamegrad::remedies::{Change, NormPlace, Scheme};
use tamegrad::{Mode, Verdict};
use tamegrad_lab::changes::edits;
use tamegrad_lab::recipe::edit;

use crate::{parse, run, shipped};

/// A curve fitted by a small network; `{..}` stands for what a case changes.
fn curve(data: &str, model: &str, optimizer: &str, training: &str) -> String {
    format!(
        "name = \"curve\"\nseed = 1\n\
         [data.polynomial]\nsamples = 300\nnoise = 0.01\n{data}\n\
         [model.mlp]\nwidth = 32\n{model}\n\
         [optimizer.sgd]\n{optimizer}\n\
         [training]\nbatch = 32\nepochs = 30\n{training}\n"
    )
}

/// Handwritten digits with a deep network.
fn digits(model: &str, optimizer: &str, epochs: u64) -> String {
    format!(
        "name = \"digits\"\nseed = 2\n\
         [data.digits]\n\
         [model.mlp]\n{model}\n\
         [optimizer.sgd]\n{optimizer}\n\
         [training]\nbatch = 32\nepochs = {epochs}\n"
    )
}

const SMALL: &str = "coefficients = [0.0, 0.0, 1.0]\nrange = [-1.0, 1.0]";
const LARGE_TARGET: &str = "coefficients = [0.0, 0.0, 300.0]\nrange = [-1.0, 1.0]";
const LARGE_INPUT: &str = "coefficients = [0.0, 0.02]\nrange = [0.0, 100.0]";
const RELU: &str = "depth = 2\nactivation = \"relu\"";
const WIDE_INIT: &str = "depth = 8\nactivation = \"relu\"\ninit.he.gain = 4.0";

const DEEP_INIT: &str = "depth = 20\nactivation = \"relu\"\ninit.he.gain = 1.5";

fn cases() -> Vec<(&'static str, String, Change)> {
    let sgd = "learning_rate = 0.05";
    let large_target = || curve(LARGE_TARGET, RELU, sgd, "");
    let wide_init = || curve(SMALL, WIDE_INIT, "learning_rate = 0.02", "");
    let deep_init = || curve(SMALL, DEEP_INIT, "learning_rate = 0.01", "");
    let exp = || {
        let path = shipped("overflow-at-init.toml");
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}"))
    };
    let drifting = || {
        let model = "depth = 30\nwidth = 64\nactivation = \"selu\"\ninit.lecun = {}\n\
                     [[model.mlp.layer]]\nindex = 17\nactivation = \"exp\"";
        digits(model, "learning_rate = 0.005\nmomentum = 0.9", 6)
    };
    vec![
        ("clip-global-norm", large_target(), Change::ClipGlobalNorm { max_norm: 1.0 }),
        ("clip-tensor-norm", large_target(), Change::ClipTensorNorm { max_norm: 0.5 }),
        ("clip-value", large_target(), Change::ClipValue { limit: 0.1 }),
        ("scale-target", large_target(), Change::ScaleTarget),
        ("scale-input", curve(LARGE_INPUT, RELU, sgd, ""), Change::ScaleInput),
        (
            "lower-learning-rate",
            curve(SMALL, RELU, "learning_rate = 2.0", ""),
            Change::LearningRate { factor: 0.05, from: None },
        ),
        (
            "warm-up",
            digits(
                "depth = 3\nwidth = 64\nactivation = \"relu\"",
                "learning_rate = 0.2\nmomentum = 0.9",
                6,
            ),
            Change::WarmUp { steps: 200 },
        ),
        (
            "smaller-batch",
            curve(SMALL, RELU, "learning_rate = 0.014", "loss = \"sum-squared-error\""),
            Change::BatchSize { samples: 8 },
        ),
        ("weight-decay", drifting(), Change::WeightDecay { rate: 0.1 }),
        ("l2-penalty", drifting(), Change::L2Penalty { strength: 0.01 }),
        ("l1-penalty", drifting(), Change::L1Penalty { strength: 0.001 }),
        ("reinitialise-he", wide_init(), Change::Reinitialise { scheme: Scheme::He, layer: None }),
        (
            "reinitialise-orthogonal",
            wide_init(),
            Change::Reinitialise { scheme: Scheme::Orthogonal, layer: None },
        ),
        ("batch-norm-before", exp(), Change::BatchNorm { place: NormPlace::Before }),
        ("batch-norm-after", exp(), Change::BatchNorm { place: NormPlace::After }),
        ("bounded-activation", exp(), Change::Activation { name: "relu".to_owned(), layer: None }),
        ("fewer-layers", deep_init(), Change::Depth { layers: 2 }),
    ]
}

#[test]
fn each_remedy_holds_where_the_run_without_it_explodes() {
    let mut wrong = Vec::new();
    for (name, text, change) in cases() {
        let recipe = parse(&text);
        let edits = edits(&change, &recipe).unwrap_or_else(|| panic!("{name} changes nothing"));
        let cured = edit::apply(&text, &edits).unwrap_or_else(|error| panic!("{name}: {error}"));
        let without = run(&recipe, Mode::Observe);
        let with = run(&parse(&cured), Mode::Observe);
        let verdicts = (without.diagnosis.verdict, with.diagnosis.verdict);
        let fails = verdicts.0.is_explosion() && !verdicts.0.is_good();
        let better = !(without.metric >= with.metric);
        if !(fails && verdicts.1 == Verdict::Healthy && better) {
            wrong.push(format!("{name}: {verdicts:?}, metrics {} {}", without.metric, with.metric));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
