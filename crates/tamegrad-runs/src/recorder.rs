//! Writes what the guard records about a run, step by step, to a run folder.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tamegrad::{Decision, Diagnosis, Finding, GradientAction, Names, Record, Run};
use tamegrad_report::json;

use super::diagnosis;
use super::table::{Event, RunInfo, StepRow, TensorInfo, TensorRow};
use super::{RunError, RunWriter};

/// Writes what a guard records about a run to a run folder, during the run.
///
/// The first error ends the writing, not the run: [`Recorder::finish`] returns it.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    info: RunInfo,
    /// What was written, from the first step on.
    writer: Option<RunWriter>,
    /// Findings and actions of the run that were written.
    findings: usize,
    actions: usize,
    result: Result<(), RunError>,
}

impl Recorder {
    /// Creates a recorder that starts the folder at the first step, replacing an earlier run there. The
    /// tensors of `info` are taken from the record.
    pub fn new(folder: &Path, info: RunInfo) -> Self {
        Self {
            folder: folder.to_owned(),
            info,
            writer: None,
            findings: 0,
            actions: 0,
            result: Ok(()),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the latest step of a run, and what was found and done since the previous call.
    pub fn take(&mut self, run: &Run) {
        if self.result.is_ok() {
            self.result = self.write(run);
        }
    }

    /// Ends the run with its diagnosis.
    ///
    /// # Errors
    /// The first [`RunError`]; what was written before it is in the folder.
    pub fn finish(mut self, diagnosis: &Diagnosis, run: &Run) -> Result<(), RunError> {
        self.result?;
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let step = run.record().now().map_or(0, |row| row.step.0);
        writer.event(&diagnosis::event(diagnosis, step))?;
        writer.finish()
    }

    fn write(&mut self, run: &Run) -> Result<(), RunError> {
        let record = run.record();
        let Some(row) = record.now() else { return Ok(()) };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                self.info.tensors = tensors(record);
                self.writer.insert(RunWriter::replace(&self.folder, &self.info)?)
            }
        };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        writer.step(&StepRow {
            step: row.step.0,
            segment: row.segment,
            wall: wall.map_or(f64::NAN, |since| since.as_secs_f64()),
            loss: row.loss,
            metric: row.metric,
            learning_rate: row.learning_rate,
            gradient_norm: row.gradient_norm,
            nonfinite_gradients: row.nonfinite_gradients,
            update_ratio: row.update_ratio,
        })?;
        let gradients: Vec<TensorRow> = gradients(record).collect();
        if !gradients.is_empty() {
            writer.tensors(row.step.0, &gradients)?;
        }
        let findings = run.findings().get(self.findings..).unwrap_or_default();
        let actions = run.actions().get(self.actions..).unwrap_or_default();
        (self.findings, self.actions) = (run.findings().len(), run.actions().len());
        if !actions.is_empty() || findings.iter().any(Finding::is_alarm) {
            writer.incident(row.step.0)?;
        }
        if !findings.is_empty() {
            let names = record.names();
            for finding in findings {
                writer.event(&finding_event(finding, &names))?;
            }
        }
        for (step, decision) in actions {
            writer.event(&Event {
                step: step.0,
                kind: "action".to_owned(),
                text: action(decision, record),
                data: Value::Null,
            })?;
        }
        Ok(())
    }
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

/// What the guard made the loop do, in words.
fn action(decision: &Decision, record: &Record) -> String {
    let mut parts = match &decision.gradients {
        GradientAction::Keep => Vec::new(),
        GradientAction::Skip => vec!["no update".to_owned()],
        GradientAction::ScaleAll(factor) => vec![format!("gradients times {factor:.4e}")],
        GradientAction::Scale(of) => {
            let name = |id| record.layout().tensor_name(id);
            of.iter().map(|(id, f)| format!("gradient of {} times {f:.4e}", name(*id))).collect()
        }
    };
    if decision.learning_rate < 1.0 {
        parts.push(format!("learning rate times {:.4e}", decision.learning_rate));
    }
    parts.extend(decision.rewind.map(|to| format!("back to step {}", to.0)));
    parts.extend(decision.stop.then(|| "stop".to_owned()));
    parts.join(", ")
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
        let mut recorder = Recorder::new(folder.path(), info);
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
        let last = contents.events.last().unwrap();
        assert_eq!(last.kind, "diagnosis");
        assert_eq!(last.data["onset_step"], 60);
        assert!(last.text.starts_with("exploded since step 60"), "{}", last.text);
    }

    #[test]
    fn the_steps_round_an_alarm_are_in_full_in_a_long_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(folder.path(), RunInfo::default());
        let guard = run_of(4000, 2000..2001, &mut recorder);
        recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        let tensors = RunFolder::open(folder.path()).unwrap().contents().tensors;
        let is_in_full = |step| tensors.iter().any(|r| r.step == step && r.steps == 1);
        let steps = [500, 1999, 2000, 2001, 3000, 3999].map(is_in_full);
        assert_eq!(steps, [false, true, true, true, false, true]);
    }

    #[test]
    fn a_second_run_takes_the_place_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let mut recorder = Recorder::new(folder.path(), RunInfo::default());
            let guard = run(&mut recorder);
            recorder.finish(&guard.diagnosis(), guard.run()).unwrap();
        }
        assert_eq!(RunFolder::open(folder.path()).unwrap().contents().steps.len(), 64);
    }

    #[test]
    fn an_error_ends_the_writing_and_is_given_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let held = RunWriter::create(folder.path(), &RunInfo::default()).unwrap();
        let mut recorder = Recorder::new(folder.path(), RunInfo::default());
        let guard = run(&mut recorder);
        let error = recorder.finish(&guard.diagnosis(), guard.run()).unwrap_err();
        assert!(matches!(error, RunError::Locked { .. }), "{error}");
        drop(held);
    }
}
