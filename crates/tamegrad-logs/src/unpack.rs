//! Logs that are packed: compressed, in an archive, in UTF-16, or coming through a pipe.
//!
//! What is in them is written to a temporary folder and read there by the same readers as any other
//! log. The folder is removed with the last [`Source`](crate::Source) that reads from it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use tamegrad_runs::ReadError;
use tempfile::TempDir;

use crate::files::open;

/// Bytes that are unpacked from one file.
const BYTES_MAX: u64 = 4 << 30;
/// Bytes that are unpacked for each byte of a file: text that packs better is made to fill disks.
const RATIO_MAX: u64 = 1000;
/// Files that are unpacked from one archive.
const MEMBERS_MAX: usize = 100_000;
/// Bytes of an archive that is looked into though nobody named it.
const ARCHIVE_BYTES_MAX: u64 = 64 << 20;
/// Packings inside of each other: a tar in a gzip in a zip.
const DEPTH_MAX: usize = 3;
/// Bytes by which a packing is recognised.
const HEAD_BYTES: usize = 512;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
    Zip,
    Tar,
    Utf16 { is_big_endian: bool },
}

impl Packing {
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'P', b'K', 3, 4, ..] => Some(Self::Zip),
            [0xff, 0xfe, text @ ..] if !text.starts_with(&[0, 0]) => {
                Some(Self::Utf16 { is_big_endian: false })
            }
            [0xfe, 0xff, ..] => Some(Self::Utf16 { is_big_endian: true }),
            _ if head.get(257..262) == Some(b"ustar") => Some(Self::Tar),
            _ => utf16_without_mark(head),
        }
    }

    fn is_archive(self) -> bool {
        matches!(self, Self::Zip | Self::Tar)
    }
}

/// UTF-16 of mostly ASCII text has a zero in every second byte.
fn utf16_without_mark(head: &[u8]) -> Option<Packing> {
    let pairs = head.len() / 2;
    let text = |first: usize| {
        let is_text = |pair: &&[u8]| {
            pair[1 - first] == 0
                && (pair[first].is_ascii_graphic() || pair[first].is_ascii_whitespace())
        };
        head.chunks_exact(2).filter(is_text).count()
    };
    let is_most = |count: usize| pairs >= 8 && 10 * count >= 9 * pairs;
    if is_most(text(0)) {
        Some(Packing::Utf16 { is_big_endian: false })
    } else {
        is_most(text(1)).then_some(Packing::Utf16 { is_big_endian: true })
    }
}

/// What was packed in a file, unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// The packed file.
    original: PathBuf,
    /// The file or the folder that was in it.
    pub(crate) root: PathBuf,
    /// What of it could not be unpacked.
    pub(crate) notices: Vec<String>,
    /// Whether nobody knows how much that is.
    pub(crate) is_damaged: bool,
    /// Size and time of the packed file when it was unpacked; `None` of a pipe.
    stamp: Option<(u64, SystemTime)>,
    /// Removed when this is dropped.
    _folder: TempDir,
}

impl Unpacked {
    /// The path of something in it as people know it: `runs.zip/a/log.csv`, or `log.csv.gz` itself.
    pub(crate) fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(inner) if inner.as_os_str().is_empty() => self.original.clone(),
            Ok(inner) => self.original.join(inner),
            Err(_) => path.to_owned(),
        }
    }

    /// Unpacks the file anew if it has changed since.
    pub(crate) fn again(&self) -> Result<Option<Self>, ReadError> {
        if self.stamp.is_none() || self.stamp == stamp(&self.original) {
            return Ok(None);
        }
        unpack(&self.original, true)
    }

    /// Where something of `other`, which is the same file unpacked at another time, is in this one.
    pub(crate) fn moved(&self, path: &Path, other: &Self) -> PathBuf {
        let inner = path.strip_prefix(&other.root).unwrap_or(path);
        if inner.as_os_str().is_empty() { self.root.clone() } else { self.root.join(inner) }
    }
}

fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let about = fs::metadata(path).ok()?;
    Some((about.len(), about.modified().ok()?))
}

/// Unpacks a file; `None` if it is not packed. Large archives are left alone where nobody named them.
///
/// # Errors
/// [`ReadError`] if nothing could be unpacked.
pub(crate) fn unpack(path: &Path, is_named: bool) -> Result<Option<Unpacked>, ReadError> {
    let fail = |error| ReadError::io(path, error);
    let stamp = stamp(path);
    let mut file = open(path).map_err(fail)?;
    let Some(packing) = packing(&mut file).map_err(fail)? else { return Ok(None) };
    let length = file.metadata().map_err(fail)?.len();
    if packing.is_archive() && !is_named && length > ARCHIVE_BYTES_MAX {
        return Ok(None);
    }
    let mut unpacking = Unpacking::new(path)?;
    unpacking.bytes_left = BYTES_MAX.min(length.saturating_mul(RATIO_MAX));
    unpacking.file(packing, file, plain_name(path), DEPTH_MAX);
    unpacking.finish(stamp).map(Some)
}

