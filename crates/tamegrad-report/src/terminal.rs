//! A diagnosis for the terminal: one block of text, and the table of trials.

use tamegrad::diagnosis::{Seen, SignSummary};
use tamegrad::record::Row;
use tamegrad::remedies::Proposal;
use tamegrad::{Diagnosis, Names, Record, Run, Verdict};

use crate::change::describe_change;
use crate::json::TrialReport;
use crate::number::{count, known, number};
use crate::style::{Style, Tone};
use crate::table::{aligned, columns};
use crate::text::{join, pad, wrap};
use crate::{chain, spark, words};

/// Width of the labels at the left.
const LABEL: usize = 15;
/// Widest sparkline.
const SPARK_MAX: usize = 60;
/// Marks what stands out in a list.
const MARK: &str = "*";
/// Remedies shown of those that do not treat the cause.
const OTHERS_MAX: usize = 5;

/// A diagnosis as a block of text: verdict, when, where and why; the curves of loss and gradient
/// norm; the signs; the chain of gains; the remedies. A run without an explosion gives a
/// short block. Every line ends with a line break.
pub fn diagnosis(diagnosis: &Diagnosis, run: &Run, style: &Style) -> String {
    let record = run.record();
    let parts = if diagnosis.verdict.is_explosion() {
        vec![
            head(diagnosis, run, style),
            curves(diagnosis, record, style),
            signs(diagnosis, style),
            gains(diagnosis, Some(record), style),
            remedies(diagnosis, style),
        ]
    } else {
        vec![short(diagnosis, run, style)]
    };
    let parts = parts.into_iter().filter(|lines| !lines.is_empty());
    parts.map(join).collect::<Vec<_>>().join("\n")
}

/// The table of trials: remedy, what it changes, verdict, metric, seconds. The one whose label is
/// `chosen` has a mark.
pub fn trials(trials: &[TrialReport], chosen: Option<&str>, style: &Style) -> String {
    if trials.is_empty() {
        return "no remedy was tried\n".into();
    }
    let heading = ["", "remedy", "change", "verdict", "metric", "seconds"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(trials.iter().map(|trial| {
        let is_chosen = chosen == Some(trial.remedy.as_str());
        vec![
            if is_chosen { style.paint(Tone::Good, MARK) } else { String::new() },
            trial.remedy.clone(),
            trial.change.clone(),
            style.paint(tone(trial.verdict), trial.verdict.as_str()),
            known(trial.metric),
            number(trial.seconds),
        ]
    }));
    let mut lines = columns(&rows, 2, style.line());
    lines.extend(match chosen {
        Some(label) => wrap(&format!("chosen: {label}"), &format!("{MARK} "), style.line()),
        None => vec!["no remedy was chosen".to_owned()],
    });
    join(lines)
}

/// The colour of a verdict.
pub(crate) fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Healthy => Tone::Good,
        Verdict::Recovered | Verdict::NotLearning | Verdict::TooEarly => Tone::Strain,
        Verdict::Exploding | Verdict::Exploded | Verdict::Dead => Tone::Alarm,
    }
}

fn title(diagnosis: &Diagnosis, style: &Style) -> Vec<String> {
    let verdict = diagnosis.verdict.as_str().to_uppercase();
    let told = words::verdict(diagnosis.verdict);
    let text = format!("{told} ({} seen)", words::seen(diagnosis));
    wrap(&text, &format!("{}  ", style.paint(tone(diagnosis.verdict), &verdict)), style.line())
}

fn head(diagnosis: &Diagnosis, run: &Run, style: &Style) -> Vec<String> {
    let onset = diagnosis.onset.map_or_else(String::new, |step| format!("step {}", count(step.0)));
    let mut lines = title(diagnosis, style);
    lines.extend(labelled("When", &onset, style));
    lines.extend(origin(diagnosis, style));
    lines.extend(first(diagnosis, style));
    lines.extend(why(diagnosis, style));
    lines.extend(notes(run, style));
    lines
}

/// Where it began.
pub(crate) fn origin(diagnosis: &Diagnosis, style: &Style) -> Vec<String> {
    labelled("Where", &place(diagnosis), style)
}

fn notes(run: &Run, style: &Style) -> Vec<String> {
    let guard = words::actions(run).map(|text| labelled("Guard", &text, style));
    let dropped = words::dropped(run).map(|text| labelled("Record", &text, style));
    guard.into_iter().chain(dropped).flatten().collect()
}

fn place(diagnosis: &Diagnosis) -> String {
    let numbers = place_numbers(diagnosis);
    match words::place(diagnosis, str::to_owned) {
        Some(name) if numbers.is_empty() => name,
        Some(name) => format!("{name}; {}", numbers.join("; ")),
        None => words::ORIGIN_UNKNOWN.to_owned(),
    }
}

/// The numbers told with the place; none where the place is not known.
fn place_numbers(diagnosis: &Diagnosis) -> Vec<String> {
    let origin =
        diagnosis.origin.as_ref().filter(|_| words::place(diagnosis, str::to_owned).is_some());
    let numbers = origin.into_iter().flat_map(|origin| &origin.evidence);
    numbers.map(|number| words::measure(number, &diagnosis.names)).collect()
}

