//! Fuzzes the reader of JSON lines and documents; the input is the file.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamegrad_fuzz::file("json-lines", "log.json", input));
