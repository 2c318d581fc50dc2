//! The judgement of a log: a block for the terminal, an object for machines, a line for GitHub.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use tamegrad::Verdict;
use tamegrad::hindsight::{Judgement, Sample};

use crate::json::{EvidenceReport, evidence as evidence_report, number_if_known, verdict_name};
use crate::number::{count, counted};
use crate::style::Style;
use crate::terminal::{curve_of, labelled, tone};
use crate::text::{join, wrap};
use crate::words;

/// A log and what was judged of it.
#[derive(Debug, Clone, Copy)]
pub struct LogRun<'a> {
    /// The file or folder.
    pub path: &'a str,
    /// The format's name.
    pub format: &'a str,
    /// The judgement.
    pub judgement: &'a Judgement,
    /// When the onset was logged, in seconds since 1970.
    pub onset_wall: Option<f64>,
    /// The training loss, with the name of its series.
    pub loss: Option<(&'a str, &'a [Sample])>,
    /// The norm of the whole gradient, with the name of its series or where it is from.
    pub grad_norm: Option<(&'a str, &'a [Sample])>,
    /// Name and number of points of each series of the log.
    pub series: &'a [(String, u64)],
    /// What the log cannot show.
    pub missing: &'a [String],
    /// What was left out while reading.
    pub notices: &'a [String],
}

/// Notices shown in full.
const NOTICES_SHOWN: usize = 5;

/// The log as a block of text: verdict, onset, curves, signs, cause and remedies as far as the log
/// supports them. Every line ends with a line break.
pub fn block(run: &LogRun<'_>, style: &Style) -> String {
    let judgement = run.judgement;
    let verdict = style.paint(tone(judgement.verdict), &judgement.verdict.as_str().to_uppercase());
    let title = format!("{} ({})", run.path, run.format);
    let mut lines = wrap(&title, &format!("{verdict}  "), style.line());
    if judgement.verdict.is_explosion() {
        lines.extend(labelled("When", &when(run), style));
        let place = judgement
            .origin
            .as_ref()
            .map(|origin| format!("{}; {}", origin.tensor, words::evidences(&origin.evidence)));
        let place = place.unwrap_or_else(|| "not known: see what is missing".to_owned());
        lines.extend(labelled("Where", &place, style));
        lines.extend(labelled("Why", &why(judgement), style));
    }
    let onset = judgement.onset.map(step);
    for (label, series) in [("Loss", run.loss), ("Gradient norm", run.grad_norm)] {
        let Some((_, samples)) = series else { continue };
        let points: Vec<(u64, f64)> =
            samples.iter().map(|sample| (step(sample.step), sample.value)).collect();
        lines.extend(curve_of(label, &points, onset, style));
    }
    let alarms = judgement.alarms.iter().map(|alarm| (alarm.sign, alarm.onset, &alarm.evidence));
    let strains = judgement.strains.iter().map(|sign| (sign.sign, sign.onset, &sign.evidence));
    for (index, (sign, onset, evidence)) in alarms.chain(strains).enumerate() {
        let label = if index == 0 { "Signs" } else { "" };
        let text = format!("{}, step {onset}: {}", sign.doc().title, words::evidences(evidence));
        lines.extend(labelled(label, &text, style));
    }
    for (index, remedy) in judgement.remedies.iter().enumerate() {
        let label = if index == 0 { "Remedies" } else { "" };
        let text = format!("{}. {}: {}", index + 1, remedy.name.doc().name, remedy.advice);
        lines.extend(labelled(label, &text, style));
    }
    lines.extend(listed("Missing", run.missing, run.missing.len(), style));
    lines.extend(listed("Left out", run.notices, NOTICES_SHOWN, style));
    join(lines)
}

fn listed(label: &str, texts: &[String], shown: usize, style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, text) in texts.iter().take(shown).enumerate() {
        lines.extend(labelled(if index == 0 { label } else { "" }, text, style));
    }
    if texts.len() > shown {
        lines.extend(labelled("", &format!("and {} more", texts.len() - shown), style));
    }
    lines
}

