//! Where the entries of a recipe stand in its text.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A key with its value, or an element of an array.
pub(super) struct Entry<'a> {
    /// Dotted path, such as `model.mlp.layer[1].index`.
    pub(super) path: String,
    /// The bytes of the key; of an element of an array, those of the element.
    pub(super) key: Range<usize>,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl Entry<'_> {
    /// The text that it holds, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        self.value.get_ref().as_str()
    }
}

/// All entries of a document, each before those inside it.
pub(super) fn entries<'a>(root: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut all = Vec::new();
    add_table(root, "", &mut all);
    all
}

fn add_table<'a>(table: &'a DeTable<'a>, path: &str, all: &mut Vec<Entry<'a>>) {
    for (key, value) in table {
        add(join(path, key.get_ref()), key.span(), value, all);
    }
}

fn add<'a>(
    path: String,
    key: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
    all: &mut Vec<Entry<'a>>,
) {
    all.push(Entry { path: path.clone(), key, value });
    match value.get_ref() {
        DeValue::Table(table) => add_table(table, &path, all),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                add(format!("{path}[{index}]"), element.span(), element, all);
            }
        }
        _ => {}
    }
}

/// The path of a key in the table at a path.
pub(super) fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// The path of the table that holds an entry, and the entry's key.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}
