//! The form of the text that explains a sign, cause, remedy or rule.

use crate::rules::{RULES, Rules};

/// The explanation of a sign, cause, remedy or rule.
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

/// Declares an enum from the list of the modules, each with a `DOC`, that tell of its values.
macro_rules! enum_of_docs {
    ($(#[$attribute:meta])* $enum:ident { $($(#[$doc:meta])* $module:ident => $value:ident,)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum {
            $($(#[$doc])* $value,)*
        }

        impl $enum {
            /// All there are, in the order of their list.
            pub const ALL: &'static [$enum] = &[$($enum::$value,)*];

            /// The text that explains it.
            pub fn doc(self) -> &'static $crate::doc::Doc {
                match self {
                    $($enum::$value => &$module::DOC,)*
                }
            }

            /// Kebab-case name.
            pub fn as_str(self) -> &'static str {
                self.doc().name
            }
        }
    };
}
pub(crate) use enum_of_docs;

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
