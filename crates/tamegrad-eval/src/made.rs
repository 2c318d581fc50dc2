//! `cargo xtask eval logs --made`: verdicts on logs that are made of runs whose truth is known step by
//! step.
//!
//! Half of the kinds of runs and of the ways to keep a log may be used to fit rules; the others are
//! counted apart.

mod net;
mod runs;
mod write;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::thread;

use serde::Serialize;
use tamegrad_logs::{Source, read_verdict};

use self::runs::{FAULTS, Half, MODELS, Run, train};
use self::write::{Truth, WRITERS, Writer};
use crate::{Logs, Scored, to_json};

/// Seeds of each kind of run: with them there are more than 10,000 logs.
const SEEDS: u64 = 30;
/// Those of the tenth that is run as a test.
const SEEDS_OF_A_TENTH: u64 = 3;

/// What was counted of some logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Count {
    logs: u64,
    /// Explosions that the log shows.
    shown: u64,
    found: u64,
    /// Those whose onset is right but for two records.
    placed: u64,
    healthy: u64,
    accused: u64,
    /// Explosions that the log does not show, and losses that rose somewhat.
    not_counted: u64,
    unread: u64,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.logs += other.logs;
        self.shown += other.shown;
        self.found += other.found;
        self.placed += other.placed;
        self.healthy += other.healthy;
        self.accused += other.accused;
        self.not_counted += other.not_counted;
        self.unread += other.unread;
    }

    fn cells(&self) -> String {
        let part = |of: u64, all: u64| match all {
            0 => "-".to_owned(),
            _ => format!("{of}/{all} ({:.1}%)", 100.0 * of as f64 / all as f64),
        };
        format!(
            "{:>20} {:>20} {:>18} {:>8} {:>6}",
            part(self.found, self.shown),
            part(self.placed, self.shown),
            part(self.accused, self.healthy),
            self.not_counted,
            self.unread
        )
    }
}

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
struct Report {
    by_half: BTreeMap<&'static str, Count>,
    by_kind: BTreeMap<String, Count>,
    by_writer: BTreeMap<String, Count>,
    misses: Vec<String>,
}

/// Makes the logs and scores them.
pub(crate) fn run(args: &Logs) -> Result<Scored, Box<dyn Error>> {
    let report = score(if args.tenth { SEEDS_OF_A_TENTH } else { SEEDS }, args.keep.as_deref())?;
    let text = if args.output.json { to_json(&report)? } else { table(&report, args.misses) };
    Ok(Scored { text, exit_code: 0 })
}

fn score(seeds: u64, keep: Option<&Path>) -> Result<Report, Box<dyn Error>> {
    let mut jobs = Vec::new();
    for model in MODELS {
        for (half, name, fault) in FAULTS.iter().filter(|(half, ..)| *half == model.half) {
            jobs.extend((0..seeds).map(|seed| (model, *half, *name, *fault, seed)));
        }
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<Result<Report, String>> = thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let jobs = jobs.iter().skip(part).step_by(threads);
                scope.spawn(move || {
                    let mut report = Report::default();
                    for (model, half, name, fault, seed) in jobs {
                        let run = train(model, *half, name, *fault, *seed);
                        score_run(&run, *seed, keep, &mut report)?;
                    }
                    Ok(report)
                })
            })
            .collect();
        let join = |part: thread::ScopedJoinHandle<'_, _>| {
            part.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
        };
        parts.into_iter().map(join).collect()
    });
    let mut all = Report::default();
    for part in results {
        let part = part?;
        for (name, count) in part.by_half {
            all.by_half.entry(name).or_default().add(&count);
        }
        for (name, count) in part.by_kind {
            all.by_kind.entry(name).or_default().add(&count);
        }
        for (name, count) in part.by_writer {
            all.by_writer.entry(name).or_default().add(&count);
        }
        all.misses.extend(part.misses);
    }
    all.misses.sort();
    Ok(all)
}

