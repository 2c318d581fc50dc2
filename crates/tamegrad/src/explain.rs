//! The texts of `explain`: one [`Doc`] beside each sign, cause and remedy, under the same headings.

use crate::{causes, remedies, signs};

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

/// Which of the three kinds a [`Doc`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A warning sign.
    Sign,
    /// A cause.
    Cause,
    /// A remedy.
    Remedy,
}

/// All texts, the signs first, then the causes, then the remedies.
pub fn all() -> Vec<(Topic, &'static Doc)> {
    let signs = signs::DOCS.iter().map(|doc| (Topic::Sign, *doc));
    let causes = causes::DOCS.iter().map(|doc| (Topic::Cause, *doc));
    let remedies = remedies::DOCS.iter().map(|doc| (Topic::Remedy, *doc));
    signs.chain(causes).chain(remedies).collect()
}

/// The text of a name.
pub fn find(name: &str) -> Option<(Topic, &'static Doc)> {
    all().into_iter().find(|(_, doc)| doc.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_kebab_case_and_every_section_is_filled() {
        let docs = all();
        for (i, (_, doc)) in docs.iter().enumerate() {
            let kebab =
                doc.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            assert!(kebab, "{} is not kebab-case", doc.name);
            let twins = docs[i + 1..].iter().filter(|(_, other)| other.name == doc.name).count();
            assert_eq!(twins, 0, "{} is told twice", doc.name);
            for (heading, text) in doc.sections() {
                assert!(text.len() > 12, "{}: `{heading}` says little: {text:?}", doc.name);
            }
        }
    }

    #[test]
    fn there_are_six_signs() {
        assert_eq!(all().iter().filter(|(topic, _)| *topic == Topic::Sign).count(), 6);
    }

    #[test]
    fn a_name_that_is_not_there_is_not_found() {
        assert_eq!(find("exploding-heads"), None);
    }
}
