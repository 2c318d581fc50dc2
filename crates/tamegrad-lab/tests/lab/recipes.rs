//! The recipes of the repository: each explodes from the cause and at the layer that it plants.

use std::sync::atomic::AtomicBool;

use tamegrad::causes::CauseName;
use tamegrad::{Mode, Verdict};
use tamegrad_lab::{TrainOptions, preflight, recipe, train};

use crate::shipped;

#[test]
fn the_planted_cause_and_layer_are_found() {
    for (name, verdicts, cause, layer) in [
        (
            "exploding-digits",
            &[Verdict::Exploded, Verdict::Exploding][..],
            CauseName::Activation,
            Some("layers.17"),
        ),
        ("exploding-rnn", &[Verdict::Exploded], CauseName::Recurrence, Some("cell@")),
        ("exploding-regression", &[Verdict::Dead], CauseName::UnscaledTarget, None),
        ("overflow-at-init", &[Verdict::Exploded], CauseName::Activation, Some("layers.2")),
    ] {
        let file = recipe::read(&shipped(&format!("{name}.toml"))).unwrap();
        let cancel = AtomicBool::new(false);
        let options = TrainOptions {
            stop_after_alarm: Some(100),
            ..TrainOptions::new(Mode::Observe, &cancel)
        };
        let run = train(&file.recipe, &options, &mut |_, _| {}).unwrap();
        let found = &run.diagnosis;
        assert!(verdicts.contains(&found.verdict), "{name}: {:?}", found.verdict);
        assert_eq!(found.causes.first().map(|c| c.name), Some(cause), "{name}: {:?}", found.causes);
        let origin = found.origin.as_ref().and_then(|origin| origin.layer());
        let origin = origin.map(|layer| run.run.record().layout().layer_name(layer).to_owned());
        assert_eq!(origin.is_some(), layer.is_some(), "{name}: {origin:?}");
        if let Some((origin, layer)) = origin.zip(layer) {
            assert!(origin.starts_with(layer), "{name}: {origin}");
        }
        assert!(found.remedies[0].treats_cause, "{name}: {:?}", found.remedies[0]);
    }
}

#[test]
fn the_explosion_on_digits_does_not_begin_at_step_0() {
    let file = recipe::read(&shipped("exploding-digits.toml")).unwrap();
    let seen = preflight(&file.recipe).unwrap();
    assert_eq!(seen.warnings(), []);
    let run = crate::run_for(&file.recipe, Mode::Observe, Some(100));
    assert_eq!(run.diagnosis.verdict, Verdict::Healthy);
}

#[test]
fn the_healthy_recipe_is_healthy_and_the_guard_does_nothing() {
    let file = recipe::read(&shipped("healthy-digits.toml")).unwrap();
    let run = crate::run(&file.recipe, Mode::Protect);
    assert_eq!(run.diagnosis.verdict, Verdict::Healthy);
    assert_eq!(run.run.actions(), []);
    assert!(run.metric > 0.93, "{}", run.metric);
}
