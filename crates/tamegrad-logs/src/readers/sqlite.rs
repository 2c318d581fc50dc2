//! SQLite files, as several trackers keep their numbers in them: opened without a trace.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use tamegrad_runs::ReadError;

use super::Head;
use crate::files::open as open_file;
use crate::log::LogBuilder;

/// What every SQLite file begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Bytes of one value or statement.
const VALUE_BYTES_MAX: i32 = 16 * 1024 * 1024;
/// Bytes of a run's name that are kept.
const NAME_BYTES_MAX: usize = 4096;
/// Runs that are read of one database.
pub(super) const RUNS_MAX: usize = 1000;
/// Steps of SQLite's machine that the queries on one database may take, for each byte of its files
/// and beside that. A row of six small cells has some 20 bytes and takes some 100 steps.
const STEPS_PER_BYTE: u64 = 32;
const STEPS_BESIDE: u64 = 1_000_000;
/// Steps from one look at the count to the next.
const STEPS_AT_ONCE: u16 = 1000;

/// Whether a file is a SQLite database with a table `metrics` that has these columns.
pub(super) fn has_metrics(head: &Head<'_>, wanted: &[&str]) -> bool {
    head.bytes.starts_with(MAGIC) && open_metrics(head.path, wanted).is_ok()
}

/// Opens a database that has a table `metrics` with these columns.
pub(super) fn open_metrics(path: &Path, wanted: &[&str]) -> rusqlite::Result<Connection> {
    let database = open(path)?;
    let columns = columns(&database, "metrics")?;
    match wanted.iter().find(|name| columns.iter().all(|column| column != *name)) {
        Some(missing) => Err(rusqlite::Error::InvalidColumnName(format!("metrics.{missing}"))),
        None => Ok(database),
    }
}

/// What goes before the names of each run's series, by the run: nothing if there is but one, else
/// what it is called, or `in_doubt` if others are called so, too.
pub(super) fn prefixes(
    runs: &[(String, String)],
    in_doubt: impl Fn(&str, &str) -> String,
) -> HashMap<String, String> {
    if let [(only, _)] = runs {
        return HashMap::from([(only.clone(), String::new())]);
    }
    let mut uses: HashMap<&str, u32> = HashMap::new();
    runs.iter().for_each(|(_, name)| *uses.entry(name).or_default() += 1);
    let prefix = |(run, name): &(String, String)| {
        let is_unique = uses.get(name.as_str()) == Some(&1);
        let called = if is_unique { name.clone() } else { in_doubt(run, name) };
        (run.clone(), format!("{called}/"))
    };
    runs.iter().map(prefix).collect()
}

/// The start of a run's id, by which people tell runs apart.
pub(super) fn short(run: &str) -> String {
    run.chars().take(8).collect()
}

/// Opens a database for reading.
///
/// A database in WAL mode makes files beside itself even for a reader. Where none are there, nobody
/// writes it, so that it can be read as it is.
///
/// Queries end with an error when they take more steps than a sound database of this size needs:
/// pages that point at each other would otherwise be rows without an end.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = if uses_wal(path) && !beside(path, "-wal").exists() {
        let uri = format!("file:{}?immutable=1", escape(path));
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    database.busy_timeout(Duration::from_secs(5))?;
    database.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
    let bytes = [path.to_owned(), beside(path, "-wal")]
        .iter()
        .filter_map(|path| Some(path.metadata().ok()?.len()))
        .fold(0, u64::saturating_add);
    let steps = bytes.saturating_mul(STEPS_PER_BYTE).saturating_add(STEPS_BESIDE);
    let mut turns = steps / u64::from(STEPS_AT_ONCE);
    let is_too_much = move || {
        turns = turns.saturating_sub(1);
        turns == 0
    };
    database.progress_handler(STEPS_AT_ONCE.into(), Some(is_too_much))?;
    // The file is not ours: its schema runs no functions, its pages are looked at before use.
    database.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    Ok(database)
}

/// The names of a table's columns; none if there is no such table. A view is none, and a column that
/// is computed is left out: either could make values of any number and size.
pub(super) fn columns(database: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    // `pragma_table_info` passes over what is computed.
    let mut query = database.prepare(
        "SELECT c.name FROM pragma_table_list(?1) t JOIN pragma_table_info(t.name, t.schema) c \
         WHERE t.type = 'table'",
    )?;
    query.query_map([table], |row| row.get(0))?.collect()
}

/// Takes the rows of a query, each with its number. If the database breaks in between, what was
/// taken counts and the rest is noted.
pub(super) fn visit(
    path: &Path,
    database: &Connection,
    query: &str,
    log: &mut LogBuilder,
    mut take: impl FnMut(&Row<'_>, u64, &mut LogBuilder) -> rusqlite::Result<()>,
) -> Result<(), ReadError> {
    let mut number = 0;
    let mut run = || {
        let mut query = database.prepare(query)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            number += 1;
            log.saw(1);
            take(row, number, log)?;
        }
        Ok(())
    };
    match run() {
        Ok(()) => Ok(()),
        Err(error) if number == 0 => Err(broken(path, &error)),
        Err(error) => {
            let text = format!("the rows after number {number} are left out: {}", why(&error));
            log.notice(path, None, text);
            log.lose_the_rest();
            Ok(())
        }
    }
}

