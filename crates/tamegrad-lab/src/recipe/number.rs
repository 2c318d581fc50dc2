//! The ranges of a recipe's values, as functions for serde's `deserialize_with`.
//!
//! Each reports the whole of what it wants, also when the type is wrong already, so that one message
//! suffices to write the value right. Numbers are finite.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// A whole number from `LOW` to `HIGH`.
pub(super) fn integer<'de, D, T, const LOW: i64, const HIGH: i64>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    let want = || match HIGH {
        i64::MAX => D::Error::custom(format_args!("a whole number from {LOW}")),
        _ => D::Error::custom(format_args!("a whole number from {LOW} to {HIGH}")),
    };
    let value = i64::deserialize(from).map_err(|_| want())?;
    if !(LOW..=HIGH).contains(&value) {
        return Err(want());
    }
    T::try_from(value).map_err(|_| want())
}

/// Any number.
pub(super) fn finite<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    float(from, "a finite number", |_| true)
}

/// A number above 0.
pub(super) fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    float(from, "a number above 0", |value| value > 0.0)
}

/// A number above 0, for a key that may be absent.
pub(super) fn some_positive<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    positive(from).map(Some)
}

/// A whole number from 1, for a key that may be absent.
pub(super) fn some_count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    integer::<D, u64, 1, 1_000_000_000>(from).map(Some)
}

/// A number that is 0 or above.
pub(super) fn not_negative<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    float(from, "a number from 0", |value| value >= 0.0)
}

/// A number from 0 to below 1.
pub(super) fn below_one<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    float(from, "a number from 0 to below 1", |value| (0.0..1.0).contains(&value))
}

/// A number between 0 and 1, neither of which would leave both parts something.
pub(super) fn fraction<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    float(from, "a number above 0 and below 1", |value| value > 0.0 && value < 1.0)
}

/// The side of a kernel: odd, so that it has a middle.
pub(super) fn odd_kernel<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let want = || D::Error::custom("an odd whole number from 1 to 31");
    let side: usize = integer::<D, usize, 1, 31>(from).map_err(|_| want())?;
    if side % 2 == 1 { Ok(side) } else { Err(want()) }
}

/// The size of a layer, for a key that may be absent.
pub(super) fn some_width<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    integer::<D, usize, 1, 8192>(from).map(Some)
}

/// A whole number in an array.
#[derive(Deserialize)]
struct Whole<const HIGH: i64>(#[serde(deserialize_with = "integer::<_, _, 1, HIGH>")] usize);

/// A number in an array.
#[derive(Deserialize)]
struct Finite(#[serde(deserialize_with = "finite")] f64);

/// Most layers of one kind.
const LAYERS_MAX: usize = 500;

/// Sizes of layers; the list may be empty.
pub(super) fn widths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<usize>, D::Error> {
    let widths = Vec::<Whole<8192>>::deserialize(from)?;
    if widths.len() > LAYERS_MAX {
        let want = format_args!("an array of at most {LAYERS_MAX} whole numbers");
        return Err(D::Error::custom(want));
    }
    Ok(widths.into_iter().map(|width| width.0).collect())
}

/// Channels, height and width, for a key that may be absent.
pub(super) fn some_image<'de, D>(from: D) -> Result<Option<[usize; 3]>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Some(array::<_, D::Error, 3>(Vec::deserialize(from)?)?.map(|side: Whole<65_536>| side.0)))
}

/// Two numbers.
pub(super) fn range<'de, D: Deserializer<'de>>(from: D) -> Result<[f64; 2], D::Error> {
    Ok(array::<_, D::Error, 2>(Vec::deserialize(from)?)?.map(|bound: Finite| bound.0))
}

/// serde's own arrays take no notice of what comes after their last element.
fn array<T, E: Error, const N: usize>(values: Vec<T>) -> Result<[T; N], E> {
    values.try_into().map_err(|_| E::custom(format_args!("an array of length {N}")))
}

/// Sizes of layers, of which there must be one.
pub(super) fn widths_at_least_one<'de, D>(from: D) -> Result<Vec<usize>, D::Error>
where
    D: Deserializer<'de>,
{
    at_least_one(widths(from)?, "an array of at least one whole number")
}

/// Numbers, of which there must be one.
pub(super) fn not_empty_floats<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Finite>::deserialize(from)?.into_iter().map(|value| value.0).collect();
    at_least_one(values, "an array of at least one number")
}

/// A text of at least one character.
pub(super) fn not_empty_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() { Err(D::Error::custom("a text that is not empty")) } else { Ok(text) }
}

/// The path of a file.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    not_empty_text(from).map(PathBuf::from)
}

/// The path of a file, for a key that may be absent.
pub(super) fn some_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    path(from).map(Some)
}

/// A name that every file system takes as that of a folder.
pub(super) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=100).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(name);
    }
    Err(D::Error::custom("1 to 100 ASCII letters, digits, - and _"))
}

fn float<'de, D>(from: D, want: &str, allowed: fn(f64) -> bool) -> Result<f64, D::Error>
where
    D: Deserializer<'de>,
{
    let want = || D::Error::custom(want);
    let value = f64::deserialize(from).map_err(|_| want())?;
    if value.is_finite() && allowed(value) { Ok(value) } else { Err(want()) }
}

fn at_least_one<T, E: Error>(values: Vec<T>, want: &str) -> Result<Vec<T>, E> {
    if values.is_empty() { Err(E::custom(want)) } else { Ok(values) }
}
