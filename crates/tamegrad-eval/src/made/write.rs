//! Logs of runs as people keep them, and what of the truth each of them shows.

use super::runs::{Half, Measured, Run};

/// What one record tells of the steps since the one before it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pick {
    Mean,
    Last,
    /// A running mean, with this weight for the new.
    Running(f64),
}

/// How a number that is not finite is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Broken {
    As(&'static str),
    /// As an empty cell.
    Empty,
    /// The record is left out.
    Dropped,
    /// The program stops.
    Ends,
}

/// What the file is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Csv,
    JsonLines,
    /// `step 10 | loss 2.5 | grad_norm 0.3`
    Bars,
    /// `[Epoch 2][30/100] loss=2.5 grad_norm=0.3`
    EpochIteration,
    /// `{'loss': 2.5, 'grad_norm': 0.3, 'epoch': 0.5}`
    Dict,
    /// `Iter: 10  Loss: 2.5`
    Words,
}

/// Which part of the run the log holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Whole,
    /// It was killed at this part of the run.
    Until(f64),
    /// It begins at this part of the run.
    From(f64),
    /// It was resumed there from so many records before.
    Resumed(f64, usize),
}

/// A way to keep a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) name: &'static str,
    pub(super) half: Half,
    every: usize,
    pick: Pick,
    digits: usize,
    form: Form,
    has_norm: bool,
    broken: Broken,
    part: Part,
    /// Single norms that are Inf, as where mixed precision leaves out a step.
    has_skips: bool,
}

const PLAIN: Writer = Writer {
    name: "",
    half: Half::Fitted,
    every: 10,
    pick: Pick::Mean,
    digits: 4,
    form: Form::Csv,
    has_norm: false,
    broken: Broken::As("nan"),
    part: Part::Whole,
    has_skips: false,
};

pub(super) const WRITERS: &[Writer] = &[
    Writer { name: "csv", ..PLAIN },
    Writer { name: "every-step", every: 1, has_norm: true, form: Form::JsonLines, ..PLAIN },
    Writer { name: "epoch-mean", every: 100, digits: 5, ..PLAIN },
    Writer {
        name: "last-of-50",
        every: 50,
        pick: Pick::Last,
        form: Form::Bars,
        has_norm: true,
        ..PLAIN
    },
    Writer { name: "running-mean", pick: Pick::Running(0.3), form: Form::Dict, ..PLAIN },
    Writer { name: "empty-cells", broken: Broken::Empty, has_norm: true, ..PLAIN },
    Writer { name: "ends-at-nan", broken: Broken::Ends, form: Form::Words, digits: 2, ..PLAIN },
    Writer { name: "killed", part: Part::Until(0.8), form: Form::Bars, ..PLAIN },
    Writer { name: "resumed", part: Part::Resumed(0.5, 8), form: Form::JsonLines, ..PLAIN },
    Writer { name: "skips", has_norm: true, has_skips: true, every: 5, ..PLAIN },
    Writer {
        half: Half::Other,
        name: "iterations",
        form: Form::EpochIteration,
        every: 20,
        ..PLAIN
    },
    Writer { half: Half::Other, name: "words", form: Form::Words, every: 25, digits: 3, ..PLAIN },
    Writer {
        half: Half::Other,
        name: "dict-with-norm",
        form: Form::Dict,
        has_norm: true,
        pick: Pick::Last,
        every: 20,
        broken: Broken::As("NaN"),
        ..PLAIN
    },
    Writer {
        half: Half::Other,
        name: "epoch-words",
        form: Form::Words,
        every: 60,
        digits: 5,
        ..PLAIN
    },
    Writer {
        half: Half::Other,
        name: "dropped",
        broken: Broken::Dropped,
        form: Form::JsonLines,
        ..PLAIN
    },
    Writer {
        half: Half::Other,
        name: "middle",
        part: Part::From(0.25),
        form: Form::Bars,
        has_norm: true,
        every: 5,
        ..PLAIN
    },
    Writer {
        half: Half::Other,
        name: "smooth",
        pick: Pick::Running(0.1),
        every: 5,
        digits: 3,
        ..PLAIN
    },
    Writer {
        half: Half::Other,
        name: "early-end",
        part: Part::Until(0.75),
        has_norm: true,
        ..PLAIN
    },
    Writer { half: Half::Other, name: "three-times", part: Part::Resumed(0.7, 15), ..PLAIN },
    Writer { half: Half::Other, name: "every-step-csv", every: 1, digits: 5, ..PLAIN },
];

