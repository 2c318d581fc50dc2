//! Tests of the run folder as a whole: written, cut, resumed, read.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::disk::remove;
use crate::notice::Notice;
use crate::thin::Bounds;

fn step(step: u64) -> StepRow {
    StepRow {
        step,
        segment: 0,
        wall: 1.7e9 + step as f64,
        loss: Some(if step % 10 == 3 { f64::NAN } else { step as f64 }),
        metric: None,
        learning_rate: Some(0.1),
        gradient_norm: Some(if step % 10 == 4 { f64::INFINITY } else { 2.0 }),
        nonfinite_gradients: step % 3,
        update_ratio: step.is_multiple_of(2).then_some(1e-3),
    }
}

fn tensor(tensor: u32, step: u64) -> TensorRow {
    let l2 = step as f64 + f64::from(tensor);
    TensorRow { tensor, l2, max_abs: l2 / 2.0, mean: -0.5, nans: 0, infs: step % 2, zeros: 7 }
}

fn info() -> RunInfo {
    let names = ["fc1.weight", "fc1.bias"];
    RunInfo {
        tensors: names
            .map(|name| TensorInfo { name: name.into(), layer: Some("fc1".into()), len: 12 })
            .into(),
        recipe: Some("[model]\n".into()),
        source: None,
        environment: [("seed".to_owned(), "7".to_owned())].into(),
    }
}

/// A run in a folder of its own.
fn begin() -> (TempDir, RunWriter) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunWriter::create(folder.path(), &info()).unwrap();
    (folder, run)
}

fn write(run: &mut RunWriter, steps: std::ops::Range<u64>) {
    for number in steps {
        run.step(&step(number)).unwrap();
        run.tensors(number, &[tensor(0, number), tensor(1, number)]).unwrap();
    }
}

/// Makes a batch of the steps that wait.
fn batch(run: &mut RunWriter) {
    run.save().unwrap();
    run.steps.flush().unwrap();
    run.steps.forget().unwrap();
}

fn contents(folder: &Path) -> Contents {
    RunFolder::open(folder).unwrap().contents()
}

/// The steps as text, in which NaN equals NaN.
fn shown<T: std::fmt::Debug>(rows: &[T]) -> Vec<String> {
    rows.iter().map(|row| format!("{row:?}")).collect()
}

fn steps_of(contents: &Contents) -> Vec<u64> {
    contents.steps.iter().map(|row| row.step).collect()
}

fn texts(notices: &[Notice]) -> Vec<&str> {
    notices.iter().map(|notice| notice.text.as_str()).collect()
}

#[test]
fn what_is_written_is_read() {
    let (folder, mut run) = begin();
    write(&mut run, 0..300);
    let data = serde_json::json!({ "tensor": "fc1.weight", "norm": 4e9 });
    let event = Event { step: 42, kind: "finding".into(), text: "a \"spike\"\n".into(), data };
    run.event(&event).unwrap();
    run.finish().unwrap();

    let run = RunFolder::open(folder.path()).unwrap();
    assert_eq!(run.info, info());
    let contents = run.contents();
    assert_eq!(shown(&contents.steps), shown(&(0..300).map(step).collect::<Vec<_>>()));
    // 100 steps in one envelope for each tensor, and the last 200 in full.
    assert_eq!(contents.tensors.len(), 2 + 400);
    let envelope = contents.tensors[1];
    assert_eq!((envelope.tensor, envelope.step, envelope.steps), (1, 99, 100));
    assert_eq!((envelope.l2_min, envelope.l2_max, envelope.infs), (1.0, 100.0, 50));
    assert_eq!(contents.tensors[401], TensorRecord::new(299, 0, &tensor(1, 299)));
    assert_eq!(contents.events[0], event);
    assert_eq!(contents.events[1].kind, "thinned");
    assert_eq!(contents.events[1].data["tensor_rows"], 198);
    assert_eq!(contents.notices, []);
    assert!(!folder.path().join(RECENT_TENSORS_FILE).exists());
    assert!(!folder.path().join(RECENT_STEPS_FILE).exists());
}

#[test]
fn a_folder_is_readable_while_it_is_written() {
    let (folder, mut run) = begin();
    assert_eq!(contents(folder.path()), Contents::default());
    write(&mut run, 0..250);
    run.save().unwrap();
    let before = contents(folder.path());
    assert_eq!(before.steps.len(), 250);
    // All 250 steps: 50 in an envelope that is still open, 200 in full.
    assert_eq!(before.tensors.len(), 2 + 400);
    assert_eq!(before.tensors[0].steps, 50);
    // Rows that have left the last steps and are in the stream already are not read twice.
    write(&mut run, 250..400);
    run.tensors.flush().unwrap();
    let tensors = contents(folder.path()).tensors;
    assert!(tensors.iter().map(|row| row.step).is_sorted());
    let covered: u32 = tensors.iter().filter(|row| row.tensor == 0).map(|row| row.steps).sum();
    assert_eq!(covered, 250);
    assert_eq!((tensors[2].step, tensors[2].steps, tensors[4].step), (199, 100, 200));
}

