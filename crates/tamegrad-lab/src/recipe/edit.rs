//! Changes to a recipe's text that leave its comments, order and layout as they are.

use std::ops::Range;
use std::path::Path;

use toml_edit::{
    Array, ArrayOfTables, Document, DocumentMut, InlineTable, Item, Table, TableLike, Value,
};

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// Dotted path of the key, such as `clip.limit`. `model.mlp.layer[3].activation` is in the
    /// `[[model.mlp.layer]]` whose `index` is 3; `model.mlp.layer[3]` is that entry,
    /// `model.mlp.layer` all.
    pub key: String,
    /// What becomes of it.
    pub value: EditValue,
}

/// The new value of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum EditValue {
    /// A finite number, written in its shortest form.
    Float(f64),
    /// A whole number.
    Integer(i64),
    /// A text, such as the name of an activation.
    Text(String),
    /// True or false.
    Bool(bool),
    /// The key goes, with the comment directly above it and on its line; nothing happens when it is
    /// not there.
    Remove,
}

/// An edit that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text to be edited is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// The key is not a dotted path.
    #[error(
        "got the key `{0}`, want names with dots between them, as in `model.mlp.layer[3].init`"
    )]
    Key(String),
    /// A part of the path is there, but cannot hold the rest.
    #[error("cannot set `{key}`: `{part}` is {got}, want {want}")]
    Mismatch {
        /// The key to be set.
        key: String,
        /// The part of it that stands in the way.
        part: String,
        /// What it is in the text.
        got: &'static str,
        /// What it would have to be.
        want: &'static str,
    },
    /// The number is not finite.
    #[error("got {value} for `{key}`, want a finite number")]
    NotFinite {
        /// The key to be set.
        key: String,
        /// The number as text.
        value: String,
    },
}

/// Makes the edits one after the other and returns the new text.
///
/// A missing section is added at the end as `[section]`, a missing table inside it as an inline
/// table, a missing layer as `[[model.mlp.layer]]` with its `index`.
///
/// # Errors
/// When `text` is not TOML or an edit cannot be made; see [`EditError`].
pub fn apply(text: &str, edits: &[Edit]) -> Result<String, EditError> {
    let mut edited = text.to_owned();
    for edit in edits {
        let steps = steps(&edit.key)?;
        edited = match value(edit)? {
            Some(value) => set(&edited, &steps, value)?,
            None => remove(&edited, &steps)?,
        };
    }
    Ok(edited)
}

/// The text with each relative path of `[data]` made absolute, as seen from `folder`, so that it may
/// be written to another one. A text that is not TOML comes back as it is.
pub fn absolute_paths(text: &str, folder: &Path) -> String {
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return text.to_owned();
    };
    let data = document.get_mut("data").and_then(Item::as_table_like_mut);
    let source = data.and_then(|data| data.iter_mut().next()?.1.as_table_like_mut());
    let Some(source) = source else { return text.to_owned() };
    for key in ["path", "images", "labels", "test_images", "test_labels"] {
        let Some(Item::Value(value)) = source.get_mut(key) else {
            continue;
        };
        let Some(path) = value.as_str().map(|path| folder.join(path)) else {
            continue;
        };
        // Only a folder that is gone has no absolute path; then the joined one is as good.
        let absolute = std::path::absolute(&path).unwrap_or(path);
        if absolute.to_str() != value.as_str() {
            replace(value, absolute.to_string_lossy().as_ref().into());
        }
    }
    with_line_ends_of(text, document.to_string())
}

/// A part of a dotted key: a name, and which entry of the array of that name.
struct Step<'a> {
    /// The dotted key.
    whole: &'a str,
    key: &'a str,
    index: Option<i64>,
}

fn steps(whole: &str) -> Result<Vec<Step<'_>>, EditError> {
    let plain = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    let step = |part| {
        let (key, index) = match str::split_once(part, '[') {
            Some((key, rest)) => (key, Some(rest.strip_suffix(']')?.parse::<u32>().ok()?.into())),
            None => (part, None),
        };
        plain(key).then_some(Step { whole, key, index })
    };
    whole
        .split('.')
        .map(step)
        .collect::<Option<_>>()
        .ok_or_else(|| EditError::Key(whole.to_owned()))
}

