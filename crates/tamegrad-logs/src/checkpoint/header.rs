//! The header of a safetensors file: which tensors it holds, of what type and shape, and where.
//!
//! Eight bytes, the length of the header as a little-endian number; the header, a JSON object of
//! `name: {dtype, shape, data_offsets}`; the data, which the offsets count from. Source:
//! <https://huggingface.co/docs/safetensors>, "Format".

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tamegrad_runs::{Notices, ReadError};
use tamegrad_stats::ElementType;

use super::{counted, quoted};

/// Said where a file is something else.
pub(super) const WANTED: &str = "a safetensors file";
/// Said where a file is or may be a pickle.
const WANTED_NO_PICKLE: &str = "a safetensors file; hint: pickles are not loaded, because they can run code; convert it with \
     `safetensors.torch.save_file(torch.load(PATH, weights_only=True), \"model.safetensors\")`";

/// Bytes of the length before the header.
const LENGTH_BYTES: usize = 8;
/// The longest header, the limit of the format itself.
const HEADER_BYTES_MAX: usize = 100_000_000;
/// The longest entry of one tensor: a shape of thousands of dimensions fits.
const ENTRY_BYTES_MAX: usize = 1 << 16;
/// The name of the entry that is no tensor.
const METADATA: &str = "__metadata__";

/// One tensor of the header, checked against its size and the length of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    /// `None` if the type is not scanned.
    pub(super) element: Option<ElementType>,
    /// Bytes from the start of the file.
    pub(super) range: Range<usize>,
}

impl Entry {
    /// Bytes that a scan reads.
    pub(super) fn bytes_to_scan(&self) -> usize {
        if self.element.is_some() { self.range.len() } else { 0 }
    }
}

/// The start of a file: its header, as far as it is there, or what tells what else the file is.
pub(super) fn read_start(file: &mut File) -> io::Result<Vec<u8>> {
    /// Bytes by which other files are known.
    const OTHERS_BYTES: u64 = 32;
    let mut start = Vec::new();
    file.by_ref().take(OTHERS_BYTES).read_to_end(&mut start)?;
    if let Some((length, _)) = start.split_first_chunk::<LENGTH_BYTES>() {
        let header = u64::from_le_bytes(*length).min(HEADER_BYTES_MAX as u64);
        let more = (LENGTH_BYTES as u64 + header).saturating_sub(start.len() as u64);
        file.take(more).read_to_end(&mut start)?;
    }
    Ok(start)
}

/// The tensors of a file in the order of their data, none overlapping another, from its start and its
/// length.
///
/// # Errors
/// [`ReadError::Broken`] if no header can be read; what is wrong with single tensors is noted.
pub(super) fn read(
    path: &Path,
    start: &[u8],
    file_end: usize,
    notices: &mut Notices,
) -> Result<Vec<Entry>, ReadError> {
    let header = header(path, start)?;
    let before = notices.count();
    let mut raw = Vec::new();
    if let Err(error) = raw_entries(header, &mut raw) {
        let offset = LENGTH_BYTES + offset_of(header, &error);
        let found = format!("a header that is broken here ({})", message(&error));
        if raw.is_empty() {
            return Err(ReadError::broken(path, offset as u64, found, "a JSON object"));
        }
        let text = format!("got {found}; the tensors after this place are unknown");
        notices.push(path, Some(offset as u64), text);
    }
    let entries = entries(path, header, &raw, file_end, notices);
    let entries = without_overlaps(path, entries, notices);
    if notices.count() == before {
        note_holes(path, &entries, LENGTH_BYTES + header.len()..file_end, notices);
    }
    Ok(entries)
}

/// The bytes of the header in the start of the file.
fn header<'a>(path: &Path, file: &'a [u8]) -> Result<&'a [u8], ReadError> {
    let fault = |offset: usize, found: String, wanted| {
        Err(ReadError::broken(path, offset as u64, found, wanted))
    };
    let brace = file.get(LENGTH_BYTES);
    if brace != Some(&b'{')
        && let Some((found, wanted)) = stranger(path, file)
    {
        return fault(0, found.to_owned(), wanted);
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return fault(file.len(), "the end of the file".into(), "8 bytes, the header's length");
    };
    let length = u64::from_le_bytes(*length);
    let length = match usize::try_from(length) {
        Ok(length @ 2..=HEADER_BYTES_MAX) => length,
        _ => {
            let found = format!("a header of {}", counted(length, "byte"));
            return fault(0, found, "2 to 100,000,000 bytes, as in a safetensors file");
        }
    };
    match brace {
        Some(b'{') => {}
        Some(&other) => {
            return fault(LENGTH_BYTES, format!("the byte 0x{other:02x}"), "the `{` of the header");
        }
        None => return fault(file.len(), "the end of the file".into(), "the header"),
    }
    match rest.get(..length) {
        Some(header) => Ok(header),
        None => {
            let missing = counted((length - rest.len()) as u64, "byte");
            let found = format!("the end of the file, {missing} before the end of the header");
            fault(file.len(), found, "a whole file")
        }
    }
}

