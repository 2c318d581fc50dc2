//! The form of the text that explains a sign, cause or remedy.

use crate::rules::{RULES, Rules};

/// The explanation of a sign, cause or remedy.
#[derive(Debug, Clone, Copy)]
pub struct Doc {
    /// Kebab-case name, as on the command line and in JSON.
    pub name: &'static str,
    /// Title.
    pub title: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// The rule, with the numbers of the rules given.
    pub rule: fn(&Rules) -> String,
    /// An example.
    pub example: &'static str,
    /// What to do about it; for a remedy, how to apply it.
    pub remedy: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
}

impl PartialEq for Doc {
    /// Names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Doc {}

impl Doc {
    /// Headings and texts, in the order in which they are shown.
    pub fn sections(&self) -> [(&'static str, String); 6] {
        [
            ("What it is", self.what.to_owned()),
            ("Why it matters", self.why.to_owned()),
            ("Rule", (self.rule)(&RULES)),
            ("Example", self.example.to_owned()),
            ("Remedy", self.remedy.to_owned()),
            ("Source", self.source.to_owned()),
        ]
    }
}