/// Writes the logs of a run and adds up what is said of them.
fn score_run(run: &Run, seed: u64, keep: Option<&Path>, report: &mut Report) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    for writer in WRITERS.iter().filter(|writer| writer.half == run.half) {
        let name = format!("{}-{}-{}-{seed}", run.model, run.fault, writer.name);
        let (count, miss) =
            score_log(run, writer, folder.path()).map_err(|e| format!("{name}: {e}"))?;
        if let (Some(keep), Some((ending, text, _))) = (keep, &miss) {
            let written = fs::create_dir_all(keep)
                .and_then(|()| fs::write(keep.join(format!("{name}.{ending}")), text));
            written.map_err(|error| error.to_string())?;
        }
        report.misses.extend(miss.map(|(_, _, what)| format!("{name}: {what}")));
        let half = if run.half == Half::Fitted { "fitted" } else { "other" };
        report.by_half.entry(half).or_default().add(&count);
        let kind = format!("{}/{}", run.model, run.fault);
        report.by_kind.entry(kind).or_default().add(&count);
        report.by_writer.entry(writer.name.to_owned()).or_default().add(&count);
    }
    Ok(())
}

type Miss = Option<(&'static str, String, String)>;

fn score_log(run: &Run, writer: &Writer, folder: &Path) -> Result<(Count, Miss), String> {
    let (ending, text, records, truth) = writer.write(run);
    let path = folder.join(format!("train.{ending}"));
    fs::write(&path, &text).map_err(|error| error.to_string())?;
    let mut count = Count { logs: 1, ..Count::default() };
    let read = Source::open(&path).and_then(|source| Ok((source.format(), source.read()?)));
    let Ok((format, log)) = read else {
        count.unread = 1;
        return Ok((count, Some((ending, text, "not read".to_owned()))));
    };
    let found = read_verdict(&log, format, &[])?.diagnosis;
    let alarm = found.onset.map(|step| step.0 as i64);
    let said = format!("{} at {alarm:?}", found.verdict.as_str());
    let mut miss = None;
    match truth {
        Truth::Healthy => {
            count.healthy = 1;
            count.accused = u64::from(alarm.is_some());
            miss = alarm.map(|_| format!("{said} for healthy"));
        }
        Truth::Exploded(onset) => {
            count.shown = 1;
            count.found = u64::from(alarm.is_some());
            let steps = log.series.iter().find(|series| series.name.starts_with("loss"));
            let steps: Vec<i64> =
                steps.map_or(Vec::new(), |series| series.points.iter().map(|p| p.step).collect());
            // Of a resumed log, the place among the records of the file.
            let at = alarm.map(|alarm| {
                let places = steps.iter().enumerate().filter(|(_, step)| **step >= alarm);
                places.map(|(at, _)| at.abs_diff(onset)).min().unwrap_or(usize::MAX)
            });
            count.placed = u64::from(at.is_some_and(|records| records <= 2));
            if count.placed == 0 {
                let step = records.get(onset).map(|record| record.step + 1);
                miss = Some(format!("{said} for an explosion at {step:?}"));
            }
        }
        Truth::Unseen | Truth::Rough => count.not_counted = 1,
    }
    Ok((count, miss.map(|what| (ending, text, what))))
}

fn table(report: &Report, misses: bool) -> String {
    let mut text = format!(
        "{:<32}{:>20} {:>20} {:>18} {:>8} {:>6}\n",
        "", "explosions found", "onset within 2", "healthy accused", "unclear", "unread"
    );
    let mut rows = |title: &str, counts: Vec<(&str, &Count)>| {
        text.push_str(&format!("{title}\n"));
        for (name, count) in counts {
            text.push_str(&format!("  {name:<30}{}\n", count.cells()));
        }
    };
    let logs: u64 = report.by_half.values().map(|count| count.logs).sum();
    rows(&format!("{logs} logs, by half"), report.by_half.iter().map(|(n, c)| (*n, c)).collect());
    rows("by kind of run", report.by_kind.iter().map(|(n, c)| (n.as_str(), c)).collect());
    rows("by writer", report.by_writer.iter().map(|(n, c)| (n.as_str(), c)).collect());
    if misses {
        report.misses.iter().for_each(|miss| text.push_str(&format!("miss  {miss}\n")));
    }
    text
}