#[test]
fn round_an_incident_every_tensor_is_there_at_every_step() {
    let (folder, mut run) = begin();
    write(&mut run, 0..1000);
    run.incident(999).unwrap();
    write(&mut run, 1000..2000);
    run.finish().unwrap();
    let tensors = contents(folder.path()).tensors;
    let full = |range: std::ops::Range<u64>| {
        tensors.iter().filter(|row| row.steps == 1 && range.contains(&row.step)).count()
    };
    assert_eq!((full(0..800), full(800..1200), full(1200..1800)), (0, 800, 0));
    assert_eq!(full(1800..2000), 400);
    let covered: u64 = tensors.iter().filter(|r| r.tensor == 0).map(|r| u64::from(r.steps)).sum();
    assert_eq!(covered, 2000);
}

#[test]
fn a_step_back_begins_a_segment() {
    let (folder, mut run) = begin();
    write(&mut run, 0..3);
    write(&mut run, 1..3);
    drop(run);
    let mut run = RunWriter::resume(folder.path()).unwrap();
    write(&mut run, 2..4);
    run.finish().unwrap();
    let contents = contents(folder.path());
    let places: Vec<_> = contents.steps.iter().map(|row| (row.segment, row.step)).collect();
    assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (2, 3)]);
    let tensors: Vec<_> = contents.tensors.iter().map(|row| (row.segment, row.step)).collect();
    assert_eq!(tensors.iter().step_by(2).copied().collect::<Vec<_>>(), places);
}

#[test]
fn a_cut_anywhere_in_the_last_batch_costs_that_batch_only() {
    let (folder, mut run) = begin();
    write(&mut run, 0..20);
    batch(&mut run);
    let path = folder.path().join(STEPS_FILE);
    let whole = fs::metadata(&path).unwrap().len() as usize;
    write(&mut run, 20..23);
    batch(&mut run);
    drop(run);
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > whole + 300);
    for cut in whole..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        remove(&folder.path().join(RECENT_STEPS_FILE)).unwrap();
        let read = contents(folder.path());
        assert_eq!(steps_of(&read), (0..20).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(read.notices.len(), usize::from(cut > whole), "cut at {cut}");
        assert!(read.notices.iter().all(|notice| notice.offset == Some(whole as u64)));

        let mut run = RunWriter::resume(folder.path()).unwrap();
        assert_eq!(run.notices().len(), usize::from(cut > whole));
        // The tensors' last step is 22: the steps after the cut are not run again.
        run.step(&step(23)).unwrap();
        drop(run);
        let read = contents(folder.path());
        assert_eq!(steps_of(&read), (0..20).chain([23]).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(read.notices, []);
    }
}

#[test]
fn a_finished_run_goes_on_without_its_end_mark() {
    let (folder, mut run) = begin();
    write(&mut run, 0..5);
    run.finish().unwrap();
    let path = folder.path().join(STEPS_FILE);
    let mark = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    assert!(fs::read(&path).unwrap().ends_with(&mark));
    let mut run = RunWriter::resume(folder.path()).unwrap();
    write(&mut run, 5..9);
    run.finish().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.windows(8).filter(|window| window == &mark).count(), 1);
    // The crate's own reader stops at the first end mark.
    let stream = arrow_ipc::reader::StreamReader::try_new(&bytes[..], None).unwrap();
    assert_eq!(stream.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 9);
    assert_eq!(contents(folder.path()).steps.len(), 9);
}

#[test]
fn after_a_crash_the_last_steps_are_there_and_resumed() {
    let (folder, mut run) = begin();
    write(&mut run, 0..250);
    drop(run);
    let before = contents(folder.path()).tensors;
    let mut run = RunWriter::resume(folder.path()).unwrap();
    run.incident(249).unwrap();
    write(&mut run, 250..251);
    run.finish().unwrap();
    let after = contents(folder.path()).tensors;
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 2);
}

#[test]
fn a_broken_place_costs_its_batch_and_the_rest_is_read() {
    let (folder, mut run) = begin();
    let path = folder.path().join(STEPS_FILE);
    let mut ends = Vec::new();
    for number in 0..3 {
        write(&mut run, 5 * number..5 * number + 5);
        batch(&mut run);
        ends.push(fs::metadata(&path).unwrap().len() as usize);
    }
    drop(run);
    let bytes = fs::read(&path).unwrap();
    let rest: Vec<u64> = (0..5).chain(10..15).collect();
    for place in [ends[0], ends[0] + 4, ends[0] + 8] {
        let mut broken = bytes.clone();
        broken[place] ^= 0x55;
        fs::write(&path, &broken).unwrap();
        let read = contents(folder.path());
        assert_eq!(steps_of(&read), rest, "broken at {place}");
        assert_eq!(read.notices[0].offset, Some(ends[0] as u64));
    }
    // Resuming goes on behind what is whole, and does not cut it off.
    let mut run = RunWriter::resume(folder.path()).unwrap();
    run.step(&step(15)).unwrap();
    drop(run);
    assert_eq!(steps_of(&contents(folder.path())), [&rest[..], &[15]].concat());
}

