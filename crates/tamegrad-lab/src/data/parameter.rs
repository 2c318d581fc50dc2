//! Checks of a source's parameters: ranges and sizes.

use super::DataError;

/// Most numbers that one table may have (2^30, which is 4 GiB of `f32`): a slip in a size is an
/// error and not an attempt to fill the machine's memory.
pub(super) const MAX_NUMBERS: usize = 1 << 30;

/// `got >= least`.
pub(super) fn at_least(name: &'static str, got: usize, least: usize) -> Result<(), DataError> {
    let want = || format!("at least {least}");
    require(got >= least, name, || got.to_string(), want, "raise it in the recipe")
}

/// `got` is finite and not negative.
pub(super) fn not_negative(name: &'static str, got: f64) -> Result<(), DataError> {
    let want = || "a number from 0 up, and finite".to_owned();
    let hint = "0 means none; the unit is a standard deviation";
    require(got.is_finite() && got >= 0.0, name, || got.to_string(), want, hint)
}

/// A share that leaves rows on both sides of the split: `0 < got < 1`.
pub(super) fn test_fraction(got: f64) -> Result<(), DataError> {
    let want = || "above 0 and below 1".to_owned();
    let hint = "0.2 holds out a fifth of the rows";
    require(got > 0.0 && got < 1.0, "test_fraction", || got.to_string(), want, hint)
}

/// `samples` rows of `width` numbers stay within [`MAX_NUMBERS`].
pub(super) fn table_size(samples: usize, width: usize) -> Result<(), DataError> {
    let fits = samples.checked_mul(width).is_some_and(|numbers| numbers <= MAX_NUMBERS);
    let got = || format!("{samples} samples of {width} numbers");
    let want = || format!("at most {MAX_NUMBERS} numbers together");
    require(fits, "samples", got, want, "take fewer or smaller samples")
}

/// The general form of the checks above.
pub(super) fn require(
    holds: bool,
    name: &'static str,
    got: impl FnOnce() -> String,
    want: impl FnOnce() -> String,
    hint: &'static str,
) -> Result<(), DataError> {
    if holds {
        return Ok(());
    }
    Err(DataError::Parameter { name, got: got(), want: want(), hint })
}
