//! What is wrong with a recipe, where, and what is allowed instead.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::de::{self, Fault, Place, Probe, Tag, What};
use super::near::{distance, is_near};
use super::{Data, Init, Model, Optimizer, Recipe};

/// The text is not a recipe.
///
/// Displays as `PATH:LINE:COLUMN: MESSAGE; HELP`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}{}", self.place(), self.hint())]
pub struct RecipeError {
    /// The file, when the text came from one.
    pub path: Option<PathBuf>,
    /// The text that was parsed; empty when the file could not be read.
    pub text: Box<str>,
    /// What the message is about, in bytes of `text`; empty where something is missing.
    pub span: Range<usize>,
    /// Line of the start of `span`, from 1; 0 when the file could not be read.
    pub line: usize,
    /// Column of the start of `span` in characters, from 1; 0 when the file could not be read.
    pub column: usize,
    /// What is there, and what should be.
    pub message: Box<str>,
    /// What is allowed or what to do next; empty when the message says all.
    pub help: Box<str>,
}

impl RecipeError {
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> RecipeError {
        RecipeError {
            path: Some(path.to_path_buf()),
            text: "".into(),
            span: 0..0,
            line: 0,
            column: 0,
            message: format!("cannot read the recipe: {error}").into(),
            help: "check the path; a recipe is a TOML file".into(),
        }
    }

    pub(super) fn not_utf8(path: &Path, error: &FromUtf8Error) -> RecipeError {
        let text = String::from_utf8_lossy(error.as_bytes());
        let start = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(start).copied().unwrap_or_default();
        let message = format!("got the byte 0x{byte:02x}, want UTF-8");
        let span = start..start + char::REPLACEMENT_CHARACTER.len_utf8();
        let help = "save the file as UTF-8".to_owned();
        RecipeError::new(&text, Some(path), span, message, help)
    }

    pub(super) fn syntax(text: &str, path: Option<&Path>, error: &toml::de::Error) -> RecipeError {
        let span = error.span().unwrap_or(0..0);
        let message = format!("not TOML: {}", error.message().replace('\n', ", "));
        let help = "want `key = value` lines under [section] headers".to_owned();
        RecipeError::new(text, path, span, message, help)
    }

    pub(super) fn of(
        text: &str,
        path: Option<&Path>,
        table: &DeTable<'_>,
        fault: Fault,
    ) -> RecipeError {
        let (what, place) = fault.into_parts();
        let (message, help) = words(&what, &place, text, table);
        RecipeError::new(text, path, place.span, message, help)
    }

    fn new(
        text: &str,
        path: Option<&Path>,
        span: Range<usize>,
        message: String,
        help: String,
    ) -> RecipeError {
        let (line, column) = line_and_column(text, span.start);
        let path = path.map(Path::to_path_buf);
        let (message, help) = (message.into(), help.into());
        RecipeError { path, text: text.into(), span, line, column, message, help }
    }

    fn place(&self) -> String {
        let path = self.path.as_ref().map(|path| format!("{}:", path.display()));
        let place = (self.line > 0).then(|| format!("{}:{}:", self.line, self.column));
        match format!("{}{}", path.unwrap_or_default(), place.unwrap_or_default()) {
            nowhere if nowhere.is_empty() => nowhere,
            place => place + " ",
        }
    }

    fn hint(&self) -> String {
        if self.help.is_empty() { String::new() } else { format!("; {}", self.help) }
    }
}

/// Message and help of a fault.
fn words(what: &What, place: &Place, text: &str, table: &DeTable<'_>) -> (String, String) {
    let got = got(text, &place.span);
    let inside = inside(&place.path);
    match what {
        What::UnknownKey { key, allowed, tag } => {
            let help = format!("allowed: {}{}", allowed.join(", "), did_you_mean(key, allowed));
            let owners = tag.as_ref().map(|tag| owners(key, &place.path, tag)).unwrap_or_default();
            match tag {
                Some(Tag { key: tag, value, .. }) if !owners.is_empty() => (
                    format!("key `{key}` {inside} does not belong to {tag} = \"{value}\""),
                    format!("it belongs to {}; {help}", owners.join(", ")),
                ),
                _ => (format!("unknown key `{key}` {inside}"), help),
            }
        }
        What::UnknownValue { allowed } => {
            let meant = did_you_mean(got.trim_matches(['"', '\'']), allowed);
            let help = format!("allowed: {}{meant}", allowed.join(", "));
            (format!("unknown value {got} for {}", label(&place.path)), help)
        }
        What::Missing { key } => {
            let want = what_is_allowed(&place.path, key, table);
            match place.path.is_empty() && want.starts_with("a table") {
                true => (format!("missing section [{key}]"), format!("want {want}")),
                false => (format!("missing key `{key}` {inside}"), format!("want {want}")),
            }
        }
        What::Want(want) => {
            (format!("got {got} for {}, want {want}", label(&place.path)), next_step(&got, want))
        }
        What::Conflict { message, help } => (message.clone(), help.clone()),
    }
}

