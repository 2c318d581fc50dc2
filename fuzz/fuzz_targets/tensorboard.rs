//! Fuzzes the reader of TensorBoard event files. The parts of the input are records, which get the
//! length and the checksums that they need; a part that begins with `!` is put into the file as it
//! is, without the `!`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut file = Vec::new();
    for part in tamegrad_fuzz::parts(input) {
        match part {
            [b'!', raw @ ..] => file.extend_from_slice(raw),
            record => push_frame(record, &mut file),
        }
    }
    tamegrad_fuzz::file("TensorBoard event file", "events.out.tfevents.1", &file);
});

/// A TFRecord frame: the length, its checksum, the record, its checksum.
fn push_frame(record: &[u8], file: &mut Vec<u8>) {
    let sum = |bytes: &[u8]| {
        let crc = crc32c::crc32c(bytes);
        crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let len = (record.len() as u64).to_le_bytes();
    file.extend([&len[..], &sum(&len), record, &sum(record)].concat());
}
