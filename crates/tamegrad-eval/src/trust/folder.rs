//! What must be true of a run folder whatever happened to its writer.

use std::path::Path;

use tamegrad_logs::{Source, read_verdict};
use tamegrad_runs::{Ending, RunFolder};

/// What is in a run folder.
pub(crate) struct Seen {
    pub(crate) steps: u64,
    /// When the last step was taken, in seconds since 1970.
    pub(crate) last_wall: f64,
    pub(crate) ending: Ending,
    pub(crate) is_explosion: bool,
}

/// Looks at a folder: it opens whole, each step is there once, and its verdict is no milder than its
/// alarms. `None` if it was killed before it was one.
pub(crate) fn look(folder: &Path) -> Result<Option<Seen>, String> {
    if !folder.join("steps.arrows").exists() {
        return Ok(None);
    }
    let run = RunFolder::open(folder).map_err(|error| error.to_string())?;
    let contents = run.contents();
    if contents.steps.is_empty() {
        return Ok(None);
    }
    // A kill in the middle of a write leaves a part of the last batch, which readers leave out.
    let is_part = |notice: &String| notice.contains("no whole batch");
    let mut notices = contents.notices.iter().map(ToString::to_string);
    if let Some(notice) = notices.find(|notice| !is_part(notice)) {
        return Err(format!("torn: {notice}"));
    }
    let steps: Vec<u64> = contents.steps.iter().map(|row| row.step).collect();
    if let Some(at) = steps.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        return Err(format!("step {} follows step {}", at[1], at[0]));
    }
    if steps[0] != 0 {
        return Err(format!("the first step is {}", steps[0]));
    }
    let state = run.state().map_err(|error| error.to_string())?;
    let ending = run.ending(state.as_ref());
    let source = Source::open(folder).map_err(|error| error.to_string())?;
    let log = source.read().map_err(|error| error.to_string())?;
    let verdict = read_verdict(&log, source.format(), &[])?.diagnosis.verdict;
    let is_alarm = |event: &&tamegrad_runs::Event| {
        event.kind == "finding" && event.data["severity"] == "alarm"
    };
    if let Some(alarm) = contents.events.iter().find(is_alarm)
        && !verdict.is_explosion()
    {
        return Err(format!("{} with an alarm at step {}", verdict.as_str(), alarm.step));
    }
    Ok(Some(Seen {
        steps: steps.len() as u64,
        last_wall: contents.steps.last().map_or(0.0, |row| row.wall),
        ending,
        is_explosion: verdict.is_explosion(),
    }))
}
