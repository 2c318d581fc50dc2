//! The runs below a path: folders are walked, files are recognised by content and grouped.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use crate::files::{entries, files_below, not_a_file, open};
use crate::log::{Log, LogBuilder};
use crate::readers::{Format, Growing, HEAD_BYTES, Head, LONG_HEAD_BYTES, READERS, Reader};
use crate::roles::Map;

/// One run: the files that hold it and the reader for them.
#[derive(Clone)]
pub struct Source {
    reader: &'static Reader,
    paths: Vec<PathBuf>,
    /// Names that the user gave to roles.
    named: Vec<String>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("format", &self.reader.format.name)
            .field("paths", &self.paths)
            .finish()
    }
}

impl Source {
    /// The run of one file, or of a folder that is one run as a whole.
    ///
    /// # Errors
    /// [`ReadError`] if it cannot be opened or no reader knows it.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::open_named(path, &[])
    }

    fn open_named(path: &Path, named: &[String]) -> Result<Self, ReadError> {
        let fail = |error| ReadError::io(path, error);
        let metadata = fs::metadata(path).map_err(fail)?;
        if let Some(found) = not_a_log(&metadata) {
            let wanted =
                "a file or a folder; hint: write what comes from it to a file, and name that";
            return Err(ReadError::Unknown {
                path: path.to_owned(),
                found: found.to_owned(),
                wanted,
            });
        }
        let found = if metadata.is_dir() {
            recognise_folder(path, &entries(path).map_err(fail)?)
                .ok_or_else(|| "a folder".to_owned())
        } else {
            recognise(path, named)?
        };
        match found {
            Ok(reader) => Ok(Self::of(reader, path, named)),
            Err(found) => Err(unknown(path, found)),
        }
    }

    fn of(reader: &'static Reader, path: &Path, named: &[String]) -> Self {
        Self { reader, paths: vec![path.to_owned()], named: named.to_vec() }
    }

    /// The format.
    pub fn format(&self) -> &'static Format {
        &self.reader.format
    }

    /// The files, or the one folder, that hold the run.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The files that hold the run: of a folder, those in it at any depth. Links are not followed.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for path in &self.paths {
            if !path.is_dir() || files_below(path, &mut files).is_err() {
                files.push(path.clone());
            }
        }
        files
    }

    /// The path that names the run: its file or folder, or the folder of its files if there are several.
    pub fn path(&self) -> &Path {
        match &self.paths[..] {
            [one] => one,
            [first, ..] => first.parent().unwrap_or(first),
            [] => Path::new(""),
        }
    }

    /// The growing run, read from its start; `None` if it has to be re-read each time.
    pub(crate) fn grow(&self) -> Option<Box<dyn Growing>> {
        let [path] = &self.paths[..] else { return None };
        (self.reader.grow)(path, LogBuilder::with_named(&self.named))
    }

    /// Reads the run.
    ///
    /// # Errors
    /// [`ReadError`] if nothing could be read; partial damage is a notice.
    pub fn read(&self) -> Result<Log, ReadError> {
        let mut builder = LogBuilder::with_named(&self.named);
        (self.reader.read)(&self.paths, &mut builder)?;
        Ok(builder.finish())
    }
}

/// The runs of a file or below a folder, in the order of their paths, with errors for what could not
/// be read. A file that is not a log is an error if it was named itself, and skipped in a folder.
/// Links are followed for the path itself, but not below it, where they could form a cycle.
pub fn discover(path: &Path) -> (Vec<Source>, Vec<ReadError>) {
    discover_mapped(path, &[])
}

/// [`discover`], where a file also counts as a log if it has a name that the user gave to a role.
pub fn discover_mapped(path: &Path, map: &Map) -> (Vec<Source>, Vec<ReadError>) {
    let named: Vec<String> = map.iter().map(|(_, name)| name.clone()).collect();
    let (mut sources, mut errors) = (Vec::new(), Vec::new());
    if path.is_dir() {
        walk(path, &named, &mut sources, &mut errors);
        if sources.is_empty() && errors.is_empty() {
            errors.push(unknown(path, "a folder without a training log".to_owned()));
        }
    } else {
        match Source::open_named(path, &named) {
            Ok(source) => sources.push(source),
            Err(error) => errors.push(error),
        }
    }
    (sources, errors)
}

fn walk(folder: &Path, named: &[String], sources: &mut Vec<Source>, errors: &mut Vec<ReadError>) {
    let entries = match entries(folder) {
        Ok(entries) => entries,
        Err(error) => return errors.push(ReadError::io(folder, error)),
    };
    if let Some(reader) = recognise_folder(folder, &entries) {
        return sources.push(Source::of(reader, folder, named));
    }
    let mut groups: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for path in entries {
        // The kind of the entry itself: a link is neither.
        let kind = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) => {
                errors.push(ReadError::io(&path, error));
                continue;
            }
        };
        if kind.is_dir() {
            walk(&path, named, sources, errors);
        } else if kind.is_file() {
            match recognise(&path, named) {
                Ok(Ok(reader)) => {
                    let place = (reader.run_key)(&path).map(|key| {
                        *groups.entry((reader.format.name, key)).or_insert(sources.len())
                    });
                    match place.and_then(|place| sources.get_mut(place)) {
                        Some(source) => source.paths.push(path),
                        None => sources.push(Source::of(reader, &path, named)),
                    }
                }
                Ok(Err(_)) => {}
                Err(error) => errors.push(error),
            }
        }
    }
}

