//! Writes a run folder's rows as Parquet, for tools that want whole files.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::RunError;
use super::read::RunFolder;
use super::table::Table;
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
    let path = out.join("steps.parquet");
    let mut steps = Chunks::new(&path)?;
    run.visit_steps(&mut notices, |row| steps.push(row))?;
    steps.finish()?;
    let path = out.join("tensors.parquet");
    let mut tensors = Chunks::new(&path)?;
    run.visit_tensors(&mut notices, |row| tensors.push(row))?;
    tensors.finish()?;
    Ok(notices)
}

/// Rows on their way into a Parquet file.
struct Chunks<'a, T> {
    path: &'a Path,
    writer: ArrowWriter<File>,
    rows: Vec<T>,
    /// The first error; rows after it are not written.
    result: Result<(), RunError>,
}

impl<'a, T: Table> Chunks<'a, T> {
    fn new(path: &'a Path) -> Result<Self, RunError> {
        let file = File::create(path).map_err(|error| RunError::io(path, error))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = ArrowWriter::try_new(file, Arc::new(T::schema()), Some(properties))
            .map_err(|error| RunError::encode(path, error))?;
        Ok(Self { path, writer, rows: Vec::new(), result: Ok(()) })
    }

    fn push(&mut self, row: T) {
        self.rows.push(row);
        if self.rows.len() >= CHUNK_ROWS && self.result.is_ok() {
            self.result = self.write();
        }
        if self.result.is_err() {
            self.rows.clear();
        }
    }

    fn write(&mut self) -> Result<(), RunError> {
        let rows = std::mem::take(&mut self.rows);
        let batch = RecordBatch::try_new(Arc::new(T::schema()), T::columns(&rows))
            .map_err(|error| RunError::encode(self.path, error))?;
        self.writer.write(&batch).map_err(|error| RunError::encode(self.path, error))
    }

    fn finish(mut self) -> Result<(), RunError> {
        std::mem::replace(&mut self.result, Ok(()))?;
        self.write()?;
        self.writer.close().map(drop).map_err(|error| RunError::encode(self.path, error))
    }
}