/// Takes in what comes through a pipe to its end, and unpacks it if it is packed.
///
/// # Errors
/// [`ReadError`] if it cannot be read or written down.
pub(crate) fn take_in(path: &Path, input: impl Read) -> Result<Unpacked, ReadError> {
    let mut unpacking = Unpacking::new(path)?;
    unpacking.stream(input, PathBuf::from("log"), DEPTH_MAX);
    unpacking.finish(None)
}

/// The packing of a file, which stands at its start afterwards.
fn packing(file: &mut File) -> io::Result<Option<Packing>> {
    let mut head = Vec::new();
    Read::by_ref(file).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Packing::of(&head))
}

/// The name of a file without the ending of its packing.
fn plain_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    let endings = ["gz", "zst", "zstd", "tgz"];
    let is_packed = endings.iter().any(|known| ending == *known);
    Path::new(if is_packed { path.file_stem().unwrap_or(name) } else { name }).to_owned()
}

/// A file while it is unpacked.
struct Unpacking {
    original: PathBuf,
    folder: TempDir,
    /// What was written last, or the folder if that were several files.
    root: PathBuf,
    bytes_left: u64,
    members_left: usize,
    notices: Vec<String>,
    is_damaged: bool,
}

impl Unpacking {
    fn new(original: &Path) -> Result<Self, ReadError> {
        let folder =
            TempDir::with_prefix("tamegrad-").map_err(|error| ReadError::io(original, error))?;
        Ok(Self {
            original: original.to_owned(),
            root: folder.path().to_owned(),
            folder,
            bytes_left: BYTES_MAX,
            members_left: MEMBERS_MAX,
            notices: Vec::new(),
            is_damaged: false,
        })
    }

    fn finish(self, stamp: Option<(u64, SystemTime)>) -> Result<Unpacked, ReadError> {
        let is_empty =
            fs::read_dir(self.folder.path()).map_or(true, |mut files| files.next().is_none());
        if is_empty {
            let why = self.notices.into_iter().next();
            return Err(ReadError::Unknown {
                path: self.original,
                found: why.unwrap_or_else(|| "an archive without a file in it".to_owned()),
                wanted: "a file that can be unpacked",
            });
        }
        Ok(Unpacked {
            original: self.original,
            root: self.root,
            notices: self.notices,
            is_damaged: self.is_damaged,
            stamp,
            _folder: self.folder,
        })
    }

    /// Unpacks a file to `name` in the folder, or its members below it.
    fn file(&mut self, packing: Packing, file: File, name: PathBuf, depth: usize) {
        match packing {
            Packing::Gzip => self.stream(flate2::read::MultiGzDecoder::new(file), name, depth),
            Packing::Zstd => self.stream(Zstd::new(file), name, depth),
            Packing::Utf16 { is_big_endian } => {
                self.stream(Utf8::new(BufReader::new(file), is_big_endian), name, depth);
            }
            Packing::Zip => self.zip(file, depth),
            Packing::Tar => self.tar(file, depth),
        }
    }

    /// Writes a stream to a file in the folder, and unpacks that in turn.
    fn stream(&mut self, input: impl Read, name: PathBuf, depth: usize) {
        let path = self.folder.path().join(&name);
        if let Err(error) = self.write(input, &path) {
            return self.lose(&error);
        }
        self.root.clone_from(&path);
        let inner = File::open(&path).and_then(|mut file| Ok((packing(&mut file)?, file)));
        let Ok((Some(packing), file)) = inner else { return };
        if depth > 1 && !is_checkpoint(&path) {
            // The name is free for what is in it.
            let outer = self.folder.path().join("packed");
            if fs::rename(&path, &outer).is_ok() {
                self.root = self.folder.path().to_owned();
                self.file(packing, file, plain_name(&path), depth - 1);
                let _ = fs::remove_file(outer);
            }
        }
    }