/// A record: the steps that it is of, and what it tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) step: usize,
    pub(super) told: Measured,
}

/// What is true of a log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Truth {
    Healthy,
    /// It exploded, first seen in this record.
    Exploded(usize),
    /// It exploded, which the log does not show.
    Unseen,
    /// It rose, and not by so much that it had to be said, or a planted fault did no harm.
    Rough,
}

/// Times the loss of the untrained network from which on a network has exploded, and up to which it
/// has not.
const EXPLODED: f64 = 3.0;
const HEALTHY: f64 = 1.3;
/// Part of what was learned that a healthy run never loses, where so much was learned.
const LOST: f64 = 0.4;
const LEARNED: f64 = 0.2;
/// Times the best loss so far at which an explosion begins.
const BEGINS: f64 = 2.0;

impl Writer {
    /// The log of a run: its file's ending, its text, its records, and what is true of it.
    pub(super) fn write(&self, run: &Run) -> (&'static str, String, Vec<Record>, Truth) {
        let all = self.records(run);
        let is_broken = |record: &Record| !record.told.loss.is_finite();
        let mut kept: Vec<Record> = match self.part {
            Part::Whole => all.clone(),
            Part::Until(part) => all[..(part * all.len() as f64) as usize].to_vec(),
            Part::From(part) => all[(part * all.len() as f64) as usize..].to_vec(),
            Part::Resumed(part, back) => {
                let at = (part * all.len() as f64) as usize;
                [&all[..at], &all[at.saturating_sub(back)..]].concat()
            }
        };
        match self.broken {
            Broken::Ends => {
                let end = kept.iter().position(is_broken).unwrap_or(kept.len());
                kept.truncate(end);
            }
            Broken::Dropped => kept.retain(|record| !is_broken(record)),
            _ => {}
        }
        let truth = truth(run, &all, &kept);
        let (ending, text) = self.text(run, &kept);
        (ending, text, kept, truth)
    }

    fn records(&self, run: &Run) -> Vec<Record> {
        let mut before: Option<Measured> = None;
        let windows = run.steps.chunks(self.every).enumerate();
        windows
            .map(|(index, window)| {
                let last = *window.last().unwrap_or(&Measured::default());
                let mean = |of: fn(&Measured) -> f64| {
                    window.iter().map(of).sum::<f64>() / window.len() as f64
                };
                let pick = |of: fn(&Measured) -> f64| match (self.pick, &before) {
                    (Pick::Last, _) => of(&last),
                    (Pick::Running(new), Some(before)) => new * mean(of) + (1.0 - new) * of(before),
                    _ => mean(of),
                };
                let told = Measured {
                    loss: pick(|m| m.loss),
                    other: pick(|m| m.other),
                    truth: pick(|m| m.truth),
                    norm: last.norm,
                    rate: last.rate,
                };
                before = Some(told);
                Record { step: index * self.every + window.len() - 1, told }
            })
            .collect()
    }

