//! The diagnosis of a log: a block for the terminal, an object for machines, a line for GitHub.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use tamegrad::logs::{Sample, step};
use tamegrad::{Diagnosis, Verdict};

use crate::json::{DiagnosisReport, number};
use crate::number::{count, counted};
use crate::style::{Style, Tone};
use crate::terminal::{self, curve_of, labelled, listed, tone};
use crate::text::{join, printable, wrap};
use crate::{change, words};

/// A log and its diagnosis.
#[derive(Debug, Clone, Copy)]
pub struct LogRun<'a> {
    /// The file or folder.
    pub path: &'a str,
    /// The format's name.
    pub format: &'a str,
    /// The diagnosis.
    pub diagnosis: &'a Diagnosis,
    /// When the onset was logged, in seconds since 1970.
    pub onset_wall: Option<f64>,
    /// How the run ended, where that is known.
    pub end: Option<RunEnd<'a>>,
    /// The training loss, with the name of its series.
    pub loss: Option<(&'a str, &'a [Sample])>,
    /// The norm of the whole gradient, with the name of its series or where it is from.
    pub grad_norm: Option<(&'a str, &'a [Sample])>,
    /// The series of the log.
    pub series: &'a [LogSeries],
    /// The series that decided the verdict.
    pub decided_by: Option<&'a str>,
    /// What the log cannot show.
    pub missing: &'a [Missing<'a>],
    /// What was left out while reading.
    pub notices: &'a [String],
    /// The share of the log that is damaged and was left out, from 0 to 1.
    pub left_out: f64,
    /// Whether what was left out may hide an explosion.
    pub is_partly_read: bool,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RunEnd<'a> {
    /// `completed`, `stopped`, `running` or `did-not-end`.
    pub state: &'static str,
    /// What stopped it, in words.
    pub how: Option<&'a str>,
    /// The last step that was seen.
    pub last_step: Option<u64>,
    /// When, in seconds since 1970.
    #[serde(with = "number::optional")]
    pub last_wall: Option<f64>,
}

impl<'a> LogRun<'a> {
    /// A log of which nothing but the diagnosis is known.
    pub fn of(path: &'a str, format: &'a str, diagnosis: &'a Diagnosis) -> Self {
        Self {
            path,
            format,
            diagnosis,
            onset_wall: None,
            end: None,
            loss: None,
            grad_norm: None,
            series: &[],
            decided_by: None,
            missing: &[],
            notices: &[],
            left_out: 0.0,
            is_partly_read: false,
        }
    }

    /// How much of the log was left out because it is damaged, in words.
    pub fn damage(&self) -> Option<String> {
        (self.is_partly_read || self.left_out > 0.0).then(|| share(self))
    }

    /// When it began and, if it did, recovered, with the time where it was logged.
    pub fn when(&self) -> Option<String> {
        self.diagnosis.onset.map(|_| when(self))
    }
}

/// What a log, or a run that was watched, cannot show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing<'a> {
    /// A training loss.
    Loss,
    /// Something that its format hides, in words.
    Hidden(&'a str),
    /// The gradient norm; the option of its writer that logs it.
    GradientNorm(&'a str),
    /// The gradient norms of single tensors, which would have shown the origin; the option that logs them.
    TensorNorms(&'a str),
    /// The same, for a heat map.
    HeatMap,
    /// Gains of the layers, for a chain.
    Gains,
    /// Update ratios.
    UpdateRatios,
    /// The learning rate.
    LearningRate,
}

impl Missing<'_> {
    /// What is missing and how to log it, without a full stop.
    pub fn words(self) -> String {
        match self {
            Self::Loss => "No training loss was found. Name it with `--map loss=NAME`".into(),
            Self::Hidden(what) => what.into(),
            Self::GradientNorm(option) => format!(
                "The gradient norm was not logged, so there is less evidence and alarms come later. \
                 To log it: {option}"
            ),
            Self::TensorNorms(option) => format!(
                "Per-layer gradient norms were not logged, so the origin is unknown. To log them: \
                 {option}"
            ),
            Self::HeatMap => "Per-layer gradient norms were not logged, so there is no heat map. \
                 `tamegrad.watch(..., run=\"NAME\")` records them; in a log, use a series \
                 `grad_norm/<tensor>` for each tensor"
                .into(),
            Self::Gains => {
                "Layer gains were not measured, so they are not plotted. The guard measures \
                 them: `tamegrad.watch(model, optimizer)`"
                    .into()
            }
            Self::UpdateRatios => {
                "Update ratios were not logged. The guard measures them; in a log, \
                 use a series `update_ratio/<tensor>` for each tensor"
                    .into()
            }
            Self::LearningRate => "The learning rate was not logged. Log it as `lr`".into(),
        }
    }
}

impl RunEnd<'_> {
    /// That a run did not come to its end, in words.
    pub fn words(&self) -> Option<String> {
        let state = match (self.state, self.how) {
            ("completed", _) => return None,
            ("running", _) => "is still running",
            (_, Some(how)) => how,
            (_, None) => "did not end",
        };
        let state = printable(state);
        let Some(step) = self.last_step else { return Some(format!("{state}; no step was seen")) };
        let time = self.last_wall.and_then(utc).map_or(String::new(), |time| format!(" at {time}"));
        Some(format!("{state}; last seen step {}{time}", count(step)))
    }
}

