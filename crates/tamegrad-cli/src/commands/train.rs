//! `tamegrad train`: train a recipe under guard.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tamegrad::Mode;
use tamegrad_lab::{TrainOptions, train};
use tamegrad_report::{json, number, terminal};
use tamegrad_runs::{COMPLETED, ReadError, Recorder, RunFolder, RunInfo, overwrite};

use super::recipe::{exit_code, read_recipe, run_info};
use super::to_json;
use crate::args::{GuardMode, Train};
use crate::failure::Failure;
use crate::progress::run::Bar;
use crate::{screen, signals};

/// Trains, reports, and says by the exit code how it ended.
pub(crate) fn run(args: &Train, cancel: &AtomicBool) -> Result<u8, Failure> {
    let file = read_recipe(&args.common)?;
    let mode = match args.guard {
        GuardMode::Off => Mode::Off,
        GuardMode::Observe => Mode::Observe,
        GuardMode::Protect => Mode::Protect,
    };
    let wanted = args.output.folder(&file);
    let info = run_info(&file, mode);
    let resume = if args.output.resume { interrupted(&wanted, &info)? } else { None };
    let mut recorder = Recorder::begin(&wanted, info, args.output.existing())?;
    // One that cannot be written is no loss: the one before it is still there.
    let claimed = recorder.claimed()?;
    let keep = |bytes: &[u8]| drop(claimed.overwrite(CHECKPOINT_FILE, bytes));
    let options = TrainOptions {
        resume: resume.as_deref(),
        checkpoints: Some(&keep),
        ..TrainOptions::new(mode, cancel)
    };
    let mut bar = Bar::new(args.common.quiet || args.common.json);
    let trained = train(&file.recipe, &options, &mut |progress, run| {
        bar.show(&file.recipe.name, progress);
        recorder.take(run);
        bar.tell(recorder.news());
    });
    bar.clear();
    let trained = match trained {
        Ok(trained) => trained,
        Err(error) => {
            recorder.discard();
            return Err(error.into());
        }
    };
    let how = if trained.cancelled { signals::how() } else { COMPLETED };
    let report = json::train(&trained.diagnosis, Some(trained.metric), &trained.weights_hash);
    let report = to_json(&report)?;
    // A diagnosis is printed also where nothing could be written.
    let written = recorder.finish_as(how, &trained.diagnosis, &trained.run).and_then(|folder| {
        if !trained.cancelled {
            // Only now: a run that is killed before its end was written goes on from here.
            let _ = std::fs::remove_file(folder.join(CHECKPOINT_FILE));
        }
        overwrite(&folder.join("report.json"), report.as_bytes()).map(|()| folder)
    });
    if args.common.json {
        screen::print(&report);
    } else if !args.common.quiet {
        let style = screen::style();
        screen::print(&terminal::diagnosis(&trained.diagnosis, &trained.run, &style));
        let ended =
            if trained.cancelled { format!("{how} after") } else { "trained for".to_owned() };
        screen::print(&format!(
            "\n{ended} {} steps in {:.1} s on {}; held-out metric {}; actions {}; weights {}\n\
             {}{}\n",
            trained.steps,
            trained.seconds,
            tamegrad_lab::device_name(),
            number(trained.metric),
            trained.diagnosis.actions,
            trained.weights_hash,
            file.path.display(),
            written.as_ref().map_or(String::new(), |folder| format!(" -> {}", folder.display())),
        ));
    }
    written?;
    Ok(if trained.cancelled { signals::exit_code() } else { exit_code(trained.diagnosis.verdict) })
}

const CHECKPOINT_FILE: &str = "checkpoint.bin";

/// The last checkpoint of a run that was interrupted; `None` if it came to none, and begins anew.
fn interrupted(folder: &Path, info: &RunInfo) -> Result<Option<Vec<u8>>, Failure> {
    let run = RunFolder::open(folder)?;
    let guard = |info: &RunInfo| info.environment.get("guard").cloned();
    if run.info.recipe != info.recipe || guard(&run.info) != guard(info) {
        return Err(Failure::OtherRecipe { folder: folder.to_owned() });
    }
    if run.state()?.is_some_and(|state| state.end.as_deref() == Some(COMPLETED)) {
        return Err(Failure::Completed { folder: folder.to_owned() });
    }
    let path = folder.join(CHECKPOINT_FILE);
    match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some).map_err(|source| ReadError::Io { path, source }.into()),
    }
}
