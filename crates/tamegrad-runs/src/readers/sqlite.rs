//! SQLite files, as several trackers keep their numbers in them: opened without a trace.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::Head;
use crate::error::ReadError;
use crate::log::LogBuilder;

/// What every SQLite file begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Bytes of one value or statement.
const VALUE_BYTES_MAX: i32 = 16 * 1024 * 1024;

/// Whether a file is a SQLite database with a table `metrics` that has these columns.
pub(super) fn has_metrics(head: &Head<'_>, wanted: &[&str]) -> bool {
    head.bytes.starts_with(MAGIC)
        && open(head.path)
            .and_then(|database| columns(&database, "metrics"))
            .is_ok_and(|columns| wanted.iter().all(|name| columns.iter().any(|c| c == name)))
}

/// Opens a database for reading.
///
/// A database in WAL mode makes files beside itself even for a reader. Where none are there, nobody
/// writes it, so that it can be read as it is.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = if uses_wal(path) && !beside(path, "-wal").exists() {
        let uri = format!("file:{}?immutable=1", escape(path));
        Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    database.busy_timeout(Duration::from_secs(5))?;
    database.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)?;
    // The file is not ours: its schema runs no functions, its pages are looked at before use.
    database.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    Ok(database)
}

/// The names of a table's columns; none if there is no such table.
pub(super) fn columns(database: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = database.prepare("SELECT name FROM pragma_table_info(?1)")?;
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
            take(row, number, log)?;
        }
        Ok(())
    };
    match run() {
        Ok(()) => Ok(()),
        Err(error) if number == 0 => Err(broken(path, &error)),
        Err(error) => {
            log.notice(path, None, format!("the rows after number {number} are left out: {error}"));
            Ok(())
        }
    }
}

/// The error of a database that cannot be read at all.
pub(super) fn broken(path: &Path, error: &rusqlite::Error) -> ReadError {
    let (path, found) = (path.to_owned(), error.to_string());
    ReadError::Broken { path, offset: 0, found, wanted: "a SQLite database with metrics" }
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

/// Whether the header says that changes go to a file beside it.
fn uses_wal(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
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
}
