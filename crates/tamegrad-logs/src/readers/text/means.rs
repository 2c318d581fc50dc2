//! The running means of old fairseq, taken apart into what each stretch of updates gave.
//!
//! Its progress bar prints, up to version 0.9, the means over the epoch so far: an explosion late in
//! an epoch hardly shows. The bars of later versions print means since the line before.

use std::collections::HashMap;

use super::names::{GLOBAL, Subset};
use super::scan::{Marks, Pair};

/// The largest error from the digits that were printed, as a part of the result.
const ERROR_MAX: f64 = 0.1;

/// The means that were last printed of an epoch.
#[derive(Debug, Clone, Default)]
pub(super) struct Means {
    epoch: Option<i64>,
    /// Updates before the epoch, and up to the last line.
    before: i64,
    updates: i64,
    /// By the place of a series in the log.
    last: HashMap<usize, Mean>,
}

/// A mean over the updates of an epoch so far.
#[derive(Debug, Clone, Copy)]
struct Mean {
    updates: i64,
    mean: f64,
    /// Half of its last digit.
    half_digit: f64,
}

impl Means {
    /// Takes the values of a line apart if they are running means. Whether they are.
    pub(super) fn take_apart(
        &mut self,
        line: &[u8],
        marks: &Marks,
        values: &mut [(usize, f64)],
    ) -> bool {
        let Some(updates) = self.updates(line, marks) else { return false };
        for (pair, (place, value)) in marks.pairs.iter().zip(values) {
            if is_mean(pair) {
                let text = line.get(pair.span.0..pair.span.1).unwrap_or_default();
                let mean = Mean { updates, mean: *value, half_digit: half_digit(text) };
                *value = self.last.insert(*place, mean).map_or(*value, |last| mean.since(last));
            }
        }
        true
    }

    /// The updates of the epoch up to a line with running means; `None` if it is another.
    fn updates(&mut self, line: &[u8], marks: &Marks) -> Option<i64> {
        let Some((GLOBAL, updates)) = marks.step else { return None };
        let has = |text: &[u8]| memchr::memmem::find(line, text).is_some();
        if !line.trim_ascii_start().starts_with(b"| epoch ") || marks.epoch.is_none() {
            return None;
        }
        let is_same = self.epoch == marks.epoch && updates >= self.updates;
        match marks.place {
            // `| epoch 001:   1000 / 5000 loss=9.1, num_updates=1001`
            Some(place) if has(b"num_updates=") => {
                if !is_same {
                    *self = Self { epoch: marks.epoch, ..Self::default() };
                    self.before = updates.saturating_sub(place.at).saturating_sub(1).max(0);
                }
            }
            // `| epoch 001 | loss 9.1 | num_updates 5001`: the end of an epoch that was begun.
            None if is_same && has(b"| num_updates ") => {}
            _ => return None,
        }
        self.updates = updates;
        Some(updates.saturating_sub(self.before))
    }
}

impl Mean {
    /// The mean over the updates since another, or over all of them where too few digits are left
    /// to tell.
    fn since(self, last: Self) -> f64 {
        let new = (self.updates - last.updates) as f64;
        let part = self.mean + (self.mean - last.mean) * last.updates as f64 / new;
        let error = self.updates as f64 * self.half_digit + last.updates as f64 * last.half_digit;
        // No norm is below zero. Without new updates, and with means that are no numbers, all of
        // this is false.
        let is_possible = part.is_finite() && (part >= 0.0 || self.mean < 0.0);
        if is_possible && error / new <= ERROR_MAX * part.abs() { part } else { self.mean }
    }
}

/// Whether fairseq prints the mean of a number, and not its present value.
fn is_mean(pair: &Pair) -> bool {
    let is_validation = pair.is_validation || pair.name.says_subset == Some(Subset::Validation);
    pair.name.class.is_core() && !is_validation
}

/// Half of the last digit of the number at the end of a text: 0.005 for `loss=2.25`.
fn half_digit(text: &[u8]) -> f64 {
    let begin = text.iter().rposition(|byte| b"=: |".contains(byte)).map_or(0, |at| at + 1);
    let number = text.get(begin..).unwrap_or_default();
    let (digits, exponent) = match number.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (number.get(..at), number.get(at + 1..)),
        None => (Some(number), None),
    };
    let digits = digits.unwrap_or_default();
    let decimals = digits.iter().rev().take_while(|byte| **byte != b'.').count();
    let decimals = if digits.contains(&b'.') { decimals } else { 0 };
    let exponent = exponent.and_then(|text| std::str::from_utf8(text).ok()?.parse::<i32>().ok());
    0.5 * 10f64.powi(exponent.unwrap_or(0).saturating_sub(decimals as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_digit_of_a_number() {
        for (text, want) in [
            ("loss=2.25", 0.005),
            ("loss=12", 0.5),
            ("gnorm | 0.390", 0.0005),
            ("loss=1.5e-07", 0.5e-8),
            ("loss=3e+02", 50.0),
            ("loss=nan", 0.5),
            ("", 0.5),
        ] {
            assert!((half_digit(text.as_bytes()) / want - 1.0).abs() < 1e-9, "{text}");
        }
    }

    #[test]
    fn a_mean_over_the_new_updates_and_what_its_digits_allow() {
        let mean = |updates, mean, half_digit| Mean { updates, mean, half_digit };
        let last = mean(100, 2.0, 0.005);
        assert_eq!(mean(200, 3.0, 0.005).since(last), 4.0);
        // An error of 0.1 beside 0.2, and one of 0.1 beside 1.9.
        assert_eq!(mean(110, 1.84, 0.005).since(last), 1.84);
        assert!((mean(110, 1.99, 0.005).since(last) - 1.89).abs() < 1e-9);
        assert_eq!(mean(100, 2.5, 0.005).since(last), 2.5);
        assert!(mean(110, f64::NAN, 0.5).since(last).is_nan());
        assert_eq!(mean(110, 2.0, 0.005).since(mean(100, f64::INFINITY, 0.5)), 2.0);
    }
}
