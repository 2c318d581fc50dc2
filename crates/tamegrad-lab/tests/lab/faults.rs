//! Faults that recipes plant, and the type that they compute in.

use tamegrad::causes::CauseName;
use tamegrad::{Mode, Verdict};

use crate::{parse, run_for};

const CURVE: &str = r#"
name = "curve"
seed = 3
data.polynomial = { samples = 400, coefficients = [0, 1, 1], range = [-1, 1], noise = 0.05 }
model.mlp = { depth = 2, width = 16 }
optimizer.sgd = { learning_rate = 0.02 }
training = { batch = 20, epochs = 10 }
"#;

#[test]
fn a_fault_comes_at_its_step_and_changes_nothing_before() {
    let healthy = run_for(&parse(CURVE), Mode::Observe, Some(60)).run;
    for (name, fault, rates, inputs) in [
        ("rate-jump", "factor = 4, steps = 2", [1.0, 4.0, 4.0, 1.0], [1.0; 4]),
        ("rate-ramp", "factor = 1.5", [1.0, 1.5, 2.25, 3.375], [1.0; 4]),
        ("bad-batch", "factor = 8", [1.0; 4], [1.0, 8.0, 1.0, 1.0]),
    ] {
        let text = format!("{CURVE}fault.{name} = {{ step = 40, {fault} }}\n");
        let faulty = run_for(&parse(&text), Mode::Observe, Some(60)).run;
        for (offset, (rate, input)) in rates.iter().zip(inputs).enumerate() {
            let (then, now) =
                (&healthy.record().rows()[39 + offset], &faulty.record().rows()[39 + offset]);
            let grown = now.learning_rate.zip(then.learning_rate).map(|(now, then)| now / then);
            assert!(grown.is_some_and(|grown| (grown - rate).abs() < 1e-12), "{fault}: {grown:?}");
            assert_eq!(offset == 0 || input == 1.0, now.loss < Some(5.0), "{fault} at {offset}");
        }
        assert_eq!(healthy.record().rows()[..40], faulty.record().rows()[..40], "{fault}");
        assert_ne!(healthy.record().rows()[50].loss, faulty.record().rows()[50].loss, "{fault}");
    }
}

#[test]
fn f16_overflows_where_f32_learns() {
    // Layer norm takes the size of the inputs away, but f16 does not hold their products with the
    // first weights: 59,000 times some.
    let of = |dtype: &str| {
        let text = CURVE
            .replace(
                "depth = 2, width = 16",
                "depth = 2, width = 16, normalisation = { kind = 'layer' }",
            )
            .replace("range = [-1, 1]", "range = [-39, 39], powers = 3")
            .replace("sgd = { learning_rate = 0.02", "adam = { learning_rate = 2e-3")
            .replace("epochs = 10", &format!("epochs = 30, dtype = '{dtype}'"))
            + "scale.target = 'standard'\n";
        run_for(&parse(&text), Mode::Observe, None)
    };
    let wide = of("f32");
    assert_eq!(wide.diagnosis.verdict, Verdict::Healthy);
    assert!(wide.metric > 0.5, "{}", wide.metric);
    let narrow = of("f16");
    assert_eq!(narrow.diagnosis.verdict, Verdict::Exploded);
    let origin = narrow.diagnosis.origin.as_ref().and_then(|origin| origin.layer());
    let origin = origin.map(|layer| narrow.run.record().layout().layer_name(layer));
    assert_eq!(origin, Some("layers.0"));
    let cause = narrow.diagnosis.causes.first().map(|cause| cause.name);
    assert_eq!(cause, Some(CauseName::Precision), "{:?}", narrow.diagnosis.causes);
}
