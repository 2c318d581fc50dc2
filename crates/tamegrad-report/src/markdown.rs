//! The report of a fix in Markdown.

use tamegrad::{Chain, Diagnosis, Place, Record, Run, Verdict};

use crate::change::describe_change;
use crate::json::{FixReport, FixedReport};
use crate::number::{count, known, number};
use crate::style::Style;
use crate::text::{capital, printable_lines};
use crate::{chain, words};

/// Layers up to which the table of gains holds them all; beyond it only the marked ones.
const LAYERS_MAX: usize = 64;
/// Rows of the table of gains in a chain longer than that.
const MARKED_MAX: usize = 64;
/// Width of the chain of factors, which stands in a code block.
const CODE_WIDTH: usize = 100;

/// The report of a fix: the run as given (when, where, why), its signs and gains, the remedies and
/// their trials, what was changed and how to run it, and what was measured. `diff` is the unified
/// difference between the recipes; empty when nothing was changed.
pub fn fix(report: &FixReport, diagnosis: &Diagnosis, run: &Run, diff: &str) -> String {
    let sections = [
        summary(report, diagnosis),
        why(diagnosis),
        signs(diagnosis),
        gains(diagnosis.chain.as_ref(), run.record()),
        remedies(diagnosis),
        trials(report),
        fixed(report, diagnosis, diff),
        measured(report, diagnosis, run),
    ];
    let sections = sections.iter().filter(|section| !section.is_empty());
    let sections = sections.map(|section| section.trim_end().to_owned() + "\n");
    let document = sections.collect::<Vec<_>>().join("\n");
    printable_lines(&document, &Style::default()).into_owned()
}

fn summary(report: &FixReport, diagnosis: &Diagnosis) -> String {
    let names = &diagnosis.names;
    let verdict = diagnosis.verdict;
    let onset = diagnosis.onset.map_or_else(|| "none".to_owned(), |step| count(step.0));
    let origin = words::place(diagnosis, code);
    let origin = origin.unwrap_or_else(|| "unknown".to_owned());
    let evidence = diagnosis.origin.as_ref().map(|of| words::measures(&of.evidence, names));
    let cause = diagnosis.causes.first().map(|cause| words::cause(cause, names));
    let mut rows = vec![
        vec!["verdict".into(), verdict.as_str().into(), words::verdict(verdict).into()],
        vec!["steps seen".into(), words::seen(diagnosis), String::new()],
        vec!["held-out metric".into(), known(report.given.metric), String::new()],
    ];
    if verdict.is_explosion() {
        rows.push(vec!["onset (step)".into(), onset, "the first alarm".into()]);
        rows.push(vec!["origin".into(), origin, evidence.unwrap_or_default()]);
        rows.push(vec!["cause".into(), cause.unwrap_or_else(|| "unknown".into()), String::new()]);
    }
    format!(
        "# {}\n\n## The run as given\n\n{}",
        title(report, diagnosis),
        table(&["what", "found", "shown by"], rows)
    )
}

/// The outcome in one line.
fn title(report: &FixReport, diagnosis: &Diagnosis) -> String {
    let place =
        diagnosis.origin_name().map(|name| match diagnosis.origin.as_ref().map(|of| of.place) {
            Some(Place::Data) => " in the data".to_owned(),
            _ => format!(" in {}", code(name)),
        });
    let onset = diagnosis.onset.map(|step| format!(" at step {}", count(step.0)));
    let at = onset.unwrap_or_default() + &place.unwrap_or_default();
    let given = match diagnosis.verdict {
        Verdict::Healthy => return "Healthy: nothing was changed".into(),
        Verdict::NotLearning => return "Not learning: nothing was changed".into(),
        Verdict::TooEarly => return "Too early to say".into(),
        Verdict::Recovered => format!("Recovered from an alarm{at}"),
        Verdict::Exploding => format!("Exploding{at}"),
        Verdict::Exploded => format!("Exploded{at}"),
        Verdict::Dead => format!("Dead after an alarm{at}"),
    };
    match &report.chosen {
        Some(chosen) => format!("{given}, fixed by {}", code(&chosen.remedy)),
        None => format!("{given}, not fixed"),
    }
}

fn why(diagnosis: &Diagnosis) -> String {
    let names = &diagnosis.names;
    if !diagnosis.verdict.is_explosion() {
        return String::new();
    }
    let rows = diagnosis.causes.iter().enumerate().map(|(index, cause)| {
        let rank = count(index as u64 + 1);
        vec![rank, words::cause(cause, names), words::measures(&cause.evidence, names)]
    });
    if diagnosis.causes.is_empty() {
        let list = words::checklist(diagnosis).iter().map(|text| format!("- {text}\n"));
        let list: String = list.collect();
        let list = if list.is_empty() { list } else { format!("\nCheck first:\n\n{list}") };
        return format!("## Why\n\n{}.\n{list}", capital(words::no_cause(diagnosis)));
    }
    format!(
        "## Why\n\nCauses that the numbers support, best supported first.\n\n{}",
        table(&["", "cause", "numbers"], rows)
    )
}

fn signs(diagnosis: &Diagnosis) -> String {
    let rows = diagnosis.signs.iter().map(|sign| {
        let (first, times) = words::sign_times(sign);
        let numbers = sign
            .first()
            .map_or(String::new(), |finding| words::measures(&finding.evidence, &diagnosis.names));
        let title = words::sign_title(sign).to_owned();
        vec![title, words::sign_state(sign).to_owned(), first, times, numbers]
    });
    format!("## Signs\n\n{}", table(&["sign", "state", "first", "count", "numbers"], rows))
}