    fn zip(&mut self, file: File, depth: usize) {
        let mut archive = match zip::ZipArchive::new(BufReader::new(file)) {
            Ok(archive) => archive,
            Err(error) => return self.lose(&io::Error::other(error)),
        };
        // A checkpoint of PyTorch, and an array of NumPy.
        let is_tensors = |name: &str| name.ends_with("data.pkl") || name.ends_with(".npy");
        if archive.file_names().flatten().any(|name| is_tensors(&name)) {
            self.notices.push("a zip archive of tensors".to_owned());
            return;
        }
        for index in 0..archive.len() {
            match archive.by_index(index) {
                Ok(member) if member.is_file() => {
                    let Some(path) = member.enclosed_name() else { continue };
                    if !self.member(member, &path, depth) {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => self.lose(&io::Error::other(error)),
            }
        }
    }

    fn tar(&mut self, file: File, depth: usize) {
        let mut archive = tar::Archive::new(BufReader::new(file));
        let entries = match archive.entries() {
            Ok(entries) => entries,
            Err(error) => return self.lose(&error),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.lose(&error),
            };
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path().map(std::borrow::Cow::into_owned);
            let Some(path) = path.ok().as_deref().and_then(inner_path) else { continue };
            if !self.member(entry, &path, depth) {
                return;
            }
        }
    }

    /// Unpacks a member of an archive. Whether there is room for more.
    fn member(&mut self, input: impl Read, path: &Path, depth: usize) -> bool {
        if self.members_left == 0 {
            let text =
                format!("got an archive of more than {MEMBERS_MAX} files; the rest is left out");
            self.notices.push(text);
            self.is_damaged = true;
            return false;
        }
        self.members_left -= 1;
        let target = self.folder.path().join(path);
        let made = target.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = made.and_then(|()| self.write(input, &target)) {
            self.lose(&error);
        }
        let inner = File::open(&target).and_then(|mut file| Ok((packing(&mut file)?, file)));
        if let Ok((Some(packing @ (Packing::Gzip | Packing::Zstd | Packing::Utf16 { .. })), file)) =
            inner
            && depth > 1
        {
            let outer = target.with_extension("packed");
            if fs::rename(&target, &outer).is_ok() {
                self.file(packing, file, path.with_file_name(plain_name(path)), 1);
                let _ = fs::remove_file(outer);
            }
        }
        self.root = self.folder.path().to_owned();
        self.bytes_left > 0
    }

    /// Writes an input down as far as it goes and there is room.
    fn write(&mut self, input: impl Read, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        let mut input = input.take(self.bytes_left);
        let mut chunk = vec![0; 1 << 16];
        loop {
            match input.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => file.write_all(chunk.get(..length).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lose(&error);
                    break;
                }
            }
        }
        self.bytes_left = input.limit();
        if self.bytes_left == 0 {
            let text = "got more than 4 GiB, or than 1000 times the file, when unpacked; the rest is left out";
            self.notices.push(text.to_owned());
            self.is_damaged = true;
        }
        Ok(())
    }

    /// Notes what could not be unpacked. An end that is missing is that of a file still being written.
    fn lose(&mut self, error: &io::Error) {
        self.is_damaged |= error.kind() != io::ErrorKind::UnexpectedEof;
        self.notices.push(format!("unpacking stopped: {error}; what comes before it is used"));
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["pt", "pth", "ckpt", "npz"].iter().any(|e| ending == *e))
}

/// A path that stays below the folder it is put in.
fn inner_path(path: &Path) -> Option<PathBuf> {
    let mut inner = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => inner.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!inner.as_os_str().is_empty()).then_some(inner)
}

/// The frames of a zstd file one after the other: a file that is appended to has several.
struct Zstd {
    frame: Option<
        Box<ruzstd::decoding::StreamingDecoder<BufReader<File>, ruzstd::decoding::FrameDecoder>>,
    >,
    rest: Option<BufReader<File>>,
}

impl Zstd {
    fn new(file: File) -> Self {
        Self { frame: None, rest: Some(BufReader::new(file)) }
    }
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let length = frame.read(buffer)?;
                if length > 0 || buffer.is_empty() {
                    return Ok(length);
                }
                self.rest = self.frame.take().map(|frame| frame.into_inner());
            }
            let Some(mut rest) = self.rest.take() else { return Ok(0) };
            if io::BufRead::fill_buf(&mut rest)?.is_empty() {
                return Ok(0);
            }
            let frame = ruzstd::decoding::StreamingDecoder::new(rest).map_err(io::Error::other)?;
            self.frame = Some(Box::new(frame));
        }
    }
}

/// UTF-16 as UTF-8.
struct Utf8<R> {
    input: R,
    is_big_endian: bool,
    /// UTF-8 that was not read yet, from `at` on.
    ready: Vec<u8>,
    at: usize,
    /// The first half of a character outside the basic plane.
    high: Option<u16>,
}

