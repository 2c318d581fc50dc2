//! Power cuts: what the disk was not told to keep may be gone, in any combination.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::disk::{DONE, Op};
use super::*;

/// A file as the disk has it: bytes that it must keep, and those that it may have lost.
#[derive(Debug, Clone, Default)]
struct OnDisk {
    bytes: Vec<u8>,
    synced: usize,
}

/// What is left after a power cut behind an operation. Of the pieces of each file that were not synced a
/// part is left, then zeros or nothing, and of the names that were not synced only the first few.
fn after_the_cut(
    done: &[Op],
    choice: &mut impl FnMut(usize) -> usize,
) -> HashMap<PathBuf, Vec<u8>> {
    let mut files: Vec<OnDisk> = Vec::new();
    let mut names: HashMap<PathBuf, usize> = HashMap::new();
    // Changes of names that the disk may not have yet.
    let (mut kept, mut pending) = (names.clone(), Vec::new());
    let apply =
        |names: &mut HashMap<PathBuf, usize>, change: &(PathBuf, Option<usize>)| match change.1 {
            Some(file) => drop(names.insert(change.0.clone(), file)),
            None => drop(names.remove(&change.0)),
        };
    for op in done {
        let changes: Vec<(PathBuf, Option<usize>)> = match op {
            Op::Create(path) => {
                files.push(OnDisk::default());
                vec![(path.clone(), Some(files.len() - 1))]
            }
            Op::Append(path, piece) => {
                files[names[path]].bytes.extend(piece);
                vec![]
            }
            Op::Sync(path) => {
                let file = &mut files[names[path]];
                file.synced = file.bytes.len();
                vec![]
            }
            // The folder that is synced is that of the run: the test writes to no other.
            Op::Rename(from, to) => {
                vec![(to.clone(), names.get(from).copied()), (from.clone(), None)]
            }
            Op::Remove(path) => vec![(path.clone(), None)],
            Op::SyncFolder => {
                kept = names.clone();
                pending.clear();
                vec![]
            }
        };
        changes.iter().for_each(|change| apply(&mut names, change));
        // A rename is one change to the disk.
        if !changes.is_empty() {
            pending.push(changes);
        }
    }
    let reached = choice(pending.len() + 1);
    for change in pending[..reached].iter().flatten() {
        apply(&mut kept, change);
    }
    let left = |file: &OnDisk, choice: &mut dyn FnMut(usize) -> usize| {
        let unsynced = file.bytes.len() - file.synced;
        let written = file.synced + choice(unsynced + 1);
        let mut bytes = file.bytes[..written].to_vec();
        if choice(2) == 1 {
            bytes.resize(written + choice(unsynced - (written - file.synced) + 1), 0);
        }
        bytes
    };
    kept.into_iter().map(|(name, file)| (name, left(&files[file], choice))).collect()
}

fn put(files: &HashMap<PathBuf, Vec<u8>>, from: &Path, to: &Path) {
    for (path, bytes) in files {
        let name = path.strip_prefix(from).expect("a file of the run");
        fs::write(to.join(name), bytes).unwrap();
    }
}

#[test]
fn after_a_power_cut_at_any_point_what_was_saved_is_there() {
    let folder = tempfile::tempdir().unwrap();
    DONE.with_borrow_mut(Vec::clear);
    let mut run = RunWriter::create(folder.path(), &RunInfo::default()).unwrap();
    // After how many operations how many steps and events were saved.
    let mut saved = vec![(DONE.with_borrow(Vec::len), 0, 0)];
    let (mut steps, mut events) = (0_u64, 0_usize);
    for round in 0..24 {
        for _ in 0..[1, 3, 90][round % 3] {
            run.step(&StepRow { step: steps, loss: Some(1.0), ..StepRow::default() }).unwrap();
            run.tensors(steps, &[TensorRow { l2: 1.0, ..TensorRow::default() }]).unwrap();
            steps += 1;
        }
        if round % 5 == 4 {
            let diagnosis = serde_json::json!({ "alarms": events + 1 });
            run.state(&State { step: steps - 1, wall: 0.0, end: None, diagnosis }).unwrap();
            run.incident(steps - 1).unwrap();
            run.event(&Event { step: steps - 1, ..Event::default() }).unwrap();
            events += 1;
        }
        run.save().unwrap();
        saved.push((DONE.with_borrow(Vec::len), steps, events));
    }
    run.finish().unwrap();
    saved.push((DONE.with_borrow(Vec::len), steps, events));
    let done = DONE.with_borrow(Clone::clone);

    // A generator of its own: the cut and what is left are the same in every run of the test.
    let mut state = 1_u64;
    let mut choice = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let begun = saved[0].0;
    for cut in (begun..=done.len()).flat_map(|cut| [cut; 3]) {
        let (_, steps, events) =
            *saved.iter().rfind(|(after, ..)| *after <= cut).expect("the first is at the start");
        let files = after_the_cut(&done[..cut], &mut choice);
        let left = tempfile::tempdir().unwrap();
        put(&files, folder.path(), left.path());
        let run = RunFolder::open(left.path()).expect("it opens");
        let contents = run.contents();
        let seen: Vec<u64> = contents.steps.iter().map(|row| row.step).collect();
        assert!(seen.len() as u64 >= steps, "cut {cut}: {} of {steps} steps", seen.len());
        assert_eq!(seen, (0..seen.len() as u64).collect::<Vec<_>>(), "cut {cut}: each step once");
        let tensors: u64 = contents.tensors.iter().map(|row| u64::from(row.steps)).sum();
        assert!(tensors >= steps, "cut {cut}: {tensors} of {steps} rows of the tensor");
        assert!(contents.events.len() >= events, "cut {cut}: an event is missing");
        let known =
            run.state().expect("whole or not there").map(|state| state.diagnosis["alarms"].clone());
        let told = contents.events.iter().filter(|event| event.kind.is_empty()).count() as u64;
        assert!(known.and_then(|alarms| alarms.as_u64()).unwrap_or(0) >= told, "cut {cut}: milder");
        // And a writer goes on with it.
        RunWriter::resume(left.path()).expect("it goes on").finish().unwrap();
    }
}
