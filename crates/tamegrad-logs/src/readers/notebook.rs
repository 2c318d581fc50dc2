//! Jupyter notebooks: what the cells printed, and the tables that they showed, read as text.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tamegrad_runs::ReadError;

use super::text;
use super::{Format, Head, Reader};
use crate::files::open;
use crate::log::LogBuilder;

/// `.ipynb` files.
pub(crate) const READER: Reader =
    Reader { format: Format::named("notebook"), recognises, read, ..Reader::OF_FILES };

/// Bytes of a notebook; most of a larger one are pictures.
const BYTES_MAX: u64 = 256 << 20;

fn recognises(head: &Head<'_>) -> bool {
    let is_json = head.bytes.trim_ascii_start().first() == Some(&b'{');
    let has = |word: &[u8]| memchr::memmem::find(head.bytes, word).is_some();
    is_json
        && has(b"\"cell_type\"")
        && open(head.path).is_ok_and(|file| text::is_training(head.path, output(file).as_bytes()))
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    for path in paths {
        let file = open(path).map_err(|error| ReadError::io(path, error))?;
        text::read_text(path, output(file).as_bytes(), log)?;
    }
    Ok(())
}

/// All that the cells of a notebook printed; nothing if it is no notebook.
fn output(file: File) -> String {
    let mut bytes = Vec::new();
    let mut text = String::new();
    if file.take(BYTES_MAX).read_to_end(&mut bytes).is_ok()
        && let Ok(notebook) = serde_json::from_slice::<Value>(&bytes)
    {
        collect(&notebook, &mut text);
    }
    text
}

/// Appends the outputs in a value, in their order, wherever they are: older notebooks have worksheets.
fn collect(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, text)),
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("outputs", Value::Array(outputs)) => {
                        outputs.iter().for_each(|output| print(output, text));
                    }
                    ("cells" | "worksheets", _) => collect(member, text),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Appends what one output shows: a table if it has one, else its text.
fn print(output: &Value, text: &mut String) {
    let data = output.get("data").unwrap_or(output);
    let html = joined(data.get("text/html").or_else(|| data.get("html")));
    let plain = data.get("text/plain").or_else(|| output.get("text"));
    if html.contains("<td") {
        push_table(&html, text);
    } else {
        text.push_str(&joined(plain));
    }
    text.push('\n');
}

/// A text, which notebooks hold whole or line by line.
fn joined(text: Option<&Value>) -> String {
    match text {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(lines)) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

/// Appends the rows of the tables in HTML, with tabs between the cells.
fn push_table(html: &str, text: &mut String) {
    for row in html.split("<tr").skip(1) {
        let row = row.split("</tr").next().unwrap_or_default();
        let cells = row.split("<t").skip(1).filter(|cell| cell.starts_with(['h', 'd']));
        let cells: Vec<String> = cells
            .filter_map(|cell| cell.split_once('>'))
            .map(|(_, rest)| plain(rest.split("</t").next().unwrap_or_default()))
            .collect();
        // The index of a data frame has no name.
        let from = usize::from(cells.len() > 1 && cells[0].is_empty());
        text.push_str(&cells[from..].join("\t"));
        text.push('\n');
    }
}

/// A cell without the tags in it.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut is_tag = false;
    for letter in html.chars() {
        match letter {
            '<' => is_tag = true,
            '>' => is_tag = false,
            _ if !is_tag => text.push(letter),
            _ => {}
        }
    }
    text.trim().to_owned()
}

/// Whether a path may be one by its name; the readers of JSON leave it alone.
pub(super) fn is_named_so(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("ipynb"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;
    use crate::readers::tests::{compare, read_text, survives};
    use serde_json::json;

    /// Whether a file of this content is a log.
    fn is_log(bytes: &[u8]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ipynb");
        std::fs::write(&path, bytes).unwrap();
        Source::open(&path).is_ok_and(|source| source.format().name == "notebook")
    }

    fn notebook(outputs: &[Value]) -> Vec<u8> {
        let cells = json!([
            {"cell_type": "markdown", "source": ["loss 3 is high"]},
            {"cell_type": "code", "source": ["print('loss 7')"], "outputs": outputs},
        ]);
        serde_json::to_vec(&json!({"cells": cells, "nbformat": 4})).unwrap()
    }

    #[test]
    fn what_cells_print_is_read_and_their_code_is_not() {
        let lines = ["step 1 loss 2.5\n", "step 2 loss 2.25\n", "step 3 loss nan\n"];
        let stream = json!({"output_type": "stream", "name": "stdout", "text": lines});
        let bytes = notebook(&[stream]);
        assert!(is_log(&bytes));
        compare(&read_text(&READER, "a.ipynb", &bytes), "loss: 1:2.5 2:2.25 3:NaN");
    }

    #[test]
    fn tables_are_read() {
        let html = "<table><thead><tr style='x'><th>epoch</th><th>train_loss</th><th>valid_loss</th>\
                    </tr></thead><tbody><tr><td>0</td><td>2.5</td><td>3.0</td></tr>\
                    <tr><td>1</td><td><b>nan</b></td><td>nan</td></tr></tbody></table>";
        let shown = json!({"output_type": "display_data", "data": {"text/html": [html]}});
        let bytes = notebook(&[shown]);
        compare(
            &read_text(&READER, "a.ipynb", &bytes),
            "train_loss: 0:2.5 1:NaN
             valid_loss: 0:3 1:NaN",
        );
    }

    #[test]
    fn a_notebook_without_training_is_no_log() {
        assert!(!is_log(&notebook(&[json!({"text": "hello"})])));
        survives(&READER, b"{\"cell_type\": [[[");
    }
}
