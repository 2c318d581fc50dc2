//! `tamegrad fix`: find out what is wrong, and the smallest change that cures it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tamegrad::{Mode, Run, Verdict};
use tamegrad_lab::fix::{Chosen, Stage, Trial};
use tamegrad_lab::recipe::RecipeFile;
use tamegrad_lab::{Fix as Found, fix};
use tamegrad_report::json::{ChosenReport, DiagnosisReport, FixReport, FixedReport, TrialReport};
use tamegrad_report::{describe_change, markdown, number, terminal};
use tamegrad_runs::{Recorder, RunInfo};

use super::recipe::{exit_code, make_folder, read_recipe, run_info, write};
use super::{FOUND, HEALTHY, STOPPED, to_json};
use crate::args::Fix;
use crate::failure::Failure;
use crate::progress::run::Bar;
use crate::screen;

/// Searches, writes the report and the fixed recipe, and prints what it found.
pub(crate) fn run(args: &Fix, cancel: &AtomicBool) -> Result<u8, Failure> {
    let file = read_recipe(&args.common)?;
    let folder = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&file.recipe.name));
    make_folder(&folder)?;
    let mut recorders = Recorders::new(&folder, run_info(&file, Mode::Observe))?;
    let mut bar = Bar::new(args.common.quiet || args.common.json);
    let found = fix(&file, cancel, &mut |stage, progress, run| {
        bar.show(&stage_name(stage), progress);
        recorders.take(stage, run);
    })?;
    bar.clear();
    let recorded = recorders.finish(&found);
    let report = report(&found);
    let json = to_json(&report)?;
    let diff = found.chosen.as_ref().map_or("", |chosen| &chosen.diff);
    let document = markdown::fix(&report, &found.given.diagnosis, &found.given.run, diff);
    write(&folder.join("report.json"), &json)?;
    write(&folder.join("report.md"), &document)?;
    let fixed = folder.join("fixed.toml");
    if let Some(chosen) = &found.chosen {
        write(&fixed, &chosen.text)?;
    }
    if args.common.json {
        screen::print(&json);
    } else if !args.common.quiet {
        screen::print(&story(&found, &report, &file, &folder));
    }
    recorded?;
    Ok(match &found.chosen {
        Some(chosen) => exit_code(chosen.trained.diagnosis.verdict),
        None if found.cancelled => STOPPED,
        None if found.given.diagnosis.verdict.is_explosion() => FOUND,
        None => HEALTHY,
    })
}

/// Writes the run as given, and the one that was trained to the end, into folders of their own.
struct Recorders {
    info: RunInfo,
    given: Recorder,
    /// The run to the end, with the remedy that it tries.
    last: Option<(String, Recorder)>,
    last_folder: PathBuf,
}

impl Recorders {
    /// An earlier search's run to the end is taken away.
    fn new(folder: &Path, info: RunInfo) -> Result<Self, Failure> {
        let given = Recorder::new(&folder.join("given"), info.clone());
        let recorders = Self { info, given, last: None, last_folder: folder.join("fixed") };
        recorders.remove_last()?;
        Ok(recorders)
    }

    fn take(&mut self, stage: &Stage, run: &Run) {
        match stage {
            Stage::Given => self.given.take(run),
            Stage::Trial(..) => {}
            Stage::Final(remedy) => {
                let begun = self.last.take().filter(|(begun, _)| begun == remedy);
                let begin =
                    || (remedy.clone(), Recorder::new(&self.last_folder, self.info.clone()));
                self.last.insert(begun.unwrap_or_else(begin)).1.take(run);
            }
        }
    }

    fn finish(mut self, found: &Found) -> Result<(), Failure> {
        let last = self.last.take().map(|(_, recorder)| recorder);
        let written = match (&found.chosen, last) {
            (Some(Chosen { trained, .. }), Some(recorder)) => {
                recorder.finish(&trained.diagnosis, &trained.run)
            }
            // It did not hold.
            _ => self.remove_last().map(Ok)?,
        };
        self.given.finish(&found.given.diagnosis, &found.given.run).and(written)?;
        Ok(())
    }

