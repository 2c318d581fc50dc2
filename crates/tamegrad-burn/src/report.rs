//! A diagnosis that prints as a report.

use std::fmt;
use std::ops::Deref;

use tamegrad::{Diagnosis, Run};
use tamegrad_report::{Style, terminal};

/// Characters in a line of a report.
const WIDTH: usize = 100;

/// A [`Diagnosis`], which this dereferences to. It displays as the report that the command line
/// prints, without colours.
#[derive(Debug, Clone)]
pub struct Report {
    diagnosis: Diagnosis,
    text: String,
}

impl Report {
    pub(crate) fn new(diagnosis: Diagnosis, run: &Run) -> Self {
        let text = terminal::diagnosis(&diagnosis, run, &Style::plain(WIDTH));
        Self { diagnosis, text }
    }

    /// The diagnosis alone.
    pub fn into_diagnosis(self) -> Diagnosis {
        self.diagnosis
    }
}

impl Deref for Report {
    type Target = Diagnosis;

    fn deref(&self) -> &Diagnosis {
        &self.diagnosis
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