/// The first value that was not finite, and the operation that made it.
pub(crate) fn first(diagnosis: &Diagnosis, style: &Style) -> Vec<String> {
    let first = diagnosis.first_nonfinite.as_ref();
    let first = first.map(|first| words::first_nonfinite(first, &diagnosis.names));
    let operation = diagnosis.operation.as_ref().map(words::operation);
    let rows = [("First NaN/Inf", first), ("Operation", operation)];
    let rows = rows.into_iter().filter_map(|(label, text)| Some((label, text?)));
    rows.flat_map(|(label, text)| labelled(label, &text, style)).collect()
}

/// The first cause with its numbers but those told with the place, and the others in a line each.
pub(crate) fn why(diagnosis: &Diagnosis, style: &Style) -> Vec<String> {
    let names = &diagnosis.names;
    let Some((first, others)) = diagnosis.causes.split_first() else {
        let mut lines = labelled("Why", words::no_cause(diagnosis), style);
        let list = words::checklist(diagnosis).iter().map(|text| (*text).to_owned());
        lines.extend(listed("Check first", list, style));
        return lines;
    };
    let mut lines = labelled("Why", &words::cause(first, names), style);
    let indent = format!("{}- ", " ".repeat(LABEL));
    let told = place_numbers(diagnosis);
    let numbers = first.evidence.iter().map(|number| words::measure(number, names));
    let numbers = numbers.filter(|text| !told.contains(text));
    lines.extend(numbers.flat_map(|text| wrap(&text, &indent, style.line())));
    let others = others.iter().map(|cause| {
        format!("{}; {}", words::cause(cause, names), words::measures(&cause.evidence, names))
    });
    lines.extend(listed("Less likely", others, style));
    lines
}

/// Texts below each other, the first beside the label.
pub(crate) fn listed(
    label: &str,
    texts: impl IntoIterator<Item = String>,
    style: &Style,
) -> Vec<String> {
    let labels = std::iter::once(label).chain(std::iter::repeat(""));
    let lines = labels.zip(texts).map(|(label, text)| labelled(label, &text, style));
    lines.flatten().collect()
}

pub(crate) fn labelled(label: &str, text: &str, style: &Style) -> Vec<String> {
    wrap(text, &pad(&style.paint(Tone::Heading, label), LABEL), style.line())
}

/// The curves of loss and gradient norm.
fn curves(diagnosis: &Diagnosis, record: &Record, style: &Style) -> Vec<String> {
    let onset = diagnosis.onset.map(|step| step.0);
    let norm = |row: &Row| match row.nonfinite_gradients {
        0 => row.gradient_norm,
        _ => Some(f64::NAN),
    };
    let mut lines = curve("Loss", record, |row| row.loss, onset, style);
    lines.extend(curve("Gradient norm", record, norm, onset, style));
    lines
}

fn curve(
    label: &str,
    record: &Record,
    value: impl Fn(&Row) -> Option<f64>,
    onset: Option<u64>,
    style: &Style,
) -> Vec<String> {
    let points: Vec<(u64, f64)> =
        record.rows().iter().filter_map(|row| Some((row.step.0, value(row)?))).collect();
    curve_of(label, &points, onset, style)
}

/// A curve with its label and range, and the onset marked below.
pub(crate) fn curve_of(
    label: &str,
    points: &[(u64, f64)],
    onset: Option<u64>,
    style: &Style,
) -> Vec<String> {
    let range = range(points);
    let room = style.line().saturating_sub(LABEL + 2 + range.chars().count());
    let bars = spark::sparkline(points, onset, room.clamp(10, SPARK_MAX), style);
    let mut labels = [pad(&style.paint(Tone::Heading, label), LABEL)].into_iter();
    let mut lines: Vec<String> = bars
        .into_iter()
        .map(|line| labels.next().unwrap_or_else(|| " ".repeat(LABEL)) + &line)
        .collect();
    if let Some(first) = lines.first_mut() {
        first.push_str(&format!("  {range}"));
    }
    lines
}

/// The smallest and largest finite value, and the scale of the bars.
fn range(points: &[(u64, f64)]) -> String {
    let finite = || points.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
    let low = finite().fold(f64::INFINITY, f64::min);
    let high = finite().fold(f64::NEG_INFINITY, f64::max);
    let scale = if spark::is_log(finite()) { ", log" } else { "" };
    if low > high {
        return "never finite".into();
    }
    format!("{} to {}{scale}", number(low), number(high))
}

/// The signs in a table, the numbers of each below it.
fn signs(diagnosis: &Diagnosis, style: &Style) -> Vec<String> {
    let rows: Vec<Vec<String>> = diagnosis.signs.iter().map(|sign| sign_row(sign, style)).collect();
    let mut lines = vec![style.paint(Tone::Heading, "Signs")];
    let titles = aligned(&rows, 0, style.line());
    for (sign, title) in diagnosis.signs.iter().zip(titles) {
        lines.extend(title);
        lines.extend(numbers(sign, &diagnosis.names, style));
    }
    lines
}

