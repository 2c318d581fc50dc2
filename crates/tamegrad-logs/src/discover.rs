//! The runs below a path: folders are walked, files are recognised by content and grouped.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tamegrad_runs::ReadError;

use crate::files::{entries, files_below, is_open_pipe, not_a_file, open};
use crate::log::{Log, LogBuilder};
use crate::readers::{Format, Growing, HEAD_BYTES, Head, LONG_HEAD_BYTES, READERS, Reader};
use crate::roles::Map;
use crate::unpack::{Unpacked, take_in, unpack};
use crate::unread::{self, Unread};

/// One run: the files that hold it and the reader for them.
#[derive(Clone)]
pub struct Source {
    reader: &'static Reader,
    /// What people know the run by.
    paths: Vec<PathBuf>,
    /// Names that the user gave to roles.
    named: Vec<String>,
    /// Of a packed run, what holds it, and the paths in that.
    unpacked: Option<(Arc<Unpacked>, Vec<PathBuf>)>,
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
        let fail = |error| ReadError::io(path, error);
        let metadata = fs::metadata(path).map_err(fail)?;
        check_kind(path, &metadata)?;
        if metadata.is_dir() {
            let reader = recognise_folder(path, &entries(path).map_err(fail)?);
            let reader = reader.ok_or_else(|| unknown(path, "a folder".to_owned()))?;
            return Ok(Self::of(reader, path, &[]));
        }
        match recognise(path, &[])? {
            Ok(reader) => Ok(Self::of(reader, path, &[])),
            Err(unread) => Err(unknown(path, unread.found)),
        }
    }

    fn of(reader: &'static Reader, path: &Path, named: &[String]) -> Self {
        Self { reader, paths: vec![path.to_owned()], named: named.to_vec(), unpacked: None }
    }

    /// The same run, whose paths are in something that was unpacked.
    fn inside(mut self, unpacked: &Arc<Unpacked>) -> Self {
        let shown = self.paths.iter().map(|path| unpacked.shown(path)).collect();
        let paths = std::mem::replace(&mut self.paths, shown);
        self.unpacked = Some((unpacked.clone(), paths));
        self
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
        if self.unpacked.is_some() {
            return None;
        }
        (self.reader.grow)(path, LogBuilder::with_named(&self.named))
    }

    /// Reads the run.
    ///
    /// # Errors
    /// [`ReadError`] if nothing could be read; partial damage is a notice.
    pub fn read(&self) -> Result<Log, ReadError> {
        let mut builder = LogBuilder::with_named(&self.named);
        let Some((before, paths)) = &self.unpacked else {
            (self.reader.read)(&self.paths, &mut builder)?;
            return Ok(builder.finish());
        };
        let newer = before.again()?;
        let unpacked = newer.as_ref().unwrap_or(before);
        let paths: Vec<PathBuf> = paths.iter().map(|path| unpacked.moved(path, before)).collect();
        for text in &unpacked.notices {
            builder.notice(&self.paths[0], None, text.clone());
        }
        if unpacked.is_damaged {
            builder.lose_the_rest();
        }
        (self.reader.read)(&paths, &mut builder).map_err(|error| shown(error, unpacked))?;
        let mut log = builder.finish();
        log.notices.iter_mut().for_each(|notice| notice.path = unpacked.shown(&notice.path));
        Ok(log)
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
    let mut search = Search::new(map);
    if let Err(error) = search.named(path) {
        search.errors.push(error);
    }
    (search.sources, search.errors)
}

/// The runs of what comes from an input, such as the standard input, which is read to its end. It is
/// called `name`.
pub fn discover_input(name: &Path, input: impl Read, map: &Map) -> (Vec<Source>, Vec<ReadError>) {
    let mut search = Search::new(map);
    if let Err(error) = take_in(name, input).and_then(|unpacked| search.unpacked(unpacked)) {
        search.errors.push(error);
    }
    (search.sources, search.errors)
}

/// What was found so far.
struct Search {
    /// Names that the user gave to roles.
    named: Vec<String>,
    sources: Vec<Source>,
    errors: Vec<ReadError>,
}

impl Search {
    fn new(map: &Map) -> Self {
        let named = map.iter().map(|(_, name)| name.clone()).collect();
        Self { named, sources: Vec::new(), errors: Vec::new() }
    }

    /// What is at a path that the user named.
    fn named(&mut self, path: &Path) -> Result<(), ReadError> {
        let fail = |error| ReadError::io(path, error);
        let metadata = fs::metadata(path).map_err(fail)?;
        if metadata.is_dir() {
            self.folder(path);
            if self.sources.is_empty() && self.errors.is_empty() {
                let found = unread::folder(path);
                return Err(unknown(path, found));
            }
            return Ok(());
        }
        if is_open_pipe(path, &metadata.file_type()) {
            return take_in(path, File::open(path).map_err(fail)?)
                .and_then(|unpacked| self.unpacked(unpacked));
        }
        check_kind(path, &metadata)?;
        match recognise(path, &self.named)? {
            Ok(reader) => self.sources.push(Source::of(reader, path, &self.named)),
            Err(unread) => match unpack(path, true)? {
                Some(unpacked) => self.unpacked(unpacked)?,
                None => return Err(unknown(path, unread.found)),
            },
        }
        Ok(())
    }

