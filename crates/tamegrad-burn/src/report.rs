//! A diagnosis that prints as a report.

use std::fmt;
use std::ops::Deref;

use tamegrad::remedies::{Change, Proposal};
use tamegrad::{Diagnosis, Run};
use tamegrad_report::code::{Framework, code};
use tamegrad_report::{Style, terminal};
/// Characters in a line of a report.
const WIDTH: usize = 100;
/// Remedies that are shown as code.
const CODE_MAX: usize = 3;

/// A [`Diagnosis`], which this dereferences to. It displays as the report that the command line
/// prints, without colours.
#[derive(Debug, Clone)]
pub struct Report {
    diagnosis: Diagnosis,
    text: String,
}

impl Report {
    pub(crate) fn new(diagnosis: Diagnosis, run: &Run, notices: &[String]) -> Self {
        let mut text = terminal::diagnosis(&diagnosis, run, &Style::plain(WIDTH));
        let lines_of = |proposal: &Proposal| {
            let code = burn_code(&proposal.change)?;
            Some(format!("  // {}\n  {code}\n", proposal.label()))
        };
        let lines: String = diagnosis.remedies.iter().filter_map(lines_of).take(CODE_MAX).collect();
        if !lines.is_empty() {
            text.push_str(&format!("\nThe first of them in burn\n{lines}"));
        }
        for notice in notices {
            text.push_str(&format!("notice: {notice}\n"));
        }
        Self { diagnosis, text }
    }

    /// The diagnosis alone.
    pub fn into_diagnosis(self) -> Diagnosis {
        self.diagnosis
    }
}

/// A change as a line of code for burn; `None` where there is none, as for the depth of a network.
///
/// ```
/// use tamegrad_burn::{Change, burn_code};
///
/// let code = burn_code(&Change::ClipGlobalNorm { max_norm: 1.0 });
/// assert_eq!(code.as_deref(), Some("let guard = guard.with_clip(Clip::GlobalNorm(1.0));"));
/// ```
pub fn burn_code(change: &Change) -> Option<String> {
    code(change, Framework::Burn)
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
