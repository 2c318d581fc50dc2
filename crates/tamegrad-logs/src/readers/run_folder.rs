//! tamegrad's own run folders.

use std::path::PathBuf;

use tamegrad_runs::{Event, ReadError, RunFolder, StepRow, TensorRecord, is_run_folder};

use super::{Format, Reader};
use crate::log::{LogBuilder, Point, Recorded};

pub(super) const READER: Reader = Reader {
    format: Format::named("tamegrad run"),
    recognises_folder: |_, names| is_run_folder(names),
    read,
    ..Reader::OF_FILES
};

/// Events that are kept of a run.
const EVENTS_KEPT: usize = 10_000;

fn read(paths: &[PathBuf], log: &mut LogBuilder) -> Result<(), ReadError> {
    for path in paths {
        let run = RunFolder::open(path)?;
        let mut notices = Vec::new();
        // Before the rows: what they have beyond it came later.
        let state = run.state();
        let mut last = None;
        let broken = run.visit_steps(&mut notices, |row| {
            last = Some((row.step, row.wall));
            push_step(&row, log);
        })?;
        log.saw(path.join("steps.arrows").metadata().map_or(0, |file| file.len()));
        log.lose(broken);
        let places: Vec<usize> =
            run.info.tensors.iter().map(|t| log.place(&format!("grad_norm/{}", t.name))).collect();
        let mut unknown = 0_u64;
        let result =
            run.visit_tensors(&mut notices, |record| match places.get(record.tensor as usize) {
                Some(&place) => push_tensor(&record, place, log),
                None => unknown += 1,
            });
        let state = state.unwrap_or_else(|error| {
            log.notice(path, None, error.to_string());
            None
        });
        let known = state.as_ref().map(|state| (state.step, state.diagnosis()));
        let (step, diagnosis) = match known {
            Some((step, Ok(diagnosis))) => (Some(step), Some(diagnosis)),
            Some((_, Err(refused))) => {
                log.notice(path, None, refused);
                (None, None)
            }
            None => (None, None),
        };
        let mut alarm_since = None;
        let mut told = Vec::new();
        let events = run.visit_events(&mut notices, |event| {
            if is_alarm(&event) && step.is_none_or(|step| event.step > step) {
                alarm_since.get_or_insert(event.step);
            }
            if event.kind != "finding" && told.len() < EVENTS_KEPT {
                told.push(event);
            }
        });
        let ending = run.ending(state.as_ref());
        log.recorded(Recorded { diagnosis, alarm_since, ending, last, events: told });
        notices.into_iter().for_each(|notice| log.add(notice));
        if unknown > 0 {
            let text = format!("{unknown} rows left out, of tensors that run.json does not name");
            log.notice(path, None, text);
        }
        // The steps count without the tensors and the events.
        for error in [result.map(drop), events].into_iter().filter_map(Result::err) {
            log.notice(path, None, error.to_string());
        }
    }
    Ok(())
}

fn is_alarm(event: &Event) -> bool {
    event.kind == "finding" && event.data["severity"] == tamegrad::Severity::Alarm.as_str()
}

fn push_step(row: &StepRow, log: &mut LogBuilder) {
    let mut push = |name, value: Option<f64>| {
        if let Some(value) = value {
            log.push(
                name,
                Point { step: 0_i64.saturating_add_unsigned(row.step), wall: row.wall, value },
            );
        }
    };
    push("loss", row.loss);
    push("metric", row.metric);
    push("lr", row.learning_rate);
    // The norm is that of the finite elements.
    let is_whole = row.nonfinite_gradients == 0;
    push("grad_norm", if is_whole { row.gradient_norm } else { Some(f64::NAN) });
    push("update_ratio", row.update_ratio);
    push("nonfinite_gradients", Some(row.nonfinite_gradients as f64));
}

