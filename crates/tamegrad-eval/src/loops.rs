//! `cargo xtask eval loops`: burn loops as their users write them, each with a planted fault, watched,
//! diagnosed, and trained anew with the first remedy.

mod nets;
mod train;

use std::error::Error;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tamegrad_burn::{Diagnosis, Verdict};

use self::train::{Plan, trained};
use crate::{Loops, Scored, progress, to_json};

/// Steps of a run.
const STEPS: u64 = 300;
/// The step of the batch that is not like the others.
const BAD_STEP: u64 = 150;
/// Part of what the healthy run explains of the targets' variance that a run must explain to have
/// trained.
const TRAINED: f64 = 0.5;

/// What is wrong with a loop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    /// The learning rate is 1,000 times too high.
    Rate,
    /// One element of one batch is NaN.
    NanBatch,
    /// One batch is 10,000 times as large as the others.
    OutlierBatch,
    /// The targets are 10,000 times as large as the outputs.
    Targets,
    /// The hidden layers have exp for an activation.
    Exp,
}

impl Fault {
    const ALL: [Self; 5] =
        [Self::Rate, Self::NanBatch, Self::OutlierBatch, Self::Targets, Self::Exp];

    fn cause(self) -> &'static str {
        match self {
            Fault::Rate => "learning-rate",
            Fault::NanBatch | Fault::OutlierBatch => "data",
            Fault::Targets => "unscaled-target",
            Fault::Exp => "activation",
        }
    }

    /// Whether an onset is where the fault is: a bad batch may show in the step after it; what is
    /// wrong from the start must have shown before the loss is beyond repair.
    fn begins_at(self, onset: u64, ruined: u64) -> bool {
        match self {
            Fault::NanBatch | Fault::OutlierBatch => (BAD_STEP..=BAD_STEP + 1).contains(&onset),
            Fault::Rate | Fault::Targets => onset <= 10,
            Fault::Exp => onset <= ruined,
        }
    }
}

/// What became of a loop with a fault.
#[derive(Debug, Serialize)]
struct Row {
    net: &'static str,
    fault: Fault,
    seed: u64,
    verdict: &'static str,
    onset: Option<u64>,
    cause: Option<&'static str>,
    remedy: Option<String>,
    /// What the run explains of the targets' variance, of what the healthy run explains.
    explained: f64,
    /// The same with the first remedy, and what the guard says of that run.
    explained_with_remedy: f64,
    verdict_with_remedy: &'static str,
    is_verdict_right: bool,
    is_step_right: bool,
    is_cause_right: bool,
    trains_with_remedy: bool,
}

impl Row {
    /// Whether a fault did no harm, and no harm was told: there is nothing to explain or to mend.
    fn is_harmless(&self) -> bool {
        let verdicts: &[Verdict] = match self.fault {
            Fault::Targets | Fault::Exp => &[Verdict::Healthy, Verdict::Recovered],
            Fault::OutlierBatch => &[Verdict::Healthy],
            Fault::Rate | Fault::NanBatch => &[],
        };
        let is_told = |verdict: &Verdict| verdict.as_str() == self.verdict;
        self.explained >= TRAINED && verdicts.iter().any(is_told)
    }

    fn is_right(&self) -> bool {
        self.is_harmless()
            || self.is_verdict_right
                && self.is_step_right
                && self.is_cause_right
                && self.trains_with_remedy
    }

    /// Whether a run that has not trained is called healthy.
    fn is_called_healthy_wrongly(&self) -> bool {
        let healthy =
            |verdict, explained| verdict == Verdict::Healthy.as_str() && explained < TRAINED;
        healthy(self.verdict, self.explained)
            || healthy(self.verdict_with_remedy, self.explained_with_remedy)
    }
}

