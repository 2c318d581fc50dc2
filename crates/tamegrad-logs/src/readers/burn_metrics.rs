//! The folder that burn's file logger writes: `<folder>/<split>/epoch-<n>/<Metric>.log`.
//!
//! A line is a number, or a number and how many items it is of, as `2.5,32`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use crate::files::{entries, open};
use crate::lines::{Line, each_line};
use crate::log::{LogBuilder, Point};
use crate::number::parse_number_bytes;
use crate::readers::{Format, Reader};

/// Folders of burn's metrics.
pub(crate) const READER: Reader =
    Reader { format: Format::named("burn"), recognises_folder, read, ..Reader::OF_FILES };

const SPLITS: [&str; 3] = ["train", "valid", "test"];

/// The folder is that of all splits, or that of one.
fn recognises_folder(folder: &Path, names: &[String]) -> bool {
    names.iter().any(|name| {
        (SPLITS.contains(&name.as_str()) && is_split(&folder.join(name)))
            || (epoch(name).is_some() && is_split(folder))
    })
}

/// Whether a folder has a first epoch with a metric of numbers in it.
fn is_split(folder: &Path) -> bool {
    let first = epochs(folder).into_iter().next();
    first.is_some_and(|(_, folder)| metrics(&folder).iter().any(|(_, path)| starts(path) > 0))
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    for folder in paths {
        let mut splits = entries(folder).map_err(|error| ReadError::io(folder, error))?;
        splits.push(folder.clone());
        splits.iter().filter(|path| is_split(path)).for_each(|split| read_split(split, log));
        if log.is_empty() {
            let wanted = "folders such as `train/epoch-1` with files such as `Loss.log`";
            return Err(ReadError::broken(folder, 0, "no numbers", wanted));
        }
    }
    Ok(())
}

fn read_split(folder: &Path, log: &mut LogBuilder) {
    let split = folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    // Of each metric, whether it has one line an epoch, and its records so far.
    let mut counts: HashMap<String, (bool, i64)> = HashMap::new();
    for (epoch, folder) in epochs(folder) {
        for (metric, path) in metrics(&folder) {
            let name = format!("{split}/{metric}");
            let (is_one_an_epoch, records) =
                counts.entry(metric).or_insert_with(|| (starts(&path) == 1, 0));
            let step = is_one_an_epoch.then_some(epoch);
            if let Err(error) = read_metric(&path, &name, step, records, log) {
                log.lose_the_rest();
                log.notice(&path, None, format!("{error}; what comes before it is used"));
            }
        }
    }
}

/// Reads the records of a metric in an epoch, at a step or at their numbers.
fn read_metric(
    path: &Path,
    name: &str,
    step: Option<i64>,
    records: &mut i64,
    log: &mut LogBuilder,
) -> io::Result<()> {
    let read = each_line(open(path)?, 0, |line @ Line { bytes, offset, .. }| {
        log.saw(line.len());
        if bytes.trim_ascii().is_empty() {
            return true;
        }
        match number(bytes) {
            Some(value) => {
                let step = step.unwrap_or(*records);
                log.push(name, Point { step, wall: f64::NAN, value });
            }
            None => {
                let start = bytes.get(..40).unwrap_or(bytes.trim_ascii_end());
                let text = format!("got {:?}, want a number", String::from_utf8_lossy(start));
                log.notice(path, Some(offset), text);
                log.lose(if line.is_ended { line.len() } else { 0 });
            }
        }
        *records += 1;
        true
    });
    read.map_err(|(_, error)| error)
}

/// The number of a line: all of it, or what comes before the count of items.
fn number(line: &[u8]) -> Option<f64> {
    let mut parts = line.split(|&byte| byte == b',');
    let value = parts.next().and_then(parse_number_bytes)?;
    let is_count = |part: &[u8]| part.trim_ascii().iter().all(u8::is_ascii_digit);
    (parts.next().is_none_or(is_count) && parts.next().is_none()).then_some(value)
}