/// Notices shown in full.
const NOTICES_SHOWN: usize = 5;

/// The log as a block of text: verdict, onset, curves, signs, cause and remedies as far as the log
/// supports them. Every line ends with a line break.
pub fn block(run: &LogRun<'_>, style: &Style) -> String {
    let found = run.diagnosis;
    let verdict = headline(run, style);
    let title = format!("{} ({})", printable(run.path), run.format);
    let mut lines = wrap(&title, &format!("{verdict}  "), style.line());
    if let Some(end) = run.end.and_then(|end| end.words()) {
        lines.extend(labelled("End", &end, style));
    }
    if found.verdict.is_explosion() {
        lines.extend(labelled("When", &when(run), style));
        lines.extend(terminal::origin(found, style));
        lines.extend(terminal::first(found, style));
        lines.extend(terminal::why(found, style));
    }
    let onset = found.onset.map(|step| step.0);
    for (label, series) in [("Loss", run.loss), ("Gradient norm", run.grad_norm)] {
        let Some((_, samples)) = series else { continue };
        let points: Vec<(u64, f64)> =
            samples.iter().map(|sample| (step(sample.step).0, sample.value)).collect();
        lines.extend(curve_of(label, &points, onset, style));
    }
    lines.extend(judged(run, style));
    lines.extend(signs(found, style));
    if found.verdict.is_explosion() {
        lines.extend(terminal::gains(found, None, style));
    }
    lines.extend(terminal::remedies(found, style));
    lines.extend(listed("Missing", run.missing.iter().copied().map(Missing::words), style));
    let share = run.is_partly_read.then(|| share(run));
    let more = run.notices.len().saturating_sub(NOTICES_SHOWN);
    let more = (more > 0).then(|| format!("and {more} more"));
    let notices = run.notices.iter().take(NOTICES_SHOWN).cloned().chain(more);
    let notices = share.into_iter().chain(notices);
    lines.extend(listed("Left out", notices, style));
    join(lines)
}

/// Names of judged series that are shown.
const JUDGED_SHOWN: usize = 8;

/// Which series were judged, and which of them decided, where there are several.
fn judged(run: &LogRun<'_>, style: &Style) -> Vec<String> {
    let is_judged = |series: &&LogSeries| matches!(series.role, Some("loss" | "grad_norm"));
    let mut names: Vec<String> = run
        .series
        .iter()
        .filter(is_judged)
        .map(|series| printable(&series.name).into_owned())
        .collect();
    let by = run.decided_by.filter(|_| run.diagnosis.onset.is_some()).map(printable);
    if names.len() < 2 {
        return Vec::new();
    }
    let more = names.len().saturating_sub(JUDGED_SHOWN);
    names.truncate(JUDGED_SHOWN);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    let by = by.map_or(String::new(), |by| format!("; {by} decided"));
    labelled("Judged", &format!("{}{by}", names.join(", ")), style)
}

/// The verdict, and whether it rests on a part of the log.
fn headline(run: &LogRun<'_>, style: &Style) -> String {
    let verdict = run.diagnosis.verdict;
    let (tone, text) = match (run.is_partly_read, verdict.is_explosion()) {
        (false, _) => (tone(verdict), verdict.as_str().to_uppercase()),
        (true, true) => {
            (tone(verdict), format!("{}, partly read", verdict.as_str().to_uppercase()))
        }
        (true, false) => {
            (Tone::Strain, format!("PARTLY READ, {} in what was read", verdict.as_str()))
        }
    };
    style.paint(tone, &text)
}

