//! MLflow's SQLite database of many runs.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row};
use tamegrad_runs::ReadError;

use super::sqlite::{self, RUNS_MAX};
use super::{Format, Head, Reader};
use crate::log::{LogBuilder, Point};

/// The database.
pub(super) const READER: Reader = Reader {
    format: Format::named("mlflow"),
    recognises: |head: &Head<'_>| sqlite::has_metrics(head, &COLUMNS),
    read: read_databases,
    ..Reader::OF_FILES
};

const COLUMNS: [&str; 6] = ["key", "value", "timestamp", "step", "is_nan", "run_uuid"];

fn read_databases(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    for path in paths {
        let open = || {
            let database = sqlite::open_metrics(path, &COLUMNS)?;
            let prefixes = run_prefixes(&database)?;
            Ok((database, prefixes))
        };
        let (database, prefixes) = open().map_err(|error| sqlite::broken(path, &error))?;
        let mut left_out: HashSet<String> = HashSet::new();
        let query =
            "SELECT key, value, timestamp, step, is_nan, run_uuid FROM metrics ORDER BY rowid";
        sqlite::visit(path, &database, query, log, |row, number, log| {
            let run = sqlite::name(row.get_ref(5)?);
            match prefixes.get(&run) {
                Some(prefix) => push_row(row, number, prefix, path, log)?,
                None if left_out.len() < RUNS_MAX => drop(left_out.insert(run)),
                None => {}
            }
            Ok(())
        })?;
        if !left_out.is_empty() {
            let (count, most) = (left_out.len(), RUNS_MAX);
            let text = format!("runs left out, deleted or beyond the first {most}: {count}");
            log.notice(path, None, text);
        }
    }
    Ok(())
}

/// What goes before the names of each run's series.
fn run_prefixes(database: &Connection) -> rusqlite::Result<HashMap<String, String>> {
    let columns = sqlite::columns(database, "runs")?;
    let is_there =
        ["run_uuid", "lifecycle_stage"].iter().all(|name| columns.iter().any(|c| c == name));
    let not_deleted = if is_there {
        "WHERE run_uuid NOT IN (SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted')"
    } else {
        ""
    };
    let query = format!("SELECT DISTINCT run_uuid FROM metrics {not_deleted} LIMIT {RUNS_MAX}");
    let mut query = database.prepare(&query)?;
    let runs = query.query_map([], |row| {
        let run = sqlite::name(row.get_ref(0)?);
        let short = sqlite::short(&run);
        Ok((run, short))
    })?;
    let runs = runs.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(sqlite::prefixes(&runs, |run, _| run.to_owned()))
}

fn push_row(
    row: &Row<'_>,
    number: u64,
    prefix: &str,
    path: &Path,
    log: &mut LogBuilder,
) -> rusqlite::Result<()> {
    let is_nan = sqlite::number(row.get_ref(4)?).is_some_and(|flag| flag != 0.0);
    let value = if is_nan { Some(f64::NAN) } else { sqlite::number(row.get_ref(1)?) };
    let (Some(key), Some(value)) = (sqlite::text(row.get_ref(0)?), value) else {
        log.notice(path, None, format!("row {number} of metrics lacks a name or a number"));
        log.lose(1);
        return Ok(());
    };
    let wall = sqlite::number(row.get_ref(2)?).map_or(f64::NAN, |milliseconds| milliseconds / 1e3);
    let step = sqlite::number(row.get_ref(3)?).unwrap_or(0.0) as i64;
    log.push(&format!("{prefix}{key}"), Point { step, wall, value: unclamped(value) });
    Ok(())
}

/// The number that was logged: MLflow stores infinity as the largest number there is, since not all
/// of its databases know infinity.
fn unclamped(value: f64) -> f64 {
    if value.abs() >= 1.797e308 { f64::INFINITY.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Source;

    const SCHEMA: &str = "
        CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, lifecycle_stage TEXT);
        CREATE TABLE metrics (
            key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL,
            run_uuid VARCHAR(32) NOT NULL, step BIGINT DEFAULT '0' NOT NULL,
            is_nan BOOLEAN DEFAULT '0' NOT NULL,
            CONSTRAINT metric_pk PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan)
        );
        INSERT INTO metrics VALUES
            ('loss', 2.5, 1700000000500, '0123456789abcdef', 0, 0),
            ('acc', 0.5, 1700000000500, '0123456789abcdef', 0, 0),
            ('loss', 1.7976931348623157e308, 1700000001000, '0123456789abcdef', 1, 0),
            ('loss', -1.7976931348623157e308, 1700000001000, '0123456789abcdef', 2, 0),
            ('loss', 0, 1700000000000, '0123456789abcdef', 1, 1);";

    fn database(folder: &Path, more: &str) -> PathBuf {
        let path = folder.join("mlflow.db");
        let database = Connection::open(&path).unwrap();
        database.execute_batch(SCHEMA).unwrap();
        database.execute_batch(more).unwrap();
        path
    }

    #[test]
    fn a_database_of_one_run_is_read_in_the_order_of_logging() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::open(&database(folder.path(), "")).unwrap();
        assert_eq!(source.format().name, "mlflow");
        let log = source.read().unwrap();
        let loss = &log.series("loss").unwrap().points;
        assert_eq!(loss[0], Point { step: 0, wall: 1_700_000_000.5, value: 2.5 });
        assert_eq!(loss[1].value, f64::INFINITY);
        assert_eq!(loss[2].value, f64::NEG_INFINITY);
        // Logged last, although its time and its step are earlier.
        assert!(loss[3].value.is_nan() && loss[3].step == 1);
        assert_eq!(log.series("acc").unwrap().points.len(), 1);
        assert_eq!(log.notices, []);
    }

    #[test]
    fn several_runs_are_named_by_their_ids_and_deleted_ones_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let more = "
            INSERT INTO metrics VALUES
                ('loss', 1.0, 1, 'fedcba9876543210', 0, 0), ('loss', 9.0, 1, 'ffff0000ffff', 0, 0);
            INSERT INTO runs VALUES ('fedcba9876543210', 'active'), ('ffff0000ffff', 'deleted');";
        let log = Source::open(&database(folder.path(), more)).unwrap().read().unwrap();
        let names: Vec<&str> = log.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["01234567/loss", "01234567/acc", "fedcba98/loss"]);
        assert!(log.notices[0].text.starts_with("runs left out, deleted"), "{:?}", log.notices);
    }

    #[test]
    fn a_broken_database_is_an_error_or_a_notice_and_never_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let more = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 2000)
            INSERT INTO metrics SELECT 'loss', i, i, '0123456789abcdef', i, 0 FROM n; VACUUM;";
        let path = database(folder.path(), more);
        let whole = fs::read(&path).unwrap();
        let survives = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let _ = Source::open(&path).and_then(|source| source.read());
        };
        (0..whole.len()).step_by(509).for_each(|cut| survives(&whole[..cut]));
        let mut state = 1_u32;
        for round in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..20 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let place = 100 + (state >> 8) as usize % (bytes.len() - 100);
                bytes[place] = state as u8 ^ round as u8;
            }
            survives(&bytes);
        }
    }
}
