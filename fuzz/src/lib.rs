//! What the targets share: an input becomes a file or a folder, and what a reader makes of it is
//! held against what every reader promises. One is no reader's: there it becomes a guard's state.

mod check;
mod input;
mod state;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tamegrad_logs::readers::{HEAD_BYTES, Head, READERS, Reader};
use tamegrad_logs::{Log, LogBuilder, ReadError};
use tempfile::TempDir;

pub use check::checkpoint;
pub use input::{database, parts, write_folder};
pub use state::guard_state;

/// No reader may hold more than this at a time of an input of a few KiB.
const MEMORY_MAX: usize = 128 << 20;

/// An allocation beyond the bound fails, which ends the process.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, MEMORY_MAX);

/// A folder of this process.
static SCRATCH: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary folder can be made"));

/// Reads a file of this name and content as a format, whether its reader knows it or not.
pub fn file(format: &str, name: &str, bytes: &[u8]) {
    let path = scratch(name);
    std::fs::write(&path, bytes).expect("a temporary file can be written");
    let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
    let head = Head { path: &path, bytes: head, named: &[], is_whole: head.len() == bytes.len() };
    for reader in readers(format) {
        (reader.recognises)(&head);
        check::reading(&reader.format, || read(reader, &path));
    }
}

/// Reads a folder as a format, made of the parts of an input; see [`write_folder`].
pub fn folder(format: &str, input: &[u8]) {
    let path = scratch("folder");
    let names = write_folder(&path, input);
    for reader in readers(format) {
        (reader.recognises_folder)(&path, &names);
        check::reading(&reader.format, || read(reader, &path));
    }
}

/// Searches a packed file for logs and reads them; it may hold none.
pub fn packed(bytes: &[u8]) {
    let path = scratch("train.log.packed");
    std::fs::write(&path, bytes).expect("a temporary file can be written");
    let (sources, errors) = tamegrad_logs::discover(&path);
    errors.iter().for_each(|error| assert_ne!(error.to_string(), ""));
    for source in sources {
        assert!(source.path().starts_with(&path), "{}", source.path().display());
        check::reading(source.format(), || source.read());
    }
}

/// A path in the folder of this process.
pub fn scratch(name: &str) -> PathBuf {
    SCRATCH.path().join(name)
}

fn readers(format: &str) -> impl Iterator<Item = &'static Reader> {
    READERS.iter().filter(move |reader| reader.format.name == format)
}

fn read(reader: &Reader, path: &Path) -> Result<Log, ReadError> {
    let mut log = LogBuilder::new();
    (reader.read)(&[path.to_owned()], &mut log)?;
    Ok(log.finish())
}
