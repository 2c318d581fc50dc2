//! Checkpoints made here: sound ones, sharded ones, and every kind of broken one.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use tamegrad_runs::NOTICES_MAX;
use tamegrad_stats::scan;
use tempfile::TempDir;

use super::*;

/// A tensor of a header: name, dtype, shape, start and end of its data.
type Listed<'a> = (&'a str, &'a str, &'a [u64], usize, usize);

fn header(tensors: &[Listed<'_>]) -> String {
    let entry = |(name, dtype, shape, start, end): &Listed<'_>| {
        format!(
            r#"{name:?}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        )
    };
    let entries: Vec<String> = tensors.iter().map(entry).collect();
    format!("{{{}}}", entries.join(","))
}

fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A file with these tensors, one after the other.
fn safetensors(tensors: &[(&str, &str, &[u64], &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    let listed: Vec<Listed<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            data.extend_from_slice(bytes);
            (*name, *dtype, *shape, data.len() - bytes.len(), data.len())
        })
        .collect();
    file_of(&header(&listed), &data)
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// The checkpoint of one file.
fn read(bytes: &[u8]) -> Checkpoint {
    let folder = folder(&[("a.safetensors", bytes)]);
    scan_checkpoint(&folder.path().join("a.safetensors"), |_, _| {}).unwrap()
}

/// Name and L2 norm of the tensors; -1 for those that are not scanned.
fn norms(checkpoint: &Checkpoint) -> Vec<(&str, f64)> {
    let norm = |tensor: &TensorReport| tensor.stats.map_or(-1.0, |stats| stats.l2);
    checkpoint.tensors.iter().map(|tensor| (&*tensor.name, norm(tensor))).collect()
}

/// Offset and text of the notices.
fn notices(checkpoint: &Checkpoint) -> Vec<(Option<u64>, &str)> {
    checkpoint.notices.iter().map(|notice| (notice.offset, &*notice.text)).collect()
}

/// The error of a file of this name, without its folder.
fn error(name: &str, bytes: &[u8]) -> String {
    let folder = folder(&[(name, bytes)]);
    let error = scan_checkpoint(&folder.path().join(name), |_, _| {}).unwrap_err();
    without(folder.path(), &error.to_string())
}

fn without(folder: &Path, text: &str) -> String {
    text.replace(&format!("{}{}", folder.display(), std::path::MAIN_SEPARATOR), "")
}

// what is read

#[test]
fn every_dtype_is_listed_and_the_four_are_scanned() {
    let doubles: Vec<u8> = [3.0_f64, -4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let file = safetensors(&[
        ("d", "F64", &[2], &doubles),
        ("f", "F32", &[1, 3], &f32s(&[0.0, -0.5, 2.0])),
        ("h", "F16", &[2], &[0x00, 0x3c, 0xff, 0x7b]),
        ("b", "BF16", &[], &[0x80, 0x3f]),
        ("i", "I64", &[1], &[1; 8]),
        ("e4", "F8_E4M3", &[3], &[0x7f; 3]),
        ("e5", "F8_E5M2", &[1], &[0x7c]),
        ("t", "BOOL", &[2], &[0, 1]),
        ("q", "F4", &[2, 2], &[0, 1]),
        ("none", "F32", &[0, 9], &[]),
    ]);
    let checkpoint = read(&file);
    assert_eq!(checkpoint.notices, []);
    let half = (1.0_f64 + 65504.0 * 65504.0).sqrt();
    let mut want = vec![("d", 5.0), ("f", 4.25_f64.sqrt()), ("h", half), ("b", 1.0), ("i", -1.0)];
    want.extend([("e4", -1.0), ("e5", -1.0), ("t", -1.0), ("q", -1.0), ("none", 0.0)]);
    assert_eq!(norms(&checkpoint), want);
    let tensor = |name| checkpoint.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(
        (&*tensor("f").dtype, &*tensor("f").shape, tensor("f").file),
        ("F32", &[1, 3][..], 0)
    );
    assert_eq!(tensor("f").stats.unwrap().zeros, 1);
    assert_eq!(tensor("h").headroom_log2, Some(0.0));
    assert_eq!(tensor("d").headroom_log2, Some(1022.0));
    let rounded = |name| tensor(name).headroom_log2.map(f64::round);
    assert_eq!((rounded("f"), rounded("b")), (Some(127.0), Some(128.0)));
    assert_eq!((tensor("i").headroom_log2, rounded("none")), (None, Some(f64::INFINITY)));
    assert_eq!(checkpoint.total.len, 8);
}

#[test]
fn metadata_spaces_and_extra_members_are_no_fault() {
    let header = r#"{"__metadata__":{"format":"pt"},
        "w":{"data_offsets":[0,4],"shape":[1],"dtype":"F32","more":[[{}]]}}   "#;
    let checkpoint = read(&file_of(header, &f32s(&[2.0])));
    assert_eq!((norms(&checkpoint), notices(&checkpoint)), (vec![("w", 2.0)], vec![]));
    assert_eq!(norms(&read(&file_of("{}", &[]))), []);
}

#[test]
fn broken_tensors_are_known() {
    let checkpoint = read(&safetensors(&[
        ("sound", "F32", &[2], &f32s(&[1.0, 2.0])),
        ("nan", "F32", &[2], &f32s(&[f32::NAN, 3.0])),
        ("inf", "BF16", &[2], &[0x80, 0x7f, 0x80, 0xff]),
        ("integers", "I32", &[1], &[0xff; 4]),
    ]));
    let broken: Vec<&str> =
        checkpoint.tensors.iter().filter(|t| t.is_broken()).map(|t| &*t.name).collect();
    assert_eq!(broken, ["nan", "inf"]);
    let total = checkpoint.total;
    assert_eq!((total.len, total.nans, total.infs, total.max_abs), (6, 1, 2, 3.0));
}

#[test]
fn data_at_any_address_gives_the_same_to_the_bit() {
    let values: Vec<f32> = (0..600_000).map(|i| (i as f32 * 0.37).sin()).collect();
    let want = scan(&values);
    for spaces in 0..8 {
        let bytes = f32s(&values);
        let header = header(&[("w", "F32", &[600_000], 0, bytes.len())]) + &" ".repeat(spaces);
        let checkpoint = read(&file_of(&header, &bytes));
        assert_eq!(checkpoint.tensors[0].stats, Some(want), "{spaces} spaces");
    }
}

#[test]
fn tensors_come_in_the_order_of_their_data() {
    let header = header(&[("a", "F32", &[1], 4, 8), ("b", "F32", &[1], 0, 4)]);
    let checkpoint = read(&file_of(&header, &f32s(&[1.0, 2.0])));
    assert_eq!(norms(&checkpoint), [("b", 1.0), ("a", 2.0)]);
}

#[test]
fn progress_ends_with_all_bytes_that_are_scanned() {
    let folder = folder(&[(
        "a.safetensors",
        &safetensors(&[("w", "F32", &[2], &[0; 8]), ("i", "I8", &[3], &[0; 3])]),
    )]);
    let mut seen = Vec::new();
    scan_checkpoint(folder.path(), |done, total| seen.push((done, total))).unwrap();
    assert_eq!(seen, [(0, 8), (8, 8)]);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_said() {
    let values: Vec<f32> = vec![1.0; 600_000];
    let bytes = f32s(&values);
    let tensors: [(&str, &str, &[u64], &[u8]); 2] =
        ["a", "b"].map(|name| (name, "F32", &[600_000_u64][..], &bytes[..]));
    let folder = folder(&[("a.safetensors", &safetensors(&tensors))]);
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("a.safetensors"));
    let file = file.unwrap();
    let checkpoint = scan_checkpoint(folder.path(), |done, _| {
        // Nothing is read yet of the data; its second half goes.
        if done == 0 {
            file.set_len(bytes.len() as u64 + 8192).unwrap();
        }
    });
    let checkpoint = checkpoint.unwrap();
    assert_eq!(norms(&checkpoint), [("a", 600_000_f64.sqrt())]);
    let text = "\"b\" is left out: the file was cut while it was read";
    assert_eq!(notices(&checkpoint).iter().map(|(_, text)| *text).collect::<Vec<_>>(), [text]);
}

// shards

fn shard(name: &str, value: f32) -> Vec<u8> {
    safetensors(&[(name, "F32", &[1], &f32s(&[value]))])
}

#[test]
fn the_shards_of_an_index_are_one_checkpoint() {
    let index = br#"{"metadata": {"total_size": 8},
        "weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}}"#;
    let folder = folder(&[
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", &shard("b", 3.0)),
        ("model-2.safetensors", &shard("a", 4.0)),
        ("other.safetensors", &shard("c", 9.0)),
    ]);
    for path in [folder.path().to_owned(), folder.path().join("model.safetensors.index.json")] {
        let checkpoint = scan_checkpoint(&path, |_, _| {}).unwrap();
        assert_eq!(
            (norms(&checkpoint), notices(&checkpoint)),
            (vec![("b", 3.0), ("a", 4.0)], vec![])
        );
        let names = ["model-1.safetensors", "model-2.safetensors"];
        assert_eq!(checkpoint.files, names.map(|name| folder.path().join(name)));
        assert_eq!(checkpoint.tensors.iter().map(|t| t.file).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(checkpoint.total.l2, 5.0);
    }
}

#[test]
fn a_folder_without_an_index_gives_all_its_files() {
    let folder = folder(&[
        ("b.safetensors", &shard("x", 3.0)),
        ("a.safetensors", &shard("x", 4.0)),
        ("config.json", b"{}"),
    ]);
    let checkpoint = scan_checkpoint(folder.path(), |_, _| {}).unwrap();
    assert_eq!(norms(&checkpoint), [("x", 4.0), ("x", 3.0)]);
}

#[test]
fn shards_that_cannot_be_read_are_noted_and_the_rest_is_scanned() {
    let index = br#"{"weight_map": {"a": "1.safetensors", "gone": "2.safetensors",
        "b": "3.safetensors", "up": "../4.safetensors", "root": "/etc/passwd", "again": ".//1.safetensors",
        "missing": "1.safetensors", "nothing": ""}}"#;
    let folder = folder(&[
        ("m.safetensors.index.json", index),
        ("1.safetensors", &shard("a", 3.0)),
        ("3.safetensors", b""),
    ]);
    let checkpoint = scan_checkpoint(folder.path(), |_, _| {}).unwrap();
    assert_eq!(norms(&checkpoint), [("a", 3.0)]);
    assert_eq!(checkpoint.files, [folder.path().join("1.safetensors")]);
    let texts: Vec<String> = checkpoint
        .notices
        .iter()
        .map(|notice| without(folder.path(), &notice.to_string()))
        .collect();
    let index = "m.safetensors.index.json";
    let beside = "want one next to the index; it is left out";
    assert_eq!(texts.len(), 7, "{texts:#?}");
    assert_eq!(
        texts[..4],
        [
            format!("{index}: got the file \"../4.safetensors\", {beside}"),
            format!("{index}: got the file \"/etc/passwd\", {beside}"),
            format!("{index}: got the file \".//1.safetensors\", {beside}"),
            format!("{index}: got the file \"\", {beside}"),
        ]
    );
    assert!(texts[4].starts_with("2.safetensors: "), "{}", texts[4]);
    assert_eq!(texts[5], "3.safetensors at byte 0: got an empty file, want a safetensors file");
    assert_eq!(
        texts[6],
        format!(
            "{index}: 1 tensor of the index was not read, the first is \"missing\" of 1.safetensors"
        )
    );
}

#[test]
fn one_file_under_several_names_is_scanned_once() {
    let index = br#"{"weight_map": {"a": "d/1.safetensors", "b": "d//1.safetensors",
        "c": "d/./1.safetensors"}}"#;
    let folder = folder(&[("m.safetensors.index.json", index)]);
    fs::create_dir(folder.path().join("d")).unwrap();
    let tensors: [(&str, &str, &[u64], &[u8]); 3] =
        ["a", "b", "c"].map(|name| (name, "I8", &[1_u64][..], &[0_u8][..]));
    fs::write(folder.path().join("d/1.safetensors"), safetensors(&tensors)).unwrap();
    let checkpoint = scan_checkpoint(folder.path(), |_, _| {}).unwrap();
    assert_eq!((checkpoint.files.len(), notices(&checkpoint)), (1, vec![]));
}

