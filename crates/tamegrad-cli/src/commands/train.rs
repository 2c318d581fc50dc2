//! `tamegrad train`: train a recipe under guard.

use std::sync::atomic::AtomicBool;

use tamegrad::Mode;
use tamegrad_lab::{TrainOptions, train};
use tamegrad_report::{json, number, terminal};
use tamegrad_runs::Recorder;

use super::recipe::{exit_code, free_folder, make_folder, read_recipe, run_info, write};
use super::{STOPPED, to_json};
use crate::args::{GuardMode, Train};
use crate::failure::Failure;
use crate::progress::run::Bar;
use crate::screen;

/// Trains, reports, and says by the exit code how it ended.
pub(crate) fn run(args: &Train, cancel: &AtomicBool) -> Result<u8, Failure> {
    let file = read_recipe(&args.common)?;
    let mode = match args.guard {
        GuardMode::Off => Mode::Off,
        GuardMode::Observe => Mode::Observe,
        GuardMode::Protect => Mode::Protect,
    };
    let options = TrainOptions { mode, steps_max: None, stop_after_alarm: None, cancel };
    let folder = args.out.clone().unwrap_or_else(|| free_folder(&file.recipe.name));
    make_folder(&folder)?;
    let mut recorder = Recorder::new(&folder, run_info(&file, mode));
    let mut bar = Bar::new(args.common.quiet || args.common.json);
    let trained = train(&file.recipe, &options, &mut |progress, run| {
        bar.show(&file.recipe.name, progress);
        recorder.take(run);
    })?;
    bar.clear();
    let recorded = recorder.finish(&trained.diagnosis, &trained.run);
    let report = json::train(&trained.diagnosis, Some(trained.metric), &trained.weights_hash);
    let report = to_json(&report)?;
    write(&folder.join("report.json"), &report)?;
    if args.common.json {
        screen::print(&report);
    } else if !args.common.quiet {
        let style = screen::style();
        screen::print(&terminal::diagnosis(&trained.diagnosis, &trained.run, &style));
        let ended = if trained.cancelled { "stopped by Ctrl-C" } else { "ended" };
        screen::print(&format!(
            "\n{ended} after {} steps in {:.1} s on {}; held-out metric {}; actions {}; weights {}\n\
             {} -> {}\n",
            trained.steps,
            trained.seconds,
            tamegrad_lab::device_name(),
            number(trained.metric),
            trained.diagnosis.actions,
            trained.weights_hash,
            file.path.display(),
            folder.display(),
        ));
    }
    recorded?;
    Ok(if trained.cancelled { STOPPED } else { exit_code(trained.diagnosis.verdict) })
}
