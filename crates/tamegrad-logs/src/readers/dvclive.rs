//! The folder that DVCLive writes: a table of steps and values for each series, all of one run.

use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use super::{Format, Reader};
use crate::files::{files_below, open};
use crate::lines::{Line, each_line};
use crate::log::{LogBuilder, Point};
use crate::number::parse_number_bytes;

/// Folders of DVCLive.
pub(crate) const READER: Reader =
    Reader { format: Format::named("dvclive"), recognises_folder, read, ..Reader::OF_FILES };

/// Where the tables are: in version 1 and later, and before.
const FOLDERS: [&str; 2] = ["plots/metrics", "scalars"];

fn recognises_folder(folder: &Path, names: &[String]) -> bool {
    let has_summary = names.iter().any(|name| name == "metrics.json" || name == "params.yaml");
    let has_tables = names.iter().any(|name| name == "plots" || name == "scalars");
    has_summary && has_tables && !tables(folder).is_empty()
}

/// The tables of a folder, each with the folder that its name is told from.
fn tables(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut tables = Vec::new();
    for inner in FOLDERS {
        let (inner, mut files) = (folder.join(inner), Vec::new());
        if inner.is_dir() && files_below(&inner, &mut files).is_ok() {
            files.sort();
            let tsv = files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "tsv"));
            tables.extend(tsv.map(|file| (inner.clone(), file)));
        }
    }
    tables
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    for folder in paths {
        for (above, table) in tables(folder) {
            let name = table.strip_prefix(&above).unwrap_or(&table).with_extension("");
            let name = name.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
            if let Err(error) = read_table(&table, &name, log) {
                log.lose_the_rest();
                log.notice(&table, None, format!("{error}; what comes before it is used"));
            }
        }
        if log.is_empty() {
            let wanted = "tables such as `plots/metrics/train/loss.tsv`";
            return Err(ReadError::broken(folder, 0, "no numbers", wanted));
        }
    }
    Ok(())
}

/// Reads `step<tab>value` lines below a header; newer versions have a time between the two.
fn read_table(path: &Path, name: &str, log: &mut LogBuilder) -> std::io::Result<()> {
    let read = each_line(open(path)?, 0, |line @ Line { bytes, offset, .. }| {
        log.saw(line.len());
        let mut cells = bytes.split(|byte| *byte == b'\t');
        let (step, value) = (cells.next(), cells.next_back());
        let number = |cell: Option<&[u8]>| cell.and_then(parse_number_bytes);
        match (number(step), number(value)) {
            (Some(step), Some(value)) => {
                log.push(name, Point { step: step as i64, wall: f64::NAN, value });
            }
            _ if offset == 0 || bytes.trim_ascii().is_empty() => {}
            _ if line.is_ended => {
                log.lose(line.len());
                log.notice(path, Some(offset), "got a line without a step and a number");
            }
            _ => {}
        }
        true
    });
    read.map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    use crate::discover;
    use crate::readers::tests::compare;

    #[test]
    fn all_tables_of_a_folder_are_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("metrics.json", "{\"train\": {\"loss\": 1.5}, \"step\": 2}");
        put("plots/metrics/train/loss.tsv", "step\tloss\n0\t2.5\n1\tnan\n2\t1.5\n");
        put("plots/metrics/lr.tsv", "timestamp\tstep\tlr\n");
        let (sources, errors) = discover(folder.path());
        assert_eq!((sources.len(), errors.len()), (1, 0));
        compare(&sources[0].read().unwrap(), "train/loss: 0:2.5 1:NaN 2:1.5");
    }
}