/// The value as written, shortened to what fits a line.
fn got(text: &str, span: &Range<usize>) -> String {
    const LONGEST: usize = 40;
    let value = text.get(span.clone()).unwrap_or_default();
    let line = value.lines().next().unwrap_or_default();
    let short: String = line.chars().take(LONGEST).collect();
    if short.len() < value.len() { short + "..." } else { short }
}

/// `in [model]` for the path of a table.
fn inside(path: &str) -> String {
    match path.rsplit_once('[') {
        _ if path.is_empty() => "at the top level".to_owned(),
        Some((array, index)) if index.ends_with(']') => format!("in [[{array}]]"),
        _ => format!("in [{path}]"),
    }
}

/// `` `depth` in [model] `` for the path of a value.
fn label(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((table, key)) => format!("`{key}` {}", inside(table)),
        None => format!("`{path}`"),
    }
}

/// For a value of the wrong type, how to write it.
fn next_step(got: &str, want: &str) -> String {
    let inner = got.trim_matches(['"', '\'']);
    let help = if want.contains("number") && got != inner && inner.parse::<f64>().is_ok() {
        "write numbers without quotes"
    } else if want.contains("whole number") && got.parse::<f64>().is_ok_and(|v| v.fract() == 0.0) {
        if got.contains(['.', 'e', 'E']) {
            "write whole numbers without point or exponent"
        } else {
            ""
        }
    } else if want.contains("number") && (got.contains("nan") || got.contains("inf")) {
        "nan and inf are not allowed"
    } else if want.contains("text") && got == inner {
        "write texts in quotes"
    } else if want == "true or false" && got != inner {
        "write true and false without quotes"
    } else {
        ""
    };
    help.to_owned()
}

/// What the absent `key` of a table wants, found out by reading the document with a wrong value
/// there. The table is otherwise right, or the fault would be another.
fn what_is_allowed(path: &str, key: &str, table: &DeTable<'_>) -> String {
    match de::read::<Recipe>(table, Some(&Probe::new(path, key))).map_err(Fault::into_parts) {
        Err((What::Want(want), _)) => want,
        Err((What::UnknownValue { allowed }, _)) => format!("one of {}", allowed.join(", ")),
        _ => "a value".to_owned(),
    }
}

/// The values of a tag with which its table allows `key`.
fn owners(key: &str, path: &str, tag: &Tag) -> Vec<&'static str> {
    let keys = |value| match path {
        "data" => keys_with::<Data>(tag.key, value),
        "model" => keys_with::<Model>(tag.key, value),
        "optimizer" => keys_with::<Optimizer>(tag.key, value),
        path if path.ends_with("init") => keys_with::<Init>(tag.key, value),
        _ => Vec::new(),
    };
    tag.allowed.iter().copied().filter(|value| keys(value).contains(&key)).collect()
}

/// The keys that a table allows with this value of its tag: as told by the fault of one that none
/// allows.
fn keys_with<T: DeserializeOwned>(tag: &str, value: &str) -> Vec<&'static str> {
    let text = format!("{tag} = \"{value}\"\n\"\" = 0\n");
    let Ok(table) = DeTable::parse(&text) else {
        return Vec::new();
    };
    match de::read::<T>(table.get_ref(), None).map_err(|fault| fault.into_parts().0) {
        Err(What::UnknownKey { allowed, .. }) => allowed,
        _ => Vec::new(),
    }
}

fn did_you_mean(got: &str, allowed: &[&'static str]) -> String {
    let nearest = allowed.iter().filter(|name| is_near(got, name));
    match nearest.min_by_key(|name| distance(got, name)) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}

/// Line and column, both from 1, the column in characters, of a byte of the text.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::line_and_column;

    #[test]
    fn columns_count_characters() {
        let text = "a = 1\nµµ = 2\r\nb";
        for (byte, want) in [(0, (1, 1)), (4, (1, 5)), (6, (2, 1)), (10, (2, 3)), (17, (3, 2))] {
            assert_eq!(line_and_column(text, byte), want, "byte {byte}");
        }
    }
}
