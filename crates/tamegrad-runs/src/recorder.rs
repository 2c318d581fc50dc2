//! Records what the guard sees of a run, step by step, in a run folder: off the training thread.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tamegrad::{
    Decision, Diagnosis, Finding, GradientAction, Names, Record, Run, SignName, diagnose,
};
use tamegrad_report::json;

use super::keeper::{Keeper, Known, Message};
use super::place::{Claimed, Existing};
use super::state::{self, COMPLETED};
use super::table::{Event, RunInfo, StepRow, TensorInfo, TensorRow};
use super::{RunError, RunWriter};

/// How often the diagnosis is made anew, at least and at most; in between, a tenth of the time that the
/// run has taken.
const DIAGNOSE_MIN: Duration = Duration::from_millis(500);
const DIAGNOSE_MAX: Duration = Duration::from_secs(5);
/// It takes at most so small a part of the training thread's time.
const DIAGNOSE_REST: u32 = 200;

/// Records a run in a run folder while it goes on.
///
/// [`Recorder::take`] only copies numbers: a thread writes them. Every step is on the disk within a
/// second, the first one, findings of a new kind and actions at once, and with them the diagnosis so far.
/// Where nothing can be written, the run goes on: [`Recorder::news`] says so, what waits is bounded, and
/// writing is tried again four times a second.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    info: RunInfo,
    keeper: Keeper,
    /// How many tensors the description of the run names; `None` before the first step.
    described: Option<usize>,
    /// Whether the next step is the first after an interruption.
    is_resumed: bool,
    /// The last step before it. A run that goes on from an earlier checkpoint takes some steps again.
    resumed_at: Option<(u32, u64)>,
    /// Findings and actions of the run that were handed over.
    findings: usize,
    actions: usize,
    /// What was noted since the previous step.
    notes: Vec<Event>,
    /// Signs that have raised an alarm.
    alarmed: HashSet<SignName>,
    began: Instant,
    diagnosed: Option<Instant>,
    diagnosing_took: Duration,
}

impl Recorder {
    /// Begins a run: its folder, lock and `run.json` are on the disk when this returns. The tensors of
    /// `info` are taken from the record, at the first step and where it gets more.
    ///
    /// # Errors
    /// [`RunError`] if nothing can be written there, for the reasons of [`RunWriter::begin`].
    pub fn begin(folder: &Path, info: RunInfo, existing: Existing) -> Result<Self, RunError> {
        let writer = RunWriter::begin(folder, &info, existing)?;
        Ok(Self {
            folder: writer.folder().to_owned(),
            is_resumed: writer.resumed_at().is_some(),
            resumed_at: writer.resumed_at(),
            info,
            keeper: Keeper::start(writer)?,
            described: None,
            findings: 0,
            actions: 0,
            notes: Vec::new(),
            alarmed: HashSet::new(),
            began: Instant::now(),
            diagnosed: None,
            diagnosing_took: Duration::ZERO,
        })
    }

    /// The folder, for files beside the run.
    ///
    /// # Errors
    /// [`RunError::Io`] if it is gone already.
    pub fn claimed(&self) -> Result<Claimed, RunError> {
        Claimed::new(&self.folder)
    }

    /// The folder that is written.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// That nothing can be written, or that it can be again; each is told once.
    pub fn news(&self) -> Option<String> {
        self.keeper.news()
    }

    /// Ends a run that could not begin: its folder is removed if no step was handed over. Returns whether
    /// it was.
    pub fn discard(self) -> bool {
        let Self { folder, described, keeper, resumed_at, .. } = self;
        drop(keeper);
        // Without a step, all that is there was made by `begin`.
        described.is_none() && resumed_at.is_none() && std::fs::remove_dir_all(folder).is_ok()
    }

    /// Adds what an integration has found out beside the guard. It goes with the step that is handed over
    /// next.
    pub fn note(&mut self, event: Event) {
        self.notes.push(event);
    }