/// How much of the log is missing.
fn share(run: &LogRun<'_>) -> String {
    // The share that is known can be 0 where the rest cannot be read.
    let percent = (100.0 * run.left_out).ceil();
    format!("at least {percent}% of the log, which is damaged")
}

/// The signs that are up, the one that decided first.
fn signs(found: &Diagnosis, style: &Style) -> Vec<String> {
    let mut up: Vec<_> = found.signs.iter().filter(|sign| sign.count > 0).collect();
    let has_alarm = |sign: &&tamegrad::diagnosis::SignSummary| {
        sign.first().is_some_and(tamegrad::Finding::is_alarm)
    };
    up.sort_by_key(|sign| (Some(sign.sign) != found.decided_by, !has_alarm(sign)));
    let findings = up.into_iter().flat_map(|sign| &sign.findings);
    let texts = findings.map(|finding| {
        let numbers = words::measures(&finding.evidence, &found.names);
        format!("{}, step {}: {numbers}", words::title(finding), count(finding.step.0))
    });
    listed("Signs", texts, style)
}

fn when(run: &LogRun<'_>) -> String {
    let Some(onset) = run.diagnosis.onset else { return String::new() };
    let mut text = format!("step {}", count(onset.0));
    if let Some(time) = run.onset_wall.and_then(utc) {
        text.push_str(&format!(", {time}"));
    }
    if let Some(back) = run.diagnosis.recovered {
        text.push_str(&format!("; recovered at step {}", count(back.0)));
    }
    text
}

/// The best remedy in words.
pub fn advice(found: &Diagnosis) -> Option<String> {
    found.remedies.first().map(|of| change::describe_change(&of.change))
}

/// A time in seconds since 1970 as UTC.
fn utc(seconds: f64) -> Option<String> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    let time = UNIX_EPOCH.checked_add(since)?;
    // The formatter knows the years up to 9999.
    (seconds < 2.5e11).then(|| humantime::format_rfc3339_seconds(time).to_string())
}

/// One annotation of GitHub's workflow commands: an error, a warning for what recovered, or nothing.
pub fn github(run: &LogRun<'_>) -> Option<String> {
    let found = run.diagnosis;
    let level = match found.verdict {
        _ if run.is_partly_read && !found.verdict.is_explosion() => "warning",
        Verdict::Healthy | Verdict::NotLearning | Verdict::TooEarly => return None,
        Verdict::Recovered => "warning",
        Verdict::Exploding | Verdict::Exploded | Verdict::Dead => "error",
    };
    let numbers = found.alarm().map(|alarm| words::measures(&alarm.evidence, &found.names));
    let remedy = advice(found).map_or(String::new(), |advice| format!("; {advice}"));
    let verdict = found.verdict.as_str();
    let message = if found.verdict.is_explosion() {
        format!("{verdict} at {}: {}{remedy}", when(run), numbers.unwrap_or_default())
    } else {
        format!("partly read, {verdict} in what was read: left out {}", share(run))
    };
    // As the workflow commands want it: percent signs are escaped. Line ends are spelled out.
    let escape = |text: &str| printable(text).replace('%', "%25");
    let property = escape(run.path).replace(':', "%3A").replace(',', "%2C");
    Some(format!("::{level} file={property},title=tamegrad: {verdict}::{}\n", escape(&message)))
}

/// One log, as `diagnose --json` tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogReport<'a> {
    /// The diagnosis.
    #[serde(flatten)]
    pub diagnosis: DiagnosisReport,
    /// The file or folder.
    pub path: String,
    /// The format's name.
    pub format: String,
    /// When the onset was logged, in seconds since 1970.
    #[serde(with = "number::optional")]
    pub onset_wall: Option<f64>,
    /// How the run ended; only run folders know.
    pub end: Option<RunEnd<'a>>,
    /// What the log holds.
    pub series: Vec<LogSeries>,
    /// The series that decided the verdict.
    pub decided_by_series: Option<String>,
    /// What the log cannot show.
    pub missing: Vec<String>,
    /// What was left out while reading.
    pub notices: Vec<String>,
    /// The share of the log that is damaged and was left out, from 0 to 1.
    #[serde(with = "number")]
    pub left_out: f64,
    /// Whether what was left out may hide an explosion.
    pub partly_read: bool,
}

/// A series of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSeries {
    /// Its name in the log.
    pub name: String,
    /// Number of its points.
    pub points: u64,
    /// What it is read as: `loss`, `grad_norm`, `lr`, `loss_scale`, `metric`; nothing for the others.
    pub role: Option<&'static str>,
}

