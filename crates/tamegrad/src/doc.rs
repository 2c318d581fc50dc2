//! The form of the text that stands beside each sign, cause and remedy.

/// What a sign, cause or remedy is, for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doc {
    /// Kebab-case name, as on the command line and in JSON.
    pub name: &'static str,
    /// Title in words.
    pub title: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// The rule, with its numbers.
    pub rule: &'static str,
    /// An example.
    pub example: &'static str,
    /// What to do; for a remedy, how to apply it.
    pub remedy: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
}

impl Doc {
    /// The headings and texts in the order in which they are shown.
    pub fn sections(&self) -> [(&'static str, &'static str); 6] {
        [
            ("What it is", self.what),
            ("Why it matters", self.why),
            ("Rule", self.rule),
            ("Example", self.example),
            ("Remedy", self.remedy),
            ("Source", self.source),
        ]
    }
}
