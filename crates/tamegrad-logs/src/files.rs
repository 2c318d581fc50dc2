//! The files of one run, read one after the other: a bad one does not take the others with it.

use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tamegrad_runs::{Notice, ReadError};

use crate::log::LogBuilder;

/// Opens each file and gives it with its length to `read`. An error is a notice, and an error of
/// the whole only where no file had a number.
pub(crate) fn read_each(
    paths: &[PathBuf],
    log: &mut LogBuilder,
    mut read: impl FnMut(&Path, File, u64, &mut LogBuilder) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut first = None;
    for path in paths {
        let len = fs::metadata(path).map_or(0, |about| about.len());
        log.saw(len);
        let result = match open(path) {
            Ok(file) => read(path, file, len, log),
            Err(error) => Err(ReadError::io(path, error)),
        };
        if let Err(error) = result {
            log.lose(len);
            log.add(Notice::from(&error));
            first.get_or_insert(error);
        }
    }
    match first {
        Some(error) if log.is_empty() => Err(error),
        _ => Ok(()),
    }
}

/// Opens a regular file. Whatever else has a path may never end, or never begin: to open a pipe is to
/// wait for its other side.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    match not_a_file(&fs::metadata(path)?.file_type()) {
        None => File::open(path),
        Some(found) => {
            Err(io::Error::new(ErrorKind::InvalidInput, format!("got {found}, want a file")))
        }
    }
}

/// What is not a regular file, in words; `None` if it is one.
pub(crate) fn not_a_file(kind: &FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let is_device = kind.is_char_device() || kind.is_block_device();
        for (is_so, found) in
            [(kind.is_fifo(), "a pipe"), (kind.is_socket(), "a socket"), (is_device, "a device")]
        {
            if is_so {
                return Some(found);
            }
        }
    }
    Some(if kind.is_dir() { "a folder" } else { "no regular file" })
}

/// Whether a path is that of a pipe which this process was started with: the standard input, or `<(...)`
/// of a shell. To open any other is to wait for its other side.
pub(crate) fn is_open_pipe(path: &Path, kind: &FileType) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::FileTypeExt::is_fifo(kind)
        && (path == Path::new("/dev/stdin")
            || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder)));
    #[cfg(not(unix))]
    {
        let _ = (path, kind);
        false
    }
}

/// The files in a folder, at any depth. Links are not followed: they could lead in a circle.
pub(crate) fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        match entry.file_type() {
            // A folder that is gone again has no files.
            Ok(kind) if kind.is_dir() => drop(files_below(&entry.path(), files)),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}

/// The paths in a folder, in order: a name need not be UTF-8.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Point;
    use std::io::Read;

    #[test]
    fn one_bad_file_is_a_notice_and_only_bad_files_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a", "b", "c"].map(|name| folder.path().join(name)).into();
        std::fs::write(&paths[0], "1").unwrap();
        std::fs::write(&paths[1], "").unwrap();
        let read = |path: &Path, mut file: File, len: u64, log: &mut LogBuilder| {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(|error| ReadError::io(path, error))?;
            let broken = |_| ReadError::broken(path, len, "nothing", "a number");
            let value = text.parse().map_err(broken)?;
            log.push("loss", Point { step: 0, wall: 0.0, value });
            Ok(())
        };
        let mut log = LogBuilder::new();
        assert_eq!(read_each(&paths, &mut log, read).map_err(|e| e.to_string()), Ok(()));
        let log = log.finish();
        assert_eq!(log.series[0].points.len(), 1);
        assert_eq!(log.notices.len(), 2);
        let first = format!("{} at byte 0: got nothing, want a number", paths[1].display());
        assert_eq!(log.notices[0].to_string(), first);

        let error = read_each(&paths[1..], &mut LogBuilder::new(), read).unwrap_err();
        assert_eq!(error.to_string(), first);
    }
}
