//! `tamegrad fix`: find out what is wrong, and the smallest change that cures it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use tamegrad::{Mode, Verdict};
use tamegrad_lab::fix::{Chosen, EarlierTrial, News, Stage, Trial};
use tamegrad_lab::recipe::RecipeFile;
use tamegrad_lab::{Fix as Found, fix};
use tamegrad_report::json::{ChosenReport, DiagnosisReport, FixReport, FixedReport, TrialReport};
use tamegrad_report::{describe_change, markdown, number, terminal};
use tamegrad_runs::{
    COMPLETED, Existing, Place, ReadError, Recorder, RunError, RunInfo, SEARCH, SEARCH_FILE,
    TRIALS_FILE, overwrite,
};

use super::recipe::{exit_code, read_recipe, run_info};
use super::{FOUND, HEALTHY, to_json};
use crate::args::Fix;
use crate::failure::Failure;
use crate::progress::run::Bar;
use crate::{screen, signals};

/// Searches, writes the report and the fixed recipe, and prints what it found.
pub(crate) fn run(args: &Fix, cancel: &AtomicBool) -> Result<u8, Failure> {
    let file = read_recipe(&args.common)?;
    let mut search = Search::begin(&args.output.folder(&file), args.output.existing(), &file)?;
    let mut bar = Bar::new(args.common.quiet || args.common.json);
    let earlier = std::mem::take(&mut search.earlier);
    let found = fix(&file, &earlier, cancel, &mut |news| {
        if let News::Step(stage, progress, _) = news {
            bar.show(&stage_name(stage), progress);
        }
        search.take(&news);
        bar.tell(search.news());
    });
    bar.clear();
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            search.discard();
            return Err(error.into());
        }
    };
    let report = report(&found);
    let json = to_json(&report)?;
    let diff = found.chosen.as_ref().map_or("", |chosen| &chosen.diff);
    let document = markdown::fix(&report, &found.given.diagnosis, &found.given.run, diff);
    let written = search.finish(&found, &json, &document);
    if args.common.json {
        screen::print(&json);
    } else if !args.common.quiet {
        screen::print(&story(&found, &report, &file, written.as_deref().ok()));
    }
    written?;
    Ok(match &found.chosen {
        Some(chosen) => exit_code(chosen.trained.diagnosis.verdict),
        None if found.cancelled => signals::exit_code(),
        None if found.given.diagnosis.verdict.is_explosion() => FOUND,
        None => HEALTHY,
    })
}

const REPORT_FILES: [&str; 3] = ["report.md", "report.json", "fixed.toml"];

/// What a search is about: the contents of `search.json`.
#[derive(Serialize, Deserialize)]
struct SearchInfo {
    format: String,
    version: u32,
    tamegrad: String,
    recipe: String,
}

impl SearchInfo {
    fn new(file: &RecipeFile) -> Self {
        Self {
            format: "tamegrad-search".to_owned(),
            version: 1,
            tamegrad: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: file.text.clone(),
        }
    }
}

/// A line of `trials.jsonl`.
#[derive(Serialize, Deserialize)]
struct TrialLine {
    remedy: String,
    verdict: String,
    /// JSON has no NaN.
    metric: Option<f64>,
    steps: u64,
    seconds: f64,
    learns: bool,
}

impl TrialLine {
    fn read(line: &str) -> Option<EarlierTrial> {
        let Self { remedy, verdict, metric, steps, seconds, learns } =
            serde_json::from_str(line).ok()?;
        let verdict = Verdict::ALL.iter().find(|known| known.as_str() == verdict)?;
        let metric = metric.unwrap_or(f64::NAN);
        Some(EarlierTrial { remedy, verdict: *verdict, metric, steps, seconds, learns })
    }
}

/// Writes a search to its folder while it goes on: the run as given, the trials, and the run that was
/// trained to the end.
struct Search {
    place: Place,
    info: RunInfo,
    given: Option<Recorder>,
    trials: File,
    /// The run to the end, with the remedy that it tries.
    last: Option<(String, Recorder)>,
    /// The trials of a search that was interrupted.
    earlier: Vec<EarlierTrial>,
    /// The first error in writing.
    error: Option<RunError>,
}

impl Search {
    /// Takes the folder. What an interrupted search has left is read, and its reports are removed.
    fn begin(folder: &Path, existing: Existing, file: &RecipeFile) -> Result<Self, Failure> {
        let place = Place::claim(folder, existing, &SEARCH)?;
        let path = |name: &str| place.folder().join(name);
        let mut earlier = Vec::new();
        if path(SEARCH_FILE).exists() {
            let text = read(&path(SEARCH_FILE))?;
            let info: Option<SearchInfo> = serde_json::from_str(&text).ok();
            if info.is_none_or(|info| info.recipe != file.text) {
                return Err(Failure::OtherRecipe { folder: folder.to_owned() });
            }
            let trials = read(&path(TRIALS_FILE)).unwrap_or_default();
            // A line that was cut by a kill is left out: that trial is run again.
            earlier.extend(trials.lines().filter_map(TrialLine::read));
            for name in REPORT_FILES {
                remove(&path(name))?;
            }
        }
        let info = serde_json::to_vec_pretty(&SearchInfo::new(file)).map_err(Failure::Json)?;
        overwrite(&path(SEARCH_FILE), &info)?;
        let lines: String = earlier.iter().map(line).collect();
        overwrite(&path(TRIALS_FILE), lines.as_bytes())?;
        let trials = OpenOptions::new().append(true).open(path(TRIALS_FILE));
        let trials = trials.map_err(|error| Failure::Write { path: path(TRIALS_FILE), error })?;
        remove_run(&path("fixed"))?;
        let info = run_info(file, Mode::Observe);
        let given = Some(record(&path("given"), &info)?);
        Ok(Self { place, info, given, trials, last: None, earlier, error: None })
    }

