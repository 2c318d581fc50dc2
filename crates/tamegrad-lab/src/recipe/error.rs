//! What is wrong with a recipe, where, and what is allowed instead.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use toml::de::{DeTable, Error};

use super::allowed::{self, Allowed};
use super::check::Conflict;
use super::near::{distance, is_near};
use super::place::{Entry, entries, join, split};

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
        RecipeError::new(&text, Some(path), (span, message, help))
    }

    /// Of a text that came from `path`.
    pub(super) fn new(text: &str, path: Option<&Path>, told: Told) -> RecipeError {
        let (span, message, help) = told;
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

/// What is told of a text: the bytes that it is about, message and help.
pub(super) type Told = (Range<usize>, String, String);

/// Of a text that is not TOML.
pub(super) fn syntax(error: &Error) -> Told {
    let message = format!("not TOML: {}", error.message().replace('\n', ", "));
    let help = "want `key = value` lines under [section] headers".to_owned();
    (error.span().unwrap_or(0..0), message, help)
}

/// Of a value that another one, or the machine, forbids; of one that is not there, its table is shown.
pub(super) fn at_odds(table: &DeTable<'_>, conflict: Conflict) -> Told {
    let Conflict { path, message, help } = conflict;
    let entries = entries(table);
    let mut of = &*path;
    let at = loop {
        match entries.iter().find(|entry| entry.path == of) {
            None if !of.is_empty() => of = split(of).0,
            at => break at,
        }
    };
    let span = at.map_or(0..0, |at| if of == path { at.value.span() } else { at.key.clone() });
    (span, message, help.to_owned())
}

/// Of a table that serde refused.
pub(super) fn refused(text: &str, table: &DeTable<'_>, error: &Error) -> Told {
    let (span, message) = (error.span().unwrap_or(0..0), error.message());
    let entries = &entries(table);
    let got = got(text, &span);
    // Of an array of tables and its first table, which share a span, it is about the table.
    let of_value = entries.iter().rfind(|entry| entry.value.span() == span);
    let path = of_value.map_or("", |entry| &entry.path);
    let is_name = message.starts_with("unknown variant");
    if is_name && of_value.is_some_and(|entry| entry.text().is_some()) {
        let allowed = Allowed::at(path);
        let help = allowed_instead(got.trim_matches(['"', '\'']), &allowed);
        return (span, format!("unknown value {got} for {}", label(path)), help);
    }
    if is_name || message.starts_with("unknown field") || message.starts_with("unexpected keys") {
        let of_key = entries.iter().rfind(|entry| entry.key == span);
        return unknown_key(text, entries, of_key.map_or("", |entry| &entry.path));
    }
    if let Some(key) = message.strip_prefix("missing field `") {
        let key = key.trim_end_matches('`');
        let want = allowed::wanted(&join(path, key));
        let message = if path.is_empty() && want.starts_with("a table") {
            format!("missing section [{key}]")
        } else {
            format!("missing key `{key}` {}", inside(path))
        };
        return (span, message, format!("want {want}"));
    }
    let want = allowed::want(path, message);
    if !message.starts_with("wanted exactly") {
        let help = next_step(path, &got, &want);
        return (span, format!("got {got} for {}, want {want}", label(path)), help);
    }
    // A table that holds one of several: it has none, or more than one key.
    let allowed = Allowed::at(path);
    let keys = entries.iter().filter(|entry| split(&entry.path).0 == path);
    let (known, unknown): (Vec<_>, Vec<_>) =
        keys.map(|entry| &*entry.path).partition(|key| allowed.has(split(key).1));
    if let Some(key) = unknown.first() {
        return unknown_key(text, entries, key);
    }
    let known: Vec<&str> = known.iter().map(|key| split(key).1).collect();
    let got = if known.is_empty() { "nothing".to_owned() } else { known.join(" and ") };
    (span, format!("got {got} {}, want one of {}", inside(path), allowed.list()), String::new())
}

/// Of the key at `path`, which its table does not allow.
fn unknown_key(text: &str, entries: &[Entry<'_>], path: &str) -> Told {
    let (table, key) = split(path);
    let allowed = Allowed::at(table);
    if let Some(told) = old_form(text, entries, table, &allowed) {
        return told;
    }
    let span = entries.iter().find(|entry| entry.path == path).map_or(0..0, |e| e.key.clone());
    let owners = owners(table, key);
    let help = allowed_instead(key, &allowed);
    let help = if owners.is_empty() {
        help
    } else {
        format!("it belongs to {}; {help}", owners.join(", "))
    };
    (span, format!("unknown key `{key}` {}", inside(table)), help)
}

/// In recipes of an earlier form a key `kind`, `source` or `scheme` said which of several it is.
fn old_form(text: &str, entries: &[Entry<'_>], table: &str, allowed: &Allowed) -> Option<Told> {
    let is_tag = |entry: &&Entry<'_>| {
        let (of, key) = split(&entry.path);
        of == table && ["kind", "source", "scheme"].contains(&key)
    };
    let entry = entries.iter().filter(|_| allowed.is_one).find(is_tag)?;
    let name = entry.text()?;
    let (_, tag) = split(&entry.path);
    let got = got(text, &entry.value.span());
    let message = format!("got {tag} = {got} {}, want {}", inside(table), example(table, name));
    let help = if table == "data" {
        "write the other keys under it, and scale_input and scale_target as [scale] input and target"
    } else {
        "write the other keys in it"
    };
    Some((entry.value.span(), message, help.to_owned()))
}

/// How a recipe says which of several the table at `path` is.
fn example(path: &str, name: &str) -> String {
    let (table, key) = split(path);
    if table.is_empty() {
        format!("[{key}.{name}]")
    } else {
        format!("{key} = {{ {name} = {{}} }}")
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
fn next_step(path: &str, got: &str, want: &str) -> String {
    let inner = got.trim_matches(['"', '\'']);
    let help = if want.starts_with("a table with one of") && Allowed::at(path).has(inner) {
        return format!("write {}", example(path, inner));
    } else if want.contains("number") && got != inner && inner.parse::<f64>().is_ok() {
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

/// Which of several tables allow `key`, where `table` is one of them or holds one of them.
fn owners(table: &str, key: &str) -> Vec<String> {
    let parent = split(table).0;
    let of = [table, parent].into_iter().find(|path| Allowed::at(path).is_one);
    let Some(of) = of else { return Vec::new() };
    let mut names = Allowed::at(of).names;
    names.retain(|name| Allowed::at(&join(of, name)).has(key));
    names
}

fn allowed_instead(got: &str, allowed: &Allowed) -> String {
    let near = allowed.names.iter().filter(|name| is_near(got, name));
    let meant = near.min_by_key(|name| distance(got, name));
    let meant = meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    let list = if allowed.names.is_empty() { "nothing".to_owned() } else { allowed.list() };
    format!("allowed: {list}{meant}")
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
