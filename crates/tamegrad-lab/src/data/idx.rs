//! Images and labels in IDX, the format of MNIST, plain or gzip-compressed.
//!
//! As <http://yann.lecun.com/exdb/mnist/> describes it: a big-endian magic number (two zero bytes,
//! the type 0x08 for unsigned bytes, the number of dimensions), each dimension as a big-endian
//! `u32`, then the values, the last dimension fastest.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::split::split;
use super::{DataError, Dataset, Table, Targets, parameter};

const IMAGES: Kind = Kind { magic: 0x0803, dimensions: 3, name: "images" };
const LABELS: Kind = Kind { magic: 0x0801, dimensions: 1, name: "labels" };
const GZIP: [u8; 2] = [0x1f, 0x8b];

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
    match test {
        (Some(test_images), Some(test_labels)) => {
            let train = read_pair(images, labels)?;
            let test = read_pair(test_images, test_labels)?;
            same_shape(&train, &test, test_images)?;
            let classes = class_count(&[&train, &test], labels)?;
            Ok(Dataset { train: train.table(classes), test: test.table(classes) })
        }
        (None, None) => {
            parameter::test_fraction(test_fraction)?;
            let all = read_pair(images, labels)?;
            if all.labels.len() < 2 {
                let hint = "one image is needed to train on and one to test on";
                return Err(error(images, 4, "1 image", "at least 2", hint));
            }
            let classes = class_count(&[&all], labels)?;
            Ok(split(&all.table(classes), test_fraction, &mut ChaCha8Rng::seed_from_u64(seed)))
        }
        (Some(_), None) => Err(lone_test_file("test_labels", "test_images")),
        (None, Some(_)) => Err(lone_test_file("test_images", "test_labels")),
    }
}

fn lone_test_file(missing: &'static str, given: &str) -> DataError {
    DataError::Parameter {
        name: missing,
        got: "none".to_owned(),
        want: format!("a file, because `{given}` is given"),
        hint: "give both, or neither to hold out `test_fraction`",
    }
}

/// Images with their labels, as bytes.
struct Pair {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Pair {
    fn table(self, classes: usize) -> Table {
        let labels = self.labels.into_iter().map(u32::from).collect();
        Table {
            inputs: self.pixels.into_iter().map(|pixel| f32::from(pixel) / 255.0).collect(),
            input_shape: vec![1, self.height, self.width],
            targets: Targets::Classes { labels, classes },
        }
    }
}

fn read_pair(images: &Path, labels: &Path) -> Result<Pair, DataError> {
    let (dimensions, pixels) = read(images, IMAGES)?;
    let (_, label_bytes) = read(labels, LABELS)?;
    let count = dimensions[0];
    if label_bytes.len() != count {
        let got = format!("{} labels", label_bytes.len());
        let want = format!("{count}, one for each image of {}", images.display());
        return Err(error(labels, 4, &got, &want, "take the two files from the same set"));
    }
    Ok(Pair { height: dimensions[1], width: dimensions[2], pixels, labels: label_bytes })
}

fn same_shape(train: &Pair, test: &Pair, test_images: &Path) -> Result<(), DataError> {
    if (test.height, test.width) == (train.height, train.width) {
        return Ok(());
    }
    let got = format!("images of {} x {}", test.height, test.width);
    let want = format!("{} x {} as in training", train.height, train.width);
    Err(error(test_images, 8, &got, &want, "take the test files from the same set"))
}

fn class_count(pairs: &[&Pair], labels: &Path) -> Result<usize, DataError> {
    match pairs.iter().flat_map(|pair| &pair.labels).max() {
        Some(&largest) if largest > 0 => Ok(usize::from(largest) + 1),
        _ => {
            let hint = "labels count the classes from 0";
            Err(error(labels, 8, "only the label 0", "at least 2 classes", hint))
        }
    }
}

/// What a file should hold.
#[derive(Clone, Copy)]
struct Kind {
    magic: u32,
    dimensions: usize,
    name: &'static str,
}

/// The dimensions and the values of one file. Memory grows with the bytes that are there, not
/// with the dimensions that the header claims.
fn read(path: &Path, kind: Kind) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let mut reader = open(path)?;
    let header_len = 4 + 4 * kind.dimensions;
    let header = read_at_most(&mut reader, header_len, header_len, path)?;
    check_magic(path, &header, kind)?;
    if header.len() < header_len {
        let got = format!("the end of the file after {} bytes", header.len());
        let want = format!("a header of {header_len} bytes");
        return Err(error(path, header.len(), &got, &want, CUT));
    }
    let dimensions: Vec<usize> = words(&header[4..]).map(|word| word as usize).collect();
    let count = value_count(path, &dimensions)?;

