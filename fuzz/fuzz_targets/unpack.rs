//! Fuzzes the unpacking of compressed logs, archives and UTF-16; the input is the packed file.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamegrad_fuzz::packed(input));
