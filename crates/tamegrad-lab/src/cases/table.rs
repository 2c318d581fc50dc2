//! The outcomes as a table of runs (CSV) and as a page (Markdown).

use super::RIVALS;
use super::outcome::Outcome;
use super::summary::{KindRow, Summary, by_kind, word};

/// One row a run, with a header; `rival:NAME` columns hold the step at which each rival fired.
pub fn csv(outcomes: &[Outcome]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let rivals = RIVALS.iter().map(|name| format!("rival:{name}"));
    let header = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).chain(rivals);
    // Writing to memory does not fail.
    let _ = writer.write_record(header);
    for outcome in outcomes {
        let own = COLUMNS.iter().map(|(_, cell)| cell(outcome));
        let _ = writer.write_record(own.chain(outcome.rivals.iter().map(|at| step(*at))));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// What stands in a column.
type Cell = fn(&Outcome) -> String;

/// The columns but for those of the rivals.
const COLUMNS: [(&str, Cell); 19] = [
    ("name", |o| o.name.clone()),
    ("ending", |o| word(o.ending).to_owned()),
    ("steps", |o| o.steps.to_string()),
    ("metric", |o| number(o.metric)),
    ("fault_at", |o| o.fault_at.to_string()),
    ("harmed_at", |o| step(o.harmed_at)),
    ("parameter_nonfinite", |o| step(o.parameter_nonfinite)),
    ("alarm", |o| step(o.alarm)),
    ("preflight", |o| o.preflight.to_string()),
    ("verdict", |o| o.verdict.clone()),
    ("planted_layer", |o| o.planted_layer.clone().unwrap_or_default()),
    ("origin", |o| o.origin.clone().unwrap_or_default()),
    ("origin_distance", |o| step(o.origin_distance)),
    ("planted_causes", |o| o.planted_causes.join(" ")),
    ("cause", |o| o.cause.clone().unwrap_or_default()),
    ("remedy", |o| o.remedy.clone().unwrap_or_default()),
    ("actions", |o| o.actions.to_string()),
    ("protected_finite", |o| o.protected_finite.to_string()),
    ("protected_metric", |o| number(o.protected_metric)),
];

fn step(at: Option<u64>) -> String {
    at.map_or(String::new(), |at| at.to_string())
}

fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.4}"))
}

/// The summary, the rivals, the kinds of cases and the misses as Markdown.
pub fn markdown(summary: &Summary, outcomes: &[Outcome]) -> String {
    let mut lines = vec!["| what | runs | of |".to_owned(), "|---|--:|--:|".to_owned()];
    lines.extend(
        figures(summary)
            .map(|(what, part, of)| format!("| {what} | {part} | {}|", share(part, of))),
    );
    lines.push(String::new());
    if let Some(lead) = summary.lead_median_steps {
        let growing = summary.growing;
        lines.push(format!(
            "Faults that grow: the alarm came {lead} steps before the harm (median of {growing} runs)."
        ));
        lines.push(String::new());
    }
    lines
        .push("| rule | failing runs alarmed | healthy runs alarmed | lead, median steps |".into());
    lines.push("|---|--:|--:|--:|".into());
    let ours = (
        "tamegrad",
        summary.alarm_before_nonfinite,
        summary.healthy_alarms,
        summary.lead_median_steps,
    );
    let rivals = summary.rivals.iter();
    let rivals =
        rivals.map(|r| (r.name.as_str(), r.failing_alarms, r.healthy_alarms, r.lead_median_steps));
    for (name, failing, healthy, lead) in std::iter::once(ours).chain(rivals) {
        let lead = lead.map_or("none".into(), |lead| lead.to_string());
        let percent = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
        lines.push(format!(
            "| {name} | {failing} ({:.1}%) | {healthy} ({:.1}%) | {lead} |",
            percent(failing, summary.failing),
            percent(healthy, summary.healthy)
        ));
    }
    lines.push(String::new());
    lines.push(
        "| kind | runs | failed | alarmed | kept finite | alarms without failure | layer first | cause first |"
            .into(),
    );
    lines.push("|---|--:|--:|--:|--:|--:|--:|--:|".into());
    lines.extend(by_kind(outcomes).iter().map(kind_line));
    if !summary.misses.is_empty() {
        lines.extend([String::new(), "## Misses".into(), String::new()]);
        let misses = summary.misses.iter();
        lines.extend(misses.map(|miss| format!("- `{}`: {}", miss.name, miss.miss)));
    }
    lines.join("\n") + "\n"
}

/// What is counted, of how many.
pub fn figures(s: &Summary) -> impl Iterator<Item = (&'static str, u64, u64)> {
    [
        ("failing, alarm before a parameter is non-finite", s.alarm_before_nonfinite, s.failing),
        ("failing, parameters finite in protect mode", s.vetoed, s.failing),
        ("overflow in the first pass, preflight warns", s.overflow_by_preflight, s.overflow),
        ("healthy, alarm", s.healthy_alarms, s.healthy),
        ("healthy, protect mode acted", s.healthy_actions, s.healthy),
        ("fault in one layer, that layer first", s.origin_first, s.planted),
        ("fault in one layer, within one layer", s.origin_within_one, s.planted),
        ("fault in one layer, its cause first", s.cause_first, s.planted),
        ("any planted fault, its cause first", s.fault_cause_first, s.faults),
        ("alarm no later than the best rival's", s.not_later, s.raced),
        ("the same, faults that grow", s.not_later_growing, s.raced_growing),
    ]
    .into_iter()
}

fn share(part: u64, of: u64) -> String {
    match of {
        0 => "0 ".into(),
        _ => format!("{of} ({:.1}%) ", 100.0 * part as f64 / of as f64),
    }
}

fn kind_line(row: &KindRow) -> String {
    let of =
        |(part, of): (u64, u64)| if of == 0 { String::new() } else { format!("{part} of {of}") };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        row.kind,
        row.runs,
        row.failed,
        row.alarmed,
        row.kept_finite,
        row.alarms_without_failure,
        of(row.origin),
        of(row.cause)
    )
}
