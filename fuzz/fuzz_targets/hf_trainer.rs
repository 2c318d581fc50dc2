//! Fuzzes the reader of `trainer_state.json`; the input is the file.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tamegrad_fuzz::file("hf-trainer", "trainer_state.json", input);
});
