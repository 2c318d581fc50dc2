//! Writes a run folder's rows as Parquet, for tools that want whole files.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tempfile::{Builder, NamedTempFile};

use super::read::RunFolder;
use super::table::{StepRow, Table, TensorRecord};
use super::{ReadError, RunError};
use crate::notice::Notice;

/// Rows that are encoded at a time.
const CHUNK_ROWS: usize = 1 << 16;

/// Writes `steps.parquet` and `tensors.parquet` of a run into a folder, which is made if it is not
/// there. Returns what of the run was left out because it is broken.
///
/// The files are there when both are written whole; an earlier export is replaced.
///
/// # Errors
/// [`RunError`] if the run cannot be read, a file cannot be written, or one of these names is taken by
/// something that is no export.
pub fn export(run: &RunFolder, out: &Path) -> Result<Vec<Notice>, RunError> {
    fs::create_dir_all(out).map_err(|error| RunError::io(out, error))?;
    let (steps, tensors) = (out.join("steps.parquet"), out.join("tensors.parquet"));
    check_free::<StepRow>(&steps).map_err(|error| RunError::io(&steps, error))?;
    check_free::<TensorRecord>(&tensors).map_err(|error| RunError::io(&tensors, error))?;
    let mut notices = Vec::new();
    let written = [
        (write(&steps, out, |push| run.visit_steps(&mut notices, push))?, &steps),
        (write(&tensors, out, |push| run.visit_tensors(&mut notices, push))?, &tensors),
    ];
    for (file, path) in written {
        file.persist(path).map_err(|error| RunError::io(path, error.error))?;
    }
    // Where a folder cannot be synced the system does it in its own time.
    let _ = File::open(out).and_then(|folder| folder.sync_all());
    Ok(notices)
}

/// Whether a name is free, or taken by an export of such rows.
fn check_free<T: Table>(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(about) if about.is_symlink() => "a symbolic link",
        Ok(about) if about.is_dir() => "a folder",
        Ok(about) if about.is_file() && is_export::<T>(path) => return Ok(()),
        Ok(_) => "a file that no export wrote",
    };
    let wanted = "want no file or an earlier export; hint: choose another folder with --out";
    Err(io::Error::new(ErrorKind::AlreadyExists, format!("got {found}, {wanted}")))
}

/// Whether a file is Parquet with the first columns of such rows. Later versions may have had more.
fn is_export<T: Table>(path: &Path) -> bool {
    let reader = File::open(path).ok().and_then(|file| SerializedFileReader::new(file).ok());
    reader.is_some_and(|reader| {
        let columns = reader.metadata().file_metadata().schema_descr().columns();
        let schema = T::schema();
        let wanted = schema.fields().iter().take(2).map(|field| field.name());
        columns.iter().take(2).map(|column| column.name()).eq(wanted)
    })
}

/// Writes the rows that `visit` gives into a Parquet file without a name yet, which goes away if it is
/// not given one. `path` is the name for errors.
fn write<T: Table>(
    path: &Path,
    folder: &Path,
    visit: impl FnOnce(&mut dyn FnMut(T)) -> Result<u64, ReadError>,
) -> Result<NamedTempFile, RunError> {
    let mut builder = Builder::new();
    builder.prefix(".tamegrad-").suffix(".parquet");
    // As any new file: what the umask leaves.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder).map_err(|error| RunError::io(path, error))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = Arc::new(T::schema());
    let mut writer = ArrowWriter::try_new(file.as_file(), schema.clone(), Some(properties))
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
    writer.close().map_err(|error| RunError::encode(path, error))?;
    file.as_file().sync_all().map_err(|error| RunError::io(path, error))?;
    Ok(file)
}