    fn take(&mut self, news: &News<'_>) {
        match news {
            News::Step(Stage::Given, _, run) => {
                if let Some(given) = &mut self.given {
                    given.take(run);
                }
            }
            News::Given(given) => {
                // At once: a search that is killed later keeps the whole run.
                let recorder = self.given.take();
                let how = if given.cancelled { signals::how() } else { COMPLETED };
                let ended = recorder.map(|recorder| {
                    recorder.finish_as(how, &given.diagnosis, &given.run).map(drop)
                });
                self.note(ended.unwrap_or(Ok(())));
            }
            News::Step(Stage::Trial(..), ..) => {}
            News::Step(Stage::Final(remedy), _, run) => {
                if self.last.as_ref().is_none_or(|(begun, _)| begun != remedy) {
                    // The one before did not hold.
                    self.last = None;
                    match record(&self.place.folder().join("fixed"), &self.info) {
                        Ok(recorder) => self.last = Some((remedy.clone(), recorder)),
                        Err(error) => return self.note(Err(error)),
                    }
                }
                if let Some((_, recorder)) = &mut self.last {
                    recorder.take(run);
                }
            }
            News::Tried(trial) => {
                let known = EarlierTrial {
                    remedy: trial.proposal.label(),
                    verdict: trial.verdict,
                    metric: trial.metric,
                    steps: trial.steps,
                    seconds: trial.seconds,
                    learns: trial.learns,
                };
                let written = self.trials.write_all(line(&known).as_bytes());
                let path = self.place.folder().join(TRIALS_FILE);
                let written = written.and_then(|()| self.trials.sync_data());
                self.note(written.map_err(|source| RunError::Io { path, source }));
            }
        }
    }

    /// Ends what could not begin. Nothing is left of it.
    fn discard(mut self) {
        let is_empty = self.earlier.is_empty() && self.last.is_none();
        if let Some(given) = self.given.take()
            && given.discard()
            && is_empty
        {
            // It was made by this command.
            let _ = std::fs::remove_dir_all(self.place.folder());
        }
    }

    fn note(&mut self, result: Result<(), RunError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn news(&self) -> Option<String> {
        let recorders = [self.given.as_ref(), self.last.as_ref().map(|(_, recorder)| recorder)];
        recorders.into_iter().flatten().find_map(Recorder::news)
    }

    /// Ends the runs and writes the reports. Returns where all of it is.
    fn finish(mut self, found: &Found, json: &str, document: &str) -> Result<PathBuf, Failure> {
        let folder = self.place.folder().to_owned();
        match (&found.chosen, self.last.take()) {
            (Some(Chosen { trained, .. }), Some((_, recorder))) => {
                let ended = recorder.finish(&trained.diagnosis, &trained.run).map(drop);
                self.note(ended);
            }
            // It did not hold.
            (_, last) => {
                drop(last);
                remove_run(&folder.join("fixed"))?;
            }
        }
        overwrite(&folder.join("report.md"), document.as_bytes())?;
        if let Some(chosen) = &found.chosen {
            overwrite(&folder.join("fixed.toml"), chosen.text.as_bytes())?;
        }
        overwrite(&folder.join("report.json"), json.as_bytes())?;
        match self.error.take() {
            Some(error) => Err(error.into()),
            // What was interrupted does not take the place of a search that was not.
            None if found.cancelled => Ok(folder),
            None => Ok(self.place.settle()?),
        }
    }
}

/// Begins to record a run in a folder of the search, in place of what is there.
fn record(folder: &Path, info: &RunInfo) -> Result<Recorder, RunError> {
    remove_run(folder)?;
    Recorder::begin(folder, info.clone(), Existing::Refuse)
}

/// Removes a run of the search, all files of which are ours.
fn remove_run(folder: &Path) -> Result<(), RunError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RunError::Io { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::Write { path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|source| Failure::Read(ReadError::Io { path: path.to_owned(), source }))
}

fn line(trial: &EarlierTrial) -> String {
    let line = TrialLine {
        remedy: trial.remedy.clone(),
        verdict: trial.verdict.as_str().to_owned(),
        metric: trial.metric.is_finite().then_some(trial.metric),
        steps: trial.steps,
        seconds: trial.seconds,
        learns: trial.learns,
    };
    // Names and numbers: there is nothing in it that JSON could not say.
    serde_json::to_string(&line).unwrap_or_default() + "\n"
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
fn story(found: &Found, report: &FixReport, file: &RecipeFile, folder: Option<&Path>) -> String {
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
            text.push_str(&format!(
                "{} before a fix was found; to go on, add --resume.\n",
                tamegrad_report::capital(signals::how())
            ));
        }
        None if found.cancelled => {
            text.push_str(&format!(
                "{}: no explosion so far, and no remedy was tried.\n",
                tamegrad_report::capital(signals::how())
            ));
        }
        None if verdict.is_explosion() => text.push_str(
            "No single remedy gave a healthy run. Try combining two of the best trials above by hand.\n",
        ),
        None if verdict == Verdict::TooEarly => text.push_str(
            "Too few steps to say whether it explodes, so the recipe is unchanged. Give it more epochs.\n",
        ),
        None => text.push_str("Nothing to fix: the recipe is unchanged.\n"),
    }
    let Some(folder) = folder else { return text };
    let files: Vec<PathBuf> = ["report.md", "report.json", "given", "fixed.toml", "fixed"]
        .into_iter()
        .filter(|name| !name.starts_with("fixed") || found.chosen.is_some())
        .map(|name| folder.join(name))
        .collect();
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    text.push_str(&format!("\n{} -> {}\n", file.path.display(), files.join(", ")));
    text
}
