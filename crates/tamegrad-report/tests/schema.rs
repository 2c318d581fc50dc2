//! Holds `docs/diagnosis.schema.json` to the names of the code, in their order.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tamegrad::causes::{CauseName, Ground};
use tamegrad::inspection::OperationKind;
use tamegrad::remedies::{Change, Grade, NormPlace, RemedyName, Scheme};
use tamegrad::{LayerId, Place, Quantity, Reference, Severity, SignName, Stage, TensorId, Verdict};
use tamegrad_report::json::{SCHEMA, SignState};

fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/diagnosis.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the schema")).expect("JSON")
}

/// Compares what stands at a place of the schema, given as a JSON pointer.
fn check(at: &str, names: &[&str]) {
    assert!(!names.is_empty(), "{at}");
    let schema = schema();
    let got = schema.pointer(at).unwrap_or(&Value::Null);
    assert_eq!(*got, json!(names), "write the right side into docs/diagnosis.schema.json at {at}");
}

#[test]
fn the_schema_has_every_name() {
    fn names<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> Vec<&'static str> {
        all.iter().copied().map(name).collect()
    }
    for (of, names) in [
        ("verdict", names(Verdict::ALL, Verdict::as_str)),
        ("sign_name", names(&SignName::ALL, SignName::as_str)),
        ("cause_name", names(CauseName::ALL, CauseName::as_str)),
        ("remedy_name", names(RemedyName::ALL, RemedyName::as_str)),
        ("ground", names(Ground::ALL, Ground::as_str)),
        ("operation_kind", names(OperationKind::ALL, OperationKind::as_str)),
        ("stage", names(Stage::ALL, Stage::as_str)),
        ("quantity", names(Quantity::ALL, Quantity::as_str)),
        ("reference", names(Reference::ALL, Reference::as_str)),
    ] {
        check(&format!("/$defs/{of}/enum"), &names);
    }
    check("/$defs/finding/properties/severity/enum", &names(Severity::ALL, Severity::as_str));
    check("/$defs/remedy/properties/grade/enum", &names(Grade::ALL, Grade::as_str));
    check("/$defs/sign/properties/state/enum", &names_read(json!("?"), as_read::<SignState>));
    assert_eq!(schema()["properties"]["schema"]["const"], SCHEMA);
}

#[test]
fn the_schema_wants_every_sign() {
    let schema = schema();
    let signs = &schema["properties"]["signs"];
    let count = SignName::ALL.len();
    let want = json!([count, count]);
    let got = json!([signs["minItems"], signs["maxItems"]]);
    assert_eq!(got, want, "minItems and maxItems of signs in docs/diagnosis.schema.json");
}

#[test]
fn the_schema_has_every_kind_of_place() {
    // Without a branch for a new place this does not compile.
    let after = |place| match place {
        Place::Run => Some(Place::Data),
        Place::Data => Some(Place::Input(0)),
        Place::Input(_) => Some(Place::Targets),
        Place::Targets => Some(Place::Layer(LayerId(0))),
        Place::Layer(layer) => Some(Place::LayerInput(layer)),
        Place::LayerInput(layer) => Some(Place::Output(layer)),
        Place::Output(_) => Some(Place::Loss),
        Place::Loss => Some(Place::LossGradient),
        Place::LossGradient => Some(Place::Gradients),
        Place::Gradients => Some(Place::Tensor(TensorId(0))),
        Place::Tensor(_) => None,
    };
    let places = std::iter::successors(Some(Place::Run), |place| after(*place));
    check("/$defs/place_kind/enum", &places.map(Place::kind).collect::<Vec<_>>());
}

#[test]
fn the_schema_has_every_kind_of_change() {
    let schema = schema();
    let changes = schema["$defs"]["change"]["oneOf"].as_array().expect("a list");
    let at = |kind: &str| changes.iter().find(|of| of["properties"]["kind"]["const"] == kind);
    let got: Vec<&Value> = changes.iter().map(|of| &of["properties"]["kind"]["const"]).collect();
    assert_eq!(json!(got), json!(names_read(json!({ "kind": "?" }), as_read::<Change>)));
    let enum_of = |kind, property: &str| at(kind).map(|of| &of["properties"][property]["enum"]);
    let schemes: Vec<&str> = Scheme::ALL.iter().map(|of| of.as_str()).collect();
    assert_eq!(enum_of("reinitialise", "scheme"), Some(&json!(schemes)));
    let places: Vec<&str> = NormPlace::ALL.iter().map(|of| of.as_str()).collect();
    assert_eq!(enum_of("batch-norm", "place"), Some(&json!(places)));
}

fn as_read<T: DeserializeOwned>(value: Value) -> String {
    serde_json::from_value::<T>(value).err().map_or(String::new(), |error| error.to_string())
}

/// The names that serde says it wants where it gets another: ``unknown variant `?`, expected one of `a`, `b` ``.
fn names_read(unknown: Value, error: fn(Value) -> String) -> Vec<&'static str> {
    let error: &'static str = error(unknown).leak();
    let (_, wanted) = error.split_once("expected one of ").expect("the names that are wanted");
    wanted.split('`').skip(1).step_by(2).collect()
}
