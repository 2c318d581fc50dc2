//! Images and labels in IDX, the format of MNIST, plain or gzip-compressed.
//!
//! As <http://yann.lecun.com/exdb/mnist/> describes it: a big-endian magic number (two zero bytes,
//! the type 0x08 for unsigned bytes, the number of dimensions), each dimension as a big-endian
//! `u32`, then the values, the last dimension fastest.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::split::split;
use super::{DataError, Dataset, Table, Targets, parameter};
use crate::file;

/// Magic numbers of unsigned bytes; the last digit is the number of dimensions.
const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const CUT: &str = "the file was cut while it was copied or downloaded; get it again";

/// Reads images and labels, and the test files if there are any; otherwise `test_fraction` of the
/// rows are held out, drawn by `seed`. Inputs `[1, height, width]`, pixels divided by 255 to
/// 0..=1; the number of classes is the largest label plus one.
pub(super) fn load(
    images: &Path,
    labels: &Path,
    test: (Option<&Path>, Option<&Path>),
    test_fraction: f64,
    seed: u64,
) -> Result<Dataset, DataError> {
    let test = match test {
        (Some(images), Some(labels)) => Some((images, read_pair(images, labels)?)),
        (None, None) => parameter::test_fraction(test_fraction).map(|()| None)?,
        (Some(_), None) => return Err(lone_test_file("test_labels", "test_images")),
        (None, Some(_)) => return Err(lone_test_file("test_images", "test_labels")),
    };
    let all = read_pair(images, labels)?;
    let largest = all.labels.iter().chain(test.iter().flat_map(|(_, pair)| &pair.labels)).max();
    let classes = largest.map_or(0, |largest| usize::from(*largest) + 1);
    let Some((test_images, test)) = test else {
        if all.labels.len() < 2 {
            let hint = "one image is needed to train on and one to test on";
            return Err(error(images, 4, "1 image", "at least 2", hint));
        }
        let all = all.table(classes, labels)?;
        return Ok(split(&all, test_fraction, &mut ChaCha8Rng::seed_from_u64(seed)));
    };
    if test.shape != all.shape {
        let got = format!("images of {}", spell(&test.shape));
        let want = format!("{} as in training", spell(&all.shape));
        return Err(error(test_images, 8, &got, &want, "take the test files from the same set"));
    }
    Ok(Dataset { train: all.table(classes, labels)?, test: test.table(classes, labels)? })
}

fn lone_test_file(missing: &'static str, given: &str) -> DataError {
    DataError::Parameter {
        name: missing,
        got: "none".to_owned(),
        want: format!("a file, because `{given}` is given"),
        hint: "give both, or neither to hold out `test_fraction`",
    }
}

/// Images of one height and width with their labels.
struct Pair {
    shape: Vec<usize>,
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Pair {
    fn table(self, classes: usize, path: &Path) -> Result<Table, DataError> {
        if classes < 2 {
            let hint = "labels count the classes from 0";
            return Err(error(path, 8, "only the label 0", "at least 2 classes", hint));
        }
        let labels = self.labels.into_iter().map(u32::from).collect();
        Ok(Table {
            inputs: self.pixels.into_iter().map(|pixel| f32::from(pixel) / 255.0).collect(),
            input_shape: [vec![1], self.shape].concat(),
            targets: Targets::Classes { labels, classes },
        })
    }
}

fn read_pair(images: &Path, labels: &Path) -> Result<Pair, DataError> {
    let (dimensions, pixels) = read(images, IMAGES)?;
    let (_, values) = read(labels, LABELS)?;
    if values.len() != dimensions[0] {
        let got = format!("{} labels", values.len());
        let want = format!("{}, one for each image of {}", dimensions[0], images.display());
        return Err(error(labels, 4, &got, &want, "take the two files from the same set"));
    }
    Ok(Pair { shape: dimensions[1..].to_vec(), pixels, labels: values })
}

/// The dimensions and the values of one file.
fn read(path: &Path, want: u32) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let mut bytes = unpacked(path).map_err(|error| DataError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
        hint: match error.kind() {
            io::ErrorKind::UnexpectedEof => CUT,
            _ => "check the path in the recipe (relative to the recipe's folder) and the file",
        },
    })?;
    let fail = |offset, got: &str, want: &str, hint| Err(error(path, offset, got, want, hint));
    let header = 4 + 4 * (want & 0xff) as usize;
    let words = bytes[..header.min(bytes.len())].as_chunks().0;
    let words: Vec<u32> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
    match words.first() {
        Some(&magic) if magic != want => {
            let hint = match magic {
                IMAGES => "this file holds images; are images and labels swapped?",
                LABELS => "this file holds labels; are images and labels swapped?",
                _ => "the file is not in IDX format with unsigned bytes",
            };
            let name = if want == IMAGES { "images" } else { "labels" };
            let got = format!("magic number {magic:#010x}");
            return fail(0, &got, &format!("{want:#010x} ({name})"), hint);
        }
        Some(_) if bytes.len() >= header => {}
        _ => {
            let got = format!("the end of the file after {} bytes", bytes.len());
            return fail(bytes.len(), &got, &format!("a header of {header} bytes"), CUT);
        }
    }
    let dimensions: Vec<usize> = words[1..].iter().map(|word| *word as usize).collect();
    let spelt = spell(&dimensions);
    let count = dimensions.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
    let Some(count @ 1..=parameter::MAX_NUMBERS) = count else {
        let want = format!("1 to {} values", parameter::MAX_NUMBERS);
        let hint = "the header is damaged; get the file again";
        return fail(4, &format!("dimensions {spelt}"), &want, hint);
    };
    let values = bytes.split_off(header);
    if values.len() < count {
        let got = format!("the end of the file after {} values", values.len());
        return fail(header + values.len(), &got, &format!("{count} ({spelt})"), CUT);
    }
    if values.len() > count {
        let want = format!("the end of the file after {count} values ({spelt})");
        let hint = "the header does not fit the data; get the file again";
        return fail(header + count, "more bytes", &want, hint);
    }
    Ok((dimensions, values))
}