#[test]
fn events_are_cut_and_broken_alike() {
    let (folder, mut run) = begin();
    for step in 0..3 {
        run.event(&Event { step, ..Event::default() }).unwrap();
    }
    drop(run);
    let path = folder.path().join(EVENTS_FILE);
    let text = fs::read_to_string(&path).unwrap().replacen("\"step\":1", "\"step\":x", 1);
    fs::write(&path, &text[..text.len() - 3]).unwrap();
    let read = contents(folder.path());
    assert_eq!(read.events.iter().map(|event| event.step).collect::<Vec<_>>(), [0]);
    assert!(texts(&read.notices)[0].starts_with("a broken event is left out"));
    assert!(texts(&read.notices)[1].starts_with("an event is truncated after"));
    let mut run = RunWriter::resume(folder.path()).unwrap();
    run.event(&Event { step: 7, ..Event::default() }).unwrap();
    drop(run);
    let events = contents(folder.path()).events;
    assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), [0, 7]);
}

#[test]
fn a_second_writer_is_refused() {
    let (folder, run) = begin();
    let pid = std::process::id();
    let error = RunWriter::resume(folder.path()).unwrap_err();
    assert!(matches!(error, RunError::Locked { holder: Some(holder), .. } if holder == pid));
    assert!(error.to_string().contains(&format!("another process ({pid}) is writing this run")));
    assert!(matches!(RunWriter::create(folder.path(), &info()), Err(RunError::Locked { .. })));
    drop(run);
    let error = RunWriter::create(folder.path(), &info()).unwrap_err();
    assert!(matches!(error, RunError::Exists { .. }), "{error}");
    RunWriter::resume(folder.path()).unwrap();
}

#[test]
fn a_folder_that_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("events.jsonl.bak"), "mine").unwrap();
    for existing in [Existing::Number, Existing::Overwrite, Existing::Refuse] {
        let error = RunWriter::begin(folder.path(), &info(), existing).unwrap_err();
        assert!(matches!(error, RunError::NotOurs { .. }), "{error}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);

    // A run beside which somebody keeps notes.
    let (folder, run) = begin();
    run.finish().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let error = RunWriter::begin(folder.path(), &info(), Existing::Overwrite).unwrap_err();
    assert!(error.to_string().contains("holds `notes.txt`"), "{error}");
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    fs::write(&target, "mine").unwrap();
    for name in [STEPS_FILE, EVENTS_FILE, LOCK_FILE, "run.json.new"] {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(name)).unwrap();
        let error = RunWriter::create(folder.path(), &info()).unwrap_err();
        assert!(matches!(error, RunError::NotOurs { .. }), "{error}");
    }
    // Placed there later.
    for name in [STEPS_FILE, EVENTS_FILE, LOCK_FILE] {
        let (folder, run) = begin();
        drop(run);
        fs::remove_file(folder.path().join(name)).unwrap();
        fs::copy(folder.path().join(TENSORS_FILE), &target).unwrap();
        let before = fs::read(&target).unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(name)).unwrap();
        RunWriter::resume(folder.path()).unwrap_err();
        assert_eq!(fs::read(&target).unwrap(), before, "{name}");
    }
    let (folder, mut run) = begin();
    for name in ["diagnosis.json.new", STATE_FILE] {
        std::os::unix::fs::symlink(&target, folder.path().join(name)).unwrap();
    }
    let state = State { step: 1, wall: 0.0, end: None, diagnosis: serde_json::Value::Null };
    run.state(&state).unwrap();
    assert!(!fs::read_to_string(&target).unwrap_or_default().contains("diagnosis"));
    assert!(folder.path().join(STATE_FILE).symlink_metadata().unwrap().is_file());
}

#[test]
fn rows_are_on_the_disk_before_they_make_a_batch() {
    let (folder, mut run) = begin();
    let stream = folder.path().join(STEPS_FILE);
    write(&mut run, 0..3);
    run.save().unwrap();
    let before = fs::metadata(&stream).unwrap().len();
    assert_eq!(contents(folder.path()).steps.len(), 3);
    assert_eq!(contents(folder.path()).tensors.len(), 6);
    write(&mut run, 3..5);
    run.save().unwrap();
    assert_eq!(fs::metadata(&stream).unwrap().len(), before);
    assert_eq!(steps_of(&contents(folder.path())), [0, 1, 2, 3, 4]);
    write(&mut run, 5..300);
    run.save().unwrap();
    assert!(fs::metadata(&stream).unwrap().len() > before);
    assert!(!folder.path().join(RECENT_STEPS_FILE).exists());
    assert_eq!(contents(folder.path()).steps.len(), 300);
}