    // One byte more than wanted tells a file that is too long.
    let values = read_at_most(&mut reader, count, count + 1, path)?;
    let end = header_len + values.len();
    if values.len() < count {
        let got = format!("the end of the file after {} values", values.len());
        let want = format!("{count} ({})", spell(&dimensions));
        return Err(error(path, end, &got, &want, CUT));
    }
    if values.len() > count {
        let want = format!("the end of the file after {count} values ({})", spell(&dimensions));
        let hint = "the header does not fit the data; get the file again";
        return Err(error(path, header_len + count, "more bytes", &want, hint));
    }
    Ok((dimensions, values))
}

const CUT: &str = "the file was cut while it was copied or downloaded; get it again";

fn check_magic(path: &Path, header: &[u8], kind: Kind) -> Result<(), DataError> {
    let Some(magic) = words(header).next() else {
        let got = format!("the end of the file after {} bytes", header.len());
        return Err(error(path, header.len(), &got, "a magic number of 4 bytes", CUT));
    };
    if magic == kind.magic {
        return Ok(());
    }
    let hint = match magic {
        _ if magic == IMAGES.magic => "this file holds images; are images and labels swapped?",
        _ if magic == LABELS.magic => "this file holds labels; are images and labels swapped?",
        _ => "the file is not in IDX format with unsigned bytes",
    };
    let got = format!("magic number {magic:#010x}");
    let want = format!("{:#010x} ({})", kind.magic, kind.name);
    Err(error(path, 0, &got, &want, hint))
}

/// The product of the dimensions, if it is neither nothing nor beyond all memory.
fn value_count(path: &Path, dimensions: &[usize]) -> Result<usize, DataError> {
    let count = dimensions.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
    match count {
        Some(count) if (1..=parameter::MAX_NUMBERS).contains(&count) => Ok(count),
        _ => {
            let want = format!("1 to {} values", parameter::MAX_NUMBERS);
            let hint = "the header is damaged; get the file again";
            Err(error(path, 4, &format!("dimensions {}", spell(dimensions)), &want, hint))
        }
    }
}

fn spell(dimensions: &[usize]) -> String {
    dimensions.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_be_bytes(word))
}

fn open(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let mut file = BufReader::new(File::open(path).map_err(|error| unreadable(path, &error))?);
    let start = file.fill_buf().map_err(|error| unreadable(path, &error))?;
    if start.starts_with(&GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(file)));
    }
    Ok(Box::new(file))
}

/// Up to `limit` bytes, fewer where the file ends early. That compressed data end early counts as
/// such an end while some of the `wanted` bytes are missing; after them only the checksum can be.
fn read_at_most(
    reader: &mut dyn Read,
    wanted: usize,
    limit: usize,
    path: &Path,
) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    match reader.take(limit as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof && bytes.len() < wanted => Ok(bytes),
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> DataError {
    DataError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
        hint: "check the path in the recipe (it is relative to the recipe's folder) and the file",
    }
}

