//! trackio: a SQLite database for each project, with the numbers of a step as JSON.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row};
use serde_json::{Map, Value};
use tamegrad_runs::ReadError;

use super::sqlite::{self, RUNS_MAX};
use super::{Format, Head, Reader};
use crate::log::{LogBuilder, Point};
use crate::number::nonfinite;

pub(super) const READER: Reader = Reader {
    format: Format::named("trackio"),
    recognises: |head: &Head<'_>| sqlite::has_metrics(head, &COLUMNS),
    read,
    ..Reader::OF_FILES
};

const COLUMNS: [&str; 2] = ["metrics", "run_name"];

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    paths.iter().try_for_each(|path| read_database(path, log))
}

fn read_database(path: &Path, log: &mut LogBuilder) -> Result<(), ReadError> {
    let open = || {
        let database = sqlite::open_metrics(path, &COLUMNS)?;
        let columns = Columns::of(&database)?;
        let prefixes = run_prefixes(&database, &columns)?;
        Ok((database, columns, prefixes))
    };
    let (database, columns, prefixes) = open().map_err(|error| sqlite::broken(path, &error))?;
    let Columns { run, step, wall, .. } = columns;
    let query = format!("SELECT {run}, {step}, {wall}, metrics FROM metrics ORDER BY rowid");
    let mut rows_of_run: HashMap<String, i64> = HashMap::new();
    let mut left_out = 0_u64;
    sqlite::visit(path, &database, &query, log, |row, number, log| {
        let run = sqlite::name(row.get_ref(0)?);
        let Some(prefix) = prefixes.get(&run) else {
            left_out += 1;
            return Ok(());
        };
        let count = rows_of_run.entry(run).or_default();
        *count += 1;
        if let Err(text) = push_row(row, *count - 1, prefix, log)? {
            log.notice(path, None, format!("row {number} of metrics is left out: {text}"));
            log.lose(1);
        }
        Ok(())
    })?;
    if left_out > 0 {
        let text = format!("{left_out} rows of runs beyond the first {RUNS_MAX} are left out");
        log.notice(path, None, text);
    }
    Ok(())
}

/// What to select, as versions differ in their columns.
struct Columns {
    /// What tells runs apart.
    run: &'static str,
    /// What a run is called.
    name: &'static str,
    step: &'static str,
    wall: &'static str,
}

impl Columns {
    fn of(database: &Connection) -> rusqlite::Result<Self> {
        let names = sqlite::columns(database, "metrics")?;
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        // The first version kept all projects in one file.
        let name = if has("project_name") { "project_name || '/' || run_name" } else { "run_name" };
        Ok(Self {
            run: if has("run_id") { "run_id" } else { name },
            name,
            step: if has("step") { "step" } else { "NULL" },
            wall: if has("timestamp") { "unixepoch(timestamp, 'subsec')" } else { "NULL" },
        })
    }
}

/// What goes before the names of each run's series.
fn run_prefixes(
    database: &Connection,
    columns: &Columns,
) -> rusqlite::Result<HashMap<String, String>> {
    let Columns { run, name, .. } = columns;
    let query = format!("SELECT {run}, min({name}) FROM metrics GROUP BY 1 LIMIT {RUNS_MAX}");
    let mut query = database.prepare(&query)?;
    let runs = query
        .query_map([], |row| Ok((sqlite::name(row.get_ref(0)?), sqlite::name(row.get_ref(1)?))))?;
    let runs = runs.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(sqlite::prefixes(&runs, |run, name| format!("{name}-{}", sqlite::short(run))))
}

/// Pushes the numbers of a row, or says why there are none.
fn push_row(
    row: &Row<'_>,
    count: i64,
    prefix: &str,
    log: &mut LogBuilder,
) -> rusqlite::Result<Result<(), String>> {
    let step = sqlite::number(row.get_ref(1)?).map_or(count, |step| step as i64);
    let wall = sqlite::number(row.get_ref(2)?).unwrap_or(f64::NAN);
    let Some(json) = sqlite::bytes(row.get_ref(3)?) else {
        return Ok(Err("no JSON".to_owned()));
    };
    Ok(parse(json).map(|metrics| {
        push_object(&metrics, prefix, &mut |name, value| {
            log.push(name, Point { step, wall, value });
        });
    }))
}

fn parse(json: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(json)
        // The first versions wrote NaN and Infinity as they are in Python.
        .or_else(|error| serde_json::from_slice(&quote_nonfinite(json)).map_err(|_| error))
        .map_err(|error| error.to_string())
}