fn gains(chain: Option<&Chain>, record: &Record) -> String {
    let Some(chain) = chain else { return String::new() };
    let all = chain.links.len() <= LAYERS_MAX;
    let links = chain.links.iter().filter(|link| all || link.is_marked());
    let rows = links.clone().take(MARKED_MAX).map(|link| {
        let name = code(record.layout().layer_name(link.layer));
        let [forward, backward] = chain::calm_means(record.gain(link.layer));
        let name = if link.is_marked() { format!("**{name}**") } else { name };
        vec![name, known(link.forward), known(forward), known(link.backward), known(backward)]
    });
    let totals = chain::totals(chain).map(|total| total.unwrap_or_else(|| "-".to_owned()));
    let [forward, backward] = totals;
    let label = chain::total_label(chain).to_owned();
    let rows = rows.chain([vec![label, forward, String::new(), backward, String::new()]]);
    let left_out = chain.links.len() - links.take(MARKED_MAX).count();
    let note = match left_out {
        0 => String::new(),
        layers => format!(" {} layers of {} are left out.", layers, chain.links.len()),
    };
    let text = chain::chain(chain, &record.names(), Some(record), &Style::plain(CODE_WIDTH));
    format!(
        "## The chain of gains at step {}\n\nThe factor by which each layer multiplies the signal on \
         its way from the input to the loss (forward), and the gradient on its way back (backward). \
         Layers with a factor outside {} are in bold.{note}\n\n{}\n{}",
        count(chain.step.0),
        chain::usual(),
        fenced("text", &text),
        table(&["layer", "forward", "calm mean", "backward", "calm mean"], rows)
    )
}

fn remedies(diagnosis: &Diagnosis) -> String {
    if diagnosis.remedies.is_empty() {
        return String::new();
    }
    let rows = diagnosis.remedies.iter().enumerate().map(|(index, proposal)| {
        vec![
            count(index as u64 + 1),
            code(&proposal.label()),
            describe_change(&proposal.change),
            words::treats(proposal).to_owned(),
            words::why(proposal),
        ]
    });
    format!(
        "## Remedies, best first\n\n{}",
        table(&["", "remedy", "change", "treats", "why"], rows)
    )
}

fn trials(report: &FixReport) -> String {
    if report.trials.is_empty() {
        return String::new();
    }
    let chosen = report.chosen.as_ref().map(|chosen| chosen.remedy.as_str());
    let rows = report.trials.iter().map(|trial| {
        let is_chosen = chosen == Some(trial.remedy.as_str());
        vec![
            code(&trial.remedy),
            trial.change.clone(),
            trial.verdict.as_str().to_owned(),
            known(trial.metric),
            number(trial.seconds),
            if is_chosen { "**chosen**".into() } else { String::new() },
        ]
    });
    format!(
        "## Trials\n\nEach remedy on its own, the mildest first, in a short run with the same \
         seed.\n\n{}",
        table(&["remedy", "change", "verdict", "metric", "seconds", ""], rows)
    )
}

/// The chosen remedy, what it changes in the recipe and how to run it.
fn fixed(report: &FixReport, diagnosis: &Diagnosis, diff: &str) -> String {
    let Some(chosen) = &report.chosen else {
        let told = if !diagnosis.verdict.is_explosion() {
            "The run gave no reason to change the recipe."
        } else if report.trials.is_empty() {
            "No remedy was tried."
        } else {
            "None of the remedies that were tried kept the run healthy to the end."
        };
        return format!("## The fix\n\n{told}\n");
    };
    let changes =
        if diff.is_empty() { String::new() } else { format!("\n{}", fenced("diff", diff)) };
    format!(
        "## The fix\n\n{}: {}.\n{changes}\n## How to run it\n\n`fixed.toml` next to this report is \
         the recipe with the remedy; it runs on its own. In a checkout, write `cargo run --release \
         --` instead of `tamegrad`.\n\n{}",
        code(&chosen.remedy),
        chosen.change,
        fenced("sh", "tamegrad train fixed.toml\n")
    )
}

fn measured(report: &FixReport, diagnosis: &Diagnosis, run: &Run) -> String {
    let mut rows = vec![vec![
        "as given".to_owned(),
        report.given.verdict.clone(),
        known(report.given.metric),
        String::new(),
    ]];
    rows.extend(report.fixed.iter().map(|fixed: &FixedReport| {
        let hash = code(&fixed.weights_hash);
        vec!["fixed".into(), fixed.verdict.as_str().into(), known(fixed.metric), hash]
    }));
    let traced = run.record().first_trace().is_some();
    let probes = if traced { ", and the gains of the layers (from probes)" } else { "" };
    let mut told = format!(
        "At each step of the run as given ({} seen): the loss, the gradient{probes}. The metric is \
         measured on held-out data; higher is better.",
        words::seen(diagnosis)
    );
    for note in [words::actions(run), words::dropped(run)].into_iter().flatten() {
        told.push_str(&format!(" {}.", capital(&note)));
    }
    format!(
        "## What was measured\n\n{told}\n\n{}",
        table(&["run", "verdict", "metric", "weights hash"], rows)
    )
}

/// A table. Cells are escaped; columns without a heading stay so.
fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(headings.iter().map(|heading| cell(heading)).collect());
    text.push_str(&line(vec!["---".to_owned(); headings.len()]));
    text.extend(rows.into_iter().map(|row| line(row.iter().map(|text| cell(text)).collect())));
    text
}

/// A text that cannot leave its cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// A name as code.
fn code(name: &str) -> String {
    format!("`{}`", name.replace('`', "'"))
}

/// A text as a code block, whose fence is longer than any in the text.
fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(3.max(longest + 1));
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests;