/// The error of a database that cannot be read at all.
pub(super) fn broken(path: &Path, error: &rusqlite::Error) -> ReadError {
    ReadError::broken(path, 0, why(error), "a SQLite database with metrics")
}

fn why(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => {
            "reading takes longer than its size allows, as if its pages formed a cycle".to_owned()
        }
        _ => error.to_string(),
    }
}

/// The number in a cell, whatever type it was stored as.
pub(super) fn number(cell: ValueRef<'_>) -> Option<f64> {
    match cell {
        ValueRef::Integer(value) => Some(value as f64),
        ValueRef::Real(value) => Some(value),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        ValueRef::Null | ValueRef::Blob(_) => None,
    }
}

/// The bytes of a text, which some writers store as a blob.
pub(super) fn bytes(cell: ValueRef<'_>) -> Option<&[u8]> {
    match cell {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
        _ => None,
    }
}

/// The text in a cell.
pub(super) fn text(cell: ValueRef<'_>) -> Option<Cow<'_, str>> {
    bytes(cell).map(String::from_utf8_lossy)
}

/// The name of a run: the text in a cell, of which the end is left out where it is long.
pub(super) fn name(cell: ValueRef<'_>) -> String {
    let bytes = bytes(cell).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(..NAME_BYTES_MAX).unwrap_or(bytes)).into_owned()
}

/// Whether the header says that changes go to a file beside it.
fn uses_wal(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = open_file(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header[18..] == [2, 2]
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// A path as part of a URI: `?`, `#` and `%` have a meaning there.
fn escape(path: &Path) -> String {
    let mut uri = String::new();
    if cfg!(windows) && path.is_absolute() {
        uri.push('/');
    }
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b'.' | b'-' | b'_' | b'~' | b':' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_database_in_wal_mode_is_read_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b%20?#.db");
        let database = Connection::open(&path).unwrap();
        database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE metrics (key);").unwrap();
        // Still open: the table is only in the file beside it.
        assert_eq!(columns(&open(&path).unwrap(), "metrics").unwrap(), ["key"]);
        drop(database);
        assert_eq!(columns(&open(&path).unwrap(), "metrics").unwrap(), ["key"]);
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a b%20?#.db"]);
    }

    #[test]
    fn reading_leaves_the_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE metrics (key);").unwrap();
        let before = fs::read(&path).unwrap();
        let database = open(&path).unwrap();
        let error = database.execute_batch("DROP TABLE metrics").unwrap_err();
        assert_eq!(error.to_string(), "attempt to write a readonly database");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn views_and_computed_columns_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let sql = "
            CREATE VIEW metrics AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)
                SELECT i AS key FROM n;
            CREATE TABLE runs (run_uuid, name AS (hex(zeroblob(5000000))));";
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let database = open(&path).unwrap();
        assert_eq!(columns(&database, "metrics").unwrap(), [""; 0]);
        assert_eq!(columns(&database, "runs").unwrap(), ["run_uuid"]);
        let error = open_metrics(&path, &["key"]).unwrap_err();
        assert_eq!(error.to_string(), "Invalid column name: metrics.key");
    }

    const PAGE: usize = 512;
    const INNER: u8 = 5;
    const LEAF: u8 = 13;

    /// Where in its page each cell of an inner page of a table is: it begins with the page below.
    fn cells(page: &[u8]) -> Vec<usize> {
        let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
        (0..number(3)).map(|cell| number(12 + 2 * cell)).collect()
    }

    #[test]
    fn pages_that_lead_in_a_circle_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let database = Connection::open(&path).unwrap();
        let sql = "
            PRAGMA page_size = 512;
            CREATE TABLE metrics (key);
            WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 40000)
                INSERT INTO metrics SELECT 'loss' FROM n;";
        database.execute_batch(sql).unwrap();
        drop(database);

        // All pages below an inner one are made the same: rows multiply with each of them.
        let mut bytes = fs::read(&path).unwrap();
        let (pages, _) = bytes.as_chunks_mut::<PAGE>();
        let is_inner = |page: &[u8; PAGE]| page[0] == INNER && cells(page).len() > 10;
        let mut chain: Vec<usize> =
            (1..pages.len()).filter(|&page| is_inner(&pages[page])).take(8).collect();
        chain.extend((1..pages.len()).find(|&page| pages[page][0] == LEAF));
        assert_eq!((chain[0], chain.len()), (1, 9));
        for pair in chain.windows(2) {
            let below = (pair[1] as u32 + 1).to_be_bytes();
            let page = &mut pages[pair[0]];
            for at in cells(page).into_iter().chain([8]) {
                page[at..at + 4].copy_from_slice(&below);
            }
        }
        fs::write(&path, &bytes).unwrap();

        let (database, mut rows, mut log) = (open(&path).unwrap(), 0, LogBuilder::new());
        let query = "SELECT key FROM metrics ORDER BY rowid";
        let visited = visit(&path, &database, query, &mut log, |_, number, _| {
            rows = number;
            Ok(())
        });
        assert_eq!(visited.map_err(|error| error.to_string()), Ok(()));
        assert!((100_000..10_000_000).contains(&rows), "{rows}");
        let text = log.finish().notices[0].text.clone();
        assert!(text.ends_with("as if its pages formed a cycle"), "{text}");
    }
}
