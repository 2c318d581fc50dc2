//! Random configurations, of which many explode and many do not.

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::zoo::{ADAM, ADAMW, DIGITS, DIGITS_ROWS, PLAIN_SGD, Parts, RMSPROP, SGD, parts};
use super::{Case, Group, Truth};
use tamegrad::remedies::two_digits;

/// Weights of a layer together: more make a run too slow for a grid.
const WEIGHTS_MAX: usize = 700_000;

/// The first so many configurations.
pub(super) fn cases(count: u64) -> Vec<Case> {
    (0..count).map(case).collect()
}

fn case(number: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(number);
    let rng = &mut rng;
    let (model, optimizers) = (model(rng), [PLAIN_SGD, SGD, SGD, ADAM, ADAMW, RMSPROP]);
    let (optimizer, rate) = (pick(rng, &optimizers), two_digits(log_uniform(rng, 1e-4, 10.0)));
    let parts = Parts {
        schedule: pick(rng, &["", "", "warm_up = 50", "decay = \"cosine\""]).into(),
        batch: *[16, 32, 64].choose(rng).unwrap_or(&32),
        ..parts(DIGITS, DIGITS_ROWS, &model, optimizer, rate, 250)
    };
    Case {
        name: format!("grid/{number:04}"),
        group: Group::Grid,
        recipe: parts.recipe(&format!("grid-{number:04}"), number),
        truth: Truth::default(),
    }
}

fn model(rng: &mut ChaCha8Rng) -> String {
    let gain = two_digits(log_uniform(rng, 0.5, 3.0));
    let scheme = pick(rng, &["he", "xavier", "lecun", "orthogonal"]);
    let init = format!("init.{scheme}.gain = {gain}");
    let norm = pick(rng, &["none", "none", "batch", "layer"]);
    let place = pick(rng, &["before", "after"]);
    let norm = format!("normalisation = {{ kind = \"{norm}\", place = \"{place}\" }}");
    let activation =
        pick(rng, &["relu", "relu", "tanh", "gelu", "selu", "sigmoid", "linear", "exp"]);
    let activation = format!("activation = \"{activation}\"");
    let residual = format!("residual = {}", rng.random_bool(0.4));
    match rng.random_range(0..20) {
        0..11 => {
            let depth = log_uniform(rng, 2.0, 60.0).round() as usize;
            let mut width = log_uniform(rng, 16.0, 512.0).round() as usize;
            while depth * width * width > WEIGHTS_MAX && width > 16 {
                width = log_uniform(rng, 16.0, width as f64).round() as usize;
            }
            format!(
                "mlp: depth = {depth}, width = {width}, {activation}, {init}, {norm}, {residual}"
            )
        }
        11..13 => {
            let convs = vec![8; rng.random_range(1..6)];
            format!(
                "conv: channels = {convs:?}, kernel = 3, dense = [32], {activation}, {init}, {norm}, {residual}"
            )
        }
        13..17 => {
            let cell = pick(rng, &["plain", "lstm", "gru"]);
            let width = log_uniform(rng, 16.0, 128.0).round();
            format!("rnn: cell = \"{cell}\", hidden = {width}, {init}")
        }
        _ => {
            let depth = rng.random_range(2..7);
            let width = 16 * rng.random_range(1..5);
            format!("transformer: depth = {depth}, width = {width}, heads = 4, {init}, {norm}")
        }
    }
}

fn pick<'a>(rng: &mut ChaCha8Rng, of: &[&'a str]) -> &'a str {
    of.choose(rng).copied().unwrap_or_default()
}

fn log_uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    rng.random_range(low.ln()..=high.ln()).exp()
}
