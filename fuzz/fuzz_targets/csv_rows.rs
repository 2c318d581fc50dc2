//! Fuzzes the reader of CSV files; the input is the file.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamegrad_fuzz::file("csv", "log.csv", input));