impl<R: Read> Utf8<R> {
    fn new(input: R, is_big_endian: bool) -> Self {
        Self { input, is_big_endian, ready: Vec::new(), at: 0, high: None }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; 1 << 14];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(bytes.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let units = bytes.get(..filled).unwrap_or_default().chunks_exact(2).map(|pair| {
            let pair = [pair[0], pair[1]];
            if self.is_big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
        });
        let units: Vec<u16> = self.high.take().into_iter().chain(units).collect();
        let is_open = units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit));
        let (whole, high) = units.split_at(units.len() - usize::from(is_open && filled > 0));
        self.high = high.first().copied();
        let text: String = char::decode_utf16(whole.iter().copied())
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .filter(|letter| *letter != '\u{feff}')
            .collect();
        self.ready = text.into_bytes();
        self.at = 0;
        Ok(())
    }
}

impl<R: Read> Read for Utf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.ready.len() {
            self.fill()?;
        }
        let rest = self.ready.get(self.at..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, discover, discover_input};

    const LOG: &str = "step 1 loss 2.5\nstep 2 loss 2.25\nstep 3 loss nan\n";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, *bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, bytes) in files {
            archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    fn utf16(text: &str, is_big_endian: bool) -> Vec<u8> {
        let units = text.encode_utf16();
        let bytes =
            units.map(|unit| if is_big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() });
        bytes.flatten().collect()
    }

    /// The loss of a log, as `step:value`.
    fn loss(source: &Source) -> String {
        crate::readers::tests::points(&source.read().unwrap(), "loss")
    }

    #[test]
    fn packed_logs_are_read_alone_and_in_a_folder() {
        let log = LOG.as_bytes();
        let marked = |is_big_endian| utf16(&format!("\u{feff}{LOG}"), is_big_endian);
        for (name, bytes, inner) in [
            ("train.log.gz", gzip(log), ""),
            ("train.log.zst", zstd(log), ""),
            ("twice.gz", [gzip(&log[..16]), gzip(&log[16..])].concat(), ""),
            ("little.log", marked(false), ""),
            ("big.log", marked(true), ""),
            ("unmarked.txt", utf16(LOG, false), ""),
            ("powershell.log.gz", gzip(&marked(false)), ""),
            ("run.zip", zip(&[("a/train.log", log), ("b.png", b"\x89PNG")]), "a/train.log"),
            ("run.tgz", gzip(&tar(&[("a/train.log", log)])), "a/train.log"),
            ("deep.tar", tar(&[("a/train.log.gz", &gzip(log))]), "a/train.log"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            for searched in [&path, folder.path()] {
                let (sources, errors) = discover(searched);
                assert_eq!((sources.len(), errors.len()), (1, 0), "{name}: {errors:?}");
                let shown = if inner.is_empty() { path.clone() } else { path.join(inner) };
                assert_eq!(sources[0].path(), shown);
                assert_eq!(loss(&sources[0]), "1:2.5 2:2.25 3:NaN", "{name}");
            }
        }
    }

    #[test]
    fn what_leaves_the_archive_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.zip");
        fs::write(&path, zip(&[("../../out.log", LOG.as_bytes()), ("a.log", LOG.as_bytes())]))
            .unwrap();
        let (sources, _) = discover(&path);
        assert_eq!(
            sources.iter().map(|s| s.path().to_owned()).collect::<Vec<_>>(),
            [path.join("a.log")]
        );
    }

    #[test]
    fn what_is_cut_is_read_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.log.gz");
        let lines: String =
            (0..3000).map(|i| format!("step {i} loss 2.{:03}\n", i * 7 % 1000)).collect();
        let whole = gzip(lines.as_bytes());
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let log = discover(&path).0[0].read().unwrap();
        assert!(log.series("loss").unwrap().points.len() > 500);
        assert_eq!(log.notices[0].path, path);
        assert!(log.notices[0].text.starts_with("unpacking stopped"), "{}", log.notices[0]);
    }

    #[test]
    fn a_packed_log_that_has_grown_is_unpacked_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.log.gz");
        fs::write(&path, gzip(LOG.as_bytes())).unwrap();
        let source = discover(&path).0.remove(0);
        let longer = format!("{LOG}step 4 loss 9\n");
        fs::write(&path, [gzip(longer.as_bytes()), Vec::new()].concat()).unwrap();
        assert_eq!(loss(&source), "1:2.5 2:2.25 3:NaN 4:9");
    }

    #[test]
    fn an_input_is_read_to_its_end() {
        let (sources, errors) = discover_input(Path::new("standard input"), LOG.as_bytes(), &[]);
        assert_eq!(errors.len(), 0, "{errors:?}");
        assert_eq!(loss(&sources[0]), "1:2.5 2:2.25 3:NaN");
        let (_, errors) = discover_input(Path::new("standard input"), &b""[..], &[]);
        assert!(
            errors[0].to_string().starts_with("standard input: got an empty file"),
            "{}",
            errors[0]
        );
    }
}
