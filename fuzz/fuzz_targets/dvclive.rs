//! Fuzzes the reader of DVCLive's folders; the input is a folder, see `tamegrad_fuzz::write_folder`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamegrad_fuzz::folder("dvclive", input));