/// What a path leads to that can hold no log, in words.
fn not_a_log(metadata: &Metadata) -> Option<&'static str> {
    not_a_file(&metadata.file_type()).filter(|_| !metadata.is_dir())
}

fn unknown(path: &Path, found: String) -> ReadError {
    let wanted = "a training log; hint: for your own CSV or JSON lines, say which column is the loss \
                  with `--map loss=NAME`";
    ReadError::Unknown { path: path.to_owned(), found, wanted }
}

fn recognise_folder(folder: &Path, entries: &[PathBuf]) -> Option<&'static Reader> {
    let names = entries.iter().filter_map(|path| path.file_name());
    let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    READERS.iter().find(|reader| (reader.recognises_folder)(folder, &names))
}

/// The reader of a file, or what the file looks like.
fn recognise(path: &Path, named: &[String]) -> Result<Result<&'static Reader, String>, ReadError> {
    let fail = |error| ReadError::io(path, error);
    let (bytes, is_whole) = read_head(path).map_err(fail)?;
    let head = Head { path, bytes: &bytes, is_whole, named };
    let found = READERS.iter().find(|reader| (reader.recognises)(&head));
    Ok(found.ok_or_else(|| looks_like(&bytes)))
}

/// The start of a file, and whether it is all of it. Of a text it goes on until it holds two lines: a
/// header or a record may be long, and one line does not make a log.
fn read_head(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut file = open(path)?;
    let (mut bytes, mut lines) = (Vec::new(), 0);
    loop {
        let seen = bytes.len();
        file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut bytes)?;
        let new = bytes.get(seen..).unwrap_or_default();
        if new.len() < HEAD_BYTES {
            return Ok((bytes, true));
        }
        lines += memchr::memchr_iter(b'\n', new).count();
        if lines >= 2 || new.contains(&0) || bytes.len() >= LONG_HEAD_BYTES {
            return Ok((bytes, false));
        }
    }
}

fn looks_like(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "an empty file".to_owned();
    }
    if bytes.contains(&0) {
        return "a binary file of an unknown kind".to_owned();
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let line: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
    format!("text that begins with {line:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::Role;

    const LOG: &str = "{\"step\": 1, \"loss\": 2.0}\n{\"step\": 2, \"loss\": 1.9}\n";

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_and_to_nowhere_are_passed_over() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("log.jsonl"), LOG).unwrap();
        symlink(folder.path(), inner.join("round")).unwrap();
        symlink(inner.join("itself"), inner.join("itself")).unwrap();
        symlink("nowhere", inner.join("dangling")).unwrap();
        let (sources, errors) = discover(folder.path());
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].paths(), [inner.join("log.jsonl")]);
        assert_eq!(errors.len(), 0, "{errors:?}");

        let (sources, errors) = discover(&inner.join("itself"));
        assert_eq!((sources.len(), errors.len()), (0, 1));
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_utf_8_is_a_name() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let name: &OsStr = OsStrExt::from_bytes(b"l\xffg.jsonl");
        let path = folder.path().join(name);
        // Some file systems take no such name.
        if fs::write(&path, LOG).is_err() {
            return;
        }
        let (sources, errors) = discover(folder.path());
        assert_eq!(errors.len(), 0, "{errors:?}");
        assert_eq!(sources[0].paths(), [path]);
        assert_eq!(sources[0].read().unwrap().series("loss").unwrap().points.len(), 2);
    }

    #[test]
    fn a_log_among_thousands_of_other_files_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..3000 {
            let inner = folder.path().join((number % 10).to_string());
            fs::create_dir_all(&inner).unwrap();
            fs::write(inner.join(format!("{number}.txt")), "nothing of interest\n").unwrap();
        }
        fs::write(folder.path().join("7/log.jsonl"), LOG).unwrap();
        let (sources, errors) = discover(folder.path());
        assert_eq!((sources.len(), errors.len()), (1, 0));
    }

    #[test]
    fn a_mapped_name_makes_a_file_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let csv: String = (0..20).map(|i| format!("{i},{}\n", 5.0 / f64::from(i + 1))).collect();
        let lines =
            "{\"k\": 1, \"cost\": {\"energy\": 2}}\n{\"k\": 2, \"cost\": {\"energy\": 1}}\n";
        for (name, text, mapped) in [
            ("a.csv", format!("k,energy\n{csv}"), "energy"),
            ("a.jsonl", lines.to_owned(), "cost/energy"),
            ("a.json", "{\"fit\": {\"energy\": [3, 2, 1]}}".to_owned(), "fit/energy"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            assert_eq!(discover(&path).0.len(), 0, "{name}");
            let map = [(Role::Loss, mapped.to_owned())];
            let (sources, errors) = discover_mapped(&path, &map);
            assert_eq!(errors.len(), 0, "{errors:?}");
            let log = sources[0].read().unwrap();
            let names: Vec<&str> = log.series.iter().map(|s| s.name.as_str()).collect();
            assert!(names.contains(&mapped), "{name}: {names:?}");
            // A name that it does not have makes nothing a log.
            let other = [(Role::Loss, "nothing".to_owned())];
            assert_eq!(discover_mapped(&path, &other).0.len(), 0, "{name}");
        }
    }
}
