//! One file per format. A reader recognises its files by their content and turns their records into
//! points.

mod allennlp;
mod burn_metrics;
mod csv_rows;
mod dvclive;
mod hf_trainer;
mod json_rows;
#[cfg(feature = "sqlite")]
mod mlflow;
mod mlflow_folder;
#[cfg(not(feature = "sqlite"))]
mod no_sqlite;
mod notebook;
mod run_folder;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tensorboard;
mod text;
#[cfg(feature = "sqlite")]
mod trackio;
mod wandb;

use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use crate::lines::whole_lines;
use crate::log::{Log, LogBuilder};

/// The start of a file, by which its format is recognised.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Where the file is; a hint where content says too little.
    pub path: &'a Path,
    /// Its first bytes: [`HEAD_BYTES`], or more of a text whose first two lines are longer.
    pub bytes: &'a [u8],
    /// Whether these are all of them.
    pub is_whole: bool,
    /// Names that the user gave to roles; they count as names of a log.
    pub named: &'a [String],
}

/// Bytes of a file that are looked at to recognise its format.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Bytes that are looked at of a text whose first lines are longer than that.
pub(crate) const LONG_HEAD_BYTES: usize = 16 << 20;

/// A log format: its name, and what else its writers could log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The name, as reports give it.
    pub name: &'static str,
    /// What its writers always hide, and the option that shows it.
    pub hides: Option<&'static str>,
    /// How to log the norm of the whole gradient.
    pub norm_option: &'static str,
    /// How to log the gradient norms of individual tensors.
    pub tensors_option: &'static str,
}

impl Format {
    /// A format whose writers log only what they are told to.
    pub const fn named(name: &'static str) -> Self {
        Self {
            name,
            hides: None,
            norm_option: "log the value that `clip_grad_norm_` returns as `grad_norm`",
            tensors_option: "log each parameter's gradient norm as `grad_norm/<name>`",
        }
    }
}

