//! Fuzzes the reader of MLflow's databases; the input is rows, see `tamegrad_fuzz::database`.

#![no_main]

/// As version 3 makes them.
const SCHEMA: &str = "
    CREATE TABLE runs (run_uuid, lifecycle_stage);
    INSERT INTO runs VALUES ('gone', 'deleted');
    CREATE TABLE metrics (key, value, timestamp, step, is_nan, run_uuid);";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tamegrad_fuzz::file("mlflow", "mlflow.db", &tamegrad_fuzz::database(SCHEMA, input));
});
