//! The colours of the heat map, and a grid of them as a PNG.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Colours from the smallest value to the largest.
pub(crate) const LEVELS: u8 = 48;

/// What a cell of the heat map shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Nothing was logged there.
    Empty,
    /// Zero.
    Zero,
    /// NaN or infinite.
    Broken,
    /// A level below [`LEVELS`].
    Level(u8),
}

impl Cell {
    /// The place in the palette.
    fn index(self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::Zero => 1,
            Self::Broken => 2,
            Self::Level(level) => 3 + level.min(LEVELS - 1),
        }
    }

    /// Red, green and blue.
    pub(crate) fn colour(self) -> [u8; 3] {
        match self {
            Self::Empty => [255, 255, 255],
            Self::Zero => [196, 190, 180],
            Self::Broken => [226, 61, 40],
            Self::Level(level) => level_colour(f64::from(level) / f64::from(LEVELS - 1)),
        }
    }

    /// The colour as a style sheet writes it.
    pub(crate) fn hex(self) -> String {
        let [red, green, blue] = self.colour();
        format!("#{red:02x}{green:02x}{blue:02x}")
    }
}

/// The colour of a level from 0 to 1: from near white over grey green and teal to dark blue. Lightness falls evenly in
/// Oklab (Ottosson 2020, A perceptual color space for image processing), so that equal factors look
/// equally far apart, in grey and to colour-blind eyes too.
fn level_colour(level: f64) -> [u8; 3] {
    let lightness = 0.965 - 0.715 * level;
    let hue = (175.0 + 95.0 * level).to_radians();
    let chroma = 0.008 + 0.122 * (std::f64::consts::PI * (0.02 + 0.8 * level)).sin();
    let (a, b) = (chroma * hue.cos(), chroma * hue.sin());
    // From Oklab to linear sRGB, by the matrices of the paper.
    let cone = |ka: f64, kb: f64| (lightness + ka * a + kb * b).powi(3);
    let long = cone(0.396_337_777_4, 0.215_803_757_3);
    let medium = cone(-0.105_561_345_8, -0.063_854_172_8);
    let short = cone(-0.089_484_177_5, -1.291_485_548);
    let linear = [
        4.076_741_662_1 * long - 3.307_711_591_3 * medium + 0.230_969_929_2 * short,
        -1.268_438_004_6 * long + 2.609_757_401_1 * medium - 0.341_319_396_5 * short,
        -0.004_196_086_3 * long - 0.703_418_614_7 * medium + 1.707_614_701 * short,
    ];
    linear.map(|value| {
        let value = value.clamp(0.0, 1.0);
        let encoded = if value <= 0.003_130_8 {
            12.92 * value
        } else {
            1.055 * value.powf(1.0 / 2.4) - 0.055
        };
        (255.0 * encoded).round() as u8
    })
}

/// A grid of cells, row by row from the top, as the address of a PNG that holds a pixel for each.
pub(crate) fn data_url(cells: &[Cell], width: usize) -> String {
    let pixels: Vec<u8> = cells.iter().map(|cell| cell.index()).collect();
    let levels = (0..LEVELS).map(Cell::Level);
    let palette = [Cell::Empty, Cell::Zero, Cell::Broken].into_iter().chain(levels);
    let mut file = Vec::new();
    let height = cells.len().checked_div(width).unwrap_or(0);
    let size = |size| u32::try_from(size).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(&mut file, size(width), size(height));
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette.flat_map(Cell::colour).collect::<Vec<u8>>());
    // Of the first entry, that for nothing, nothing is seen.
    encoder.set_trns(vec![0]);
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(&pixels)?;
        writer.finish()
    });
    // Writing to memory fails for an empty grid alone.
    if written.is_err() {
        String::new()
    } else {
        format!("data:image/png;base64,{}", STANDARD.encode(&file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lightness as the eye sees it: CIE L*, from 0 to 100.
    fn lightness([red, green, blue]: [u8; 3]) -> f64 {
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let y = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
        116.0 * y.cbrt() - 16.0
    }

    #[test]
    fn lightness_falls_in_even_steps() {
        let levels: Vec<f64> =
            (0..LEVELS).map(|level| lightness(Cell::Level(level).colour())).collect();
        let steps: Vec<f64> = levels.windows(2).map(|pair| pair[0] - pair[1]).collect();
        let mean = steps.iter().sum::<f64>() / steps.len() as f64;
        assert!(mean > 1.2, "{mean}");
        for step in steps {
            assert!((0.4..1.7).contains(&(step / mean)), "{step} of {mean}");
        }
    }

    #[test]
    fn a_grid_is_a_png_with_a_pixel_a_cell() {
        let cells = [Cell::Level(0), Cell::Broken, Cell::Empty, Cell::Level(200)];
        let url = data_url(&cells, 2);
        let bytes = STANDARD.decode(url.strip_prefix("data:image/png;base64,").expect("a PNG"));
        let file = bytes.expect("base64");
        let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().expect("a header");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("pixels");
        assert_eq!((info.width, info.height), (2, 2));
        let [first, last] = [Cell::Level(0), Cell::Level(LEVELS - 1)].map(Cell::colour);
        assert_eq!(pixels[0..3], first);
        assert_eq!(pixels[4..8], [226, 61, 40, 255]);
        assert_eq!(pixels[11], 0, "nothing is seen through");
        assert_eq!(pixels[12..15], last);
    }
}
