//! Fuzzes the reader of tamegrad's own run folders; the input is a folder, see
//! `tamegrad_fuzz::write_folder`.

#![no_main]

use tamegrad_runs::{EVENTS_MAX, ROWS_READ_MAX, RunFolder};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tamegrad_fuzz::folder("tamegrad run", input);
    // The folder is still there: the command line reads it in this way as well.
    let Ok(run) = RunFolder::open(&tamegrad_fuzz::scratch("folder")) else { return };
    if let Ok(Some(state)) = run.state() {
        drop(state.diagnosis());
    }
    let contents = run.contents();
    assert!(contents.steps.len().max(contents.tensors.len()) <= ROWS_READ_MAX);
    assert!(contents.events.len() <= EVENTS_MAX);
});
