//! Onset, recovery and what the guard did, as marks in a figure.

use std::collections::BTreeSet;

use tamegrad_report::number::{count, counted};

use crate::figure::{Frame, Pen};
use crate::steps::StepAxis;
use crate::view::{ActionKind, RunView};

/// Room above a plot for the words at the onset and the recovery.
pub(crate) const LABELS: f64 = 20.0;
/// Height of the lane of one kind of action.
const LANE: f64 = 12.0;
/// Pixels of a character, about.
const CHARACTER: f64 = 6.4;

/// Lines at the onset and the recovery, from `top` to `bottom`, with words above them.
pub(crate) fn lines(
    pen: &mut Pen,
    run: &RunView<'_>,
    axis: &StepAxis,
    frame: &Frame,
    (top, bottom): (f64, f64),
) {
    let lines = [("onset", run.onset(), "onset"), ("back", run.recovered(), "recovered")];
    let mut end_of_last = f64::NEG_INFINITY;
    for (class, step, word) in lines {
        let Some(step) = step else { continue };
        let at = axis.at(step);
        if !(0.0..=1.0).contains(&at) {
            continue;
        }
        let x = frame.x(at);
        pen.line(class, (x, top - 16.0), (x, bottom));
        let words = format!("{word}, step {}", count(step.unsigned_abs()));
        let room = CHARACTER * words.chars().count() as f64;
        let fits_right = x + room < frame.right + 8.0;
        // Two that are close to each other turn away from each other.
        let is_close = run.recovered().is_some_and(|back| frame.x(axis.at(back)) - x < room + 8.0);
        let turns_left = !fits_right || class == "onset" && is_close && x - room > frame.left;
        if turns_left && x - room < end_of_last {
            continue;
        }
        let anchor = if turns_left { "end" } else { "start" };
        end_of_last = if turns_left { x } else { x + room };
        let gap = if turns_left { -4.0 } else { 4.0 };
        pen.text(&format!("t b {class}-t {anchor}"), (x + gap, top - 8.0), &words);
    }
}

/// A lane below a plot for each kind of action, with its name in the margin; returns their height.
pub(crate) fn lanes(
    pen: &mut Pen,
    run: &RunView<'_>,
    axis: &StepAxis,
    frame: &Frame,
    top: f64,
    columns: usize,
) -> f64 {
    let mut y = top;
    for kind in ActionKind::ALL {
        let of_kind = run.actions.iter().filter(|action| action.kind == kind);
        let columns_of: BTreeSet<usize> = of_kind
            .filter_map(|action| axis.column(0_i64.saturating_add_unsigned(action.step), columns))
            .collect();
        if columns_of.is_empty() {
            continue;
        }
        pen.text("t act-t end", (frame.left - 8.0, y + LANE - 2.0), kind.as_str());
        pen.lane("act", frame, (y + 2.0, LANE - 4.0), columns_of, columns);
        y += LANE;
    }
    if y > top { y - top + 4.0 } else { 0.0 }
}

/// What the lines and lanes are, for a description: `The onset at step 150 is marked.`
pub(crate) fn words(run: &RunView<'_>) -> String {
    let mut words = String::new();
    for (what, step) in [("onset", run.onset()), ("recovery", run.recovered())] {
        if let Some(step) = step {
            words += &format!(" The {what} at step {} is marked.", count(step.unsigned_abs()));
        }
    }
    if !run.actions.is_empty() {
        let steps = run.actions.iter().map(|action| action.step).collect::<BTreeSet<_>>().len();
        words += &format!(
            " Marks below show the {} at which the guard acted.",
            counted(steps as u64, "step")
        );
    }
    words
}
