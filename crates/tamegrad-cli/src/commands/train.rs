//! `tamegrad train`: train a recipe under guard.

use std::sync::atomic::AtomicBool;

use tamegrad::Mode;
use tamegrad_lab::{TrainOptions, train};
use tamegrad_report::{json, number, terminal};
use tamegrad_runs::{COMPLETED, Recorder, overwrite};

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
    let options = TrainOptions { mode, steps_max: None, stop_after_alarm: None, cancel };
    let wanted = args.output.folder(&file);
    let mut recorder = Recorder::begin(&wanted, run_info(&file, mode), args.output.existing())?;
    let mut bar = Bar::new(args.common.quiet || args.common.json);
    let trained = train(&file.recipe, &options, &mut |progress, run| {
        bar.show(&file.recipe.name, progress);
        recorder.take(run);
        bar.tell(recorder.news());
    })?;
    bar.clear();
    let how = if trained.cancelled { signals::how() } else { COMPLETED };
    let report = json::train(&trained.diagnosis, Some(trained.metric), &trained.weights_hash);
    let report = to_json(&report)?;
    // A diagnosis is printed also where nothing could be written.
    let written = recorder.finish_as(how, &trained.diagnosis, &trained.run).and_then(|folder| {
        overwrite(&folder.join("report.json"), report.as_bytes()).map(|()| folder)
    });
    if args.common.json {
        screen::print(&report);
    } else if !args.common.quiet {
        let style = screen::style();
        screen::print(&terminal::diagnosis(&trained.diagnosis, &trained.run, &style));
        let ended = if trained.cancelled { how } else { "ended" };
        screen::print(&format!(
            "\n{ended} after {} steps in {:.1} s on {}; held-out metric {}; actions {}; weights {}\n\
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
