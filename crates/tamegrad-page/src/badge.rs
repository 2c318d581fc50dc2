//! A verdict as a badge.

use tamegrad::{Diagnosis, Verdict};

/// The verdict in a word or two, as a badge.
pub(crate) fn badge(found: &Diagnosis) -> String {
    found.verdict.as_str().replace('-', " ")
}

/// Whether a verdict is good, bad, or in between: a class of the style sheet.
pub(crate) fn mood(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "good",
        Verdict::Recovered | Verdict::NotLearning | Verdict::TooEarly => "mixed",
        Verdict::Exploding | Verdict::Exploded | Verdict::Dead => "bad",
    }
}
