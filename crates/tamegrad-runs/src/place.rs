//! Where something is written: a folder that is free or ours, held by one writer.

use std::ffi::OsString;
use std::fs::{self, File, FileType, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::own_file;
use super::kind::{Kind, RUN, SEARCH};
use super::{LOCK_FILE, RunError};

/// What to do where the folder already holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// Write to the next free name: `x-2`, `x-3` and so on.
    #[default]
    Number,
    /// Write to the next free name, and take the place of the earlier run when the new one is whole.
    Overwrite,
    /// Go on with it.
    Resume,
    /// Refuse.
    Refuse,
}

/// A folder that this process alone writes to.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    kind: Kind,
    /// The earlier folder whose place this one takes in the end.
    replaces: Option<PathBuf>,
    /// Held until the writer is gone. `None` where the file system knows no locks.
    lock: Option<File>,
}

/// Names that are tried, after which something else must be wrong.
const NUMBERS_MAX: u64 = 1_000_000;
/// A reader holds the lock for an instant, to see whether there is a writer.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl Place {
    /// Finds the folder of something new, makes it and takes its lock.
    ///
    /// # Errors
    /// [`RunError::Exists`] if it already holds something of the kind, [`RunError::Locked`] if another
    /// process writes there, [`RunError::NotOurs`] if it holds anything else, [`RunError::Io`] if the
    /// system refuses.
    pub fn claim(wanted: &Path, existing: Existing, kind: &Kind) -> Result<Self, RunError> {
        let is_there = || wanted.join(kind.marker).symlink_metadata().is_ok();
        if existing == Existing::Resume && is_there() {
            let folder = wanted.to_owned();
            return Ok(Self { folder, kind: *kind, replaces: None, lock: lock(wanted)? });
        }
        let refused = match Self::claim_free(wanted, kind) {
            Err(error @ RunError::Exists { .. }) if existing == Existing::Overwrite => {
                refuse_foreign(wanted, kind)?;
                error
            }
            Err(error @ (RunError::Exists { .. } | RunError::Locked { .. }))
                if existing == Existing::Number =>
            {
                error
            }
            other => return other,
        };
        for number in 2..NUMBERS_MAX {
            let folder = numbered(wanted, number);
            match Self::claim_free(&folder, kind) {
                Ok(mut place) => {
                    place.replaces =
                        (existing == Existing::Overwrite).then(|| wanted.to_path_buf());
                    return Ok(place);
                }
                Err(
                    RunError::Exists { .. } | RunError::Locked { .. } | RunError::NotOurs { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Takes a folder that is empty or not there yet.
    fn claim_free(folder: &Path, kind: &Kind) -> Result<Self, RunError> {
        // By something of either kind.
        let is_there = |kind: &Kind| folder.join(kind.marker).symlink_metadata().is_ok();
        let is_taken = || [RUN, SEARCH].iter().any(is_there);
        let exists = || RunError::Exists { path: folder.to_owned() };
        if is_taken() {
            // Locked by another writer, or by none.
            return Err(lock(folder).err().unwrap_or_else(exists));
        }
        fs::create_dir_all(folder).map_err(|error| RunError::io(folder, error))?;
        refuse_foreign(folder, kind)?;
        let lock = lock(folder)?;
        // Another writer may have come and gone in between.
        if is_taken() {
            return Err(exists());
        }
        Ok(Self { folder: folder.to_owned(), kind: *kind, replaces: None, lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it takes the place of an earlier one in the end.
    pub fn replaces(&self) -> Option<&Path> {
        self.replaces.as_deref()
    }

    /// Puts what is whole now in the place of the earlier one, which is removed. Returns where it is.
    ///
    /// # Errors
    /// [`RunError::Io`] if the system refuses; the earlier one may then still be there, under another
    /// name.
    pub fn settle(&self) -> Result<PathBuf, RunError> {
        let Some(target) = &self.replaces else { return Ok(self.folder.clone()) };
        let is_ours = refuse_foreign(target, &self.kind).and_then(|()| lock(target));
        if !target.join(self.kind.marker).exists() || is_ours.is_err() {
            // It is another folder now than at the start, or somebody writes there.
            return Ok(self.folder.clone());
        }
        let aside = (1..NUMBERS_MAX)
            .map(|number| numbered(target, number).with_extension("old"))
            .find(|path| path.symlink_metadata().is_err())
            .unwrap_or_else(|| target.with_extension("old"));
        fs::rename(target, &aside).map_err(|error| RunError::io(target, error))?;
        if let Err(error) = fs::rename(&self.folder, target) {
            // The earlier run is better where it was than aside.
            let _ = fs::rename(&aside, target);
            return Err(RunError::io(target, error));
        }
        // All of it is ours, as was seen above.
        fs::remove_dir_all(&aside).map_err(|error| RunError::io(&aside, error))?;
        Ok(target.clone())
    }

    /// Refuses to write by name to a folder that is no longer the one that was claimed.
    pub(super) fn check(&self) -> Result<(), RunError> {
        if self.is_there() {
            return Ok(());
        }
        Err(RunError::Gone { path: self.folder.clone() })
    }

    fn is_there(&self) -> bool {
        let path = self.folder.join(LOCK_FILE);
        match (&self.lock, path.symlink_metadata()) {
            (Some(lock), Ok(found)) => lock.metadata().is_ok_and(|held| is_same(&held, &found)),
            (None, found) => found.is_ok() || self.folder.is_dir(),
            (Some(_), Err(_)) => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A child of a fork has the file open as well, which would keep the lock.
        if let Some(lock) = &self.lock {
            let _ = lock.unlock();
        }
    }
}

/// The folder of a run, for files beside the run: nothing is written to one that took its place.
#[derive(Debug)]
pub struct Claimed {
    folder: PathBuf,
    /// Of the lock file when the run began.
    lock: fs::Metadata,
}

impl Claimed {
    pub(super) fn new(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join(LOCK_FILE);
        let lock = path.symlink_metadata().map_err(|error| RunError::io(&path, error))?;
        Ok(Self { folder: folder.to_owned(), lock })
    }

    /// Writes a file of the folder in one go.
    ///
    /// # Errors
    /// [`RunError::Gone`] if the folder is another one by now, [`RunError::Io`] if the system refuses.
    pub fn overwrite(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        let found = self.folder.join(LOCK_FILE).symlink_metadata();
        if !found.is_ok_and(|found| is_same(&self.lock, &found)) {
            return Err(RunError::Gone { path: self.folder.clone() });
        }
        super::disk::overwrite(&self.folder.join(name), bytes)
    }
}

#[cfg(unix)]
fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// A file that is held open cannot be removed there.
#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}

/// `runs/x` with a number: `runs/x-2`.
fn numbered(folder: &Path, number: u64) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    folder.with_file_name(name)
}

/// Refuses a folder that holds anything which tamegrad does not write there.
fn refuse_foreign(folder: &Path, kind: &Kind) -> Result<(), RunError> {
    for (name, file_type) in entries(folder)? {
        if file_type.is_file() && kind.files.iter().any(|ours| name == *ours) {
            continue;
        }
        let fits = |ours: &str| match ours.strip_suffix('*') {
            Some(start) => name.to_string_lossy().starts_with(start),
            None => name == *ours,
        };
        match kind.folders.iter().find(|(ours, _)| file_type.is_dir() && fits(ours)) {
            Some((_, kind)) => refuse_foreign(&folder.join(name), kind)?,
            None => {
                let found = name.to_string_lossy().into_owned();
                return Err(RunError::NotOurs { path: folder.to_owned(), found });
            }
        }
    }
    Ok(())
}

/// The names in a folder, and what each is.
fn entries(folder: &Path) -> Result<Vec<(OsString, FileType)>, RunError> {
    let list = || {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok((entry.file_name(), entry.file_type()?))
        };
        fs::read_dir(folder)?.map(entry).collect::<io::Result<Vec<_>>>()
    };
    list().map_err(|error| RunError::io(folder, error))
}

/// Takes the lock of a folder, or says who has it. A lock ends with its process, so there are no stale
/// ones; `None` where the file system knows no locks.
fn lock(folder: &Path) -> Result<Option<File>, RunError> {
    let path = folder.join(LOCK_FILE);
    let io = |error| RunError::io(&path, error);
    let create = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let mut file = match create {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            own_file(&path).map_err(io)?;
            OpenOptions::new().read(true).write(true).open(&path).map_err(io)?
        }
        other => other.map_err(io)?,
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = file.take(20).read_to_string(&mut text);
                let holder = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(RunError::Locked { path: folder.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(None);
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    file.set_len(0).map_err(io)?;
    file.write_all(std::process::id().to_string().as_bytes()).map_err(io)?;
    Ok(Some(file))
}

/// Whether a process is writing the run of a folder.
pub(super) fn is_being_written(folder: &Path) -> bool {
    let path = folder.join(LOCK_FILE);
    own_file(&path).is_ok()
        && File::open(&path)
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