fn when(run: &LogRun<'_>) -> String {
    let judgement = run.judgement;
    let Some(onset) = judgement.onset else { return String::new() };
    let mut text = format!("step {}", count(step(onset)));
    if let Some(time) = run.onset_wall.and_then(utc) {
        text.push_str(&format!(", {time}"));
    }
    if let Some(back) = judgement.recovered {
        text.push_str(&format!("; back at its level at step {}", count(step(back))));
    }
    text
}

fn why(judgement: &Judgement) -> String {
    match judgement.causes.first() {
        Some(cause) => {
            let doc = cause.name.doc();
            format!("{} ({}); {}", doc.title, doc.name, words::evidences(&cause.evidence))
        }
        None => words::CAUSE_UNKNOWN.to_owned(),
    }
}

/// A time in seconds since 1970 as UTC.
fn utc(seconds: f64) -> Option<String> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    let time = UNIX_EPOCH.checked_add(since)?;
    // The formatter knows the years up to 9999.
    (seconds < 2.5e11).then(|| humantime::format_rfc3339_seconds(time).to_string())
}

/// Curves count steps from 0.
fn step(step: i64) -> u64 {
    u64::try_from(step).unwrap_or(0)
}

/// One annotation of GitHub's workflow commands: an error, a warning for what recovered, or nothing.
pub fn github(run: &LogRun<'_>) -> Option<String> {
    let judgement = run.judgement;
    let level = match judgement.verdict {
        Verdict::Healthy | Verdict::TooEarly => return None,
        Verdict::Recovered => "warning",
        Verdict::Exploding | Verdict::Exploded | Verdict::Dead => "error",
    };
    let alarm = judgement.alarms.first();
    let numbers = alarm.map_or(String::new(), |alarm| words::evidences(&alarm.evidence));
    let remedy = judgement.remedies.first().map_or(String::new(), |r| format!("; {}", r.advice));
    let message = format!("{} at {}: {numbers}{remedy}", judgement.verdict.as_str(), when(run));
    // As the workflow commands want it: percent, carriage return and line feed are escaped.
    let escape = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = escape(run.path).replace(':', "%3A").replace(',', "%2C");
    Some(format!(
        "::{level} file={property},title=tamegrad: {}::{}\n",
        judgement.verdict.as_str(),
        escape(&message)
    ))
}

/// One log, as `diagnose --json` tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogReport {
    /// The file or folder.
    pub path: String,
    /// The format's name.
    pub format: String,
    /// The verdict's kebab-case name.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// The step at which it began.
    pub onset_step: Option<i64>,
    /// When that was logged, in seconds since 1970.
    #[serde(serialize_with = "number_if_known")]
    pub onset_wall: Option<f64>,
    /// The step from which on the run was back at its level.
    pub recovered_step: Option<i64>,
    /// The tensor where it began.
    pub origin: Option<String>,
    /// Kebab-case name of the best supported cause.
    pub cause: Option<String>,
    /// The signs that are up, the one that decided first.
    pub signs: Vec<LogSign>,
    /// Further signs that are up, but are no explosion by themselves.
    pub strains: Vec<LogStrain>,
    /// What to do, best first.
    pub remedies: Vec<LogAdvice>,
    /// What the log holds.
    pub series: Vec<LogSeries>,
    /// What the log cannot show.
    pub missing: Vec<String>,
    /// What was left out while reading.
    pub notices: Vec<String>,
}

/// A sign that is up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogSign {
    /// Kebab-case name.
    pub name: String,
    /// Where it began.
    pub onset_step: i64,
    /// What came of it: the verdict's kebab-case name.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// The numbers.
    pub evidence: Vec<EvidenceReport>,
}

/// A sign that is up and no explosion by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogStrain {
    /// Kebab-case name.
    pub name: String,
    /// Where it began.
    pub onset_step: i64,
    /// The numbers.
    pub evidence: Vec<EvidenceReport>,
}

/// A remedy with the numbers of this log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogAdvice {
    /// Kebab-case name.
    pub name: String,
    /// What to set.
    pub advice: String,
}

/// A series of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSeries {
    /// Its name in the log.
    pub name: String,
    /// Number of its points.
    pub points: u64,
    /// What it is read as: `loss`, `grad_norm`; nothing for the others.
    pub role: Option<&'static str>,
}