/// Pushes the numbers of an object, and of the objects in it, whose names are joined by `/`.
fn push_object(object: &Map<String, Value>, prefix: &str, push: &mut impl FnMut(&str, f64)) {
    for (key, value) in object {
        let name = format!("{prefix}{key}");
        match value {
            Value::Number(number) => push(&name, number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => {
                if let Some(value) = nonfinite(text.as_bytes()) {
                    push(&name, value);
                }
            }
            // With `_type` it is a picture, a table or the like.
            Value::Object(inner) if !inner.contains_key("_type") => {
                push_object(inner, &format!("{name}/"), push);
            }
            _ => {}
        }
    }
}

/// Puts quotes round a bare NaN or Infinity.
fn quote_nonfinite(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 16);
    let (mut rest, mut is_in_string) = (json, false);
    while let Some((&byte, after)) = rest.split_first() {
        let mut words = ["NaN", "Infinity", "-Infinity"].map(str::as_bytes).into_iter();
        let bare = words.find(|word| !is_in_string && rest.starts_with(word));
        let taken = match (byte, bare) {
            (_, Some(word)) => {
                out.push(b'"');
                out.extend_from_slice(word);
                out.push(b'"');
                word.len()
            }
            (b'\\', None) if is_in_string => {
                out.extend_from_slice(&rest[..rest.len().min(2)]);
                2
            }
            _ => {
                is_in_string ^= byte == b'"';
                out.push(byte);
                1
            }
        };
        rest = after.get(taken - 1..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    fn check(sql: &str, want: &[(&str, i64, &str)], notices: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("project.db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let source = Source::open(&path).unwrap();
        assert_eq!(source.format().name, "trackio");
        let log = source.read().unwrap();
        let mut got = Vec::new();
        for series in &log.series {
            let row = |p: &Point| (series.name.clone(), p.step, p.value.to_string());
            got.extend(series.points.iter().map(row));
        }
        let want: Vec<_> = want.iter().map(|w| (w.0.to_owned(), w.1, w.2.to_owned())).collect();
        assert_eq!(got, want);
        let texts: Vec<&str> = log.notices.iter().map(|notice| notice.text.as_str()).collect();
        assert_eq!(texts, notices);
    }

    /// As version 0.43 makes it.
    const TABLE: &str = "
        CREATE TABLE metrics (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, timestamp TEXT NOT NULL,
            run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL
        );
        INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES ";

    #[test]
    fn numbers_nested_numbers_and_nonfinite_numbers_are_read() {
        let rows = r#"
            ('89db', '2026-11-24T15:01:20.602130+00:00', 'a', 0,
             CAST('{"loss":1.5,"train":{"norm":2},"ok":true,"note":"x"}' AS BLOB)),
            ('89db', '2026-11-24T15:01:21+00:00', 'a', 1,
             '{"loss":"NaN","train":{"norm":"-Infinity"},"h":{"_type":"trackio.histogram","n":3}}'),
            ('89db', '2026-11-24T15:01:21+00:00', 'a', 2, '{"loss":"#;
        check(
            &format!("{TABLE}{rows}')"),
            &[
                ("loss", 0, "1.5"),
                ("loss", 1, "NaN"),
                ("train/norm", 0, "2"),
                ("train/norm", 1, "-inf"),
            ],
            &["row 3 of metrics is left out: EOF while parsing a value at line 1 column 8"],
        );
    }

    #[test]
    fn the_time_is_in_seconds_since_1970() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("project.db");
        let row = r#"('1', '2026-11-24T16:01:20.602130+01:00', 'a', 0, '{"loss":1}')"#;
        Connection::open(&path).unwrap().execute_batch(&format!("{TABLE}{row}")).unwrap();
        let log = Source::open(&path).unwrap().read().unwrap();
        assert!((log.series[0].points[0].wall - 1_795_532_480.602).abs() < 1e-3);
    }

    #[test]
    fn several_runs_are_named_and_told_apart_if_they_have_the_same_name() {
        let rows = r#"
            ('11111111aa', 't', 'a', 0, '{"loss":1}'), ('22222222bb', 't', 'b', 0, '{"loss":2}'),
            ('33333333cc', 't', 'b', 0, '{"loss":3}'), ('11111111aa', 't', 'a', 1, '{"loss":4}')"#;
        check(
            &format!("{TABLE}{rows}"),
            &[
                ("a/loss", 0, "1"),
                ("a/loss", 1, "4"),
                ("b-22222222/loss", 0, "2"),
                ("b-33333333/loss", 0, "3"),
            ],
            &[],
        );
    }

    #[test]
    fn the_first_version_without_steps_and_with_bare_nan_is_read() {
        let sql = r#"
            CREATE TABLE metrics (
                id INTEGER PRIMARY KEY, timestamp TEXT, project_name TEXT, run_name TEXT,
                metrics TEXT
            );
            INSERT INTO metrics VALUES
                (1, 't', 'p', 'a', '{"loss": 1.0, "s": "is NaN \" NaN"}'),
                (2, 't', 'p', 'a', '{"loss": NaN, "norm": -Infinity}');"#;
        check(sql, &[("loss", 0, "1"), ("loss", 1, "NaN"), ("norm", 1, "-inf")], &[]);
    }
}
