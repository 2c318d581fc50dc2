//! Tests of the reports as JSON.

use super::*;
use crate::check::{self, exploded, fix_report, healthy};
use serde_json::{Value, json};
use tamegrad::SignName;

fn value_of<T: Serialize>(report: &T) -> Value {
    let text = to_string(report).expect("reports serialize");
    assert!(text.starts_with("{\n  \"") && text.ends_with("}\n"), "{text}");
    serde_json::from_str(&text).expect("what was written is JSON")
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn a_training_run_of_each_end() {
    let guard = exploded();
    let report = train(&guard.diagnosis(), guard.record(), Some(f64::NAN), "a1b2");
    assert_eq!(
        value_of(&report),
        json!({
            "verdict": "exploded",
            "onset_step": 150,
            "origin": "layers.3",
            "place": "layer",
            "cause": "activation",
            "metric": "NaN",
            "actions": 0,
            "weights_hash": "a1b2",
        })
    );
    let guard = healthy();
    let report = train(&guard.diagnosis(), guard.record(), Some(0.97), "c3d4");
    assert_eq!(
        value_of(&report),
        json!({
            "verdict": "healthy",
            "onset_step": null,
            "origin": null,
            "place": null,
            "cause": null,
            "metric": 0.97,
            "actions": 0,
            "weights_hash": "c3d4",
        })
    );
}

#[test]
fn every_key_of_a_fix() {
    let guard = exploded();
    let value = value_of(&fix_report(&guard));
    assert_eq!(keys(&value), ["chosen", "fixed", "given", "trials"]);
    let given = &value["given"];
    assert_eq!(
        keys(given),
        ["cause", "gains", "metric", "onset_step", "origin", "place", "signs", "verdict"]
    );
    assert_eq!(given["verdict"], "exploded");
    assert_eq!(given["metric"], 0.1);
    let gains = given["gains"].as_array().expect("gains");
    assert_eq!(gains.len(), 6);
    assert_eq!(gains[3], json!({ "layer": "layers.3", "forward": 38.0, "backward": 41.0 }));
    let signs = given["signs"].as_array().expect("signs");
    let names: Vec<_> = signs.iter().map(|sign| sign["name"].as_str()).collect();
    assert_eq!(names, SignName::ALL.map(|name| Some(name.as_str())));
    assert_eq!(
        signs[1],
        json!({
            "name": "loss-nonfinite",
            "title": "The loss is NaN",
            "state": "alarm",
            "first_step": 152,
            "count": 9,
            "evidence": [
                { "what": "loss", "value": "NaN", "against": null, "limit": null },
                {
                    "what": "NaN and Inf elements in the gradients",
                    "value": 6.0,
                    "against": null,
                    "limit": null,
                },
            ],
        })
    );
    assert_eq!(
        signs[5],
        json!({
            "name": "learning-rate-falls",
            "title": "The learning rate has to come down a lot",
            "state": "quiet",
            "first_step": null,
            "count": 0,
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
fn each_state_of_a_sign() {
    let loss = json!([{ "what": "loss", "value": 9.0, "against": null, "limit": null }]);
    for (given, state, first_step, evidence) in [
        ((None, 0, None), "quiet", Value::Null, json!([])),
        ((None, 0, Some(3)), "too-early", Value::Null, json!([])),
        ((Some(Severity::Strain), 1, None), "strain", json!(1200), loss.clone()),
        ((Some(Severity::Alarm), 2, None), "alarm", json!(1200), loss.clone()),
    ] {
        assert_eq!(
            value_of(&sign(&check::sign(SignName::MetricStalls, given))),
            json!({
                "name": "metric-stalls",
                "title": "Metric not improving or deteriorating",
                "state": state,
                "first_step": first_step,
                "count": given.1,
                "evidence": evidence,
            })
        );
    }
}

#[test]
fn fields_are_written_in_their_order_and_no_number_is_lost() {
    let report = |value, limit| EvidenceReport {
        what: "gain".into(),
        value,
        against: Some("calm".into()),
        limit,
    };
    for (value, limit, text) in [
        (f64::NAN, None, r#"{"what":"gain","value":"NaN","against":"calm","limit":null}"#),
        (
            f64::INFINITY,
            Some(f64::NEG_INFINITY),
            r#"{"what":"gain","value":"Infinity","against":"calm","limit":"-Infinity"}"#,
        ),
        (0.1, Some(1e300), r#"{"what":"gain","value":0.1,"against":"calm","limit":1e+300}"#),
    ] {
        let written = serde_json::to_string(&report(value, limit)).expect("reports serialize");
        assert_eq!(written, text);
    }
}

#[test]
fn a_healthy_run_has_nothing_chosen() {
    let guard = healthy();
    let given = given(&guard.diagnosis(), guard.record(), None);
    let report = FixReport { given, trials: vec![], chosen: None, fixed: None };
    let value = value_of(&report);
    assert_eq!((&value["chosen"], &value["fixed"]), (&Value::Null, &Value::Null));
    assert_eq!(value["trials"], json!([]));
    assert_eq!(value["given"]["metric"], Value::Null);
}
