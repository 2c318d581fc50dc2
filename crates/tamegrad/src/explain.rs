//! The texts of `explain`: one for each sign, cause and remedy.

use crate::causes::CauseName;
use crate::doc::Doc;
use crate::evidence::named_enum;
use crate::finding::SignName;
use crate::remedies::RemedyName;

named_enum! {
    /// What a [`Doc`] is about.
    Topic {
        /// A warning sign.
        Sign => "sign",
        /// A cause.
        Cause => "cause",
        /// A remedy.
        Remedy => "remedy",
    }
}

/// All texts: the signs first, then the causes, then the remedies.
pub fn all() -> Vec<(Topic, &'static Doc)> {
    let signs = SignName::ALL.iter().map(|name| (Topic::Sign, name.doc()));
    let causes = CauseName::ALL.iter().map(|name| (Topic::Cause, name.doc()));
    let remedies = RemedyName::ALL.iter().map(|name| (Topic::Remedy, name.doc()));
    signs.chain(causes).chain(remedies).collect()
}

/// Finds the text of a sign, cause or remedy by its name.
pub fn find(name: &str) -> Option<(Topic, &'static Doc)> {
    all().into_iter().find(|(_, doc)| doc.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_changes_changes_its_text() {
        use crate::rules::{LadderRule, MetricRule, RULES, Rules};
        let ladder = LadderRule { skips: 7, ..RULES.ladder };
        let metric = MetricRule { steps_min: 4321, ..RULES.metric };
        let mut rules = Rules { ladder, metric, lag: 9.75, ..RULES };
        rules.spike.live.sigmas = 6.5;
        rules.cut.logs.after_alarm = 777;
        for (name, number) in [
            ("skip-step", "7 skips"),
            ("metric-stalls", "4321"),
            ("optimizer-state", "9.75"),
            ("gradient-spikes", "6.5 sigma"),
            ("learning-rate-falls", "777 records"),
        ] {
            let (_, doc) = find(name).expect("an entry");
            let text = (doc.rule)(&rules);
            assert!(text.contains(number), "{name}: {text}");
            assert!(!(doc.rule)(&RULES).contains(number), "{name}");
        }
    }

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
    fn a_name_that_is_not_there_is_not_found() {
        assert_eq!(find("exploding-heads"), None);
    }
}
