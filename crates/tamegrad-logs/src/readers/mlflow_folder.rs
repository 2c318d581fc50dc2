//! MLflow's file store: a folder for each run.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use super::{Format, Reader};
use crate::files::{entries, open};
use crate::lines::{Line, each_line};
use crate::log::{LogBuilder, Point};

/// The folder of a run, `mlruns/<experiment>/<run>/`.
pub(super) const READER: Reader = Reader {
    format: Format::named("mlflow"),
    recognises_folder,
    read: read_folders,
    ..Reader::OF_FILES
};

/// Folders within folders of metrics: `train/loss` is one in another.
const DEPTH_MAX: usize = 16;

/// A run's folder has `meta.yaml` and `metrics`; so has a model's, which names no run of its own.
fn recognises_folder(folder: &Path, names: &[String]) -> bool {
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if !has("meta.yaml") || !has("metrics") || !folder.join("metrics").is_dir() {
        return false;
    }
    let mut text = String::new();
    let read = open(&folder.join("meta.yaml"))
        .and_then(|file| file.take(super::HEAD_BYTES as u64).read_to_string(&mut text));
    let names_run = |line: &str| line.starts_with("run_id:") || line.starts_with("run_uuid:");
    read.is_ok() && text.lines().any(names_run)
}

fn read_folders(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    for path in paths {
        read_metrics(&path.join("metrics"), "", DEPTH_MAX, log)?;
    }
    Ok(())
}

/// Reads the files of a folder, each of which is a metric named by its path.
fn read_metrics(
    folder: &Path,
    prefix: &str,
    depth: usize,
    log: &mut LogBuilder,
) -> Result<(), ReadError> {
    for path in entries(folder).map_err(|error| ReadError::io(folder, error))? {
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        // The kind of the entry itself: a link could lead in a circle.
        let result = match fs::symlink_metadata(&path) {
            Ok(kind) if kind.is_dir() && depth > 0 => {
                read_metrics(&path, &format!("{name}/"), depth - 1, log)
            }
            Ok(kind) if kind.is_file() => {
                read_metric(&path, &name, log).map_err(|error| ReadError::io(&path, error))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(ReadError::io(&path, error)),
        };
        // The other metrics still count.
        if let Err(error) = result {
            log.lose_the_rest();
            log.notice(&path, None, error.to_string());
        }
    }
    Ok(())
}

fn read_metric(path: &Path, name: &str, log: &mut LogBuilder) -> std::io::Result<()> {
    let read = each_line(open(path)?, 0, |line @ Line { bytes, offset, .. }| {
        log.saw(line.len());
        match point(bytes) {
            Some(point) => log.push(name, point),
            None if bytes.trim_ascii().is_empty() => {}
            None => {
                let start = &bytes[..bytes.len().min(40)];
                let found = String::from_utf8_lossy(start.trim_ascii()).into_owned();
                let text = format!("got {found:?}, want a time, a number and a step");
                log.notice(path, Some(offset), text);
                log.lose(if line.is_ended { line.len() } else { 0 });
            }
        }
        true
    });
    read.map_err(|(_, error)| error)
}

/// The point of a line `timestamp value step`; the oldest versions wrote no step.
fn point(line: &[u8]) -> Option<Point> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let wall = words.next()?.parse::<f64>().ok()? / 1e3;
    let value = words.next()?.parse().ok()?;
    let step = words.next().map_or(Some(0), |word| word.parse().ok())?;
    Some(Point { step, wall, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover;

    #[test]
    fn the_folder_of_a_run_is_read_with_nested_names() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("mlruns/0/abc");
        fs::create_dir_all(run.join("metrics/train")).unwrap();
        fs::write(run.join("meta.yaml"), "artifact_uri: x\nrun_id: abc\n").unwrap();
        fs::write(
            run.join("metrics/train/loss"),
            "1700000000500 2.5 0\n1700000001000 nan 1\nbroken\n1700000001500 inf 2\n17",
        )
        .unwrap();
        fs::write(run.join("metrics/acc"), "1700000000500 0.5\n").unwrap();
        // A model of the same store is no run.
        let model = folder.path().join("mlruns/0/models/m-1");
        fs::create_dir_all(model.join("metrics")).unwrap();
        fs::write(model.join("meta.yaml"), "model_id: m-1\nsource_run_id: abc\n").unwrap();

        let (sources, errors) = discover(folder.path());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(sources.len(), 1);
        assert_eq!((sources[0].format().name, sources[0].path()), ("mlflow", run.as_path()));
        let log = sources[0].read().unwrap();
        let loss = &log.series("train/loss").unwrap().points;
        assert_eq!(loss[0], Point { step: 0, wall: 1_700_000_000.5, value: 2.5 });
        assert!(loss[1].value.is_nan());
        assert_eq!((loss[2].step, loss[2].value), (2, f64::INFINITY));
        assert_eq!(log.series("acc").unwrap().points[0].step, 0);
        let offsets: Vec<_> = log.notices.iter().map(|notice| notice.offset).collect();
        assert_eq!(offsets, [Some(40), Some(67)]);
    }
}
