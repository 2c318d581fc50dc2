//! Fuzzes the scan of a sharded checkpoint; the input is a folder, see
//! `tamegrad_fuzz::write_folder`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let path = tamegrad_fuzz::scratch("folder");
    tamegrad_fuzz::write_folder(&path, input);
    tamegrad_fuzz::checkpoint(&path, input.len());
});