/// The numbers of a sign, a line each.
fn numbers(sign: &SignSummary, names: &Names, style: &Style) -> Vec<String> {
    let evidence = sign.findings.iter().flat_map(|finding| &finding.evidence);
    let numbers = evidence.map(|number| words::measure(number, names));
    numbers.flat_map(|text| wrap(&text, "    - ", style.line())).collect()
}

fn sign_row(sign: &SignSummary, style: &Style) -> Vec<String> {
    let state = words::sign_state(sign);
    let tone = match state {
        "ALARM" => Tone::Alarm,
        "strain" => Tone::Strain,
        _ => Tone::Quiet,
    };
    let (first, times) = words::sign_times(sign);
    let painted = style.paint(tone, state);
    vec![format!("  {}", words::sign_title(sign)), painted, first, times]
}

/// The chain of gains, with what they are while the run is calm where there is a record.
pub(crate) fn gains(diagnosis: &Diagnosis, record: Option<&Record>, style: &Style) -> Vec<String> {
    let Some(chain) = &diagnosis.chain else { return Vec::new() };
    let title = format!("Chain of gains at step {}", count(chain.step.0));
    let inner = Style { width: style.line() - 2, ..*style };
    let text = chain::chain(chain, &diagnosis.names, record, &inner);
    let mut lines = vec![style.paint(Tone::Heading, &title)];
    lines.extend(text.lines().map(|line| format!("  {line}")));
    lines
}

/// The remedies, best first, each with its reason: those that treat the cause, which come first,
/// and some of the others.
pub(crate) fn remedies(diagnosis: &Diagnosis, style: &Style) -> Vec<String> {
    let remedies = &diagnosis.remedies;
    if remedies.is_empty() {
        return Vec::new();
    }
    let heading = style.paint(Tone::Heading, "Remedies, best first");
    let mut lines = vec![format!("{heading} ({MARK} treats the cause)")];
    let treating = remedies.iter().filter(|proposal| proposal.treats_cause).count();
    let shown = remedies.len().min(treating + OTHERS_MAX);
    let ranked = remedies[..shown].iter().enumerate();
    let rows: Vec<_> =
        ranked.map(|(index, proposal)| remedy_row(index + 1, proposal, style)).collect();
    lines.extend(columns(&rows, 2, style.line()));
    let left_out = (remedies.len() - shown) as u64;
    if left_out > 0 {
        let more = format!("and {} more; all are in `remedies` of the JSON", count(left_out));
        lines.extend(wrap(&more, "    ", style.line()));
    }
    lines
}

fn remedy_row(rank: usize, proposal: &Proposal, style: &Style) -> Vec<String> {
    let mark = if proposal.treats_cause { MARK } else { " " };
    let change = describe_change(&proposal.change);
    vec![
        format!("{rank:>2}. {}", style.paint(Tone::Good, mark)),
        proposal.label(),
        format!("{change} ({})", words::why(proposal)),
    ]
}

/// The block of a run without an explosion.
fn short(diagnosis: &Diagnosis, run: &Run, style: &Style) -> Vec<String> {
    let mut lines = title(diagnosis, style);
    if !diagnosis.causes.is_empty() {
        lines.extend(why(diagnosis, style));
    }
    lines.extend(curves(diagnosis, run.record(), style));
    lines.extend(labelled("Signs", &strains(diagnosis), style));
    if let Some(chain) = &diagnosis.chain {
        let [forward, backward] = chain::totals(chain).map(|total| total.unwrap_or("1".to_owned()));
        let told = format!(
            "{}: forward {forward}, backward {backward} (step {})",
            chain::total_label(chain),
            count(chain.step.0)
        );
        lines.extend(labelled("Gains", &told, style));
    }
    lines.extend(notes(run, style));
    if !diagnosis.remedies.is_empty() {
        lines.extend(remedies(diagnosis, style));
    }
    lines
}

fn strains(diagnosis: &Diagnosis) -> String {
    if matches!(diagnosis.seen, Seen::Steps(0) | Seen::Records(0)) {
        return "nothing was recorded".into();
    }
    let up: Vec<String> = diagnosis
        .signs
        .iter()
        .filter(|sign| sign.count > 0)
        .map(|sign| {
            let (first, times) = words::sign_times(sign);
            format!("{} ({}, {times}, from {first})", sign.sign.as_str(), words::sign_state(sign))
        })
        .collect();
    let early: Vec<&str> = diagnosis
        .signs
        .iter()
        .filter(|sign| sign.too_early.is_some())
        .map(|sign| sign.sign.as_str())
        .collect();
    let rest = match (up.is_empty(), early.is_empty()) {
        (true, true) => return "all quiet".into(),
        (_, true) => "the others quiet".to_owned(),
        (_, false) => format!("too early for {}; the others quiet", early.join(", ")),
    };
    up.into_iter().chain([rest]).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