    /// Hands over the latest step of a run, and what was found and done since the previous call.
    pub fn take(&mut self, run: &Run) {
        let record = run.record();
        let Some(row) = record.now() else { return };
        if self.resumed_at.is_some_and(|last| (row.segment, row.step.0) <= last) {
            return;
        }
        if std::mem::take(&mut self.is_resumed) {
            // What the guard remembers of the run before is in the folder.
            let (findings, actions) = (run.findings(), run.actions());
            self.findings = findings.partition_point(|finding| finding.step < row.step);
            self.actions = actions.iter().take_while(|(step, _)| *step < row.step).count();
            let earlier = findings[..self.findings].iter().filter(|finding| finding.is_alarm());
            self.alarmed.extend(earlier.map(|finding| finding.sign));
        }
        let findings = run.findings().get(self.findings..).unwrap_or_default();
        let actions = run.actions().get(self.actions..).unwrap_or_default();
        let is_first_action = self.actions == 0 && !actions.is_empty();
        (self.findings, self.actions) = (run.findings().len(), run.actions().len());
        let alarms = || findings.iter().filter(|finding| finding.is_alarm());
        let is_incident = !actions.is_empty() || alarms().next().is_some();
        // Each sign once: a run that has exploded raises alarms in every step.
        let mut is_new = is_first_action || actions.iter().any(|(_, decision)| decision.stop);
        for alarm in alarms() {
            is_new |= self.alarmed.insert(alarm.sign);
        }
        let mut events = std::mem::take(&mut self.notes);
        if !findings.is_empty() {
            let names = record.names();
            events.extend(findings.iter().map(|finding| finding_event(finding, &names)));
        }
        events.extend(actions.iter().map(|(step, decision)| Event {
            step: step.0,
            kind: "action".to_owned(),
            text: tamegrad_report::action(decision, record.layout()),
            data: action_data(decision),
        }));
        // An optimizer may get parameters later.
        let count = record.layout().tensors.len();
        let is_described = self.described.replace(count) == Some(count);
        let info =
            (!is_described).then(|| RunInfo { tensors: tensors(record), ..self.info.clone() });
        let known = (is_new || self.is_diagnosis_due()).then(|| self.diagnose(run));
        self.keeper.take(Message {
            row: StepRow {
                step: row.step.0,
                segment: row.segment,
                wall: state::now(),
                loss: row.loss,
                metric: row.metric,
                learning_rate: row.learning_rate,
                gradient_norm: row.gradient_norm,
                nonfinite_gradients: row.nonfinite_gradients,
                update_ratio: row.update_ratio,
            },
            tensors: gradients(record).collect(),
            events,
            is_incident,
            is_urgent: is_new,
            info,
            known,
        });
    }

    fn is_diagnosis_due(&self) -> bool {
        let wait = (self.began.elapsed() / 10).clamp(DIAGNOSE_MIN, DIAGNOSE_MAX);
        let wait = wait.max(self.diagnosing_took * DIAGNOSE_REST);
        self.diagnosed.is_none_or(|at| at.elapsed() >= wait)
    }

    fn diagnose(&mut self, run: &Run) -> Known {
        let began = Instant::now();
        let known = known(&diagnose(run), run);
        let now = Instant::now();
        (self.diagnosed, self.diagnosing_took) = (Some(now), now.duration_since(began));
        known
    }

    /// Ends a run that came to its end, with its diagnosis. Returns where the run is.
    ///
    /// # Errors
    /// [`RunError::NotWritten`] if not all could be written; it names where the diagnosis is then.
    pub fn finish(self, diagnosis: &Diagnosis, run: &Run) -> Result<PathBuf, RunError> {
        self.finish_as(COMPLETED, diagnosis, run)
    }

    /// [`Recorder::finish`] of a run that ended in another way, such as `stopped by Ctrl-C`.
    ///
    /// # Errors
    /// As [`Recorder::finish`].
    pub fn finish_as(
        self,
        end: &str,
        diagnosis: &Diagnosis,
        run: &Run,
    ) -> Result<PathBuf, RunError> {
        self.keeper.finish(end, known(diagnosis, run))
    }
}

fn known(diagnosis: &Diagnosis, run: &Run) -> Known {
    let step = run.record().now().map_or(0, |row| row.step.0);
    Known { step, diagnosis: Box::new(diagnosis.clone()) }
}

fn tensors(record: &Record) -> Vec<TensorInfo> {
    let layout = record.layout();
    let tensors = layout.tensors.iter().zip(record.tensors()).map(|(info, track)| TensorInfo {
        name: info.name.clone(),
        layer: info.layer.map(|layer| layout.layer_name(layer).to_owned()),
        len: track.latest.map_or(0, |stats| stats.len),
    });
    tensors.collect()
}