#[test]
fn what_cannot_be_written_is_kept_and_the_gap_is_said() {
    let (folder, mut run) = begin();
    write(&mut run, 0..3);
    run.save().unwrap();
    // Nothing can be written under this name.
    let obstacle = folder.path().join("steps.recent.arrows.new");
    run.steps.forget().unwrap();
    fs::create_dir(&obstacle).unwrap();
    write(&mut run, 3..9);
    let error = run.save().unwrap_err();
    assert!(matches!(error, RunError::Io { .. }), "{error}");
    fs::remove_dir(&obstacle).unwrap();
    write(&mut run, 9..12);
    run.save().unwrap();
    run.finish().unwrap();
    let read = contents(folder.path());
    assert_eq!(steps_of(&read), (0..12).collect::<Vec<_>>());
    let said = read.events.iter().find(|event| event.kind == "not-written").unwrap();
    assert!(
        said.text.starts_with("nothing could be written from step 8 to step 11"),
        "{}",
        said.text
    );
    assert_eq!(said.data["steps"], 0);
}

#[test]
fn no_run_folder_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(RunWriter::resume(folder.path()), Err(RunError::Read(ReadError::Io { .. }))));
    for text in ["", "{", "[]", r#"{"format":"tamegrad-run","version":2}"#, r#"{"format":"x"}"#] {
        fs::write(folder.path().join(INFO_FILE), text).unwrap();
        let error = RunFolder::open(folder.path()).unwrap_err();
        assert!(matches!(error, ReadError::Broken { .. }), "{text}: {error}");
    }
}

#[test]
fn beyond_the_bound_steps_are_thinned_out_and_that_is_said() {
    let (folder, run) = begin();
    let mut run = run.with_bounds(Bounds { step_rows: 100, ..Bounds::default() });
    for step in 0..200 {
        let loss = Some(if step == 155 { f64::NAN } else { 1.0 });
        run.step(&StepRow { step, loss, ..StepRow::default() }).unwrap();
        if step == 171 {
            run.incident(171).unwrap();
        }
    }
    run.finish().unwrap();
    let read = contents(folder.path());
    let beyond: Vec<u64> = steps_of(&read).into_iter().filter(|step| *step >= 100).collect();
    let wanted: Vec<u64> = [109, 119, 129, 139, 149, 155, 160, 170, 171].into();
    assert_eq!(beyond[..9], wanted);
    assert_eq!(beyond[9..], (172..200).collect::<Vec<_>>());
    let kinds: Vec<&str> = read.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["thinning", "thinned"]);
    assert_eq!(read.events[1].data["steps"], 200 - read.steps.len());
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_has_the_same_rows() {
    let (folder, mut run) = begin();
    write(&mut run, 0..50);
    run.finish().unwrap();
    let out = folder.path().join("out");
    let run = RunFolder::open(folder.path()).unwrap();
    assert_eq!(export(&run, &out).unwrap(), []);
    for (name, rows, columns) in [("steps.parquet", 50, 9), ("tensors.parquet", 100, 12)] {
        let file = fs::File::open(out.join(name)).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1024);
        let batches: Vec<_> = reader.unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), rows);
        assert_eq!(batches[0].num_columns(), columns);
    }
}

/// A folder whose stream of steps is these bytes.
fn read_as_steps(bytes: &[u8]) -> Contents {
    let (folder, run) = begin();
    drop(run);
    fs::write(folder.path().join(STEPS_FILE), bytes).unwrap();
    let read = contents(folder.path());
    // Resuming may be refused.
    drop(RunWriter::resume(folder.path()));
    read
}

fn small_stream() -> Vec<u8> {
    let (folder, mut run) = begin();
    for number in 0..3 {
        write(&mut run, 3 * number..3 * number + 3);
        batch(&mut run);
    }
    drop(run);
    fs::read(folder.path().join(STEPS_FILE)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(read_as_steps(&bytes).steps.is_empty());
    }

    #[test]
    fn a_stream_with_broken_bytes_never_panics(
        places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)
    ) {
        static STREAM: LazyLock<Vec<u8>> = LazyLock::new(small_stream);
        let mut bytes = STREAM.clone();
        for (place, value) in &places {
            let place = place.index(bytes.len());
            bytes[place] = *value;
        }
        prop_assert!(read_as_steps(&bytes).steps.len() <= 9);
    }
}
