//! Fuzzes the state of a guard; the input is a list of changes to one, see `tamegrad_fuzz::guard_state`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamegrad_fuzz::guard_state(input));