/// What a file holds, at most one byte more than the largest that is taken.
fn unpacked(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = BufReader::new(file::open(path)?);
    let is_packed = file.fill_buf()?.starts_with(&GZIP);
    let reader: Box<dyn Read> =
        if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut bytes = Vec::new();
    reader.take(parameter::MAX_NUMBERS as u64 + 17).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn spell(dimensions: &[usize]) -> String {
    dimensions.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
}

fn error(path: &Path, offset: usize, got: &str, want: &str, hint: &'static str) -> DataError {
    let (path, offset) = (path.to_owned(), offset as u64);
    DataError::Idx { path, offset, got: got.to_owned(), want: want.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn idx(magic: u32, dimensions: &[u32], values: &[u8]) -> Vec<u8> {
        let words = [&[magic], dimensions].concat();
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        bytes.extend_from_slice(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Images of 2 x 3 whose first pixel is their number, labels 0, 1, 2, 0, ...
    fn pair(count: u32) -> (Vec<u8>, Vec<u8>) {
        let pixels: Vec<u8> = (0..count).flat_map(|n| [n as u8, 0, 51, 102, 204, 255]).collect();
        let labels: Vec<u8> = (0..count).map(|n| (n % 3) as u8).collect();
        (idx(0x0803, &[count, 2, 3], &pixels), idx(0x0801, &[count], &labels))
    }

    /// Writes the files to a folder of their own and loads them.
    fn load_bytes(
        train: (&[u8], &[u8]),
        test: Option<(&[u8], &[u8])>,
    ) -> Result<Dataset, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let (images, labels) = (write("images", train.0), write("labels", train.1));
        let test = test.map(|(i, l)| (write("test-images", i), write("test-labels", l)));
        let test_images = test.as_ref().map(|files| files.0.as_path());
        let test_labels = test.as_ref().map(|files| files.1.as_path());
        load(&images, &labels, (test_images, test_labels), 0.25, 1)
    }

    #[test]
    fn plain_and_compressed_files_read_alike() {
        let (images, labels) = pair(4);
        let (test_images, test_labels) = pair(2);
        let want_row = |n: f32| [n / 255.0, 0.0, 0.2, 0.4, 0.8, 1.0];
        let data = load_bytes((&images, &labels), Some((&test_images, &test_labels))).unwrap();
        assert_eq!(data.train.input_shape, [1, 2, 3]);
        assert_eq!(data.train.inputs, [0.0, 1.0, 2.0, 3.0].map(want_row).concat());
        assert_eq!(data.train.targets, Targets::Classes { labels: vec![0, 1, 2, 0], classes: 3 });
        assert_eq!(data.test.inputs, [0.0, 1.0].map(want_row).concat());
        // The test part lacks class 2 and knows of it.
        assert_eq!(data.test.targets, Targets::Classes { labels: vec![0, 1], classes: 3 });

        let packed = [&images, &labels, &test_images, &test_labels].map(|bytes| gzip(bytes));
        let [a, b, c, d] = &packed;
        assert_eq!(load_bytes((a, b), Some((c, d))), Ok(data));
    }

    #[test]
    fn without_test_files_a_part_is_held_out() {
        let (images, labels) = pair(100);
        let data = load_bytes((&images, &labels), None).unwrap();
        assert_eq!((data.train.rows(), data.test.rows()), (75, 25));
        for part in [&data.train, &data.test] {
            let Targets::Classes { labels, classes: 3 } = &part.targets else { panic!("classes") };
            for (row, label) in part.inputs.chunks_exact(6).zip(labels) {
                assert_eq!((row[0] * 255.0).round() as u32 % 3, *label);
            }
        }
    }

    #[test]
    fn a_bad_pair_of_files_says_where_and_what() {
        let (images, labels) = pair(4);
        let (i, l) = (&images[..], &labels[..]);
        let idx3 = |dimensions: [u32; 3]| idx(0x0803, &dimensions, &[1, 2]);
        let cases: [(&[u8], &[u8], &str); 17] = [
            (&i[..39], l, "images: byte 39: got the end of the file after 23 values, want 24 (4 x"),
            (&i[..10], l, "images: byte 10: got the end of the file after 10 bytes, want a header"),
            (&i[..3], l, "images: byte 3: got the end of the file after 3 bytes, want a header of"),
            (&[], l, "images: byte 0: got the end of the file after 0 bytes, want a header of 16"),
            (i, &l[..10], "labels: byte 10: got the end of the file after 2 values, want 4 (4)"),
            (&[i, &[9]].concat(), l, "images: byte 40: got more bytes, want the end of the file"),
            (l, i, "got magic number 0x00000801, want 0x00000803 (images); hint: this file hold"),
            (i, i, "got magic number 0x00000803, want 0x00000801 (labels); hint: this file hold"),
            (
                b"\x89PNG..",
                l,
                "got magic number 0x89504e47, want 0x00000803 (images); hint: the file",
            ),
            (i, &pair(3).1, "labels: byte 4: got 3 labels, want 4, one for each image of"),
            (&idx3([u32::MAX; 3]), l, "byte 4: got dimensions 4294967295 x 4294967295 x 42949"),
            (&idx3([1 << 30, 1, 1]), l, "byte 18: got the end of the file after 2 values, want 10"),
            (&idx3([4, 0, 3]), l, "images: byte 4: got dimensions 4 x 0 x 3, want 1 to 1073741824"),
            (&pair(0).0, &pair(0).1, "images: byte 4: got dimensions 0 x 2 x 3, want 1 to"),
            (&pair(1).0, &pair(1).1, "images: byte 4: got 1 image, want at least 2"),
            (i, &idx(0x0801, &[4], &[0; 4]), "labels: byte 8: got only the label 0, want at least"),
            (
                &gzip(&i[..39]),
                l,
                "images: byte 39: got the end of the file after 23 values, want 24",
            ),
        ];
        for (images, labels, message) in cases {
            let error = load_bytes((images, labels), None).expect_err(message).to_string();
            assert!(error.contains(message) && error.contains("; hint: "), "{error}\n{message}");
        }
    }

    #[test]
    fn damaged_compression_is_an_error() {
        let (images, labels) = pair(4);
        let packed = gzip(&images);
        let flipped = |at: usize| {
            let mut bytes = packed.clone();
            bytes[at] ^= 0xff;
            bytes
        };
        for (bad, hint) in [
            (flipped(packed.len() - 8), "check the path"),
            (flipped(10), "check the path"),
            (packed[..30].into(), "the file was cut"),
            (packed[..packed.len() - 2].into(), "the file was cut"),
        ] {
            let error = load_bytes((&bad, &labels), None).unwrap_err().to_string();
            let want = format!("want a file that can be read; hint: {hint}");
            assert!(error.contains(&want), "{error}\n{want}");
        }
    }

    #[test]
    fn a_bad_test_part_is_an_error() {
        let (images, labels) = pair(4);
        let other_size = idx(0x0803, &[4, 3, 2], &[0; 24]);
        let error = load_bytes((&images, &labels), Some((&other_size, &labels))).unwrap_err();
        let want = "test-images: byte 8: got images of 3 x 2, want 2 x 3 as in training";
        assert!(error.to_string().contains(want), "{error}");

        let path = Path::new("x");
        for (test, name) in
            [((Some(path), None), "test_labels"), ((None, Some(path)), "test_images")]
        {
            let error = load(path, path, test, 0.2, 1).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{name}`: got none, want a file")), "{error}");
        }
        let gone = load(Path::new("no/such/file"), path, (None, None), 0.2, 1).unwrap_err();
        assert!(gone.to_string().contains("no/such/file: got `"), "{gone}");
    }
}