/// The log as an object.
pub fn report<'a>(run: &LogRun<'a>) -> LogReport<'a> {
    LogReport {
        diagnosis: DiagnosisReport::from(run.diagnosis),
        path: run.path.to_owned(),
        format: run.format.to_owned(),
        onset_wall: run.onset_wall,
        end: run.end,
        series: run.series.to_vec(),
        decided_by_series: run.decided_by.map(str::to_owned),
        missing: run.missing.iter().copied().map(Missing::words).collect(),
        notices: run.notices.to_vec(),
        left_out: run.left_out,
        partly_read: run.is_partly_read,
    }
}

/// A line about a log without an alarm, for lists of many.
pub fn line(run: &LogRun<'_>, style: &Style) -> String {
    let records = run.loss.or(run.grad_norm).map_or(0, |(_, samples)| samples.len());
    let up = run.diagnosis.signs.iter().filter(|sign| sign.count > 0);
    let strains = up.map(|sign| format!(", {}", sign.sign.as_str()));
    let left_out = run.is_partly_read.then(|| format!("; left out {}", share(run)));
    format!(
        "{}  {} ({}, {}{}{}{})\n",
        headline(run, style),
        printable(run.path),
        run.format,
        counted(records as u64, "record"),
        strains.collect::<String>(),
        left_out.unwrap_or_default(),
        run.end.and_then(|end| end.words()).map_or(String::new(), |end| format!(", {end}"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::logs::{History, Metric, diagnose};

    fn samples(values: &[f64]) -> Vec<Sample> {
        values.iter().enumerate().map(|(i, &value)| Sample { step: i as i64, value }).collect()
    }

    fn with_run<R>(values: &[f64], then: impl FnOnce(&LogRun<'_>) -> R) -> R {
        let loss = samples(values);
        with_history(&History { loss: &loss, ..History::default() }, then)
    }

    fn with_history<R>(history: &History<'_>, then: impl FnOnce(&LogRun<'_>) -> R) -> R {
        let found = diagnose(history);
        let loss = history.loss;
        then(&LogRun {
            path: "runs/a,b.csv",
            format: "csv",
            diagnosis: &found,
            onset_wall: found.onset.map(|_| 1.7e9),
            end: None,
            loss: Some(("loss", loss)),
            grad_norm: None,
            series: &[
                LogSeries {
                    name: "loss".to_owned(),
                    points: loss.len() as u64,
                    role: Some("loss"),
                },
                LogSeries { name: "epoch".to_owned(), points: 9, role: None },
            ],
            decided_by: found.onset.map(|_| "loss"),
            missing: &[Missing::Hidden("no gradient norm")],
            notices: &[],
            left_out: 0.0,
            is_partly_read: false,
        })
    }

    #[test]
    fn a_log_of_which_much_is_missing_is_not_called_healthy() {
        let calm = [2.0; 60];
        let (block, line, github) = with_run(&calm, |run| {
            let run = LogRun { left_out: 0.943, is_partly_read: true, ..*run };
            let style = Style::plain(80);
            (block(&run, &style), line(&run, &style), github(&run).unwrap())
        });
        let headline = "PARTLY READ, healthy in what was read  runs/a,b.csv (csv";
        assert!(block.starts_with(headline), "{block}");
        assert!(block.contains("at least 95% of the log, which is damaged\n"), "{block}");
        assert!(line.starts_with(headline), "{line}");
        assert!(github.starts_with("::warning file=runs/a%2Cb.csv,"), "{github}");
        assert!(
            github.ends_with(
                "::partly read, healthy in what was read: left out at least 95%25 of \
             the log, which is damaged\n"
            ),
            "{github}"
        );

        let broken = [&[2.0; 12][..], &[900.0, f64::NAN, f64::NAN]].concat();
        let line = with_run(&broken, |run| {
            super::line(&LogRun { is_partly_read: true, ..*run }, &Style::plain(80))
        });
        assert!(line.starts_with("EXPLODED, partly read  "), "{line}");
    }

    #[test]
    fn the_gains_that_a_recorded_run_has_measured_are_shown() {
        use tamegrad::{Chain, LayerId, Link, Names, Step};
        let broken = [&[2.0; 12][..], &[900.0, f64::NAN, f64::NAN]].concat();
        let link = |layer, gain| Link {
            layer: LayerId(layer),
            forward: Some(gain),
            backward: Some(1.0),
            first_inner: LayerId(layer),
            only_normalises: false,
        };
        let chain = Chain { step: Step(12), links: vec![link(0, 1.0), link(1, 41.3)], ends: None };
        let text = with_run(&broken, |run| {
            let names = Names { layers: vec!["a".into(), "b".into()], ..Names::default() };
            let diagnosis = Diagnosis { chain: Some(chain), names, ..run.diagnosis.clone() };
            block(&LogRun { diagnosis: &diagnosis, ..*run }, &Style::plain(80))
        });
        let gains = "\nChain of gains at step 12\n  forward   1 × [41.3] = 41.3\n  backward  1 × 1 = 1\n  \
                     b  forward 41.3, backward 1\n";
        assert!(text.contains(gains), "{text}");
    }

    #[test]
    fn a_path_cannot_make_lines_of_its_own() {
        let style = Style::plain(80);
        for values in [&[2.0; 60][..], &[f64::NAN; 3]] {
            let texts = with_run(values, |run| {
                let run = LogRun { path: "a\nHEALTHY  b\x1b]0;x\x07", ..*run };
                [line(&run, &style), block(&run, &style), github(&run).unwrap_or_default()]
            });
            for text in texts.iter().filter(|text| !text.is_empty()) {
                assert!(text.contains(r"a\u{a}HEALTHY"), "{text}");
                assert!(text.contains(r"b\u{1b}]0;x\u{7}"), "{text}");
            }
        }
    }

    #[test]
    fn an_explosion_is_a_block() {
        let values = [&[2.0; 12][..], &[900.0, f64::NAN, f64::NAN]].concat();
        let text = with_run(&values, |run| block(run, &Style::plain(80)));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_healthy_log_is_short() {
        let text = with_run(&[2.0, 1.9, 1.8, 1.7], |run| {
            block(run, &Style::plain(80)) + &line(run, &Style::plain(80))
        });
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_healthy_log_tells_the_signs_that_are_up() {
        let loss = samples(&[2.0; 400]);
        let steps = [0, 100, 200, 300];
        let measured: Vec<Sample> = steps.map(|step| Sample { step, value: 0.1 }).into();
        let metric = Metric { samples: &measured, is_lower_better: false };
        let history = History { loss: &loss, metric, ..History::default() };
        let (block, line) = with_history(&history, |run| {
            (block(run, &Style::plain(80)), line(run, &Style::plain(80)))
        });
        let sign = "Signs          The held-out metric does not improve, step 0: best metric: 0.1";
        assert!(block.contains(sign), "{block}");
        assert_eq!(line, "HEALTHY  runs/a,b.csv (csv, 400 records, metric-stalls)\n");
    }

    #[test]
    fn an_object_for_machines() {
        let values = [&[2.0; 12][..], &[900.0, f64::NAN, f64::NAN]].concat();
        let text = with_run(&values, |run| crate::json::to_string(&report(run)).unwrap());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn annotations_escape_what_the_commands_use() {
        let values = [&[2.0; 12][..], &[f64::NAN, f64::NAN]].concat();
        let text = with_run(&values, github).unwrap();
        assert!(
            text.starts_with("::error file=runs/a%2Cb.csv,title=tamegrad: exploded::exploded at "),
            "{text}"
        );
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(with_run(&[2.0; 12], github), None);
    }

    #[test]
    fn a_run_that_did_not_end_is_told_with_its_last_step() {
        let end = |state, how| {
            let (last_step, last_wall) = (Some(1412), Some(1.7e9));
            Some(RunEnd { state, how, last_step, last_wall })
        };
        let told = |end| {
            with_run(&[2.0, 1.9, 1.8], |run| {
                let run = LogRun { end, ..*run };
                (block(&run, &Style::plain(80)), line(&run, &Style::plain(80)))
            })
        };
        let (block, line) = told(end("did-not-end", None));
        let words = "did not end; last seen step 1,412 at 2023-11-14T22:13:20Z";
        assert!(block.contains(&format!("End            {words}\n")), "{block}");
        assert!(line.ends_with(&format!(", {words})\n")), "{line}");
        let (block, _) = told(end("stopped", Some("stopped by SIGTERM")));
        assert!(block.contains("End            stopped by SIGTERM; last seen step"), "{block}");
        let (block, _) = told(end("running", None));
        assert!(block.contains("is still running; last seen step 1,412"), "{block}");
        let (block, _) = told(end("completed", None));
        assert!(!block.contains("End "), "{block}");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(1.7e9).as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!((utc(-1.0), utc(f64::NAN), utc(1e300)), (None, None, None));
    }
}
