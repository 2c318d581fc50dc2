//! What is done to files, in one place: what a power cut may undo is known here alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::RunError;

/// A file that only grows, and never by half a piece.
#[derive(Debug)]
pub(super) struct GrowingFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// Whether the disk may not have all of it yet.
    is_unsynced: bool,
}

impl GrowingFile {
    /// Makes a file. One that is already there is refused, so nothing is written through a link.
    pub(super) fn create(path: PathBuf) -> Result<Self, RunError> {
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| RunError::io(&path, error))?;
        trace(|| Op::Create(path.clone()));
        Ok(Self { path, file, len: 0, is_unsynced: true })
    }

    /// Opens a file that is there, and cuts it at `len`.
    pub(super) fn resume(path: PathBuf, len: u64) -> Result<Self, RunError> {
        let open = || {
            own_file(&path)?;
            let mut file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(len)?;
            file.seek(SeekFrom::Start(len))?;
            Ok(file)
        };
        let file = open().map_err(|error| RunError::io(&path, error))?;
        Ok(Self { path, file, len, is_unsynced: true })
    }

    /// Gives the file another name; what had that name is gone.
    pub(super) fn rename(&mut self, to: &Path) -> Result<(), RunError> {
        rename(&self.path, to)?;
        self.path = to.to_owned();
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a piece; if that fails, the file is as it was.
    pub(super) fn append(&mut self, piece: &[u8]) -> Result<(), RunError> {
        self.is_unsynced = true;
        match self.file.write_all(piece) {
            Ok(()) => {
                trace(|| Op::Append(self.path.clone(), piece.to_vec()));
                self.len += piece.len() as u64;
                Ok(())
            }
            Err(error) => {
                // If this fails as well, the next reader cuts the tail.
                let _ = self.file.set_len(self.len).and(self.file.seek(SeekFrom::Start(self.len)));
                Err(RunError::io(&self.path, error))
            }
        }
    }

    /// Waits until the disk has it.
    pub(super) fn sync(&mut self) -> Result<(), RunError> {
        if self.is_unsynced {
            self.file.sync_data().map_err(|error| RunError::io(&self.path, error))?;
            self.is_unsynced = false;
            trace(|| Op::Sync(self.path.clone()));
        }
        Ok(())
    }
}

/// Opens a file to read it. A pipe or a device is refused: reading it would wait, or never end.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if path.metadata()?.is_file() {
        return File::open(path);
    }
    Err(io::Error::other("got no regular file, want a file of a run folder"))
}

/// Refuses what is no regular file: a link would lead out of the folder.
pub(super) fn own_file(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_file() {
        return Ok(());
    }
    Err(io::Error::other("got a link or a folder, want a regular file"))
}

/// Writes a file in one go: readers see the old one or the new one, also after a power cut. Nothing is
/// written through a link.
///
/// # Errors
/// [`RunError::Io`] if the system refuses; the file is then as it was.
pub fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let fresh = fresh(path);
    let write = || {
        remove(&fresh)?;
        let mut file = GrowingFile::create(fresh.clone())?;
        file.append(bytes)?;
        file.sync()?;
        file.rename(path)
    };
    // A half-written one is of no use to anybody.
    write().inspect_err(|_| drop(fs::remove_file(&fresh)))
}

/// The name under which the next content of a file is written.
pub(super) fn fresh(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Gives a file that is on the disk its name, and waits until the disk has that, too.
fn rename(from: &Path, to: &Path) -> Result<(), RunError> {
    fs::rename(from, to).map_err(|error| RunError::io(to, error))?;
    trace(|| Op::Rename(from.to_owned(), to.to_owned()));
    // A name alone has an empty parent.
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_folder(parent.unwrap_or(Path::new(".")))
}

/// Waits until the disk has the names in a folder.
pub(super) fn sync_folder(folder: &Path) -> Result<(), RunError> {
    #[cfg(unix)]
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems cannot do that for a folder.
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => {
            return Err(RunError::io(folder, error));
        }
        _ => {}
    }
    #[cfg(not(unix))]
    let _ = folder;
    trace(|| Op::SyncFolder);
    Ok(())
}

pub(super) fn remove(path: &Path) -> Result<(), RunError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RunError::io(path, error)),
        _ => {
            trace(|| Op::Remove(path.to_owned()));
            Ok(())
        }
    }
}

/// Something that was done to a file.
#[cfg_attr(not(test), allow(dead_code, reason = "only tests look at what was done"))]
#[derive(Debug, Clone)]
pub(super) enum Op {
    Create(PathBuf),
    Append(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncFolder,
}

#[cfg(test)]
thread_local! {
    /// All that this thread has done to files.
    pub(super) static DONE: std::cell::RefCell<Vec<Op>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Notes what was done, for the test of power cuts.
fn trace(op: impl FnOnce() -> Op) {
    #[cfg(test)]
    DONE.with_borrow_mut(|done| done.push(op()));
    #[cfg(not(test))]
    let _ = op;
}
