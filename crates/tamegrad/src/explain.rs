//! The texts of `explain`: one for each sign, cause and remedy, and for what is judged by rules beside them.

mod guard;
mod logs;
mod origin;
mod preflight;
mod verdict;

use crate::causes::CauseName;
use crate::doc::{Doc, enum_of_docs};
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
        /// Something else that is judged by rules.
        Rule => "rule",
    }
}

enum_of_docs! {
    /// What is judged by rules beside signs, causes and remedies.
    RuleName {
        /// What the guard does.
        guard => Guard,
        /// Where it began.
        origin => Origin,
        /// What became of a run.
        verdict => Verdict,
        /// A run before it begins.
        preflight => Preflight,
        /// Logs.
        logs => Logs,
    }
}

/// All texts: the signs first, then the causes, the remedies and the other rules.
pub fn all() -> Vec<(Topic, &'static Doc)> {
    let signs = SignName::ALL.iter().map(|name| (Topic::Sign, name.doc()));
    let causes = CauseName::ALL.iter().map(|name| (Topic::Cause, name.doc()));
    let remedies = RemedyName::ALL.iter().map(|name| (Topic::Remedy, name.doc()));
    let rules = RuleName::ALL.iter().map(|name| (Topic::Rule, name.doc()));
    signs.chain(causes).chain(remedies).chain(rules).collect()
}

/// Finds a text by its name.
pub fn find(name: &str) -> Option<(Topic, &'static Doc)> {
    all().into_iter().find(|(_, doc)| doc.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::rules::{RULES, Rules};

    /// The texts of all rules, with these numbers.
    fn texts(rules: &Rules) -> String {
        all().iter().map(|(_, doc)| (doc.rule)(rules)).collect()
    }

    /// The paths of the numbers in a value.
    fn numbers(value: &Value, path: &str) -> Vec<String> {
        match value {
            Value::Object(fields) => fields
                .iter()
                .flat_map(|(name, value)| numbers(value, &format!("{path}/{name}")))
                .collect(),
            _ => vec![path.to_owned()],
        }
    }

    #[test]
    fn a_rule_that_changes_changes_a_text() {
        let given = serde_json::to_value(RULES).expect("rules are numbers");
        let before = texts(&RULES);
        let paths = numbers(&given, "");
        let says_nothing = |path: &&String| {
            let mut changed = given.clone();
            // The same number of one constant, where a rule for logs has that of a live run.
            let twin = path.replace("/logs/", "/live/");
            let twin = (given.pointer(&twin) == given.pointer(path)).then_some(twin);
            for place in std::iter::once((*path).clone()).chain(twin.filter(|twin| twin != *path)) {
                let number = changed.pointer_mut(&place).expect("a path of this value");
                *number = match number.as_u64() {
                    Some(count) => (count + 7).into(),
                    None => (1.37 * number.as_f64().expect("a number")).into(),
                };
            }
            let rules: Rules = serde_json::from_value(changed).expect("rules");
            texts(&rules) == before
        };
        assert!(paths.len() > 200, "{}", paths.len());
        assert_eq!(paths.iter().filter(says_nothing).collect::<Vec<_>>(), Vec::<&String>::new());
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
