//! The work that `cargo xtask bench logs` times: a log diagnosed, a checkpoint scanned.
//!
//! It is told on standard input what to do, a line `WHAT PATH` each, does it once and answers with
//! the milliseconds. `events PATH`, `tenth-of-events PATH` and `checkpoint-TYPE PATH` write the
//! inputs first. A line that
//! makes no sense is answered by `error: ` and why.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufRead, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use tamegrad_logs::{Source, read_verdict, scan_checkpoint};

/// Bytes of the event file.
const EVENT_BYTES: u64 = 500 << 20;

/// Its scalars.
const TAGS: u64 = 200;

/// Bytes of a checkpoint's data, in tensors of [`TENSOR_BYTES`].
const CHECKPOINT_BYTES: u64 = 4 << 30;
const TENSOR_BYTES: u64 = 64 << 20;

/// Bytes that one thread sums at a time in the plain read.
const READ_BYTES: u64 = 1 << 20;

fn main() -> io::Result<()> {
    // `cargo test --benches` starts this as well, and asks for nothing.
    for line in io::stdin().lock().lines() {
        let answer = answer(&line?).unwrap_or_else(|why| format!("error: {why}"));
        writeln!(io::stdout(), "{answer}")?;
        io::stdout().flush()?;
    }
    Ok(())
}

fn answer(line: &str) -> Result<String, Box<dyn Error>> {
    let (what, path) = line.split_once(' ').ok_or("want `WHAT PATH`")?;
    let path = Path::new(path);
    let start = Instant::now();
    match what {
        "events" => write_events(path, EVENT_BYTES)?,
        "tenth-of-events" => write_events(path, EVENT_BYTES / 10)?,
        "checkpoint-f32" => write_checkpoint(path, "F32", 4, f32_pattern)?,
        "checkpoint-bf16" => write_checkpoint(path, "BF16", 2, bf16_pattern)?,
        "diagnose" => diagnose(path)?,
        "read" => drop(black_box(read(path)?)),
        "scan" => {
            let scanned = scan_checkpoint(path, |_, _| {})?;
            if !scanned.total.is_finite() || !scanned.notices.is_empty() {
                return Err("the checkpoint is not as it was written".into());
            }
        }
        _ => return Err(format!("nothing called `{what}`").into()),
    }
    Ok((start.elapsed().as_secs_f64() * 1e3).to_string())
}

fn diagnose(path: &Path) -> Result<(), Box<dyn Error>> {
    let source = Source::open(path)?;
    let log = source.read()?;
    let reading = read_verdict(&log, source.format(), &[])?;
    if log.series.len() as u64 != TAGS || reading.diagnosis.verdict.is_explosion() {
        return Err("the event file is not as it was written".into());
    }
    Ok(())
}

/// The sum of all bytes as whole numbers, by the threads that a scan has.
fn read(path: &Path) -> io::Result<u32> {
    let len = path.metadata()?.len();
    let sum = |buffer: &mut Vec<u8>, piece: u64| {
        let offset = piece * READ_BYTES;
        buffer.resize(READ_BYTES.min(len - offset) as usize, 0);
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)?;
        Ok(plain_sum(buffer))
    };
    let pieces = (0..len.div_ceil(READ_BYTES)).into_par_iter();
    let sums = pieces.map_init(Vec::new, sum);
    sums.try_reduce(|| 0, |a, b| Ok(a.wrapping_add(b)))
}

/// 64 running sums: enough to be bound by memory alone.
fn plain_sum(bytes: &[u8]) -> u32 {
    let mut sums = [0_u32; 64];
    let (chunks, _) = bytes.as_chunks::<256>();
    for chunk in chunks {
        let (words, _) = chunk.as_chunks::<4>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(u32::from_le_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u32::wrapping_add)
}

/// An event file as PyTorch's SummaryWriter writes it: one record a scalar.
fn write_events(path: &Path, bytes_min: u64) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut bytes = 0;
    for step in 0.. {
        for tag in 0..TAGS {
            let name = match tag {
                0 => "train/loss".to_owned(),
                _ => format!("train/layer{tag}/activation_mean"),
            };
            let wobble = ((step * 31 + tag * 7) % 97) as f32 / 97.0;
            let record = record(&event(step, &name, 2.0 + 0.1 * wobble));
            file.write_all(&record)?;
            bytes += record.len() as u64;
        }
        if bytes >= bytes_min {
            break;
        }
    }
    file.flush()
}

/// A record: length, its checksum, data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| {
        crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// `Event { wall_time, step, summary: { value: { tag, simple_value } } }`.
fn event(step: u64, tag: &str, value: f32) -> Vec<u8> {
    let field = |key: u8, data: &[u8]| [&[key], &varint(data.len() as u64)[..], data].concat();
    let simple = [&[0x15][..], &value.to_le_bytes()].concat();
    let summary = field(0x0a, &[field(0x0a, tag.as_bytes()), simple].concat());
    let time = (1.7e9 + step as f64).to_le_bytes();
    [&[0x09][..], &time, &[0x10], &varint(step), &field(0x2a, &summary)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A mebibyte of small numbers.
fn f32_pattern() -> Vec<u8> {
    (0..1_u32 << 18).flat_map(|i| (1e-3 * (i % 1021) as f32 - 0.5).to_le_bytes()).collect()
}

fn bf16_pattern() -> Vec<u8> {
    let value = |i: u32| half::bf16::from_f32(1e-3 * (i % 1021) as f32 - 0.5);
    (0..1_u32 << 19).flat_map(|i| value(i).to_le_bytes()).collect()
}

fn write_checkpoint(
    path: &Path,
    dtype: &str,
    size: u64,
    pattern: impl Fn() -> Vec<u8>,
) -> io::Result<()> {
    let tensors = CHECKPOINT_BYTES / TENSOR_BYTES;
    let entries: Vec<String> = (0..tensors)
        .map(|i| {
            let (start, end) = (i * TENSOR_BYTES, (i + 1) * TENSOR_BYTES);
            let elements = TENSOR_BYTES / size;
            format!(
                "\"layers.{i}.weight\":{{\"dtype\":\"{dtype}\",\"shape\":[{elements}],\
                 \"data_offsets\":[{start},{end}]}}"
            )
        })
        .collect();
    // Data begins at a multiple of 8, as writers of the format see to.
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let pattern = pattern();
    for _ in 0..CHECKPOINT_BYTES / pattern.len() as u64 {
        file.write_all(&pattern)?;
    }
    file.flush()
}