/// How many records a file starts with, up to two.
fn starts(path: &Path) -> usize {
    let Ok(file) = open(path) else { return 0 };
    let mut count = 0;
    // What cannot be read starts with none.
    let _ = each_line(file, 0, |line| {
        let is_number = number(line.bytes).is_some();
        count += usize::from(is_number);
        is_number && count < 2
    });
    count
}

/// The epochs of a split, by their numbers.
fn epochs(folder: &Path) -> Vec<(i64, PathBuf)> {
    let mut epochs: Vec<(i64, PathBuf)> = entries(folder)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|path| Some((epoch(&path.file_name()?.to_string_lossy())?, path)))
        .collect();
    epochs.sort();
    epochs
}

fn epoch(name: &str) -> Option<i64> {
    name.strip_prefix("epoch-")?.parse().ok()
}

/// The metrics of an epoch, by their names. What is no file, such as a pipe, could block.
fn metrics(folder: &Path) -> Vec<(String, PathBuf)> {
    let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|about| about.is_file());
    entries(folder)
        .unwrap_or_default()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| is_file(path))
        .filter_map(|path| Some((path.file_stem()?.to_string_lossy().into_owned(), path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover;
    use crate::readers::tests::points;
    use proptest::prelude::*;
    use tempfile::TempDir;

    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn records_are_counted_over_the_epochs() {
        let folder = folder(&[
            ("experiment.log", b"INFO"),
            ("train/epoch-1/Loss.log", b"2.5,32\n2,32\n"),
            ("train/epoch-2/Loss.log", b"NaN,32\noops\ninf,8\n"),
            ("train/epoch-10/Loss.log", b"1,32\n"),
            ("train/epoch-1/LearningRate.log", b"0.1\n0.05"),
            ("train/epoch-1/Notes.txt", b"1"),
            ("valid/epoch-1/Loss.log", b"3\n"),
            ("valid/epoch-2/Loss.log", b"4\n"),
        ]);
        let (sources, errors) = discover(folder.path());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].format().name, "burn");
        let log = sources[0].read().unwrap();
        assert_eq!(points(&log, "train/Loss"), "0:2.5 1:2 2:NaN 4:inf 5:1");
        assert_eq!(points(&log, "train/LearningRate"), "0:0.1 1:0.05");
        assert_eq!(points(&log, "valid/Loss"), "1:3 2:4");
        assert_eq!(log.series.len(), 3);
        assert_eq!(log.notices.len(), 1);
        assert_eq!(log.notices[0].offset, Some(7));
    }

    #[test]
    fn one_split_is_a_run_as_well() {
        let folder = folder(&[("train/epoch-1/Loss.log", b"2\n1\n")]);
        let (sources, _) = discover(&folder.path().join("train"));
        assert_eq!(points(&sources[0].read().unwrap(), "train/Loss"), "0:2 1:1");
    }

    #[test]
    fn other_folders_are_not_taken_for_it() {
        for (name, text) in [
            ("train/epoch-1/train.log", &b"Epoch 1: loss 3"[..]),
            ("train/epoch-1/Loss.log", b""),
            ("train/epoch-1/weights.bin", b"1"),
            ("train/last/Loss.log", b"1"),
            ("epoch-1/1.log", b"1,2,3"),
        ] {
            let folder = folder(&[(name, text)]);
            let names: Vec<String> = name.split('/').take(1).map(str::to_owned).collect();
            assert!(!recognises_folder(folder.path(), &names), "{name}");
        }
        let empty = tempfile::tempdir().unwrap();
        let error = read(&[empty.path().into()], &mut LogBuilder::new()).unwrap_err().to_string();
        assert!(error.contains("want"), "{error}");
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(&b"0123,.\n"[..])], 0..60,
        )) {
            let folder = folder(&[("train/epoch-1/Loss.log", &text)]);
            let _ = read(&[folder.path().to_owned()], &mut LogBuilder::new());
        }
    }
}