/// Pushes the norm; of an envelope the smallest and the largest, as thinning a series keeps them.
fn push_tensor(record: &TensorRecord, place: usize, log: &mut LogBuilder) {
    let point =
        |step, value| Point { step: 0_i64.saturating_add_unsigned(step), wall: f64::NAN, value };
    if record.steps > 1 {
        let first = record.step.saturating_sub(u64::from(record.steps) - 1);
        log.push_at(place, point(first, record.l2_min));
    }
    log.push_at(place, point(record.step, record.l2_max));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;
    use tamegrad_runs::{RunInfo, RunWriter, TensorInfo, TensorRow};

    #[test]
    fn a_run_folder_is_found_by_its_files_and_read_as_series() {
        let folder = tempfile::tempdir().unwrap();
        let tensors = vec![TensorInfo { name: "fc1.weight".to_owned(), layer: None, len: 9 }];
        let info = RunInfo { tensors, ..RunInfo::default() };
        let mut run = RunWriter::create(folder.path(), &info).unwrap();
        for step in 0..3 {
            let loss = Some(if step == 2 { f64::NAN } else { 0.5 });
            let (learning_rate, gradient_norm) = (Some(0.1), Some(2.0));
            let row = StepRow { step, wall: 7.0, loss, ..StepRow::default() };
            run.step(&StepRow { learning_rate, gradient_norm, ..row }).unwrap();
            let row = TensorRow { l2: step as f64, max_abs: 1.0, ..TensorRow::default() };
            run.tensors(step, &[row]).unwrap();
        }
        run.finish().unwrap();

        let source = Source::open(folder.path()).unwrap();
        assert_eq!(source.format().name, "tamegrad run");
        let log = source.read().unwrap();
        let names: Vec<&str> = log.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(
            names,
            ["loss", "lr", "grad_norm", "nonfinite_gradients", "grad_norm/fc1.weight"]
        );
        let loss = &log.series("loss").unwrap().points;
        assert_eq!(loss[1], Point { step: 1, wall: 7.0, value: 0.5 });
        assert!(loss[2].value.is_nan());
        let norms = &log.series("grad_norm/fc1.weight").unwrap().points;
        assert_eq!(norms.iter().map(|point| point.value).collect::<Vec<_>>(), [0.0, 1.0, 2.0]);
        assert_eq!(log.notices, []);
    }

    #[test]
    fn what_is_damaged_is_counted_and_a_cut_end_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunWriter::create(folder.path(), &RunInfo::default()).unwrap();
        for step in 0..600 {
            run.step(&StepRow { step, loss: Some(0.5), ..StepRow::default() }).unwrap();
        }
        run.finish().unwrap();
        let path = folder.path().join("steps.arrows");
        let whole = std::fs::read(&path).unwrap();
        let damage = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Source::open(folder.path()).unwrap().read().unwrap().damage
        };
        assert!(!damage(&whole).is_partly_read());
        assert!(!damage(&whole[..whole.len() - 20]).is_partly_read());
        let mut overwritten = whole.clone();
        let marks = whole.windows(4).enumerate().filter(|(_, bytes)| *bytes == [0xFF; 4]);
        let (batch, _) =
            marks.skip(1).find(|(at, _)| *at > 100).expect("a batch behind the schema");
        overwritten[batch..].fill(0x5A);
        assert!(damage(&overwritten).is_partly_read());
    }

    #[test]
    fn an_envelope_gives_its_smallest_and_its_largest_norm() {
        let mut log = LogBuilder::new();
        let place = log.place("grad_norm/a");
        let record = TensorRecord { step: 99, steps: 100, ..TensorRecord::default() };
        let record = TensorRecord { l2_min: 1.0, l2_max: 50.0, ..record };
        push_tensor(&record, place, &mut log);
        let log = log.finish();
        let points: Vec<_> = log.series[0].points.iter().map(|p| (p.step, p.value)).collect();
        assert_eq!(points, [(0, 1.0), (99, 50.0)]);
    }
}
