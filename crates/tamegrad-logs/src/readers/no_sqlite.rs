//! SQLite databases of trackers, in a build that cannot read them.

use std::io::{Error, ErrorKind};
use std::path::PathBuf;

use tamegrad_runs::ReadError;

use super::{Format, Head, Reader};
use crate::log::LogBuilder;

/// Recognises them and says that they are not read.
pub(super) const READER: Reader =
    Reader { format: Format::named("sqlite"), recognises, read, ..Reader::OF_FILES };

/// Whether it is a database with a table `metrics`, as MLflow and trackio have it.
fn recognises(head: &Head<'_>) -> bool {
    let has = |text: &[u8]| head.bytes.windows(text.len()).any(|part| part == text);
    head.bytes.starts_with(b"SQLite format 3\0") && has(b"metrics")
}

fn read(paths: &[PathBuf], _: &mut LogBuilder) -> Result<(), ReadError> {
    paths.iter().try_for_each(|path| {
        let text =
            "this build does not read SQLite; hint: install tamegrad with the feature `sqlite`";
        Err(ReadError::io(path, Error::new(ErrorKind::Unsupported, text)))
    })
}

#[cfg(test)]
mod tests {
    use crate::Source;

    #[test]
    fn a_tracker_database_is_not_read_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mlflow.db");
        std::fs::write(&path, b"SQLite format 3\0 CREATE TABLE metrics (key)").unwrap();
        let error = Source::open(&path).unwrap().read().unwrap_err();
        assert!(error.to_string().contains("feature `sqlite`"), "{error}");
    }
}
