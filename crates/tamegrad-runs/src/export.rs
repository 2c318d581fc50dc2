//! Writes a run folder's rows as Parquet, for tools that want whole files.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::read::RunFolder;
use super::table::Table;
use super::{ReadError, RunError};
use crate::notice::Notice;

/// Rows that are encoded at a time.
const CHUNK_ROWS: usize = 1 << 16;

/// Writes `steps.parquet` and `tensors.parquet` of a run into a folder, which is made if it is not
/// there. Returns what of the run was left out because it is broken.
///
/// # Errors
/// [`RunError`] if the run cannot be read or a file cannot be written.
pub fn export(run: &RunFolder, out: &Path) -> Result<Vec<Notice>, RunError> {
    fs::create_dir_all(out).map_err(|error| RunError::io(out, error))?;
    let mut notices = Vec::new();
    write(&out.join("steps.parquet"), |push| run.visit_steps(&mut notices, push))?;
    write(&out.join("tensors.parquet"), |push| run.visit_tensors(&mut notices, push))?;
    Ok(notices)
}

/// Writes the rows that `visit` gives into a Parquet file; after an error no more of them.
fn write<T: Table>(
    path: &Path,
    visit: impl FnOnce(&mut dyn FnMut(T)) -> Result<(), ReadError>,
) -> Result<(), RunError> {
    let file = File::create(path).map_err(|error| RunError::io(path, error))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = Arc::new(T::schema());
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))
        .map_err(|error| RunError::encode(path, error))?;
    let mut write = |rows: &[T]| {
        let batch = RecordBatch::try_new(schema.clone(), T::columns(rows))
            .map_err(|error| RunError::encode(path, error))?;
        writer.write(&batch).map_err(|error| RunError::encode(path, error))
    };
    let (mut rows, mut result) = (Vec::new(), Ok(()));
    visit(&mut |row| {
        rows.push(row);
        if rows.len() >= CHUNK_ROWS {
            if result.is_ok() {
                result = write(&rows);
            }
            rows.clear();
        }
    })?;
    result.and_then(|()| write(&rows))?;
    writer.close().map(drop).map_err(|error| RunError::encode(path, error))
}