    fn text(&self, run: &Run, records: &[Record]) -> (&'static str, String) {
        let number = |value: f64| -> String {
            match self.broken {
                _ if value.is_finite() && value.abs() >= 1e6 => format!("{value:.*e}", self.digits),
                _ if value.is_finite() => format!("{value:.*}", self.digits),
                Broken::As(text) if value.is_nan() => text.to_owned(),
                Broken::As(_) => "inf".to_owned(),
                Broken::Empty => String::new(),
                Broken::Dropped | Broken::Ends => "nan".to_owned(),
            }
        };
        let names: &[&str] = match (run.has_other, self.has_norm) {
            (false, false) => &["loss"],
            (false, true) => &["loss", "grad_norm"],
            (true, false) => &["loss_a", "loss_b"],
            (true, true) => &["loss_a", "loss_b", "grad_norm"],
        };
        let mut text = String::new();
        if self.form == Form::Csv {
            text.push_str(&format!("step,{}\n", names.join(",")));
        }
        for (index, record) in records.iter().enumerate() {
            let told = record.told;
            let is_skip = self.has_skips && index % 37 == 36;
            let norm = if is_skip { "inf".to_owned() } else { number(told.norm) };
            let mut values = vec![number(told.loss)];
            values.extend(run.has_other.then(|| number(told.other)));
            values.extend(self.has_norm.then_some(norm));
            let joined = |between: &str, parts: &str, open: &str| {
                let pairs = names.iter().zip(&values);
                let pairs: Vec<String> = pairs
                    .map(|(name, value)| format!("{open}{name}{open}{between}{value}"))
                    .collect();
                pairs.join(parts)
            };
            let step = record.step + 1;
            let line = match self.form {
                Form::Csv => format!("{step},{}", values.join(",")),
                Form::JsonLines => {
                    let text =
                        joined(": ", ", ", "\"").replace("nan", "NaN").replace("inf", "Infinity");
                    format!("{{\"step\": {step}, {text}}}")
                }
                Form::Bars => format!("step {step} | {}", joined(" ", " | ", "")),
                Form::EpochIteration => {
                    let (epoch, at) = ((step - 1) / 200 + 1, (step - 1) % 200 + 1);
                    format!("[Epoch {epoch}][{at}/200] {}", joined("=", " ", ""))
                }
                Form::Dict => {
                    format!("{{{}, 'epoch': {:.2}}}", joined(": ", ", ", "'"), step as f64 / 200.0)
                }
                Form::Words => format!("Iter: {step}  {}", joined(": ", "  ", "")),
            };
            text.push_str(&line);
            text.push('\n');
        }
        let ending = match self.form {
            Form::Csv => "csv",
            Form::JsonLines => "jsonl",
            _ => "log",
        };
        (ending, text)
    }
}

/// What is true of the records that were kept, of all that there were.
fn truth(run: &Run, all: &[Record], kept: &[Record]) -> Truth {
    let start = run.steps[..run.steps.len().min(20)].iter().map(|m| m.truth);
    let first = start.clone().take(1).next().unwrap_or(1.0).max(1e-9);
    let height = |measured: &Measured| {
        let truth = measured.truth.max(0.0);
        if truth.is_finite() && measured.loss.is_finite() { truth / first } else { f64::INFINITY }
    };
    let highest = run.steps.iter().map(height).fold(0.0, f64::max);
    let mut best = f64::INFINITY;
    let mut lost: f64 = 0.0;
    for measured in &run.steps {
        best = best.min(height(measured));
        lost = lost.max((height(measured) - best) / (1.0 - best).max(LEARNED));
    }
    if highest < HEALTHY && lost < LOST {
        // A single bad batch is in the loss of its record, though it may do no harm.
        let seen = run.steps.iter().map(|m| m.loss).fold(0.0, f64::max);
        let is_healthy = !run.is_planted && seen < 20.0 * first;
        return if is_healthy { Truth::Healthy } else { Truth::Rough };
    }
    if highest < EXPLODED {
        return Truth::Rough;
    }
    let seen = |record: &Record| {
        let told = &record.told;
        // Noise of a small batch may hide it.
        !told.loss.is_finite() || told.truth.min(told.loss) / first >= EXPLODED
    };
    if !all.iter().any(seen) || !kept.iter().any(seen) {
        return Truth::Unseen;
    }
    let peak = kept.iter().position(seen).unwrap_or(0);
    // What is as high from the first record to the last has no level that it left.
    let is_finite = kept.iter().all(|record| record.told.loss.is_finite());
    let end = kept.iter().map(|record| record.told.truth).fold(0.0, f64::max);
    if peak == 0 && is_finite && end < 10.0 * kept[0].told.truth {
        return Truth::Unseen;
    }
    let mut best = f64::INFINITY;
    let mut onset = None;
    for (index, record) in kept[..=peak].iter().enumerate() {
        let truth = record.told.truth;
        if !truth.is_finite() || !record.told.loss.is_finite() || truth > BEGINS * best.min(first) {
            onset = onset.or(Some(index));
        } else {
            onset = None;
        }
        best = best.min(truth);
    }
    Truth::Exploded(onset.unwrap_or(peak))
}
