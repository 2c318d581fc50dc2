//! `tamegrad diagnose`: diagnose runs from the logs that people already have.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad_logs::{Ending, Log, Map, Recorded, Series, Source, discover_mapped, read_verdict};
use tamegrad_report::log::{self, LogRun};

use crate::args::{Diagnose, OutputFormat};
use crate::commands::{COULD_NOT_RUN, FOUND, HEALTHY, STOPPED};
use crate::failure::Failure;
use crate::{progress, screen};

/// Diagnoses every run of the paths: 0 all healthy, 1 an explosion found, 2 something could not be
/// read and nothing was found.
pub(crate) fn run(args: &Diagnose, cancel: &AtomicBool) -> Result<u8, Failure> {
    let mut sources = Vec::new();
    let mut unread = 0_usize;
    for path in &args.paths {
        let (found, errors) = discover_mapped(path, &args.map);
        sources.extend(found);
        for error in errors {
            eprintln!("error: {error}");
            unread += 1;
        }
    }
    let bar = progress::files(sources.len(), args.quiet);
    let is_alone = sources.len() == 1;
    let mut found = false;
    for source in &sources {
        if cancel.load(Ordering::Relaxed) {
            bar.finish_and_clear();
            return Ok(STOPPED);
        }
        bar.set_message(source.path().display().to_string());
        let told = source.read().map_err(|error| error.to_string()).and_then(|log| {
            if args.list {
                Ok((false, list(source, &log)))
            } else {
                diagnose(args, source, &log, is_alone)
            }
        });
        bar.inc(1);
        bar.suspend(|| match told {
            Ok((is_explosion, text)) => {
                found |= is_explosion;
                if !args.quiet {
                    screen::print(&text);
                }
            }
            Err(error) => {
                unread += 1;
                eprintln!("error: {}: {error}", source.path().display());
            }
        });
    }
    bar.finish_and_clear();
    Ok(match (found, unread) {
        (true, _) => FOUND,
        (false, 0) => HEALTHY,
        (false, _) => COULD_NOT_RUN,
    })
}

/// Whether an explosion was found, and what is told of it.
fn diagnose(
    args: &Diagnose,
    source: &Source,
    log: &Log,
    is_alone: bool,
) -> Result<(bool, String), String> {
    with_run(source, log, &args.map, |run| {
        let is_explosion = run.diagnosis.verdict.is_explosion();
        let text = if args.json {
            serde_json::to_string(&log::report(run)).map_err(|error| error.to_string())? + "\n"
        } else if args.format == OutputFormat::Github {
            log::github(run).unwrap_or_default()
        } else if is_explosion || is_alone {
            log::block(run, &screen::style()) + if is_alone { "" } else { "\n" }
        } else {
            log::line(run, &screen::style())
        };
        Ok((is_explosion, text))
    })
}

/// Reads the verdict of a log and hands it on in the form that reports take.
pub(crate) fn with_run<R>(
    source: &Source,
    log: &Log,
    map: &Map,
    then: impl FnOnce(&LogRun<'_>) -> Result<R, String>,
) -> Result<R, String> {
    let reading = read_verdict(log, source.format(), map)?;
    if reading.loss.is_empty() && reading.grad_norm.is_empty() {
        return Err(format!(
            "got {} series, want a loss or a gradient norm; hint: list them with --list, then name \
             the loss with --map loss=NAME",
            log.series.len()
        ));
    }
    let series: Vec<(String, u64)> =
        log.series.iter().map(|s| (s.name.clone(), s.points.len() as u64 + s.thinned)).collect();
    let notices: Vec<String> = log.notices.iter().map(ToString::to_string).collect();
    let norm_name = if reading.norm_is_added_up {
        Some("summed over the individual tensors")
    } else {
        name(reading.roles.grad_norm)
    };
    then(&LogRun {
        path: &source.path().display().to_string(),
        format: source.format().name,
        diagnosis: &reading.diagnosis,
        onset_wall: reading.onset_wall,
        end: log.recorded.as_ref().map(end),
        loss: name(reading.roles.loss).map(|name| (name, &reading.loss[..])),
        grad_norm: norm_name.map(|name| (name, &reading.grad_norm[..])),
        series: &series,
        missing: &reading.missing,
        notices: &notices,
    })
}

fn end(recorded: &Recorded) -> log::RunEnd<'_> {
    let (state, how) = match &recorded.ending {
        Ending::Completed => ("completed", None),
        Ending::Stopped(how) => ("stopped", Some(how.as_str())),
        Ending::Running => ("running", None),
        Ending::Unended => ("did-not-end", None),
    };
    let (last_step, last_wall) = recorded.last.unzip();
    log::RunEnd { state, how, last_step, last_wall }
}

fn name(series: Option<&Series>) -> Option<&str> {
    series.map(|series| series.name.as_str())
}

/// The series of a log: name, number of points, first and last value.
fn list(source: &Source, log: &Log) -> String {
    let mut text = format!("{} ({})\n", Path::new(source.path()).display(), source.format().name);
    for series in &log.series {
        let value = |point: Option<&tamegrad_logs::Point>| {
            point.map_or("-".to_owned(), |point| format!("{} at {}", point.value, point.step))
        };
        let estimated = if series.estimated { ", estimated" } else { "" };
        text.push_str(&format!(
            "  {}: {} points{estimated}, {} to {}\n",
            series.name,
            series.points.len() as u64 + series.thinned,
            value(series.points.first()),
            value(series.points.last())
        ));
    }
    text
}