fn error(path: &Path, offset: usize, got: &str, want: &str, hint: &'static str) -> DataError {
    let (got, want) = (got.to_owned(), want.to_owned());
    DataError::Idx { path: PathBuf::from(path), offset: offset as u64, got, want, hint }
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
        let most = u32::MAX;
        let packed = gzip(&images);
        let cases: Vec<(Vec<u8>, Vec<u8>, &str)> = vec![
            (
                images[..39].into(),
                labels.clone(),
                "images: byte 39: got the end of the file after 23 values, want 24 (4 x 2 x 3)",
            ),
            (
                images[..10].into(),
                labels.clone(),
                "images: byte 10: got the end of the file after 10 bytes, want a header of 16",
            ),
            (
                images[..3].into(),
                labels.clone(),
                "images: byte 3: got the end of the file after 3 bytes, want a magic number",
            ),
            (
                vec![],
                labels.clone(),
                "images: byte 0: got the end of the file after 0 bytes, want a magic number",
            ),
            (
                images.clone(),
                labels[..10].into(),
                "labels: byte 10: got the end of the file after 2 values, want 4 (4)",
            ),
            (
                [&images[..], &[9]].concat(),
                labels.clone(),
                "images: byte 40: got more bytes, want the end of the file after 24 values",
            ),
            (
                labels.clone(),
                images.clone(),
                "got magic number 0x00000801, want 0x00000803 (images); hint: this file hold",
            ),
            (
                images.clone(),
                images.clone(),
                "got magic number 0x00000803, want 0x00000801 (labels); hint: this file hold",
            ),
            (
                b"\x89PNG....".into(),
                labels.clone(),
                "got magic number 0x89504e47, want 0x00000803 (images); hint: the file is not",
            ),
            (
                images.clone(),
                pair(3).1,
                "labels: byte 4: got 3 labels, want 4, one for each image of",
            ),
            (
                idx(0x0803, &[most, most, most], &[1, 2]),
                labels.clone(),
                "byte 4: got dimensions 4294967295 x 4294967295 x 4294967295, want 1 to 1073741824",
            ),
            (
                idx(0x0803, &[1 << 30, 1, 1], &[1, 2]),
                labels.clone(),
                "images: byte 18: got the end of the file after 2 values, want 1073741824",
            ),
            (
                idx(0x0803, &[4, 0, 3], &[]),
                labels.clone(),
                "images: byte 4: got dimensions 4 x 0 x 3, want 1 to",
            ),
            (pair(0).0, pair(0).1, "images: byte 4: got dimensions 0 x 2 x 3, want 1 to"),
            (pair(1).0, pair(1).1, "images: byte 4: got 1 image, want at least 2"),
            (
                images.clone(),
                idx(0x0801, &[4], &[0; 4]),
                "labels: byte 8: got only the label 0, want at least 2 classes",
            ),
            (
                gzip(&images[..39]),
                labels.clone(),
                "images: byte 39: got the end of the file after 23 values, want 24",
            ),
            (
                packed[..30].into(),
                labels.clone(),
                "values, want 24 (4 x 2 x 3); hint: the file was cut",
            ),
            (
                packed[..packed.len() - 2].into(),
                labels.clone(),
                "got `unexpected end of file`, want a file that can be read",
            ),
        ];
        for (images, labels, message) in cases {
            let error = load_bytes((&images, &labels), None).expect_err(message).to_string();
            assert!(error.contains(message) && error.contains("; hint: "), "{error}\n{message}");
        }
    }

    #[test]
    fn damaged_compression_is_an_error() {
        let (images, labels) = pair(4);
        let packed = gzip(&images);
        let mut checksum = packed.clone();
        let place = packed.len() - 8;
        checksum[place] ^= 1;
        let mut block = packed;
        block[10] = 0xff;
        for bad in [checksum, block] {
            let error = load_bytes((&bad, &labels), None).unwrap_err().to_string();
            assert!(error.contains("want a file that can be read"), "{error}");
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
