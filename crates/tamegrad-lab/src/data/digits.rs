//! The UCI handwritten digits, built into the program: 1,797 images of 8 x 8 pixels, ten classes.
//!
//! Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI
//! Machine Learning Repository, doi 10.24432/C50P49, CC BY 4.0; see `data/README.md`.
//!
//! A pixel counts the inked points of a 4 x 4 block, 0..=16. It is divided by 16 to the share of
//! ink, 0..=1, so that the numbers in a recipe (initial scale, learning rate) have the unit that
//! they have for other images, and an explosion has a cause in the recipe and not in the unit.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;

use super::split::part;
use super::{DataError, Dataset, Table, Targets};

const FILE: &[u8] = include_bytes!("../../data/digits.csv.gz");
const PIXELS: usize = 64;
const INK: f32 = 16.0;
const CLASSES: usize = 10;

/// Reads the images. Rows whose number leaves the remainder 4 by 5 are the test part, whatever
/// the seed: results of different seeds are measured on the same images.
pub(super) fn load() -> Result<Dataset, DataError> {
    let table = read(FILE)?;
    let (test, train): (Vec<u32>, Vec<u32>) =
        (0..table.rows() as u32).partition(|row| row % 5 == 4);
    Ok(Dataset { train: part(&table, &train), test: part(&table, &test) })
}

fn read(file: &[u8]) -> Result<Table, DataError> {
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).map_err(|error| DataError::Unreadable {
        path: path(),
        reason: error.to_string(),
        hint: "the file was damaged when the program was built; data/README.md has its SHA-256",
    })?;
    let mut inputs = Vec::new();
    let mut labels = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let numbers = read_line(line).ok_or_else(|| DataError::Layout {
            path: path(),
            line: index + 1,
            got: format!("`{line}`"),
            want: format!("{PIXELS} pixels in 0..=16 and a digit"),
            hint: "the file was changed; data/README.md has its SHA-256",
        })?;
        inputs.extend(numbers[..PIXELS].iter().map(|&pixel| f32::from(pixel) / INK));
        labels.push(u32::from(numbers[PIXELS]));
    }
    let targets = Targets::Classes { labels, classes: CLASSES };
    Ok(Table { inputs, input_shape: vec![1, 8, 8], targets })
}

/// 64 pixels and the digit, or nothing if the line holds anything else.
fn read_line(line: &str) -> Option<Vec<u8>> {
    let numbers: Vec<u8> = line.split(',').map(|cell| cell.parse().ok()).collect::<Option<_>>()?;
    let (&digit, pixels) = numbers.split_last()?;
    let fits = pixels.len() == PIXELS
        && usize::from(digit) < CLASSES
        && pixels.iter().all(|&pixel| f32::from(pixel) <= INK);
    fits.then_some(numbers)
}

fn path() -> PathBuf {
    PathBuf::from("data/digits.csv.gz (built in)")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn labels(table: &Table) -> &[u32] {
        match &table.targets {
            Targets::Classes { labels, classes: 10 } => labels,
            other => panic!("{other:?}"),
        }
    }

    fn count_by_class(tables: &[&Table]) -> [usize; 10] {
        let mut counts = [0; 10];
        for &label in tables.iter().flat_map(|table| labels(table)) {
            counts[label as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_images_are_those_of_the_source() {
        let data = load().unwrap();
        // Class counts as optdigits.names of UCI states them for the test part.
        let want = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];
        assert_eq!(count_by_class(&[&data.train, &data.test]), want);
        assert_eq!(labels(&data.train)[..6], [0, 1, 2, 3, 5, 6]);
        assert_eq!(labels(&data.test)[..3], [4, 9, 4]);
        let first_row = data.train.inputs[..8].iter().map(|x| x * 16.0).collect::<Vec<_>>();
        assert_eq!(first_row, [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn pixels_are_shares_of_ink() {
        let data = load().unwrap();
        for part in [data.train, data.test] {
            assert_eq!(part.inputs.iter().copied().fold(f32::NAN, f32::min), 0.0);
            assert_eq!(part.inputs.iter().copied().fold(f32::NAN, f32::max), 1.0);
        }
    }

    #[test]
    fn a_damaged_file_says_where() {
        let mut pixels = vec!["1"; 64];
        pixels.push("9");
        let good = pixels.join(",");
        let cases = [
            (good.replacen('1', "17", 1), "want 64 pixels in 0..=16 and a digit"),
            (good.replace('9', "10"), "want 64 pixels"),
            (good.replacen("1,", "", 1), "want 64 pixels"),
            (good.replacen('1', "x", 1), "want 64 pixels"),
        ];
        for (bad, message) in cases {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(format!("{good}\n{bad}\n").as_bytes()).unwrap();
            let error = read(&gzip.finish().unwrap()).unwrap_err().to_string();
            assert!(error.contains("built in):2: got `") && error.contains(message), "{error}");
        }
        let cut = read(&FILE[..1000]).unwrap_err().to_string();
        assert!(cut.contains("want a file that can be read"), "{cut}");
    }
}