/// Trains every loop, and scores what is said of it.
pub(crate) fn run(args: &Loops, cancel: &AtomicBool) -> Result<Scored, Box<dyn Error>> {
    let mut list = Vec::new();
    for net in nets::NAMES {
        for fault in Fault::ALL {
            if net == "classifier" && fault == Fault::Targets {
                // Classes have no scale.
                continue;
            }
            list.extend((0..args.seeds).map(|seed| (net, fault, seed)));
        }
    }
    list.retain(|(net, fault, _)| {
        let name = format!("{net}/{fault:?}").to_lowercase();
        args.only.is_empty() || args.only.iter().any(|only| name.contains(only))
    });
    let bar = progress(list.len(), &args.output);
    let mut rows = Vec::new();
    for (net, fault, seed) in &list {
        if cancel.load(Ordering::Relaxed) {
            break;
        }
        bar.set_message(format!("{net} {fault:?} {seed}"));
        rows.push(row(net, *fault, *seed));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let text = if args.output.json { to_json(&rows)? } else { text(&rows) };
    Ok(Scored { text, exit_code: if rows.len() < list.len() { 130 } else { 0 } })
}

fn row(net: &'static str, fault: Fault, seed: u64) -> Row {
    let healthy = trained(net, seed, None, &Plan::default());
    let faulty = trained(net, seed, Some(fault), &Plan::default());
    let found: &Diagnosis = &faulty.report;
    let first = found.remedies.first();
    let mut plan = Plan::default();
    if let Some(proposal) = first {
        plan.apply(&proposal.change);
    }
    let mended = trained(net, seed, Some(fault), &plan);
    let part = |explained: f64| explained / healthy.explained;
    let explained_with_remedy = part(mended.explained);
    // A loss that grows no faster than the error does not explode: the run only never learns.
    let never_learned = fault == Fault::Targets && found.verdict == Verdict::NotLearning;
    let onset = found.onset.map(|step| step.0);
    Row {
        net,
        fault,
        seed,
        verdict: found.verdict.as_str(),
        onset,
        cause: found.cause(),
        remedy: first.map(|proposal| format!("{} {:?}", proposal.label(), proposal.change)),
        explained: part(faulty.explained),
        explained_with_remedy,
        verdict_with_remedy: mended.report.verdict.as_str(),
        is_verdict_right: found.verdict.is_explosion() || never_learned,
        is_step_right: onset.map_or(never_learned, |at| fault.begins_at(at, faulty.ruined)),
        is_cause_right: found.cause() == Some(fault.cause()),
        trains_with_remedy: explained_with_remedy >= TRAINED,
    }
}

fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let mark = if row.is_harmless() {
            "-"
        } else if row.is_right() {
            " "
        } else {
            "x"
        };
        let called = if row.is_called_healthy_wrongly() { "  called healthy" } else { "" };
        let _ = writeln!(
            text,
            "{mark} {:10} {:13} {}  {:9} {:>4}  {:16} {:.2} -> {:.2} {:9} {}{called}",
            row.net,
            format!("{:?}", row.fault),
            row.seed,
            row.verdict,
            row.onset.map_or_else(|| "-".to_owned(), |onset| onset.to_string()),
            row.cause.unwrap_or("-"),
            row.explained,
            row.explained_with_remedy,
            row.verdict_with_remedy,
            row.remedy.as_deref().unwrap_or("-"),
        );
    }
    let count = |is: fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
    for (name, number) in [
        ("no harm done, and none told (-)", count(Row::is_harmless)),
        ("verdict", count(|row| row.is_harmless() || row.is_verdict_right)),
        ("step", count(|row| row.is_harmless() || row.is_step_right)),
        ("cause", count(|row| row.is_harmless() || row.is_cause_right)),
        ("trains with the first remedy", count(|row| row.is_harmless() || row.trains_with_remedy)),
        ("all of these", count(Row::is_right)),
        ("called healthy and learned nothing", count(Row::is_called_healthy_wrongly)),
    ] {
        let _ = writeln!(text, "{name}: {number} of {}", rows.len());
    }
    text
}
