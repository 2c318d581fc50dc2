//! Fuzzes the scan of a safetensors file; the input is the file.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let path = tamegrad_fuzz::scratch("model.safetensors");
    std::fs::write(&path, input).expect("a temporary file can be written");
    tamegrad_fuzz::checkpoint(&path, input.len());
});