/// The value to be set; none for a removal.
fn value(edit: &Edit) -> Result<Option<Value>, EditError> {
    Ok(Some(match &edit.value {
        EditValue::Float(value) => float(*value).ok_or_else(|| EditError::NotFinite {
            key: edit.key.clone(),
            value: value.to_string(),
        })?,
        EditValue::Integer(value) => (*value).into(),
        EditValue::Text(value) => value.as_str().into(),
        EditValue::Bool(value) => (*value).into(),
        EditValue::Remove => return Ok(None),
    }))
}

/// `1e-8` rather than `0.00000001`, which is what `toml_edit` would write.
fn float(value: f64) -> Option<Value> {
    if value.is_finite() { format!("{value:?}").parse().ok() } else { None }
}

fn set(text: &str, steps: &[Step<'_>], value: Value) -> Result<String, EditError> {
    let mut document: DocumentMut = text.parse().map_err(syntax)?;
    let before = document.clone();
    set_in(document.as_table_mut(), Form::Root, steps, value)?;
    keep_last_comment_in_place(&before, &mut document);
    Ok(with_line_ends_of(text, document.to_string()))
}

fn syntax(error: toml_edit::TomlError) -> EditError {
    EditError::Syntax(error.message().replace('\n', ", "))
}

/// How a table is written, which decides how one inside it may be.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Root,
    Header,
    /// As an inline table or as dotted keys: neither can hold a header.
    Inline,
}

/// The error of a part of the path that cannot hold the rest.
fn mismatch(step: &Step<'_>, item: &Item, want: &'static str) -> EditError {
    let got = match item {
        Item::None => "not there",
        Item::Table(_) | Item::Value(Value::InlineTable(_)) => "a table",
        Item::ArrayOfTables(_) | Item::Value(Value::Array(_)) => "an array",
        Item::Value(_) => "a plain value",
    };
    EditError::Mismatch { key: step.whole.to_owned(), part: step.key.to_owned(), got, want }
}

