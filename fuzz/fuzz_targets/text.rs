//! Fuzzes the reader of plain text; the input is the file.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamegrad_fuzz::file("text", "train.log", input));