    /// What is in something that was packed.
    fn unpacked(&mut self, unpacked: Unpacked) -> Result<(), ReadError> {
        let mut inner = Self { named: self.named.clone(), sources: Vec::new(), errors: Vec::new() };
        let unpacked = Arc::new(unpacked);
        let ended = if unpacked.root.is_dir() {
            inner.folder(&unpacked.root);
            let is_empty = inner.sources.is_empty() && inner.errors.is_empty();
            let nothing =
                || unknown(&unpacked.root, "an archive without a training log".to_owned());
            if is_empty { Err(nothing()) } else { Ok(()) }
        } else {
            match recognise(&unpacked.root, &self.named)? {
                Ok(reader) => {
                    inner.sources.push(Source::of(reader, &unpacked.root, &self.named));
                    Ok(())
                }
                Err(unread) => Err(unknown(&unpacked.root, unread.found)),
            }
        };
        let sources = inner.sources.into_iter();
        self.sources.extend(sources.map(|source| source.inside(&unpacked)));
        self.errors.extend(inner.errors.into_iter().map(|error| shown(error, &unpacked)));
        ended.map_err(|error| shown(error, &unpacked))
    }

    fn folder(&mut self, folder: &Path) {
        let entries = match entries(folder) {
            Ok(entries) => entries,
            Err(error) => return self.errors.push(ReadError::io(folder, error)),
        };
        if let Some(reader) = recognise_folder(folder, &entries) {
            return self.sources.push(Source::of(reader, folder, &self.named));
        }
        let mut groups: BTreeMap<(&str, String), usize> = BTreeMap::new();
        for path in entries {
            // The kind of the entry itself: a link is neither.
            let kind = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata.file_type(),
                Err(error) => {
                    self.errors.push(ReadError::io(&path, error));
                    continue;
                }
            };
            if kind.is_dir() {
                self.folder(&path);
            } else if kind.is_file() {
                match recognise(&path, &self.named) {
                    Ok(Ok(reader)) => {
                        let place = (reader.run_key)(&path).map(|key| {
                            *groups.entry((reader.format.name, key)).or_insert(self.sources.len())
                        });
                        match place.and_then(|place| self.sources.get_mut(place)) {
                            Some(source) => source.paths.push(path),
                            None => self.sources.push(Source::of(reader, &path, &self.named)),
                        }
                    }
                    Ok(Err(unread)) => self.unread(&path, unread),
                    Err(error) => self.errors.push(error),
                }
            }
        }
    }

    /// A file of a folder that no reader knows: it may be packed. What is a log by its name or its
    /// content, and cannot be read, is said; what is none is passed over.
    fn unread(&mut self, path: &Path, unread: Unread) {
        if let Ok(Some(unpacked)) = unpack(path, false) {
            let before = self.errors.len();
            if self.unpacked(unpacked).is_err() {
                self.errors.truncate(before);
            }
        } else if unread.is_log {
            self.errors.push(unknown(path, unread.found));
        }
    }
}

/// An error with the path that people know.
fn shown(error: ReadError, unpacked: &Unpacked) -> ReadError {
    match error {
        ReadError::Io { path, source } => ReadError::Io { path: unpacked.shown(&path), source },
        ReadError::Unknown { path, found, wanted } => {
            ReadError::Unknown { path: unpacked.shown(&path), found, wanted }
        }
        ReadError::Broken { path, offset, found, wanted } => {
            ReadError::Broken { path: unpacked.shown(&path), offset, found, wanted }
        }
    }
}

/// Refuses a path that leads to what can hold no log.
fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), ReadError> {
    let found = not_a_file(&metadata.file_type()).filter(|_| !metadata.is_dir());
    let Some(found) = found else { return Ok(()) };
    let wanted = "a file or a folder; hint: write what comes from it to a file, and name that";
    Err(ReadError::Unknown { path: path.to_owned(), found: found.to_owned(), wanted })
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
fn recognise(path: &Path, named: &[String]) -> Result<Result<&'static Reader, Unread>, ReadError> {
    let fail = |error| ReadError::io(path, error);
    let (bytes, is_whole) = read_head(path).map_err(fail)?;
    let head = Head { path, bytes: &bytes, is_whole, named };
    let found = READERS.iter().find(|reader| (reader.recognises)(&head));
    Ok(found.ok_or_else(|| unread::file(path, &bytes)))
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
