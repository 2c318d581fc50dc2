//! Fuzzes the reader of AllenNLP's metrics; the input is the file of one epoch.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tamegrad_fuzz::file(
    "allennlp",
    "metrics_epoch_3.json",
    input
));