/// What a file is that is no safetensors file, by its first bytes or, failing that, its name.
fn stranger(path: &Path, file: &[u8]) -> Option<(&'static str, &'static str)> {
    const STARTS: [(&[u8], &str, &str); 9] = [
        (b"PK\x03\x04", "a zip archive, as torch.save writes it around a pickle", WANTED_NO_PICKLE),
        (b"\x80\x02", "a pickle", WANTED_NO_PICKLE),
        (b"\x80\x03", "a pickle", WANTED_NO_PICKLE),
        (b"\x80\x04", "a pickle", WANTED_NO_PICKLE),
        (b"\x80\x05", "a pickle", WANTED_NO_PICKLE),
        (b"GGUF", "a GGUF file", WANTED),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", WANTED),
        (b"\x93NUMPY", "a NumPy array", WANTED),
        (
            b"version https://git-lfs",
            "a Git LFS pointer instead of the file",
            "a safetensors file; hint: fetch it with `git lfs pull`",
        ),
    ];
    let known = STARTS.iter().find(|(start, _, _)| file.starts_with(start));
    known.map(|(_, found, wanted)| (*found, *wanted)).or_else(|| {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        let is_pickle = matches!(&*extension, "pt" | "pth" | "bin" | "ckpt" | "pkl" | "pickle");
        is_pickle.then_some(("a file with the extension of a pickle", WANTED_NO_PICKLE))
    })
}

/// The members of the header with their texts. Those before an error are kept.
fn raw_entries<'a>(
    header: &'a [u8],
    entries: &mut Vec<(String, &'a RawValue)>,
) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(header);
    json.deserialize_map(Members(entries))?;
    json.end()
}

struct Members<'a, 'b>(&'b mut Vec<(String, &'a RawValue)>);

impl<'a> Visitor<'a> for Members<'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(entry) = map.next_entry()? {
            self.0.push(entry);
        }
        Ok(())
    }
}

/// One tensor as the header has it.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Info {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The tensors that can be used, in the order of the header; the others are noted.
fn entries(
    path: &Path,
    header: &[u8],
    raw: &[(String, &RawValue)],
    file_end: usize,
    notices: &mut Notices,
) -> Vec<Entry> {
    let data_start = LENGTH_BYTES + header.len();
    let mut seen = HashSet::new();
    // Those whose data is beyond the end of the file, with where it would end.
    let mut beyond: Vec<(&str, u128)> = Vec::new();
    let mut entries = Vec::new();
    for (name, text) in raw.iter().filter(|(name, _)| name != METADATA) {
        let place = Some((LENGTH_BYTES + place_in(header, text)) as u64);
        if !seen.insert(&**name) {
            let text = format!("got {} a second time; the first is used", quoted(name));
            notices.push(path, place, text);
            continue;
        }
        match entry(name, text.get(), data_start, file_end) {
            Ok(entry) => {
                if bits(&entry.dtype).is_none() {
                    let dtype = quoted(&entry.dtype);
                    let text = format!(
                        "got the dtype {dtype} of {}, which the format does not have",
                        quoted(name)
                    );
                    notices.push(path, place, text);
                }
                entries.push(entry);
            }
            Err(Unusable::Beyond(end)) => beyond.push((name, end)),
            Err(Unusable::Because(reason)) => {
                let text = format!("{} is left out: {reason}", quoted(name));
                notices.push(path, place, text);
            }
        }
    }
    if let Some((first, _)) = beyond.first() {
        let text = format!(
            "the file ends here, the data that its header tells of at byte {}: {} left out, the \
             first is {}",
            beyond.iter().map(|(_, end)| *end).max().unwrap_or_default(),
            counted(beyond.len() as u64, "tensor"),
            quoted(first)
        );
        notices.push(path, Some(file_end as u64), text);
    }
    entries
}

/// Why a tensor cannot be used.
enum Unusable {
    /// Its data goes on to this byte of the file, which has fewer.
    Beyond(u128),
    /// What is wrong with its entry.
    Because(String),
}

