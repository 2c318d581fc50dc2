//! What preflight says of recipes before their first update.

use tamegrad::preflight::{OverflowAt, Warning};
use tamegrad::{LayerId, Mode};
use tamegrad_lab::preflight;
use tamegrad_lab::recipe::{self, Optimizer, Recipe, Sgd};

use crate::{parse, run_for, shipped};

/// A recipe of the repository with another seed.
fn seeded(name: &str, seed: u64) -> Recipe {
    let file = recipe::read(&shipped(&format!("{name}.toml"))).unwrap();
    Recipe { seed, ..file.recipe }
}

/// The healthy recipe with another seed and learning rate.
fn healthy(seed: u64, learning_rate: f64) -> Recipe {
    let recipe = seeded("healthy-digits", seed);
    let Optimizer::Sgd(sgd) = recipe.optimizer else { panic!("{:?}", recipe.optimizer) };
    Recipe { optimizer: Optimizer::Sgd(Sgd { learning_rate, ..sgd }), ..recipe }
}

#[test]
fn recipes_that_begin_well_have_no_warning() {
    for name in ["healthy-digits", "exploding-digits"] {
        for seed in 1..=5 {
            let seen = preflight(&seeded(name, seed)).unwrap();
            assert_eq!(seen.warnings(), [], "{name}, seed {seed}");
            assert!(seen.critical_multiple.is_some_and(|multiple| multiple > 1.0), "{name} {seed}");
            assert_eq!(seen.layers.len(), 31);
        }
    }
}

#[test]
fn what_is_planted_at_the_start_is_warned_of() {
    for seed in 1..=3 {
        let warnings = |name: &str| preflight(&seeded(name, seed)).unwrap().warnings();
        let rnn = warnings("exploding-rnn");
        let is_told = rnn
            .iter()
            .any(|warning| matches!(warning, Warning::LearningRate { times } if *times > 100.0));
        assert!(is_told, "seed {seed}: {rnn:?}");
        let regression = warnings("exploding-regression");
        assert!(
            matches!(regression[0], Warning::LargeUpdate { ratio: 10.0.., .. }),
            "{regression:?}"
        );
        let exp = warnings("overflow-at-init");
        assert!(matches!(exp[0], Warning::Overflow(OverflowAt::Output(LayerId(2..=4)))), "{exp:?}");
    }
}

#[test]
fn the_largest_rate_that_lowers_the_loss_does_not_depend_on_the_rate_it_is_measured_from() {
    let critical_rate = |rate: f64| {
        let seen = preflight(&healthy(2, rate)).unwrap();
        (rate * seen.critical_multiple.expect("measured"), seen.warnings())
    };
    let (low, _) = critical_rate(0.05);
    for rate in [0.5, 2.0] {
        let (high, warnings) = critical_rate(rate);
        assert!((high / low - 1.0).abs() < 0.05, "{high} is not {low}");
        let told = warnings.iter().find_map(|warning| match warning {
            Warning::LearningRate { times } => Some(*times),
            _ => None,
        });
        assert!((told.expect("far too large") * high / rate - 1.0).abs() < 1e-9, "{warnings:?}");
    }
}

#[test]
fn rounding_is_no_rise_of_the_loss() {
    for rate in [1e-4, 1e-5, 1e-6, 1e-7] {
        for seed in 1..=5 {
            let seen = preflight(&healthy(seed, rate)).unwrap();
            assert_eq!(seen.critical_multiple, Some(f64::INFINITY), "{rate}, seed {seed}");
        }
    }
}

/// Layers of five exp units on two circles.
fn exp(depth: u64, seed: u64) -> Recipe {
    parse(&format!(
        r#"
        name = "exp"
        seed = {seed}
        [data.circles]
        samples = 1000
        noise = 0.1
        factor = 0.8
        [model.mlp]
        depth = {depth}
        width = 5
        activation = "exp"
        init.he.distribution = "uniform"
        [optimizer.adam]
        learning_rate = 0.001
        [training]
        batch = 128
        epochs = 40
        "#
    ))
}

/// The oracle is the run without a guard: a loss that is not finite at its first or second step.
#[test]
fn every_run_that_overflows_at_its_start_is_warned_of() {
    let mut overflows = 0;
    for depth in 8..=11 {
        for seed in 1..=20 {
            let recipe = exp(depth, seed);
            let run = run_for(&recipe, Mode::Off, Some(2));
            let losses: Vec<_> = run.run.record().rows().iter().map(|row| row.loss).collect();
            let is_broken = losses.iter().any(|loss| !loss.is_some_and(f64::is_finite));
            let seen = preflight(&recipe).unwrap();
            let warnings = seen.warnings();
            let is_warned = warnings.iter().any(|warning| {
                matches!(warning, Warning::Overflow(_) | Warning::BrokenUpdate { .. })
            });
            assert!(is_warned || !is_broken, "depth {depth}, seed {seed}: {losses:?} {warnings:?}");
            overflows += u32::from(is_broken);
        }
    }
    assert_eq!(overflows, 80, "the runs are there to overflow");
}
