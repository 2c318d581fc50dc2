//! Checkpoints: the statistics of every tensor in safetensors files, single or sharded.
//!
//! Pickles (`.pt`, `.bin`) are never loaded, because they can run code.

mod header;
mod shards;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tamegrad_stats::{TensorStats, merge, scan_file};

use crate::files;
use header::Entry;
use shards::Shards;
use tamegrad_runs::{Notice, Notices, ReadError};

/// A checkpoint as scanned.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The files that were read: one, or the shards in the order of their names.
    pub files: Vec<PathBuf>,
    /// The tensors file by file, in the order of their data.
    pub tensors: Vec<TensorReport>,
    /// The statistics of all scanned tensors together.
    pub total: TensorStats,
    /// What is broken and was left out; empty if everything was read.
    pub notices: Vec<Notice>,
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// Its name as in the file: any text.
    pub name: String,
    /// Its place in [`Checkpoint::files`].
    pub file: usize,
    /// The type of its elements as in the file, such as `BF16`.
    pub dtype: String,
    /// Its shape; empty for a single number.
    pub shape: Vec<u64>,
    /// `None` for types that are not scanned: all but `F64`, `F32`, `F16` and `BF16`.
    pub stats: Option<TensorStats>,
    /// Powers of 2 between the largest finite magnitude and the largest number of the type, at
    /// least 0; infinite if there is no finite element but zeros, `None` if it was not scanned.
    pub headroom_log2: Option<f64>,
}

impl TensorReport {
    /// Whether an element is known to be NaN or infinite.
    pub fn is_broken(&self) -> bool {
        self.stats.is_some_and(|stats| !stats.is_finite())
    }
}

/// Scans a safetensors file, a `*.safetensors.index.json` with its shards, or a folder that holds
/// either: in a folder without an index, every `*.safetensors` file. `progress` gets the bytes done and
/// the total after each tensor.
///
/// The data is read in pieces and scanned with the threads of the caller's rayon pool. It is scanned at most once, however many tensors claim it: overlapping tensors are left out.
///
/// # Errors
/// [`ReadError`] if the file, the index or the folder cannot be used at all. A shard that cannot be
/// read, or damage within a file, is a notice, and the rest is scanned.
pub fn scan_checkpoint(
    path: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Checkpoint, ReadError> {
    let mut notices = Notices::default();
    let shards = shards::find(path, &mut notices)?;
    let mut opened = Vec::new();
    for file in &shards.files {
        match open(file, &mut notices) {
            Ok((map, entries)) => opened.push((file.clone(), map, entries)),
            Err(error) if shards.is_one => return Err(error),
            Err(error) => notices.add(Notice::from(&error)),
        }
    }
    let bytes_of = |entries: &[Entry]| entries.iter().map(Entry::bytes_to_scan).sum::<usize>();
    let total = opened.iter().map(|(_, _, entries)| bytes_of(entries) as u64).sum();
    let (mut files, mut tensors, mut done) = (Vec::new(), Vec::new(), 0);
    progress(done, total);
    for (path, file, entries) in opened {
        for entry in &entries {
            match scan_entry(&file, entry) {
                Ok(stats) => tensors.push(report(entry, files.len(), stats)),
                Err(error) => {
                    let why = match error.kind() {
                        ErrorKind::UnexpectedEof => "the file was cut while it was read".to_owned(),
                        _ => error.to_string(),
                    };
                    let text = format!("{} is left out: {why}", quoted(&entry.name));
                    notices.push(&path, Some(entry.range.start as u64), text);
                }
            }
            if entry.bytes_to_scan() > 0 {
                done += entry.bytes_to_scan() as u64;
                progress(done, total);
            }
        }
        files.push(path);
    }
    notice_missing(&shards, &files, &tensors, &mut notices);
    let total = merge(tensors.iter().filter_map(|tensor| tensor.stats.as_ref()));
    Ok(Checkpoint { files, tensors, total, notices: notices.finish() })
}

/// The file with the tensors that it holds.
fn open(path: &Path, notices: &mut Notices) -> Result<(File, Vec<Entry>), ReadError> {
    let fail = |error| ReadError::io(path, error);
    let mut file = files::open(path).map_err(fail)?;
    let len = file.metadata().map_err(fail)?.len();
    if len == 0 {
        return Err(ReadError::broken(path, 0, "an empty file", header::WANTED));
    }
    let start = header::read_start(&mut file).map_err(fail)?;
    let entries = header::read(path, &start, usize::try_from(len).unwrap_or(usize::MAX), notices)?;
    Ok((file, entries))
}

/// The statistics of an entry, `None` for types that are not scanned.
fn scan_entry(file: &File, entry: &Entry) -> io::Result<Option<TensorStats>> {
    let Some(element) = entry.element else { return Ok(None) };
    let count = entry.range.len() / element.size();
    scan_file(file, entry.range.start as u64, count, element).map(Some)
}

fn report(entry: &Entry, file: usize, stats: Option<TensorStats>) -> TensorReport {
    let headroom = |stats: TensorStats| {
        // As a difference: the quotient of f64's largest and smallest is beyond f64.
        let headroom = entry.element?.max().log2() - stats.max_abs.log2();
        Some(headroom.max(0.0))
    };
    TensorReport {
        name: entry.name.clone(),
        file,
        dtype: entry.dtype.clone(),
        shape: entry.shape.clone(),
        headroom_log2: stats.and_then(headroom),
        stats,
    }
}

/// Notes what the index promises and no file that was read holds.
fn notice_missing(
    shards: &Shards,
    files: &[PathBuf],
    tensors: &[TensorReport],
    notices: &mut Notices,
) {
    let Some(index) = &shards.index else { return };
    let read: HashSet<(&Path, &str)> =
        tensors.iter().map(|tensor| (&*files[tensor.file], &*tensor.name)).collect();
    let read_files: HashSet<&PathBuf> = files.iter().collect();
    let mut missing = shards.weights.iter().filter(|(name, file)| {
        let file = &shards.files[*file];
        // A file that could not be read is noted as a whole.
        read_files.contains(file) && !read.contains(&(&**file, &**name))
    });
    if let Some((name, file)) = missing.next() {
        let more = missing.count();
        let text = format!(
            "{} of the index {} not read, the first is {} of {}",
            counted(more as u64 + 1, "tensor"),
            if more == 0 { "was" } else { "were" },
            quoted(name),
            shards.files[*file].display()
        );
        notices.push(index, None, text);
    }
}

/// A name from a file as it can be shown: in quotes, with control characters spelled out, the end
/// left out where it is long.
fn quoted(name: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    match name.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}

fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