fn entry(name: &str, text: &str, data_start: usize, file_end: usize) -> Result<Entry, Unusable> {
    let because = |reason| Err(Unusable::Because(reason));
    if text.len() > ENTRY_BYTES_MAX {
        return because(format!("got an entry of {} bytes, want at most 65536", text.len()));
    }
    let Info { dtype, shape, data_offsets: (start, end) } = match serde_json::from_str(text) {
        Ok(info) => info,
        Err(error) => {
            return because(format!("got {}, want dtype, shape, data_offsets", message(&error)));
        }
    };
    let Some(len) = end.checked_sub(start) else {
        return because(format!("got the offsets {start} to {end}, want ascending offsets"));
    };
    if let Some(bits) = bits(&dtype) {
        match bytes(&shape, bits) {
            Some(want) if want == len => {}
            Some(want) => {
                return because(format!("got {len} bytes, want {want} for {shape:?} of {dtype}"));
            }
            None => return because(format!("{shape:?} of {dtype} is not a number of bytes")),
        }
    }
    let absolute = |offset: u64| offset as u128 + data_start as u128;
    match (usize::try_from(absolute(start)), usize::try_from(absolute(end))) {
        (Ok(start), Ok(end)) if end <= file_end => {
            let element = element(&dtype);
            Ok(Entry { name: name.to_owned(), dtype, shape, element, range: start..end })
        }
        _ => Err(Unusable::Beyond(absolute(end))),
    }
}

/// The entries in the order of their data, without those that overlap one before.
fn without_overlaps(path: &Path, mut entries: Vec<Entry>, notices: &mut Notices) -> Vec<Entry> {
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    // the last that has any data
    let mut last: Option<usize> = None;
    for entry in entries {
        let over = last.map(|last| &kept[last]).filter(|last| entry.range.start < last.range.end);
        match over {
            _ if entry.range.is_empty() => {}
            None => last = Some(kept.len()),
            Some(over) => {
                let (name, over) = (quoted(&entry.name), quoted(&over.name));
                let text = format!("{name} is left out: its data overlaps that of {over}");
                notices.push(path, Some(entry.range.start as u64), text);
                continue;
            }
        }
        kept.push(entry);
    }
    kept
}

/// Notes bytes that belong to no tensor, which the format forbids.
fn note_holes(path: &Path, entries: &[Entry], data: Range<usize>, notices: &mut Notices) {
    let (mut end, mut holes, mut first) = (data.start, 0, None);
    let ends = std::iter::once(data.end..data.end);
    for range in entries.iter().map(|entry| entry.range.clone()).chain(ends) {
        if range.start > end {
            holes += range.start - end;
            first.get_or_insert(end);
        }
        end = end.max(range.end);
    }
    if let Some(first) = first {
        let text = format!("{} from here on belong to no tensor", counted(holes as u64, "byte"));
        notices.push(path, Some(first as u64), text);
    }
}

/// The bytes of so many elements of so many bits; `None` if they are too many or no whole bytes.
fn bytes(shape: &[u64], bits: u64) -> Option<u64> {
    // A dimension of 0 makes it 0, also beside some whose product is too large.
    let elements = if shape.contains(&0) {
        0
    } else {
        shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size))?
    };
    let bits = elements.checked_mul(bits)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The bits of an element of a dtype of the format.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "I8" | "U8" => 8,
        "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// The type of the elements if they are scanned.
fn element(dtype: &str) -> Option<ElementType> {
    Some(match dtype {
        "F64" => ElementType::F64,
        "F32" => ElementType::F32,
        "F16" => ElementType::F16,
        "BF16" => ElementType::Bf16,
        _ => return None,
    })
}

/// Where in the header the text of an entry stands.
fn place_in(header: &[u8], text: &RawValue) -> usize {
    text.get().as_ptr().addr().saturating_sub(header.as_ptr().addr())
}

/// Where in a JSON text an error is, in bytes from its start.
pub(super) fn offset_of(json: &[u8], error: &serde_json::Error) -> usize {
    let breaks = json.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let line_start = match error.line() {
        0 | 1 => 0,
        line => breaks.map(|(at, _)| at + 1).nth(line - 2).unwrap_or(json.len()),
    };
    (line_start + error.column().saturating_sub(1)).min(json.len())
}

/// What a JSON error says, without the line and column.
pub(super) fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(&*text, |(message, _)| message).to_owned()
}
