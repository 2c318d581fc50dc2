//! Tests of the reports as JSON.

use super::*;
use crate::check::{exploded, fix_report, healthy, keys};
use serde_json::{Value, json};
use tamegrad::SignName;

fn value_of<T: Serialize>(report: &T) -> Value {
    let text = to_string(report).expect("reports serialize");
    assert!(text.starts_with("{\n  \"") && text.ends_with("}\n"), "{text}");
    serde_json::from_str(&text).expect("what was written is JSON")
}

#[test]
fn a_training_run_of_each_end() {
    let value = value_of(&train(&exploded().diagnosis(), Some(f64::NAN), "a1b2"));
    assert_eq!(
        keys(&value),
        "actions causes chain decided_by first_nonfinite metric onset_step operation origin recovered_step remedies schema \
         seen signs verdict weights_hash"
    );
    assert_eq!(value["schema"], SCHEMA);
    assert_eq!(value["verdict"], "exploded");
    assert_eq!(value["onset_step"], 150);
    assert_eq!(value["seen"], json!({ "unit": "steps", "count": 160 }));
    assert_eq!((&value["metric"], &value["weights_hash"]), (&json!("NaN"), &json!("a1b2")));
    assert_eq!(value["causes"][0]["name"], "activation");
    assert_eq!(
        value["origin"],
        json!({
            "kind": "layer",
            "name": "layers.3",
            "reached": null,
            "evidence": [{
                "quantity": "backward-gain",
                "place": { "kind": "layer", "name": "layers.3" },
                "step": null,
                "over": null,
                "value": 41.0,
                "against": { "reference": "usual", "value": value["origin"]["evidence"][0]["against"]["value"] },
                "text": "backward gain of layers.3: 41 (usually 1.7)",
            }],
        })
    );
    let value = value_of(&train(&healthy().diagnosis(), Some(0.97), "c3d4"));
    assert_eq!((&value["verdict"], &value["metric"]), (&json!("healthy"), &json!(0.97)));
    for key in ["onset_step", "recovered_step", "origin", "decided_by"] {
        assert_eq!(value[key], Value::Null, "{key}");
    }
    assert_eq!((&value["causes"], &value["remedies"]), (&json!([]), &json!([])));
}

#[test]
fn every_key_of_a_fix() {
    let value = value_of(&fix_report(&exploded()));
    assert_eq!(keys(&value), "chosen fixed given trials");
    let given = &value["given"];
    assert_eq!((&given["verdict"], &given["metric"]), (&json!("exploded"), &json!(0.1)));
    let chain = &given["chain"];
    assert_eq!(keys(chain), "backward branches forward layers step");
    assert_eq!(
        chain["layers"][3],
        json!({ "layer": "layers.3", "forward": 38.0, "backward": 41.0, "only_normalises": false })
    );
    let signs = given["signs"].as_array().expect("signs");
    let names: Vec<_> = signs.iter().map(|sign| sign["name"].as_str()).collect();
    assert_eq!(names, SignName::ALL.map(|name| Some(name.as_str())));
    let sign = |name: &str| signs.iter().find(|sign| sign["name"] == name).expect(name);
    let measure = |quantity: &str, place: Value, value: Value, text: &str| {
        json!({
            "quantity": quantity,
            "place": place,
            "step": null,
            "over": null,
            "value": value,
            "against": null,
            "text": text,
        })
    };
    assert_eq!(
        *sign("loss-nonfinite"),
        json!({
            "name": "loss-nonfinite",
            "title": "The loss is NaN",
            "state": "alarm",
            "count": 8,
            "needs": null,
            "findings": [{
                "step": 152,
                "severity": "alarm",
                "title": "The loss is NaN",
                "place": null,
                "evidence": [
                    measure("loss", Value::Null, json!("NaN"), "loss: NaN"),
                    measure(
                        "nonfinite-elements",
                        json!({ "kind": "gradients", "name": null }),
                        json!(6.0),
                        "NaN and Inf elements in the gradients: 6",
                    ),
                ],
            }],
        })
    );
    assert_eq!(
        *sign("learning-rate-falls"),
        json!({
            "name": "learning-rate-falls",
            "title": "The learning rate has to come down a lot",
            "state": "quiet",
            "count": 0,
            "needs": null,
            "findings": [],
        })
    );
    assert_eq!(
        given["remedies"][2],
        json!({
            "name": "bounded-activation",
            "label": "bounded-activation",
            "change": { "kind": "activation", "name": "relu", "layer": "layers.3" },
            "text": "relu in layers.3",
            "why": "the slope no longer grows with the input",
            "treats_cause": true,
            "is_automatic": false,
            "grade": "on-request",
            "code": {
                "pytorch": "h = torch.nn.functional.relu(layer(h))",
                "lightning": "h = torch.nn.functional.relu(layer(h))",
                "transformers": "h = torch.nn.functional.relu(layer(h))",
                "burn": "let h = activation::relu(layer.forward(h));",
                "keras": "keras.layers.Dense(units, activation=\"relu\")",
            },
            "evidence": [],
        })
    );
    assert_eq!(
        value["trials"][0],
        json!({
            "remedy": "clip-global-norm",
            "change": "clip by global norm at 2.4",
            "verdict": "exploded",
            "metric": "NaN",
            "seconds": 3.25,
        })
    );
    assert_eq!(
        value["chosen"],
        json!({ "remedy": "bounded-activation", "change": "relu in layers.3" })
    );
    assert_eq!(
        value["fixed"],
        json!({ "verdict": "healthy", "metric": 0.955, "weights_hash": "00c0ffee" })
    );
}

#[test]
fn a_healthy_run_has_nothing_chosen() {
    let given = DiagnosisReport::from(&healthy().diagnosis());
    let report = FixReport { given, trials: vec![], chosen: None, fixed: None };
    let value = value_of(&report);
    assert_eq!((&value["chosen"], &value["fixed"]), (&Value::Null, &Value::Null));
    assert_eq!(value["trials"], json!([]));
    assert_eq!(value["given"]["metric"], Value::Null);
}
