//! The metrics of AllenNLP: a file `metrics_epoch_<n>.json` for each epoch, all of one run.

use std::path::{Path, PathBuf};

use tamegrad_runs::ReadError;

use super::json_rows::read_object;
use super::{Format, Head, Reader};
use crate::files::read_each;
use crate::log::{LogBuilder, Point};
use crate::row::Row;

/// Metrics of AllenNLP.
pub(crate) const READER: Reader = Reader {
    format: Format {
        norm_option: "set `enable_default_callbacks` and `should_log_parameter_statistics`",
        ..Format::named("allennlp")
    },
    recognises,
    run_key: |path| epoch(path).map(|_| String::new()),
    read,
    ..Reader::OF_FILES
};

fn recognises(head: &Head<'_>) -> bool {
    epoch(head.path).is_some() && head.bytes.trim_ascii_start().first() == Some(&b'{')
}

/// The epoch that the name of a file gives.
fn epoch(path: &Path) -> Option<i64> {
    let name = path.file_stem()?.to_str()?;
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    name.strip_prefix("metrics_epoch_")?.parse().ok().filter(|_| is_json)
}

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    // By name, epoch 10 comes before epoch 2.
    let mut paths = paths.to_vec();
    paths.sort_by_key(|path| epoch(path));
    read_each(&paths, log, |path, mut file, len, log| {
        let mut row = Row::default();
        read_object(&mut file, &mut row)
            .map_err(|found| ReadError::broken(path, len, found, "an object of numbers"))?;
        let step = epoch(path).unwrap_or(0);
        for (name, value) in row.cells() {
            log.push(name, Point { step, wall: f64::NAN, value });
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use crate::discover;

    #[test]
    fn the_files_of_all_epochs_are_one_run() {
        let folder = tempfile::tempdir().unwrap();
        for epoch in 0..12 {
            let loss = if epoch < 11 { format!("{}.5", 20 - epoch) } else { "NaN".to_owned() };
            let text = format!("{{\"epoch\": {epoch}, \"training_loss\": {loss}}}");
            std::fs::write(folder.path().join(format!("metrics_epoch_{epoch}.json")), text)
                .unwrap();
        }
        let (sources, errors) = discover(folder.path());
        assert_eq!((sources.len(), errors.len()), (1, 0));
        let log = sources[0].read().unwrap();
        let loss = &log.series("training_loss").unwrap().points;
        let steps: Vec<i64> = loss.iter().map(|point| point.step).collect();
        assert_eq!(steps, (0..12).collect::<Vec<_>>());
        assert!(loss[11].value.is_nan() && loss[10].value == 10.5);
    }
}
