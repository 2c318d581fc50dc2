//! Fuzzes the reader of notebooks; the input is the file.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamegrad_fuzz::file("notebook", "a.ipynb", input));
