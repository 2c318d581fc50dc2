//! Explosions that were published in papers and bug reports, re-made from their descriptions.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tamegrad::causes::CauseName::{self, *};

use super::zoo::{ADAM, ADAMW, DIGITS, DIGITS_ROWS, PLAIN_SGD, Parts, SGD, parts};
use super::{Case, Group, Truth};

const CIRCLES: &str = "circles: samples = 1000, noise = 0.1, factor = 0.8";
const STANDARD_INPUT: &str = "input = \"standard\"";

/// So many seeds of each.
pub(super) fn cases(seeds: u64) -> Vec<Case> {
    (0..seeds).flat_map(of_seed).collect()
}

fn of_seed(seed: u64) -> Vec<Case> {
    let mut made = Vec::new();
    let mut add = |name: &str, causes: &[CauseName], parts: Parts| {
        made.push(Case {
            name: format!("published/{name}/{seed:02}"),
            group: Group::Published,
            recipe: parts.recipe(&format!("published-{name}"), seed),
            truth: Truth { causes: causes.to_vec(), ..Truth::default() },
        });
    };
    // AUTOTRAINER's exp networks (Zhang et al. 2021).
    for depth in [8, 9, 10, 11] {
        add(&format!("circle-exp-{depth}"), &[Activation], exp_network(CIRCLES, depth));
    }
    let blobs = "blobs: samples = 1000, centers = 3, features = 2, std = 2";
    for depth in [8, 9, 10] {
        add(&format!("blob-exp-{depth}"), &[Activation], exp_network(blobs, depth));
    }
    add("case26", &[Activation, Initialisation], {
        let mut parts = exp_network(CIRCLES, 3);
        parts.model = "mlp: depth = 3, width = 5, activation = \"exp\", \
                       init.uniform = { low = 0, high = 1 }"
            .into();
        parts
    });
    add("case26-tmp", &[Activation], exp_network(CIRCLES, 4));
    add("conv-exp", &[Activation], {
        let data = "blobs: samples = 40, centers = 10, features = 3072, std = 5, \
                    image = [3, 32, 32]";
        let model = "conv: channels = [32, 64], kernel = 5, \
                     dense = [120, 84, 84, 84, 84], activation = \"exp\"";
        Parts { batch: 14, scale: STANDARD_INPUT, ..parts(data, 28, model, ADAM, 1e-3, 20) }
    });
    add("so48385830", &[LearningRate, Initialisation], {
        let data = "blobs: samples = 1000, centers = 10, features = 784, std = 5";
        let model = "mlp: depth = 1, width = 30, activation = \"linear\", \
                     init.normal = {}, output_init.normal = {}";
        let training = ", loss = \"mean-squared-error\"".into();
        let scale = STANDARD_INPUT;
        Parts { batch: 10, scale, training, ..parts(data, 700, model, PLAIN_SGD, 3.0, 200) }
    });
    add("so48934338", &[UnscaledTarget], {
        let data = "polynomial: samples = 143, coefficients = [0, 0, 5], \
                    range = [0, 5], noise = 1";
        let model = "mlp: depth = 2, width = 50, layer = [{ index = 1, width = 30 }]";
        Parts { batch: 100, ..parts(data, 100, model, PLAIN_SGD, 0.1, 400) }
    });
    // Interactive Python Sessions of TheDeepChecker's collection (Ben Braiek and Khomh 2023).
    add("ips-5", &[LearningRate], {
        let data = "polynomial: samples = 12, coefficients = [1, 2], range = [-8, 8], \
                    noise = 0.5";
        Parts { batch: 8, ..parts(data, 8, "mlp: depth = 0, width = 1", PLAIN_SGD, 0.1, 100) }
    });
    // The thread lowered the rate; with scaled inputs the same rate trains.
    add("ips-15", &[LearningRate, UnscaledInput], {
        let data = "polynomial: samples = 143, coefficients = [1, 2], \
                    range = [0, 99], noise = 1";
        Parts { batch: 100, ..parts(data, 100, "mlp: depth = 0, width = 1", PLAIN_SGD, 0.5, 100) }
    });
    add("ips-17", &[LearningRate], {
        let data = "polynomial: samples = 16, coefficients = [1, -1, 0.5], \
                    powers = 2, range = [-2.6, 2.6], noise = 0.1";
        let loss = ", loss = \"sum-squared-error\"".into();
        let model = "mlp: depth = 0, width = 1";
        Parts { batch: 11, training: loss, ..parts(data, 11, model, PLAIN_SGD, 0.01, 400) }
    });
    add("case-17-relu", &[UnscaledTarget, LearningRate], {
        let data = "linear: samples = 1000, features = 20, noise = 0.1";
        let model = "mlp: depth = 1, width = 25";
        parts(data, 700, model, SGD, 0.01, 300)
    });
    add("so52800582", &[UnscaledTarget], {
        let data = "polynomial: samples = 1000, coefficients = [0, 0, 0, 0, 1], \
                    range = [0, 100], noise = 0";
        parts(data, 700, "mlp: depth = 2, width = 50", ADAM, 1e-3, 400)
    });
    add("deep-relu-2x", &[Initialisation], {
        let model = "mlp: depth = 50, width = 64, init.he.gain = 2";
        digits(model, PLAIN_SGD, 0.01, 100)
    });
    for (name, source) in [("adding", "adding"), ("temporal-order", "temporal-order")] {
        let data = format!("{source}: samples = 1000, length = 50");
        let model = "rnn: hidden = 50, spectral_radius = 2";
        add(&format!("rnn-{name}"), &[Recurrence], parts(&data, 1000, model, SGD, 0.05, 300));
    }
    for place in ["before", "after"] {
        let model = format!(
            "mlp: depth = 50, width = 64, \
             normalisation = {{ kind = \"batch\", place = \"{place}\" }}"
        );
        add(&format!("batch-norm-50-{place}"), &[Normalisation], digits(&model, SGD, 0.05, 200));
    }
    let mlp = "mlp: depth = 4, width = 64";
    let transformer = "transformer: depth = 3, width = 32, heads = 4";
    for (name, model, optimizer, rate) in
        [("mlp", mlp, SGD, 0.01), ("transformer", transformer, ADAMW, 2e-3)]
    {
        let jump = "fault.rate-jump = { factor = 30, step = 250 }";
        let with = |fault: &str, steps| Parts {
            more: vec![fault.into()],
            ..digits(model, optimizer, rate, steps)
        };
        add(&format!("rate-jump-{name}"), &[LearningRate], with(jump, 400));
        let ramp = "fault.rate-ramp = { factor = 1.01, step = 200 }";
        add(&format!("rate-ramp-{name}"), &[LearningRate], with(ramp, 900));
        let batch = "fault.bad-batch = { factor = 1000, step = 250 }";
        add(&format!("bad-batch-{name}"), &[Data], with(batch, 400));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(2000 + seed);
    let mut layers = Vec::new();
    for (name, own, cause) in [
        ("bad-layer-init", "init.he.gain = 10", Initialisation),
        ("bad-layer-exp", "activation = \"exp\"", Activation),
    ] {
        let layer = rng.random_range(1..20);
        let model = format!("mlp: depth = 20, width = 64, layer = [{{ index = {layer}, {own} }}]");
        let training = ", loss = \"mean-squared-error\"".into();
        add(name, &[cause], Parts { training, ..digits(&model, SGD, 0.02, 300) });
        layers.push((name, format!("layers.{layer}")));
    }
    for case in &mut made {
        let is_in = |(name, _): &&(&str, String)| case.name.contains(*name);
        case.truth.layer = layers.iter().find(is_in).map(|(_, layer)| layer.clone());
        case.truth.grows = case.name.contains("/rate-ramp");
        let lost = ["/so52800582/", "/batch-norm-50-"];
        case.truth.is_lost = lost.iter().any(|name| case.name.contains(name));
    }
    made
}

/// Layers of 5 units with exp (AUTOTRAINER's Circle and Blob).
fn exp_network(data: &str, depth: usize) -> Parts {
    let model = format!(
        "mlp: depth = {depth}, width = 5, activation = \"exp\", \
         init.he.distribution = \"uniform\""
    );
    Parts { batch: 128, ..parts(data, 700, &model, ADAM, 1e-3, 400) }
}

fn digits(model: &str, optimizer: &'static str, rate: f64, steps: u64) -> Parts {
    parts(DIGITS, DIGITS_ROWS, model, optimizer, rate, steps)
}