    fn remove_last(&self) -> Result<(), Failure> {
        let path = &self.last_folder;
        if !path.join("run.json").exists() {
            return Ok(());
        }
        std::fs::remove_dir_all(path).map_err(|error| Failure::Write { path: path.clone(), error })
    }
}

fn stage_name(stage: &Stage) -> String {
    match stage {
        Stage::Given => "as given".into(),
        Stage::Trial(label, number, count) => format!("{number}/{count} {label}"),
        Stage::Final(label) => format!("to the end: {label}"),
    }
}

fn report(found: &Found) -> FixReport {
    let given = &found.given;
    let trial = |trial: &Trial| TrialReport {
        remedy: trial.proposal.label(),
        change: describe_change(&trial.proposal.change),
        verdict: trial.verdict,
        metric: Some(trial.metric),
        seconds: trial.seconds,
    };
    let chosen = found.chosen.as_ref();
    FixReport {
        given: DiagnosisReport {
            metric: Some(given.metric),
            ..DiagnosisReport::from(&given.diagnosis)
        },
        trials: found.trials.iter().map(trial).collect(),
        chosen: chosen.map(|chosen| ChosenReport {
            remedy: chosen.proposal.label(),
            change: describe_change(&chosen.proposal.change),
        }),
        fixed: chosen.map(|chosen| FixedReport {
            verdict: chosen.trained.diagnosis.verdict,
            metric: Some(chosen.trained.metric),
            weights_hash: chosen.trained.weights_hash.clone(),
        }),
    }
}

/// What the screen shows: the diagnosis, the trials, the choice, the difference, the files.
fn story(found: &Found, report: &FixReport, file: &RecipeFile, folder: &Path) -> String {
    let style = screen::style();
    let mut text = terminal::diagnosis(&found.given.diagnosis, &found.given.run, &style);
    if !found.trials.is_empty() {
        let chosen = report.chosen.as_ref().map(|chosen| chosen.remedy.as_str());
        text.push('\n');
        text.push_str(&terminal::trials(&report.trials, chosen, &style));
    }
    text.push('\n');
    let verdict = found.given.diagnosis.verdict;
    match &found.chosen {
        Some(chosen) => {
            let what = describe_change(&chosen.proposal.change);
            let (run, given) = (&chosen.trained, &found.given);
            text.push_str(&format!(
                "Fixed with the mildest remedy that works: {what}\n\
                 Trained to the end ({} steps): {}, held-out metric {} (as given: {})\n\n{}\n",
                run.steps,
                run.diagnosis.verdict.as_str(),
                number(run.metric),
                number(given.metric),
                chosen.diff.trim_end(),
            ));
        }
        None if found.cancelled && verdict.is_explosion() => {
            text.push_str("Stopped by Ctrl-C before a fix was found.\n");
        }
        None if found.cancelled => {
            text.push_str("Stopped by Ctrl-C: no explosion so far, and no remedy was tried.\n");
        }
        None if verdict.is_explosion() => text.push_str(
            "No single remedy gave a healthy run. Try combining two of the best trials above by hand.\n",
        ),
        None if verdict == Verdict::TooEarly => text.push_str(
            "Too few steps to say whether it explodes, so the recipe is unchanged. Give it more epochs.\n",
        ),
        None => text.push_str("Nothing to fix: the recipe is unchanged.\n"),
    }
    let files: Vec<PathBuf> = ["report.md", "report.json", "given", "fixed.toml", "fixed"]
        .into_iter()
        .filter(|name| !name.starts_with("fixed") || found.chosen.is_some())
        .map(|name| folder.join(name))
        .collect();
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    text.push_str(&format!("\n{} -> {}\n", file.path.display(), files.join(", ")));
    text
}
