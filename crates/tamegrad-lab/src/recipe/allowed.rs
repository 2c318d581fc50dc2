//! What a recipe may hold at a path, found out by reading one that holds something impossible there.
//!
//! So the structs stay the only description of the format, and serde's derive the only reader.

use serde::Deserialize;
use toml::de::ValueDeserializer;

use super::Recipe;
use super::place::join;

/// What the table at a path may hold.
pub(super) struct Allowed {
    /// Of its keys.
    pub(super) names: Vec<String>,
    /// Whether it holds one of them alone, as `[model]` does.
    pub(super) is_one: bool,
}

impl Allowed {
    /// In the table at `path`; of a value with a name instead of a table the names.
    pub(super) fn at(path: &str) -> Allowed {
        let message = fault(&join(path, ""), "0");
        let names: Vec<String> = match message.split_once("available keys: ") {
            Some((_, keys)) => {
                keys.split(", ").filter(|key| !key.is_empty()).map(Into::into).collect()
            }
            // unknown field ``, expected one of `a`, `b`
            None => message.split('`').skip(3).step_by(2).map(Into::into).collect(),
        };
        Allowed { is_one: message.starts_with("unknown variant"), names }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    pub(super) fn list(&self) -> String {
        self.names.join(", ")
    }
}

/// What the value at `path` must be, where nothing is yet.
pub(super) fn wanted(path: &str) -> String {
    // No required key takes a truth value.
    want(path, &fault(path, "false"))
}

/// What the value at `path` must be, by the message that serde has for a wrong one. A message that
/// `recipe/number.rs` wrote says it already.
pub(super) fn want(path: &str, message: &str) -> String {
    if message.starts_with("wanted ") || message.contains("unit variant") {
        let allowed = Allowed::at(path);
        let names = allowed.list();
        return if is_table(path, &allowed) {
            format!("a table with one of {names}")
        } else {
            format!("one of {names}")
        };
    }
    match message.split_once(", expected ") {
        Some((_, wanted)) if wanted.starts_with("struct ") => {
            format!("a table with the keys {}", Allowed::at(path).list())
        }
        Some((_, "a boolean")) => "true or false".to_owned(),
        Some((_, "a string")) => "a text".to_owned(),
        Some((_, "a sequence")) => "an array".to_owned(),
        Some((_, wanted)) => wanted.to_owned(),
        None => message.to_owned(),
    }
}

/// Whether the names at `path` are those of tables.
pub(super) fn is_table(path: &str, allowed: &Allowed) -> bool {
    let first = allowed.names.first().map(|name| format!("{name:?}"));
    first.is_some_and(|name| fault(path, &name).contains("unit variant"))
}

/// What is wrong with a recipe that holds nothing but `value` at `path`.
fn fault(path: &str, value: &str) -> String {
    let text = path.rsplit('.').fold(value.to_owned(), |inner, step| match step.split_once('[') {
        Some((key, _)) => format!("{{ {key:?} = [{inner}] }}"),
        None => format!("{{ {step:?} = {inner} }}"),
    });
    let read = ValueDeserializer::parse(&text).and_then(Recipe::deserialize);
    read.err().map(|error| error.message().to_owned()).unwrap_or_default()
}
