//! From the bytes of an input to the files that a reader wants.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::Value;

/// Stands between the parts of an input that becomes several files or records.
const MARK: &[u8] = b"\n--\n";
/// Parts of an input that are used, and letters of a path.
const PARTS_MAX: usize = 64;
const PATH_MAX: usize = 100;

/// The parts of an input, between which stands a line `--`.
pub fn parts(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_over = false;
    let parts = std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let end = input.windows(MARK.len()).position(|bytes| bytes == MARK);
        is_over = end.is_none();
        let (part, rest) = input.split_at(end.unwrap_or(input.len()));
        input = rest.get(MARK.len()..).unwrap_or_default();
        Some(part)
    });
    parts.take(PARTS_MAX)
}

/// Makes a folder anew of the parts of an input, and gives the names in it, sorted. The first line
/// of a part is the path of a file below the folder, the rest is what the file holds. A path that
/// leads elsewhere, or to what is a folder already, is left out.
pub fn write_folder(folder: &Path, input: &[u8]) -> Vec<String> {
    // It is not there the first time.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder).expect("a temporary folder can be made");
    for part in parts(input) {
        let end = part.iter().position(|&byte| byte == b'\n').unwrap_or(part.len());
        let (path, rest) = part.split_at(end);
        let Some(path) = below(path).map(|path| folder.join(path)) else { continue };
        let made = path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok());
        let _ = made.then(|| fs::write(&path, rest.get(1..).unwrap_or_default()));
    }
    let entries = fs::read_dir(folder).expect("the folder was just made");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn below(path: &[u8]) -> Option<PathBuf> {
    let path = std::str::from_utf8(path).ok().filter(|path| path.len() <= PATH_MAX)?;
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
    Path::new(path).components().all(is_name).then(|| path.into())
}

/// The bytes of a database with the table that `schema` makes and the rows of an input: a line is a
/// row of `metrics`, its cells lie between tabs. An input that is a database is left as it is.
pub fn database(schema: &str, input: &[u8]) -> Vec<u8> {
    if input.starts_with(b"SQLite format 3\0") {
        return input.to_vec();
    }
    let make = || {
        let mut database = Connection::open_in_memory()?;
        database.execute_batch(schema)?;
        let columns = database.prepare("SELECT * FROM metrics")?.column_count();
        let places = vec!["?"; columns].join(",");
        let mut insert = database.prepare(&format!("INSERT INTO metrics VALUES ({places})"))?;
        for line in input.split(|&byte| byte == b'\n').take(PARTS_MAX) {
            let cells = line.split(|&byte| byte == b'\t').map(cell);
            let cells = cells.chain(std::iter::repeat(Value::Null)).take(columns);
            insert.execute(rusqlite::params_from_iter(cells))?;
        }
        drop(insert);
        Ok::<_, rusqlite::Error>(database.serialize("main")?.to_vec())
    };
    make().expect("a database in memory takes any row")
}

/// A cell: a number where the text is one, nothing where it is empty, a blob where it is no text.
fn cell(bytes: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(bytes) else { return Value::Blob(bytes.to_vec()) };
    match (text.parse(), text.parse()) {
        _ if text.is_empty() => Value::Null,
        (Ok(integer), _) => Value::Integer(integer),
        (_, Ok(real)) => Value::Real(real),
        _ => Value::Text(text.to_owned()),
    }
}