#[test]
fn a_broken_index_says_where() {
    let wanted = "want a shard index, `{\"weight_map\": {TENSOR: FILE}}`";
    for (text, found) in [
        ("{}", "at byte 1: got missing field `weight_map`"),
        (
            "{\"weight_map\":\n {\"a\": 3}}",
            "at byte 22: got invalid type: integer `3`, expected a string",
        ),
        ("{\"weight_map\"", "at byte 12: got EOF while parsing an object"),
        ("", "at byte 0: got EOF while parsing a value"),
    ] {
        assert_eq!(error("i.json", text.as_bytes()), format!("i.json {found}, {wanted}"));
    }
    let deep = "[".repeat(1 << 20);
    assert_eq!(
        error("i.json", format!("{{\"weight_map\":{deep}").as_bytes()),
        format!(
            "i.json at byte 13: got invalid type: sequence, expected an object of tensors and their files, {wanted}"
        )
    );
}

// what is no safetensors file

#[test]
fn other_files_are_named_and_pickles_are_not_loaded() {
    let convert = "a safetensors file; hint: pickles are not loaded, because they can run code; \
                   convert it with `safetensors.torch.save_file(torch.load(PATH, \
                   weights_only=True), \"model.safetensors\")`";
    let cases: [(&str, &[u8], &str); 9] = [
        (
            "m.pt",
            b"PK\x03\x04\0\0\0\0\0\0",
            "a zip archive, as torch.save writes it around a pickle",
        ),
        ("m", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 ", "a pickle"),
        ("m.bin", b"some other bytes", "a file with the extension of a pickle"),
        ("m.ckpt", b"", "an empty file"),
        ("m.gguf", b"GGUF\x03\0\0\0\0\0", "a GGUF file"),
        ("m.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("m.npy", b"\x93NUMPY\x01\0", "a NumPy array"),
        (
            "m.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer instead of the file",
        ),
        ("m.safetensors", b"", "an empty file"),
    ];
    for (name, bytes, found) in cases {
        let wanted = match found {
            _ if found.contains("LFS") => "a safetensors file; hint: fetch it with `git lfs pull`",
            _ if found.contains("pickle") => convert,
            _ => "a safetensors file",
        };
        assert_eq!(error(name, bytes), format!("{name} at byte 0: got {found}, want {wanted}"));
    }
    let folder = folder(&[("pytorch_model.bin", b"PK")]);
    let error = scan_checkpoint(folder.path(), |_, _| {}).unwrap_err().to_string();
    let wanted = "got a folder with only \"pytorch_model.bin\", want a `.safetensors` file; hint: \
                  pickles are not loaded; convert them to safetensors";
    assert!(error.ends_with(wanted), "{error}");
    let gone = scan_checkpoint(&folder.path().join("gone"), |_, _| {}).unwrap_err();
    assert!(matches!(gone, ReadError::Io { .. }), "{gone}");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if made.is_ok_and(|status| status.success()) {
        let error = scan_checkpoint(&pipe, |_, _| {}).unwrap_err().to_string();
        assert!(error.ends_with("pipe.safetensors: got a pipe, want a file"), "{error}");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_without_memory_for_them() {
    for (length, found) in [
        (0_u64, "a header of 0 bytes"),
        (1, "a header of 1 byte"),
        (100_000_001, "a header of 100000001 bytes"),
        (1 << 60, "a header of 1152921504606846976 bytes"),
        (u64::MAX, "a header of 18446744073709551615 bytes"),
    ] {
        let wanted = "2 to 100,000,000 bytes, as in a safetensors file";
        let file = [&length.to_le_bytes()[..], b"{}"].concat();
        let want = format!("a.safetensors at byte 0: got {found}, want {wanted}");
        assert_eq!(error("a.safetensors", &file), want);
    }
    let zeros = "a.safetensors at byte 0: got a header of 0 bytes, want 2 to 100,000,000 bytes, \
                 as in a safetensors file";
    assert_eq!(error("a.safetensors", &[0; 4096]), zeros);
    let mut wrong = file_of("{}", &[]);
    wrong[8] = b'[';
    let want = "a.safetensors at byte 8: got the byte 0x5b, want the `{` of the header";
    assert_eq!(error("a.safetensors", &wrong), want);
}

#[test]
fn a_file_cut_anywhere_says_where_it_ends() {
    let whole =
        safetensors(&[("a", "F32", &[2], &f32s(&[3.0, 4.0])), ("b", "F32", &[1], &f32s(&[7.0]))]);
    let data_start = whole.len() - 12;
    for end in 1..data_start {
        let text = error("a.safetensors", &whole[..end]);
        assert!(
            text.starts_with(&format!("a.safetensors at byte {end}: got the end of the file")),
            "{text}"
        );
    }
    for end in data_start..whole.len() {
        let checkpoint = read(&whole[..end]);
        let (tensors, left_out) = match end - data_start {
            0..8 => (vec![], "2 tensors left out, the first is \"a\""),
            _ => (vec![("a", 5.0)], "1 tensor left out, the first is \"b\""),
        };
        let text = format!(
            "the file ends here, the data that its header tells of at byte {}: {left_out}",
            whole.len()
        );
        assert_eq!(norms(&checkpoint), tensors);
        assert_eq!(notices(&checkpoint), [(Some(end as u64), &*text)]);
    }
}

// what is broken within a file

/// A header up to the entry of a second tensor.
const SOUND: &str = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"bad":"#;

/// A file of 16 bytes of data with one entry of this text beside a sound one; gives the notices.
fn beside_a_sound_one(entry: &str) -> Vec<(Option<u64>, String)> {
    let header = format!("{SOUND}{entry}}}");
    let checkpoint = read(&file_of(&header, &f32s(&[3.0, 4.0, 0.0, 0.0])));
    assert_eq!(norms(&checkpoint)[0], ("w", 5.0), "{entry}");
    notices(&checkpoint).into_iter().map(|(offset, text)| (offset, text.to_owned())).collect()
}

#[test]
fn bad_entries_are_left_out_with_their_place() {
    let place = Some(8 + SOUND.len() as u64);
    let wants = "want dtype, shape, data_offsets";
    for (entry, text) in [
        ("3", format!("got invalid type: integer `3`, expected an object, {wants}")),
        ("{}", format!("got missing field `dtype`, {wants}")),
        (
            r#"{"dtype":"F32","shape":[-1],"data_offsets":[8,12]}"#,
            format!("got invalid value: integer `-1`, expected u64, {wants}"),
        ),
        (
            r#"{"dtype":"F32","shape":[1],"data_offsets":[8]}"#,
            format!("got invalid length 1, expected a tuple of size 2, {wants}"),
        ),
        (
            r#"{"dtype":"F32","shape":[1],"data_offsets":[12,8]}"#,
            "got the offsets 12 to 8, want ascending offsets".into(),
        ),
        (
            r#"{"dtype":"F32","shape":[3],"data_offsets":[8,16]}"#,
            "got 8 bytes, want 12 for [3] of F32".into(),
        ),
        (
            r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[8,16]}"#,
            "[4294967296, 4294967296] of F32 is not a number of bytes".into(),
        ),
        (
            r#"{"dtype":"F6_E2M3","shape":[3],"data_offsets":[8,16]}"#,
            "[3] of F6_E2M3 is not a number of bytes".into(),
        ),
    ] {
        let text = format!("\"bad\" is left out: {text}");
        assert_eq!(beside_a_sound_one(entry), [(place, text)], "{entry}");
    }
    let unknown = r#"{"dtype":"F7\u001b","shape":[3],"data_offsets":[8,16]}"#;
    let text = "got the dtype \"F7\\u{1b}\" of \"bad\", which the format does not have";
    assert_eq!(beside_a_sound_one(unknown), [(place, text.to_owned())]);
    let long = format!(r#"{{"shape":[{}1]}}"#, "1,".repeat(40_000));
    let text = "\"bad\" is left out: got an entry of 80013 bytes, want at most 65536";
    assert_eq!(beside_a_sound_one(&long), [(place, text.to_owned())]);
}

#[test]
fn offsets_beyond_the_file_are_left_out() {
    for (start, end) in [(8, 24), (16, 32), (1 << 60, (1 << 60) + 16), (u64::MAX - 16, u64::MAX)] {
        let entry =
            format!(r#"{{"dtype":"I8","shape":[{}],"data_offsets":[{start},{end}]}}"#, end - start);
        let notices = beside_a_sound_one(&entry);
        let data_start = 8 + SOUND.len() + entry.len() + 1;
        let text = format!(
            "the file ends here, the data that its header tells of at byte {}: 1 tensor left out, \
             the first is \"bad\"",
            u128::from(end) + data_start as u128
        );
        assert_eq!(notices, [(Some(data_start as u64 + 16), text)]);
    }
}

#[test]
fn overlapping_data_is_scanned_once() {
    let listed: [Listed<'_>; 5] = [
        ("a", "F32", &[2], 0, 8),
        ("b", "F32", &[2], 4, 12),
        ("c", "F32", &[2], 8, 16),
        ("a2", "F32", &[2], 0, 8),
        ("inside", "F32", &[0], 4, 4),
    ];
    let header = header(&listed);
    let start = 8 + header.len() as u64;
    let checkpoint = read(&file_of(&header, &f32s(&[3.0, 4.0, 5.0, 12.0])));
    assert_eq!(norms(&checkpoint), [("a", 5.0), ("inside", 0.0), ("c", 13.0)]);
    assert_eq!(
        notices(&checkpoint),
        [
            (Some(start), "\"a2\" is left out: its data overlaps that of \"a\""),
            (Some(start + 4), "\"b\" is left out: its data overlaps that of \"a\""),
        ]
    );
    assert_eq!(checkpoint.total.len, 4);
}

#[test]
fn bytes_of_no_tensor_are_noted() {
    let header = header(&[("a", "F32", &[1], 4, 8), ("b", "F32", &[1], 10, 14)]);
    let start = 8 + header.len() as u64;
    let checkpoint = read(&file_of(&header, &[0; 15]));
    assert_eq!(norms(&checkpoint), [("a", 0.0), ("b", 0.0)]);
    let text = "7 bytes from here on belong to no tensor";
    assert_eq!(notices(&checkpoint), [(Some(start), text)]);
}

#[test]
fn a_name_twice_and_a_header_broken_in_the_middle() {
    let twice = header(&[("a", "F32", &[1], 0, 4), ("a", "F32", &[1], 4, 8)]);
    let checkpoint = read(&file_of(&twice, &f32s(&[1.0, 2.0])));
    assert_eq!(norms(&checkpoint), [("a", 1.0)]);
    let text = "got \"a\" a second time; the first is used";
    let place = twice.rfind('{').unwrap() as u64 + 8;
    assert_eq!(notices(&checkpoint), [(Some(place), text)]);

    let broken = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":nonsense}"#;
    let checkpoint = read(&file_of(broken, &f32s(&[1.0, 2.0])));
    assert_eq!(norms(&checkpoint), [("a", 1.0)]);
    let text = "got a header that is broken here (expected ident); the tensors after this place \
                are unknown";
    let place = broken.find("nonsense").unwrap() as u64 + 9;
    assert_eq!(notices(&checkpoint), [(Some(place), text)]);

    let want = "a.safetensors at byte 9: got a header that is broken here (key must be a string), \
                want a JSON object";
    assert_eq!(error("a.safetensors", &file_of("{nonsense}", &[])), want);
}

#[test]
fn deep_json_does_not_end_the_stack() {
    let deep = "[".repeat(1 << 20);
    for header in [format!("{{\"a\":{deep}"), format!("{{\"a\":{deep}{}}}", "]".repeat(1 << 20))] {
        let file = file_of(&header, &[]);
        let texts = if header.ends_with('}') {
            notices(&read(&file)).into_iter().map(|(_, text)| text.to_owned()).collect()
        } else {
            vec![error("a.safetensors", &file)]
        };
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts[0].contains("2097152 bytes") || texts[0].contains("EOF"), "{texts:?}");
    }
    let objects = r#"{"a":"#.repeat(1 << 18);
    assert!(error("a.safetensors", &file_of(&objects, &[])).contains("EOF"));
}

#[test]
fn many_faults_are_counted() {
    let names: Vec<String> = (0..500).map(|i| i.to_string()).collect();
    let listed: Vec<Listed<'_>> =
        names.iter().map(|name| (&**name, "F99", &[1_u64][..], 0, 0)).collect();
    let checkpoint = read(&file_of(&header(&listed), &[]));
    assert_eq!((checkpoint.tensors.len(), checkpoint.notices.len()), (500, NOTICES_MAX));
    assert_eq!(checkpoint.notices[NOTICES_MAX - 1].text, "401 more such notices");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), lead in 0..4_usize) {
        let file = match lead {
            0 => bytes,
            1 => [&(bytes.len() as u64).to_le_bytes()[..], b"{", &bytes].concat(),
            2 => file_of(&header(&[("a", "F16", &[7], 0, 14)]), &bytes),
            _ => [&100_u64.to_le_bytes()[..], b"{\"a\":", &bytes].concat(),
        };
        let folder = folder(&[("a.safetensors", &file), ("i.json", &file)]);
        for name in ["a.safetensors", "i.json"] {
            let path = folder.path().join(name);
            match scan_checkpoint(&path, |_, _| {}) {
                Ok(read) => prop_assert!(read.total.len <= file.len() as u64),
                Err(ReadError::Broken { path: of, offset, .. }) => {
                    prop_assert_eq!(of, path);
                    prop_assert!(offset <= file.len() as u64);
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn a_changed_byte_never_panics_and_reads_no_more_than_there_is(
        at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let mut file = safetensors(&[
            ("a", "F32", &[2], &f32s(&[3.0, 4.0])),
            ("b", "BF16", &[2, 2], &[1; 8]),
            ("c", "I8", &[3], &[1; 3]),
        ]);
        let place = at.index(file.len());
        file[place] = to;
        let folder = folder(&[("a.safetensors", &file)]);
        let path: PathBuf = folder.path().join("a.safetensors");
        match scan_checkpoint(&path, |_, _| {}) {
            Ok(read) => {
                prop_assert!(read.total.len <= 19);
                prop_assert!(read.tensors.len() == 3 || !read.notices.is_empty());
            }
            Err(error) => prop_assert!(matches!(error, ReadError::Broken { .. }), "{}", error),
        }
    }
}