/// The reader of a log format.
pub struct Reader {
    /// The format.
    pub format: Format,
    /// Whether a file is of this format.
    pub recognises: fn(&Head<'_>) -> bool,
    /// Whether a folder as a whole is one run of this format; its files are then not looked at one
    /// by one. `names` are the names in it, sorted.
    pub recognises_folder: fn(folder: &Path, names: &[String]) -> bool,
    /// Files of one folder that give the same key are one run; `None`: each file is its own run.
    pub run_key: fn(path: &Path) -> Option<String>,
    /// A growing file of this format, read into a log from its start; `None` if it has to be re-read
    /// each time.
    pub grow: fn(path: &Path, log: LogBuilder) -> Option<Box<dyn Growing>>,
    /// Reads the files of one run, in the order of their names, or the one folder.
    pub read: fn(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError>,
}

impl Reader {
    /// A reader of files, each of which is a run and re-read each time; for `..` in the others.
    const OF_FILES: Self = Self {
        format: Format::named(""),
        recognises: |_| false,
        recognises_folder: |_, _| false,
        run_key: |_| None,
        grow: |_, _| None,
        read: |_, _| Ok(()),
    };
}

/// All formats, those that recognise their content most surely first.
pub const READERS: &[Reader] = &[
    tensorboard::READER,
    wandb::READER,
    #[cfg(feature = "sqlite")]
    mlflow::READER,
    #[cfg(feature = "sqlite")]
    trackio::READER,
    #[cfg(not(feature = "sqlite"))]
    no_sqlite::READER,
    mlflow_folder::READER,
    run_folder::READER,
    burn_metrics::READER,
    dvclive::READER,
    allennlp::READER,
    notebook::READER,
    hf_trainer::READER,
    json_rows::READER,
    csv_rows::READER,
    text::TEXT,
];

/// A file that is read incrementally as it grows.
pub trait Growing {
    /// How many of these bytes, from the first on, are whole records; `None` where they are damaged
    /// in a way that only reading all of the file can pass over. Records are lines where nothing
    /// else is said.
    fn whole(&self, bytes: &[u8]) -> Option<usize> {
        Some(whole_lines(bytes))
    }

    /// Takes in bytes that are whole records, from so many bytes on.
    fn take(&mut self, bytes: &[u8], offset: u64);

    /// The log if the file ended behind `rest`, which is less than a record, with the ends of long
    /// series alone, as [`LogBuilder`] cuts them at `points`.
    fn look(&mut self, rest: &[u8], points: usize) -> Log;
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::sample::Index;

    use super::*;

    /// Whether a reader takes a whole file of this content for its own.
    pub(super) fn knows(reader: &Reader, name: &str, bytes: &[u8]) -> bool {
        let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
        let is_whole = head.len() == bytes.len();
        (reader.recognises)(&Head { path: Path::new(name), bytes: head, is_whole, named: &[] })
    }

    /// What a reader reads of a file of this name and content.
    pub(super) fn read_text(reader: &Reader, name: &str, bytes: &[u8]) -> Log {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut log = LogBuilder::new();
        (reader.read)(&[path], &mut log).unwrap();
        log.finish()
    }

    /// Damages the middle of a file and cuts its end: the former counts, the latter does not.
    #[track_caller]
    pub(super) fn check_damage(reader: &Reader, name: &str, whole: &[u8]) {
        let len = whole.len();
        assert_eq!(read_text(reader, name, whole).damage.share(), 0.0);
        let cut = read_text(reader, name, &whole[..len - 3]);
        assert_eq!((cut.damage.share(), cut.damage.is_partly_read()), (0.0, false));
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(len)
        .collect();
        for filling in [noise, vec![0; len], vec![0xff; len]] {
            let mut bytes = whole.to_vec();
            bytes[len / 5..4 * len / 5].copy_from_slice(&filling[len / 5..4 * len / 5]);
            let damage = read_text(reader, name, &bytes).damage;
            assert!(damage.is_partly_read(), "{damage:?} of {len}, {}", filling[0]);
            assert!((0.4..0.9).contains(&damage.share()), "{damage:?} of {len}, {}", filling[0]);
        }
    }

    /// Compares all series, each as `name: step:value ...`, with lines.
    #[track_caller]
    pub(super) fn compare(log: &Log, want: &str) {
        let series = log.series.iter();
        let got: Vec<String> = series
            .map(|series| format!("{}: {}", series.name, points(log, &series.name)))
            .collect();
        let want: Vec<&str> = want.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(got, want);
    }

    /// Puts other bytes into some places.
    pub(super) fn change(bytes: &mut [u8], changes: &[(Index, u8)]) {
        for (place, byte) in changes {
            if let Some(at) = (!bytes.is_empty()).then(|| place.index(bytes.len())) {
                bytes[at] = *byte;
            }
        }
    }

    /// The points of a series, as `step:value`.
    pub(crate) fn points(log: &Log, name: &str) -> String {
        let points = log.series(name).map(|series| &series.points[..]).unwrap_or_default();
        let points: Vec<String> =
            points.iter().map(|point| format!("{}:{}", point.step, point.value)).collect();
        points.join(" ")
    }

    /// Each series as `name: step=value ...`, `~` before an estimate; then each notice.
    pub(super) fn words(log: &Log) -> Vec<String> {
        let mut words = Vec::new();
        for series in &log.series {
            let sign = if series.estimated { "~" } else { "" };
            let points: Vec<String> =
                series.points.iter().map(|p| format!("{}={sign}{}", p.step, p.value)).collect();
            words.push(format!("{}: {}", series.name, points.join(" ")));
        }
        words.extend(log.notices.iter().map(|notice| format!("! {notice}")));
        words
    }

    /// Recognises and reads bytes, whatever comes of it: without a panic.
    pub(super) fn survives(reader: &Reader, bytes: &[u8]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        knows(reader, "log", bytes);
        let mut log = LogBuilder::new();
        let _ = (reader.read)(&[file.path().to_owned()], &mut log);
        log.finish();
    }
}
