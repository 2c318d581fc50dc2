//! Fuzzes the reader of trackio's databases; the input is rows, see `tamegrad_fuzz::database`.

#![no_main]

const SCHEMA: &str = "CREATE TABLE metrics (run_id, timestamp, run_name, step, metrics);";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tamegrad_fuzz::file("trackio", "project.db", &tamegrad_fuzz::database(SCHEMA, input));
});