/// The log as an object.
pub fn report(run: &LogRun<'_>) -> LogReport {
    let judgement = run.judgement;
    let is_of =
        |role: Option<(&str, &[Sample])>, name: &str| role.is_some_and(|(of, _)| of == name);
    LogReport {
        path: run.path.to_owned(),
        format: run.format.to_owned(),
        verdict: judgement.verdict,
        onset_step: judgement.onset,
        onset_wall: run.onset_wall,
        recovered_step: judgement.recovered,
        origin: judgement.origin.as_ref().map(|origin| origin.tensor.clone()),
        cause: judgement.causes.first().map(|cause| cause.name.as_str().to_owned()),
        signs: judgement
            .alarms
            .iter()
            .map(|alarm| LogSign {
                name: alarm.sign.as_str().to_owned(),
                onset_step: alarm.onset,
                verdict: alarm.verdict,
                evidence: alarm.evidence.iter().map(evidence_report).collect(),
            })
            .collect(),
        strains: judgement
            .strains
            .iter()
            .map(|strain| LogStrain {
                name: strain.sign.as_str().to_owned(),
                onset_step: strain.onset,
                evidence: strain.evidence.iter().map(evidence_report).collect(),
            })
            .collect(),
        remedies: judgement
            .remedies
            .iter()
            .map(|remedy| LogAdvice {
                name: remedy.name.doc().name.to_owned(),
                advice: remedy.advice.clone(),
            })
            .collect(),
        series: run
            .series
            .iter()
            .map(|(name, points)| LogSeries {
                name: name.clone(),
                points: *points,
                role: match () {
                    () if is_of(run.loss, name) => Some("loss"),
                    () if is_of(run.grad_norm, name) => Some("grad_norm"),
                    () => None,
                },
            })
            .collect(),
        missing: run.missing.to_vec(),
        notices: run.notices.to_vec(),
    }
}

/// A line about a log without an alarm, for lists of many.
pub fn line(run: &LogRun<'_>, style: &Style) -> String {
    let verdict = run.judgement.verdict;
    let records = run.loss.or(run.grad_norm).map_or(0, |(_, samples)| samples.len());
    let strains = run.judgement.strains.iter().map(|strain| format!(", {}", strain.sign.as_str()));
    format!(
        "{}  {} ({}, {}{})\n",
        style.paint(tone(verdict), &verdict.as_str().to_uppercase()),
        run.path,
        run.format,
        counted(records as u64, "record"),
        strains.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::hindsight::{History, Metric, judge};

    fn samples(values: &[f64]) -> Vec<Sample> {
        values.iter().enumerate().map(|(i, &value)| Sample { step: i as i64, value }).collect()
    }

    fn with_run<R>(values: &[f64], then: impl FnOnce(&LogRun<'_>) -> R) -> R {
        let loss = samples(values);
        with_history(&History { loss: &loss, ..History::default() }, then)
    }

    fn with_history<R>(history: &History<'_>, then: impl FnOnce(&LogRun<'_>) -> R) -> R {
        let judgement = judge(history);
        let loss = history.loss;
        then(&LogRun {
            path: "runs/a,b.csv",
            format: "csv",
            judgement: &judgement,
            onset_wall: judgement.onset.map(|_| 1.7e9),
            loss: Some(("loss", loss)),
            grad_norm: None,
            series: &[("loss".to_owned(), loss.len() as u64), ("epoch".to_owned(), 9)],
            missing: &["no gradient norm".to_owned()],
            notices: &[],
        })
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
        let (block, line, strains) = with_history(&history, |run| {
            (block(run, &Style::plain(80)), line(run, &Style::plain(80)), report(run).strains)
        });
        let sign = "Signs          Metric not improving or deteriorating, step 0: best metric: 0.1";
        assert!(block.contains(sign), "{block}");
        assert_eq!(line, "HEALTHY  runs/a,b.csv (csv, 400 records, metric-stalls)\n");
        assert_eq!(strains.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["metric-stalls"]);
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
    fn times_are_utc() {
        assert_eq!(utc(1.7e9).as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!((utc(-1.0), utc(f64::NAN), utc(1e300)), (None, None, None));
    }
}
