//! `tamegrad diagnose`: diagnose runs from the logs that people already have.

use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad::Verdict;
use tamegrad_logs::{Log, Map, Source, discover_mapped};
use tamegrad_report::log::{self, LogRun};
use tamegrad_report::printable;

use crate::args::{Diagnose, OutputFormat};
use crate::commands::judged::Judged;
use crate::commands::{COULD_NOT_RUN, HEALTHY, exit_code_of_all, exit_code_of_log, to_json_line};
use crate::failure::Failure;
use crate::progress::FilesBar;
use crate::{screen, signals};

/// Diagnoses every run of the paths: 0 no explosion, 1 an explosion found, 2 none found, but something
/// could not be read.
pub(crate) fn run(args: &Diagnose, cancel: &AtomicBool) -> Result<u8, Failure> {
    let mut sources = Vec::new();
    let mut codes = vec![HEALTHY];
    for path in &args.paths {
        let (found, errors) = discover_mapped(path, &args.map);
        sources.extend(found);
        for error in errors {
            screen::say(&format!("error: {error}"));
            codes.push(COULD_NOT_RUN);
        }
    }
    let bar = FilesBar::new(sources.len(), args.quiet);
    let is_alone = sources.len() == 1;
    for source in &sources {
        if cancel.load(Ordering::Relaxed) {
            bar.clear();
            return Ok(signals::exit_code());
        }
        bar.show(source.path());
        let read = source.read().map_err(|error| error.to_string());
        let told = read.and_then(|log| diagnose(args, source, &log, is_alone));
        bar.tell(|| match told {
            Ok((code, text)) => {
                codes.push(code);
                if !args.quiet {
                    screen::print(&text);
                } else if code == COULD_NOT_RUN {
                    screen::say(&format!("error: {}: partly read", source.path().display()));
                }
            }
            Err(error) => {
                codes.push(COULD_NOT_RUN);
                screen::say(&format!("error: {}: {error}", source.path().display()));
            }
        });
    }
    bar.clear();
    Ok(exit_code_of_all(codes))
}

/// The exit code of a log, and what is told of it.
fn diagnose(
    args: &Diagnose,
    source: &Source,
    log: &Log,
    is_alone: bool,
) -> Result<(u8, String), String> {
    if args.list {
        return Ok((
            exit_code_of_log(Verdict::TooEarly, log.damage.is_partly_read()),
            list(source, log),
        ));
    }
    with_run(source, log, &args.map, |run| {
        let verdict = run.diagnosis.verdict;
        let text = if args.json {
            to_json_line(&log::report(run)).map_err(|error| error.to_string())?
        } else if args.format == OutputFormat::Github {
            log::github(run).unwrap_or_default()
        } else if verdict.is_explosion() || is_alone {
            log::block(run, &screen::style()) + if is_alone { "" } else { "\n" }
        } else {
            log::line(run, &screen::style())
        };
        Ok((exit_code_of_log(verdict, run.is_partly_read), text))
    })
}

/// Reads the verdict of a log and hands it on in the form that reports take.
pub(crate) fn with_run<R>(
    source: &Source,
    log: &Log,
    map: &Map,
    then: impl FnOnce(&LogRun<'_>) -> Result<R, String>,
) -> Result<R, String> {
    then(&Judged::of(source, log, map)?.run())
}

/// The series of a log: name, number of points, first and last value.
fn list(source: &Source, log: &Log) -> String {
    let path = source.path().display().to_string();
    let mut text = format!("{} ({})\n", printable(&path), source.format().name);
    for series in &log.series {
        let value = |point: Option<&tamegrad_logs::Point>| {
            point.map_or("-".to_owned(), |point| format!("{} at {}", point.value, point.step))
        };
        let estimated = if series.estimated { ", estimated" } else { "" };
        text.push_str(&format!(
            "  {}: {} points{estimated}, {} to {}\n",
            printable(&series.name),
            series.points.len() as u64 + series.thinned,
            value(series.points.first()),
            value(series.points.last())
        ));
    }
    text
}
