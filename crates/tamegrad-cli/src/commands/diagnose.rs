//! `tamegrad diagnose`: diagnose runs from the logs that people already have.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad::Verdict;
use tamegrad_logs::{
    Ending, Log, Map, Recorded, Roles, Series, Source, discover_input, discover_mapped,
    read_verdict,
};
use tamegrad_report::log::{self, LogRun, LogSeries};
use tamegrad_report::printable;

use crate::args::{Diagnose, OutputFormat};
use crate::commands::{COULD_NOT_RUN, HEALTHY, exit_code_of_all, exit_code_of_log, to_json_line};
use crate::failure::Failure;
use crate::progress::FilesBar;
use crate::{map, screen, signals};

/// The name of the standard input among the paths.
const STANDARD_INPUT: &str = "-";

/// Diagnoses every run of the paths: 0 no explosion, 1 an explosion found, 2 none found, but something
/// could not be read.
pub(crate) fn run(args: &Diagnose, cancel: &AtomicBool) -> Result<u8, Failure> {
    let mut sources = Vec::new();
    let mut codes = vec![HEALTHY];
    for path in &args.paths {
        let map = map::with_saved(path, &args.map)?;
        if args.save_map {
            let saved = map::save(path, &args.map)?;
            screen::say(&format!("saved to {}", saved.display()));
        }
        let (found, errors) = if path.as_os_str() == STANDARD_INPUT {
            discover_input(Path::new("standard input"), std::io::stdin().lock(), &map)
        } else {
            discover_mapped(path, &map)
        };
        sources.extend(found.into_iter().map(|source| (source, map.clone())));
        for error in errors {
            screen::say(&format!("error: {error}"));
            codes.push(COULD_NOT_RUN);
        }
    }
    let bar = FilesBar::new(sources.len(), args.quiet);
    let is_alone = sources.len() == 1;
    for (source, map) in &sources {
        if cancel.load(Ordering::Relaxed) {
            bar.clear();
            return Ok(signals::exit_code());
        }
        bar.show(source.path());
        let read = source.read().map_err(|error| error.to_string());
        let told = read.and_then(|log| diagnose(args, source, &log, map, is_alone));
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
    map: &Map,
    is_alone: bool,
) -> Result<(u8, String), String> {
    if args.list {
        return Ok((
            exit_code_of_log(Verdict::TooEarly, log.damage.is_partly_read()),
            list(source, log, map)?,
        ));
    }
    with_run(source, log, map, |run| {
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
    let reading = read_verdict(log, source.format(), map)?;
    if log.recorded.as_ref().is_some_and(|recorded| recorded.last.is_none()) {
        return Err(
            "no step was recorded: the run did not come to its first step, or ended before it \
                    was written"
                .to_owned(),
        );
    }
    if reading.is_empty() {
        return Err(format!(
            "got {} series, want a loss or a gradient norm; hint: list them with --list, then name \
             the loss with --map loss=NAME",
            log.series.len()
        ));
    }
    let series: Vec<LogSeries> = log
        .series
        .iter()
        .map(|series| LogSeries {
            name: series.name.clone(),
            points: series.points.len() as u64 + series.thinned,
            role: reading.roles.role(&series.name).map(|(role, _)| role.as_str()),
        })
        .collect();
    let notices: Vec<String> = log.notices.iter().map(ToString::to_string).collect();
    let norm_name = if reading.norm_is_added_up {
        Some("summed over the individual tensors")
    } else {
        name(reading.norm_series())
    };
    then(&LogRun {
        path: &source.path().display().to_string(),
        format: source.format().name,
        diagnosis: &reading.diagnosis,
        onset_wall: reading.onset_wall,
        end: log.recorded.as_ref().map(end),
        loss: name(reading.loss_series()).map(|name| (name, &reading.loss[..])),
        grad_norm: norm_name.map(|name| (name, &reading.grad_norm[..])),
        series: &series,
        decided_by: name(reading.decided_by),
        missing: &reading.missing,
        notices: &notices,
        left_out: log.damage.share(),
        is_partly_read: log.damage.is_partly_read(),
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

/// The series of a log: name, number of points, first and last value, and the role with the reason.
fn list(source: &Source, log: &Log, map: &Map) -> Result<String, String> {
    let roles = Roles::find(log, map)?;
    let path = source.path().display().to_string();
    let mut text = format!("{} ({})\n", printable(&path), source.format().name);
    for series in &log.series {
        let value = |point: Option<&tamegrad_logs::Point>| {
            point.map_or("-".to_owned(), |point| format!("{} at {}", point.value, point.step))
        };
        let estimated = if series.estimated { ", estimated" } else { "" };
        let role = roles.role(&series.name);
        let role = role.map_or(String::new(), |(role, ground)| {
            format!(" [{}, {}]", role.as_str(), ground.as_str())
        });
        text.push_str(&format!(
            "  {}: {} points{estimated}, {} to {}{role}\n",
            printable(&series.name),
            series.points.len() as u64 + series.thinned,
            value(series.points.first()),
            value(series.points.last())
        ));
    }
    Ok(text)
}
