//! Fuzzes the reader of W&B run files. The parts of the input are chunks behind the header of a
//! file: the first byte is the type of the chunk, the rest its data, which gets its length and
//! checksum. A part that begins with `!` is put into the file as it is, without the `!`.

#![no_main]

const HEADER: &[u8; 7] = b":W&B\xe1\xbe\0";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut file = HEADER.to_vec();
    for part in tamegrad_fuzz::parts(input) {
        match part {
            [b'!', raw @ ..] => file.extend_from_slice(raw),
            [kind, data @ ..] => push_chunk(*kind, data, &mut file),
            [] => {}
        }
    }
    tamegrad_fuzz::file("W&B run file", "run-1.wandb", &file);
});

/// A chunk of a LevelDB log with the checksum of W&B, over the type and the data.
fn push_chunk(kind: u8, data: &[u8], file: &mut Vec<u8>) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(data);
    let len = (data.len() as u16).to_le_bytes();
    file.extend([&hasher.finalize().to_le_bytes()[..], &len, &[kind], data].concat());
}