fn gradients(record: &Record) -> impl Iterator<Item = TensorRow> {
    (0_u32..).zip(record.tensors()).filter_map(|(tensor, track)| {
        let stats = track.latest?;
        let tamegrad::TensorStats { nans, infs, zeros, l2, max_abs, mean, .. } = stats;
        Some(TensorRow { tensor, l2, max_abs, mean, nans, infs, zeros })
    })
}

fn finding_event(finding: &Finding, names: &Names) -> Event {
    let (sign, severity) = (finding.sign.as_str(), finding.severity.as_str());
    let place = names.name(finding.place).map(|name| format!(" at {name}")).unwrap_or_default();
    let numbers = finding.evidence.iter().map(|measure| tamegrad_report::measure(measure, names));
    let numbers = numbers.collect::<Vec<_>>().join("; ");
    let mut data = serde_json::json!(json::finding(finding, names));
    data["sign"] = sign.into();
    let text = format!("{severity} of {sign}{place}: {numbers}");
    Event { step: finding.step.0, kind: "finding".to_owned(), text, data }
}

/// The same as data.
fn action_data(decision: &Decision) -> Value {
    let (skip, scale) = match decision.gradients {
        GradientAction::Keep => (false, false),
        GradientAction::Skip => (true, false),
        GradientAction::ScaleAll(_) | GradientAction::Scale(_) => (false, true),
    };
    serde_json::json!({
        "skip": skip,
        "scale": scale,
        "learning_rate": decision.learning_rate,
        "rewind": decision.rewind.map(|step| step.0),
        "stop": decision.stop,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunFolder;
    use tamegrad::{
        Guard, GuardConfig, LayerId, LayerInfo, Layout, Mode, Observation, RunFacts, Step,
        TensorStats,
    };

    fn layout() -> Layout {
        Layout {
            tensors: vec![tamegrad::TensorInfo {
                name: "fc1.weight".to_owned(),
                layer: Some(LayerId(0)),
                is_matrix: true,
                fan_in: None,
            }],
            layers: vec![LayerInfo::named("fc1")],
        }
    }

    /// A run in protect mode whose gradients are infinite from step 60 on.
    fn run(recorder: &mut Recorder) -> Guard {
        run_of(64, 60..64, recorder)
    }

    /// A run of so many steps whose gradients are infinite at these.
    fn run_of(steps: u64, infinite: std::ops::Range<u64>, recorder: &mut Recorder) -> Guard {
        let config = GuardConfig { mode: Mode::Protect, ..GuardConfig::default() };
        let mut guard = Guard::new(layout(), RunFacts::default(), config);
        for step in 0..steps {
            let infs = u64::from(infinite.contains(&step));
            let l2 = 1.0 + 0.01 * (step % 7) as f64;
            let stats =
                TensorStats { len: 9, infs, l2, max_abs: 0.5, mean: 0.1, ..TensorStats::default() };
            guard.observe(
                &Observation {
                    step: Step(step),
                    loss: Some(if infs > 0 { f64::NAN } else { 0.5 }),
                    learning_rate: Some(0.1),
                    gradients: &[Some(stats)],
                    ..Observation::default()
                },
                &[],
            );
            recorder.take(guard.run());
        }
        guard
    }

    #[test]
    fn steps_tensors_findings_actions_and_the_diagnosis_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let info = RunInfo { recipe: Some("a recipe".to_owned()), ..RunInfo::default() };
        let mut recorder = Recorder::begin(folder.path(), info, Existing::Number).unwrap();
        let guard = run(&mut recorder);
        recorder.finish(&guard.diagnosis(), guard.run()).unwrap();

        let run = RunFolder::open(folder.path()).unwrap();
        assert_eq!(run.info.recipe.as_deref(), Some("a recipe"));
        let tensor = &run.info.tensors[0];
        assert_eq!(
            (&*tensor.name, tensor.layer.as_deref(), tensor.len),
            ("fc1.weight", Some("fc1"), 9)
        );
        let contents = run.contents();
        assert_eq!(contents.notices, []);
        assert_eq!(contents.steps.len(), 64);
        assert_eq!(contents.steps[3].loss, Some(0.5));
        assert_eq!(contents.steps[3].gradient_norm, Some(1.03));
        assert!(contents.steps[60].loss.is_some_and(f64::is_nan));
        assert_eq!(contents.steps[60].nonfinite_gradients, 1);
        let at = |step| contents.tensors.iter().find(|r| r.step == step && r.steps == 1);
        assert_eq!(at(60).map(|record| record.infs), Some(1));
        let kinds = |kind: &str| contents.events.iter().filter(|event| event.kind == kind).count();
        assert_eq!(kinds("finding"), guard.run().findings().len());
        assert_eq!(kinds("action"), guard.run().actions().len());
        assert!(kinds("finding") > 0 && kinds("action") > 0);
        let action = contents.events.iter().find(|event| event.kind == "action").unwrap();
        assert_eq!((action.step, &*action.text), (60, "no update"));
        let state = run.state().unwrap().unwrap();
        assert_eq!(state.step, 63);
        let read = state.diagnosis().unwrap();
        assert_eq!(state::to_json(&read), state::to_json(&guard.diagnosis()));
    }

    #[test]
    fn the_steps_round_an_alarm_are_in_full_in_a_long_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path());
        let guard = run_of(4000, 2000..2001, &mut recorder);
        recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        let tensors = RunFolder::open(folder.path()).unwrap().contents().tensors;
        let is_in_full = |step| tensors.iter().any(|r| r.step == step && r.steps == 1);
        let steps = [500, 1999, 2000, 2001, 3000, 3999].map(is_in_full);
        assert_eq!(steps, [false, true, true, true, false, true]);
    }

    fn begin(folder: &Path) -> Recorder {
        Recorder::begin(folder, RunInfo::default(), Existing::Number).unwrap()
    }

    /// Waits until what is recorded fulfils a condition.
    fn wait_until(folder: &Path, is_met: impl Fn(&RunFolder) -> bool) -> RunFolder {
        let began = Instant::now();
        loop {
            let run = RunFolder::open(folder).unwrap();
            if is_met(&run) {
                return run;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it never came");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn tensors_that_come_later_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path());
        let mut guard = run_of(3, 9..9, &mut recorder);
        guard.add_tensors(vec![tamegrad::TensorInfo {
            name: "head.weight".to_owned(),
            layer: None,
            is_matrix: true,
            fan_in: None,
        }]);
        let gradients = [Some(TensorStats { len: 4, ..TensorStats::default() }); 2];
        let seen = Observation { step: Step(3), gradients: &gradients, ..Observation::default() };
        guard.observe(&seen, &[]);
        recorder.take(guard.run());
        recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        let named: Vec<_> = run.info.tensors.iter().map(|t| (&*t.name, t.len)).collect();
        assert_eq!(named, [("fc1.weight", 4), ("head.weight", 4)]);
    }

    #[test]
    fn a_second_run_of_a_name_gets_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("x");
        let written: Vec<PathBuf> = (0..3)
            .map(|_| {
                let mut recorder = begin(&wanted);
                let guard = run(&mut recorder);
                recorder.finish(&guard.diagnosis(), guard.run()).unwrap()
            })
            .collect();
        assert_eq!(written, ["x", "x-2", "x-3"].map(|name| folder.path().join(name)));
    }

    #[test]
    fn a_run_that_goes_on_has_each_step_and_finding_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path());
        run_of(62, 60..64, &mut recorder);
        // As after a kill: without an end.
        drop(recorder);
        let resumed = Recorder::begin(folder.path(), RunInfo::default(), Existing::Resume);
        let mut recorder = resumed.unwrap();
        // It takes up where a checkpoint was, before the last step.
        let guard = run(&mut recorder);
        recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        let contents = RunFolder::open(folder.path()).unwrap().contents();
        let steps: Vec<u64> = contents.steps.iter().map(|row| row.step).collect();
        assert_eq!(steps, (0..64).collect::<Vec<_>>());
        let findings = contents.events.iter().filter(|event| event.kind == "finding").count();
        assert_eq!(findings, guard.run().findings().len());
    }

    #[test]
    fn a_run_that_overwrites_takes_the_place_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("x");
        let mut recorder = begin(&wanted);
        let guard = run(&mut recorder);
        recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        std::fs::write(wanted.join("report.json"), "of the first run").unwrap();

        let info = RunInfo { recipe: Some("second".to_owned()), ..RunInfo::default() };
        let mut recorder = Recorder::begin(&wanted, info, Existing::Overwrite).unwrap();
        assert_eq!(recorder.folder(), folder.path().join("x-2"));
        let guard = run(&mut recorder);
        assert_eq!(RunFolder::open(&wanted).unwrap().info.recipe, None);
        let written = recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        assert_eq!(written, wanted);
        assert_eq!(RunFolder::open(&wanted).unwrap().info.recipe.as_deref(), Some("second"));
        assert!(!wanted.join("report.json").exists());
        let names: Vec<_> =
            folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["x"]);
    }

    #[test]
    fn a_run_that_was_killed_says_what_its_alarms_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path());
        let guard = run(&mut recorder);
        let is_told =
            |run: &RunFolder| run.contents().events.iter().any(|event| event.kind == "finding");
        let killed = wait_until(folder.path(), is_told);
        assert!(killed.is_being_written());
        let state = killed.state().unwrap().unwrap();
        assert_eq!(state.end, None);
        let known = state.diagnosis().unwrap();
        assert!(known.verdict.is_explosion(), "{:?}", known.verdict);
        recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        let ended = RunFolder::open(folder.path()).unwrap();
        assert!(!ended.is_being_written());
        assert_eq!(ended.state().unwrap().unwrap().end.as_deref(), Some(COMPLETED));
    }

    #[test]
    fn the_first_step_is_written_at_once_and_the_others_soon() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path());
        let _guard = run_of(1, 9..9, &mut recorder);
        wait_until(folder.path(), |run| run.contents().steps.len() == 1);
        let mut recorder = begin(&folder.path().join("x"));
        let _guard = run_of(50, 99..99, &mut recorder);
        wait_until(recorder.folder(), |run| run.contents().tensors.len() == 50);
    }

    #[test]
    fn a_run_that_its_process_gives_up_ends_with_the_latest_diagnosis() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path());
        let guard = run(&mut recorder);
        assert!(crate::end_all("stopped by SIGTERM").contains(&folder.path().to_owned()));
        let run = RunFolder::open(folder.path()).unwrap();
        let state = run.state().unwrap().unwrap();
        assert_eq!(state.end.as_deref(), Some("stopped by SIGTERM"));
        assert!(state.diagnosis().unwrap().verdict.is_explosion());
        assert_eq!(run.contents().steps.len(), 64);
        // What comes later is passed over.
        recorder.take(guard.run());
    }

    #[test]
    fn what_cannot_be_written_waits_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path());
        wait_until(folder.path(), |run| run.contents().notices.is_empty());
        // Nothing can be written under this name.
        let obstacle = folder.path().join("diagnosis.json.new");
        std::fs::create_dir(&obstacle).unwrap();
        let guard = run_of(40, 99..99, &mut recorder);
        let began = Instant::now();
        let news = |recorder: &Recorder| loop {
            match recorder.news() {
                Some(news) => break news,
                None => assert!(began.elapsed() < Duration::from_secs(20), "no news"),
            }
        };
        assert!(news(&recorder).starts_with("the run is not recorded at present: "));
        std::fs::remove_dir(&obstacle).unwrap();
        recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        let run = RunFolder::open(folder.path()).unwrap();
        assert_eq!(run.contents().steps.len(), 40);
        let state = run.state().unwrap();
        assert_eq!(state.and_then(|state| state.end).as_deref(), Some(COMPLETED));
    }

    #[test]
    fn a_diagnosis_that_cannot_be_written_goes_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("x");
        let mut recorder = begin(&gone);
        let guard = run(&mut recorder);
        std::fs::rename(&gone, folder.path().join("y")).unwrap();
        // Somebody else's by now.
        std::fs::create_dir(&gone).unwrap();
        let error = recorder.finish(&guard.diagnosis(), guard.run()).unwrap_err();
        let words = error.to_string();
        let RunError::NotWritten { source, fallback: Some(fallback), .. } = error else {
            panic!("{words}");
        };
        assert!(matches!(*source, RunError::Gone { .. }), "{words}");
        assert!(words.contains(&fallback.display().to_string()), "{words}");
        assert!(std::fs::read_to_string(&fallback).unwrap().contains("exploded"));
        std::fs::remove_file(fallback).unwrap();
        assert_eq!(gone.read_dir().unwrap().count(), 0);
    }
}