fn set_in(
    table: &mut dyn TableLike,
    form: Form,
    steps: &[Step<'_>],
    value: Value,
) -> Result<(), EditError> {
    let Some((step, rest)) = steps.split_first() else {
        return Ok(());
    };
    let form = if table.is_dotted() { Form::Inline } else { form };
    if rest.is_empty() && step.index.is_none() {
        return set_value(table, form, step, value);
    }
    if !table.contains_key(step.key) {
        match (step.index, form) {
            (None, Form::Root) => {
                table.insert(step.key, Item::Table(Table::new()));
            }
            (None, _) => insert(table, form, step.key, InlineTable::new().into()),
            (Some(_), Form::Inline) => insert(table, form, step.key, Array::new().into()),
            (Some(_), _) => {
                table.insert(step.key, Item::ArrayOfTables(ArrayOfTables::new()));
            }
        }
    }
    let want = if step.index.is_some() { "an array of tables" } else { "a table" };
    match (table.get_mut(step.key), step.index) {
        (None, _) => Err(mismatch(step, &Item::None, want)),
        (Some(array), Some(_)) if rest.is_empty() => {
            Err(mismatch(step, array, "a key inside the entry"))
        }
        (Some(array), Some(index)) => {
            if entry(array, index).is_none() {
                match array {
                    Item::ArrayOfTables(entries) => {
                        entries.push(Table::from_iter([("index", index)]));
                    }
                    Item::Value(Value::Array(entries)) => {
                        entries.push(InlineTable::from_iter([("index", index)]));
                    }
                    _ => {}
                }
            }
            match entry(array, index) {
                Some((entry, form)) => set_in(entry, form, rest, value),
                None => Err(mismatch(step, array, want)),
            }
        }
        (Some(Item::Table(inner)), None) => set_in(inner, Form::Header, rest, value),
        (Some(Item::Value(Value::InlineTable(inner))), None) => {
            set_in(inner, Form::Inline, rest, value)
        }
        (Some(other), None) => Err(mismatch(step, other, want)),
    }
}

fn set_value(
    table: &mut dyn TableLike,
    form: Form,
    step: &Step<'_>,
    value: Value,
) -> Result<(), EditError> {
    match table.get_mut(step.key) {
        None => insert(table, form, step.key, value),
        Some(Item::Value(old)) if !old.is_inline_table() && !old.is_array() => replace(old, value),
        Some(other) => return Err(mismatch(step, other, "a plain value")),
    }
    Ok(())
}

/// The entry of an array of tables that has this `index`, and how it is written.
fn entry(array: &mut Item, index: i64) -> Option<(&mut dyn TableLike, Form)> {
    match array {
        Item::ArrayOfTables(entries) => {
            let entry = entries.iter_mut().find(|entry| has_index(*entry, index))?;
            Some((entry, Form::Header))
        }
        Item::Value(Value::Array(entries)) => {
            let mut entries = entries.iter_mut().filter_map(Value::as_inline_table_mut);
            let entry = entries.find(|entry| has_index(*entry, index))?;
            Some((entry, Form::Inline))
        }
        _ => None,
    }
}

fn has_index(entry: &dyn TableLike, index: i64) -> bool {
    entry.get("index").and_then(Item::as_integer) == Some(index)
}

/// Puts `value` where `old` is, with the space and the comment round it.
fn replace(old: &mut Value, value: Value) {
    let decor = old.decor().clone();
    *old = value;
    *old.decor_mut() = decor;
}

/// Adds a key at the end of a table.
fn insert(table: &mut dyn TableLike, form: Form, key: &str, mut value: Value) {
    if form == Form::Inline && !table.is_dotted() {
        // The space before the closing brace belongs to the last value, whichever that is.
        if let Some((_, Item::Value(last))) = table.iter_mut().last() {
            let space = last.decor().suffix().and_then(|suffix| suffix.as_str());
            if let Some(space) = space.map(str::to_owned) {
                last.decor_mut().set_suffix("");
                value.decor_mut().set_suffix(space);
            }
        }
    }
    table.insert(key, Item::Value(value));
}

/// A comment after the last key belongs to what stands before it: when a section was added after
/// it, the comment stays where it was.
fn keep_last_comment_in_place(before: &DocumentMut, document: &mut DocumentMut) {
    let comment = before.trailing().as_str().unwrap_or_default().to_owned();
    let (old, new) = (before.to_string(), document.to_string());
    let body = &old[..old.len() - comment.len()];
    let grown_at_the_end = new.len() > old.len() && new.starts_with(body);
    if !comment.contains('#') || !grown_at_the_end {
        return;
    }
    let added = new[body.len()..new.len() - comment.len()].trim_start_matches('\n');
    if !added.starts_with('[') {
        return;
    }
    if let Ok(moved) = format!("{body}{}\n\n{added}", comment.trim_end()).parse() {
        *document = moved;
    }
}

/// `toml_edit` writes `\n` only.
fn with_line_ends_of(original: &str, text: String) -> String {
    if original.contains("\r\n") { text.replace("\r\n", "\n").replace('\n', "\r\n") } else { text }
}

fn remove(text: &str, steps: &[Step<'_>]) -> Result<String, EditError> {
    let document = Document::parse(text).map_err(syntax)?;
    match find(document.as_table(), steps) {
        Found::Nothing => Ok(text.to_owned()),
        Found::Lines(ranges) => Ok(without_lines(text, ranges)),
        Found::Inline => {
            let mut document: DocumentMut = text.parse().map_err(syntax)?;
            remove_inline(document.as_table_mut(), steps);
            Ok(with_line_ends_of(text, document.to_string()))
        }
    }
}

/// Where that which is to be removed stands.
enum Found {
    Nothing,
    /// On lines of its own: the bytes from its first key or header to its last value.
    Lines(Vec<Range<usize>>),
    /// Among other values of an inline table or array.
    Inline,
}

fn find(table: &Table, steps: &[Step<'_>]) -> Found {
    let Some((step, rest)) = steps.split_first() else {
        return Found::Nothing;
    };
    let Some((key, item)) = table.get_key_value(step.key) else {
        return Found::Nothing;
    };
    match (item, step.index) {
        (Item::Table(inner), None) if !rest.is_empty() => find(inner, rest),
        (Item::ArrayOfTables(entries), Some(index)) => {
            match entries.iter().find(|entry| has_index(*entry, index)) {
                Some(entry) if rest.is_empty() => Found::Lines(ranges_of_table(entry)),
                Some(entry) => find(entry, rest),
                None => Found::Nothing,
            }
        }
        (Item::Value(_), None) if rest.is_empty() => {
            Found::Lines(range_of_value(key.span(), item).into_iter().collect())
        }
        (Item::Table(inner), None) => Found::Lines(ranges_of_table(inner)),
        (Item::ArrayOfTables(entries), None) if rest.is_empty() => {
            Found::Lines(entries.iter().flat_map(ranges_of_table).collect())
        }
        (Item::Value(Value::InlineTable(_) | Value::Array(_)), _) => Found::Inline,
        _ => Found::Nothing,
    }
}

fn range_of_value(key: Option<Range<usize>>, item: &Item) -> Option<Range<usize>> {
    Some(key?.start..item.span()?.end)
}

/// The ranges of a table and of the tables in it; from its header to its last value is one.
fn ranges_of_table(table: &Table) -> Vec<Range<usize>> {
    let mut own = if table.is_implicit() || table.is_dotted() { None } else { table.span() };
    let mut ranges = Vec::new();
    for (key, item) in table.iter() {
        let key = table.key(key).and_then(|key| key.span());
        match (item, &mut own) {
            (Item::Table(inner), _) => ranges.extend(ranges_of_table(inner)),
            (Item::ArrayOfTables(entries), _) => {
                ranges.extend(entries.iter().flat_map(ranges_of_table));
            }
            (_, None) => ranges.extend(range_of_value(key, item)),
            (_, Some(own)) => {
                own.end = range_of_value(key, item).map_or(own.end, |value| own.end.max(value.end));
            }
        }
    }
    ranges.extend(own);
    ranges
}

/// The text without the lines of the ranges, the comments directly above them, and the blank lines
/// that would then stand double.
fn without_lines(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_by_key(|range| range.start);
    let mut text = text.to_owned();
    for range in ranges.into_iter().rev() {
        let lines = lines_to_remove(&text, range);
        text.replace_range(lines, "");
    }
    text
}

fn lines_to_remove(text: &str, range: Range<usize>) -> Range<usize> {
    let mut start = start_of_line(text, range.start);
    let mut end = text[range.end..].find('\n').map_or(text.len(), |end| range.end + end + 1);
    while start > 0 && line_above(text, start).trim_start().starts_with('#') {
        start -= line_above(text, start).len();
    }
    let is_blank = |line: &str| !line.is_empty() && line.trim().is_empty();
    if start == 0 || is_blank(line_above(text, start)) {
        while let Some(line) = text[end..].split_inclusive('\n').next().filter(|l| is_blank(l)) {
            end += line.len();
        }
    }
    while end == text.len() && is_blank(line_above(text, start)) {
        start -= line_above(text, start).len();
    }
    start..end
}

fn start_of_line(text: &str, byte: usize) -> usize {
    text[..byte].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The line, with its end, before the one that starts at `start`.
fn line_above(text: &str, start: usize) -> &str {
    let before = &text[..start];
    let above = before.strip_suffix('\n').map_or(0, |line| start_of_line(line, line.len()));
    &before[above..]
}

/// Removes what [`find`] found inside an inline table or array.
fn remove_inline(table: &mut dyn TableLike, steps: &[Step<'_>]) {
    let Some((step, rest)) = steps.split_first() else {
        return;
    };
    if rest.is_empty() && step.index.is_none() {
        remove_key(table, step.key);
        return;
    }
    match (table.get_mut(step.key), step.index) {
        (Some(Item::Value(Value::Array(entries))), Some(index)) if rest.is_empty() => {
            let is_it =
                |entry: &Value| entry.as_inline_table().is_some_and(|e| has_index(e, index));
            let at = entries.iter().position(is_it);
            if let Some(at) = at {
                entries.remove(at);
            }
        }
        (Some(array), Some(index)) => {
            if let Some((entry, _)) = entry(array, index) {
                remove_inline(entry, rest);
            }
        }
        (Some(inner), None) => {
            if let Some(inner) = inner.as_table_like_mut() {
                remove_inline(inner, rest);
            }
        }
        (None, _) => {}
    }
}

/// Removes a key of an inline table; the space before the closing brace stays.
fn remove_key(table: &mut dyn TableLike, key: &str) {
    let is_last = table.iter().last().is_some_and(|(last, _)| last == key);
    let removed = table.remove(key);
    let (Some(Item::Value(removed)), true) = (removed, is_last) else {
        return;
    };
    let space = removed.decor().suffix().and_then(|space| space.as_str()).unwrap_or_default();
    if let Some((_, Item::Value(last))) = table.iter_mut().last() {
        last.decor_mut().set_suffix(space);
    }
}

#[cfg(test)]
mod tests;
