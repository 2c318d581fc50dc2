//! The parts of a page that are words and tables.

use maud::{Markup, html};
use tamegrad_report::code::Framework;
use tamegrad_report::json::{DiagnosisReport, MeasureReport, SignState};
use tamegrad_report::log::Missing;
use tamegrad_report::number::{count, counted};
use tamegrad_report::{acted, capital, number};

use crate::badge::{badge, mood};
use crate::figure::{Figure, Table};
use crate::markup::{code_in, lines, text};
use crate::view::RunView;

/// Actions that are listed one by one.
const ACTIONS_MAX: usize = 40;
/// Notices that are listed one by one.
const NOTICES_MAX: usize = 20;

/// What tells the runs apart: their paths without the folders that all of them have in common.
pub fn short_names(runs: &[RunView<'_>]) -> Vec<String> {
    let parts: Vec<Vec<&str>> =
        runs.iter().map(|run| run.log.path.split(['/', '\\']).collect()).collect();
    let shortest = parts.iter().map(Vec::len).min().unwrap_or(0);
    let is_shared = |place: &usize| parts.iter().all(|of| of[*place] == parts[0][*place]);
    let shared = match runs {
        [_] => 0,
        // The last part always stays.
        _ => (0..shortest.saturating_sub(1)).take_while(is_shared).count(),
    };
    parts.iter().map(|of| of[shared..].join("/")).collect()
}

/// Verdict, and what else is to be known at once.
pub(crate) fn head(run: &RunView<'_>, name: &str, id: &str, is_alone: bool) -> Markup {
    let found = run.log.diagnosis;
    let report = DiagnosisReport::from(found);
    let sentence = tamegrad_report::sentence(found);
    let seen = counted(report.seen.count, report.seen.unit.trim_end_matches('s'));
    html! {
        header class=(mood(found.verdict)) {
            p.eyebrow {
                span.badge { (badge(found)) }
                " " (text(name)) span.quiet { " · " (text(run.log.format)) " · " (seen) }
            }
            @if is_alone { h1 { (text(&sentence)) } } @else { h2.verdict { (text(&sentence)) } }
            dl.facts {
                @if let Some(when) = run.log.when() {
                    dt { "When" } dd { (text(&when)) }
                }
                @if let Some(place) = tamegrad_report::place(found, str::to_owned) {
                    dt { "Where" }
                    dd {
                        (text(&place))
                        @for measure in report.origin.iter().flat_map(|origin| &origin.evidence) {
                            span.quiet { "; " (text(&measure.text)) }
                        }
                    }
                }
                @if found.verdict.is_explosion() {
                    dt { "Why" }
                    dd {
                        @if let Some(cause) = report.causes.first() {
                            (text(&cause.title))
                            @if let Some(layer) = &cause.layer { " in " code { (text(layer)) } }
                        } @else {
                            (text(tamegrad_report::no_cause(found)))
                        }
                    }
                    @if let Some(remedy) = report.remedies.first() {
                        dt { "Try first" } dd { a href={ "#" (id) "-remedies" } { (text(&remedy.text)) } }
                    }
                }
                @if let Some(end) = run.log.end.and_then(|end| end.words()) {
                    dt { "End" } dd { (text(&end)) }
                }
                @if run.log.is_partly_read {
                    dt { "Read" }
                    dd { "only in part: the verdict covers what could be read" }
                }
            }
        }
    }
}

/// The runs against each other.
pub(crate) fn comparison(runs: &[RunView<'_>], names: &[String]) -> Markup {
    let known = |value: Option<f64>| value.map_or("–".to_owned(), number);
    html! {
        div.scroll {
            table.compare {
                thead { tr {
                    @for head in ["run", "verdict", "onset", "origin", "cause", "steps", "last loss", "lowest loss", "largest gradient norm"] {
                        th scope="col" { (head) }
                    }
                } }
                tbody {
                    @for (run, name) in runs.iter().zip(names) {
                        @let found = run.log.diagnosis;
                        @let finite = |of: &[tamegrad::logs::Sample]| -> Vec<f64> {
                            of.iter().map(|s| s.value).filter(|value| value.is_finite()).collect()
                        };
                        tr {
                            th scope="row" { (text(name)) }
                            td { span class={ "badge " (mood(found.verdict)) } { (badge(found)) } }
                            td { (found.onset.map_or("–".to_owned(), |step| count(step.0))) }
                            td { (text(found.origin_name().unwrap_or("–"))) }
                            td { (found.causes.first().map_or("–", |cause| cause.name.doc().title)) }
                            td { (steps(run)) }
                            td { (known(run.loss().last().map(|sample| sample.value))) }
                            td { (known(finite(run.loss()).into_iter().reduce(f64::min))) }
                            td { (known(finite(run.gradient_norm()).into_iter().reduce(f64::max))) }
                        }
                    }
                }
            }
        }
    }
}

fn steps(run: &RunView<'_>) -> String {
    let last = run.loss().iter().chain(run.gradient_norm()).map(|sample| sample.step).max();
    last.map_or("–".to_owned(), crate::curve::step_of)
}

/// The table behind a figure.
pub(crate) fn table(table: &Table) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for head in &table.head { th scope="col" { (text(head)) } } } }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (index, cell) in row.iter().enumerate() {
                                @if index == 0 {
                                    th scope="row" { (text(cell)) }
                                } @else {
                                    td { (text(cell)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The signs with their numbers.
pub(crate) fn signs(run: &RunView<'_>) -> Markup {
    let report = DiagnosisReport::from(run.log.diagnosis);
    html! {
        section {
            h2 { "Signs" }
            div.scroll {
                table.signs {
                    thead { tr {
                        @for head in ["sign", "state", "first at step", "times", "numbers"] {
                            th scope="col" { (head) }
                        }
                    } }
                    tbody {
                        @for sign in &report.signs {
                            @let (class, state) = match sign.state {
                                SignState::Quiet => ("quiet", "quiet".to_owned()),
                                SignState::TooEarly => ("quiet", format!(
                                    "too early, needs {} more", sign.needs.unwrap_or(0)
                                )),
                                SignState::Strain => ("strain", "strain".to_owned()),
                                SignState::Alarm => ("alarm", "alarm".to_owned()),
                            };
                            tr class=(class) {
                                th scope="row" { (text(&sign.title)) }
                                td.state { (state) }
                                td { (sign.findings.first().map_or("–".to_owned(), |of| count(of.step))) }
                                td { (if sign.count == 0 { "–".to_owned() } else { count(sign.count) }) }
                                td.numbers {
                                    @for finding in &sign.findings { (measures(&finding.evidence)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn measures(evidence: &[MeasureReport]) -> Markup {
    html! {
        @if !evidence.is_empty() {
            ul { @for measure in evidence { li { (text(&measure.text)) } } }
        }
    }
}

/// Why, with the numbers that support it, and the operation and line where they are known.
pub(crate) fn causes(run: &RunView<'_>) -> Markup {
    let found = run.log.diagnosis;
    let report = DiagnosisReport::from(found);
    if report.causes.is_empty() && !found.verdict.is_explosion() {
        return html! {};
    }
    html! {
        section {
            h2 { "Why" }
            @if let Some(first) = &report.first_nonfinite {
                p { b { "First NaN or Inf: " } (text(&first.text)) "." }
            }
            @if let Some(operation) = &report.operation {
                p { b { "Operation: " } (text(&operation.text)) }
                @if let Some(line) = &operation.line {
                    figure.code {
                        figcaption { (text(&line.file)) ":" (line.line)
                            @if !line.function.is_empty() { ", in " code { (text(&line.function)) } }
                        }
                        @if !line.code.is_empty() { pre { code { (text(line.code.trim())) } } }
                    }
                }
            }
            @if report.causes.is_empty() {
                p { "Cause " (text(tamegrad_report::no_cause(found))) "." }
                @let list = tamegrad_report::checklist(found);
                @if !list.is_empty() {
                    p { "Check first:" }
                    ol { @for item in list { li { (text(item)) } } }
                }
            }
            ol.causes {
                @for (index, cause) in report.causes.iter().enumerate() {
                    li class={ @if index == 0 { "first" } @else { "less" } } {
                        h3 {
                            (text(&cause.title))
                            @if let Some(layer) = &cause.layer { " in " code { (text(layer)) } }
                        }
                        (measures(&cause.evidence))
                        p.quiet { code { "tamegrad explain " (cause.name) } " describes it." }
                    }
                }
            }
        }
    }
}

/// What to do, with code for each framework.
pub(crate) fn remedies(run: &RunView<'_>, id: &str) -> Markup {
    let report = DiagnosisReport::from(run.log.diagnosis);
    if report.remedies.is_empty() {
        return html! {};
    }
    let own = framework(run.log.format);
    html! {
        section id={ (id) "-remedies" } {
            h2 { "What to do" }
            p.note { "Best first. Click a line of code to select all of it." }
            ol.remedies {
                @for (rank, remedy) in report.remedies.iter().enumerate() {
                    li {
                        h3 {
                            (text(&capital(&remedy.text)))
                            @if remedy.treats_cause { " " span.tag { "treats the cause" } }
                            @if remedy.is_automatic { " " span.tag { "automatic in protect mode" } }
                        }
                        @if !remedy.why.is_empty() { p { (text(&capital(&remedy.why))) "." } }
                        div.tabs {
                            @for framework in Framework::ALL {
                                @if let Some(code) = remedy.code.get(framework.as_str()) {
                                    details name={ (id) "-" (rank) } open[framework == own && rank == 0] {
                                        summary { (title(framework)) }
                                        pre tabindex="0" { code { (lines(code)) } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn title(framework: Framework) -> &'static str {
    match framework {
        Framework::PyTorch => "PyTorch",
        Framework::Lightning => "Lightning",
        Framework::Transformers => "Transformers",
        Framework::Burn => "burn",
        Framework::Keras => "Keras",
    }
}

/// The framework whose code is open: that of the log, as far as its format tells.
fn framework(format: &str) -> Framework {
    match format {
        "hf-trainer" => Framework::Transformers,
        "burn" => Framework::Burn,
        _ => Framework::PyTorch,
    }
}

/// What the guard did.
pub(crate) fn actions(run: &RunView<'_>) -> Markup {
    let acted = acted(run.actions.iter().map(|action| (action.step, action.kind)));
    let Some(acted) = acted else { return html! {} };
    html! {
        section {
            h2 { "What the guard did" }
            p { (capital(&acted)) "." }
            details.data {
                summary { "Actions" }
                div.scroll { table {
                    thead { tr { th scope="col" { "step" } th scope="col" { "action" } } }
                    tbody {
                        @for action in run.actions.iter().take(ACTIONS_MAX) {
                            tr { th scope="row" { (count(action.step)) } td { (text(&action.text)) } }
                        }
                    }
                } }
                @if run.actions.len() > ACTIONS_MAX {
                    p.note { "and " (count((run.actions.len() - ACTIONS_MAX) as u64)) " more" }
                }
            }
        }
    }
}

/// What was thinned out, lost, or never logged.
pub(crate) fn not_shown(run: &RunView<'_>, figures: &[Figure]) -> Markup {
    let has = |name: &str| figures.iter().any(|figure| figure.name == name);
    let further = [
        ("tensors", Missing::HeatMap),
        ("gains", Missing::Gains),
        ("update-ratio", Missing::UpdateRatios),
        ("learning-rate", Missing::LearningRate),
    ];
    let further = further.into_iter().filter(|(name, _)| !has(name)).map(|(_, missing)| missing);
    let log = &run.log;
    let missing: Vec<String> =
        log.missing.iter().copied().chain(further).map(Missing::words).collect();
    let left_out = log.damage().map(|share| format!("Left out: {share}."));
    let more = log.notices.len().saturating_sub(NOTICES_MAX);
    html! {
        section.limits {
            h2 { "What is not shown" }
            ul {
                @for sentence in run.lost.iter().chain(&left_out) { li { (code_in(sentence)) } }
                @for sentence in &missing { li { (code_in(sentence)) "." } }
                li {
                    "Of the values that share a pixel of the axis, curves show the smallest and the largest, \
                     so a spike of a single step stays visible, and the median as a darker line."
                }
                @for notice in log.notices.iter().take(NOTICES_MAX) { li { (text(notice)) } }
                @if more > 0 { li { "and " (count(more as u64)) " more notices" } }
            }
        }
    }
}
