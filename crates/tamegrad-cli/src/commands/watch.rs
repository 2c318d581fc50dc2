//! `tamegrad watch`: the verdict on a log that is still growing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tamegrad::Verdict;
use tamegrad_report::log::{self, LogRun};
use tamegrad_runs::{Map, Source, discover_mapped};

use crate::args::Watch;
use crate::commands::diagnose::with_run;
use crate::commands::{FOUND, STOPPED};
use crate::failure::Failure;
use crate::screen;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a webhook may take.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Watches until Ctrl-C, or until nothing was written for `--idle` seconds: then 1 if there was an
/// alarm, 0 if not.
pub(crate) fn run(args: &Watch, cancel: &AtomicBool) -> Result<ExitCode, Failure> {
    let mut seen: HashMap<PathBuf, Stamp> = HashMap::new();
    let mut told: HashMap<PathBuf, (i64, Verdict)> = HashMap::new();
    let mut changed = Instant::now();
    let mut alarmed = false;
    eprintln!("watching {}; Ctrl-C stops", args.path.display());
    loop {
        let began = Instant::now();
        for source in grown(&args.path, &args.map, &mut seen) {
            changed = Instant::now();
            alarmed |= look(args, &source, &mut told);
        }
        if cancel.load(Ordering::Relaxed) {
            return Ok(ExitCode::from(STOPPED));
        }
        let is_over = args.idle.is_some_and(|idle| changed.elapsed().as_secs_f64() >= idle);
        if is_over {
            return Ok(if alarmed { ExitCode::from(FOUND) } else { ExitCode::SUCCESS });
        }
        // A long log takes its time to read: at most half of the time goes into reading.
        std::thread::sleep(LOOK_EVERY.max(began.elapsed()));
    }
}

/// What tells that a file has grown.
#[derive(PartialEq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
}

/// The runs whose files have changed since the last look. What cannot be read now may be later.
fn grown(path: &Path, map: &Map, seen: &mut HashMap<PathBuf, Stamp>) -> Vec<Source> {
    if !path.exists() {
        return Vec::new();
    }
    let (mut sources, _) = discover_mapped(path, map);
    sources.retain(|source| {
        let mut has_changed = false;
        for path in files(source.paths()) {
            let Ok(metadata) = path.metadata() else { continue };
            let stamp = Stamp { len: metadata.len(), modified: metadata.modified().ok() };
            has_changed |= seen.get(&path) != Some(&stamp);
            seen.insert(path, stamp);
        }
        has_changed
    });
    sources
}

/// The files of a run; of a run that is a folder, those in it.
fn files(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        match path.read_dir() {
            Ok(entries) => {
                let inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                files.extend(self::files(&inside));
            }
            Err(_) => files.push(path.clone()),
        }
    }
    files
}

/// Reads a run anew and alarms if there is something new to say. Says whether it alarmed.
fn look(args: &Watch, source: &Source, told: &mut HashMap<PathBuf, (i64, Verdict)>) -> bool {
    let Ok(log) = source.read() else { return false };
    let result = with_run(source, &log, &args.map, |run| {
        let verdict = run.judgement.verdict;
        let Some(onset) = run.judgement.onset.filter(|_| verdict.is_explosion()) else {
            return Ok(false);
        };
        let last = told.insert(source.path().to_owned(), (onset, verdict));
        let is_news = last.is_none_or(|(_, before)| before != verdict);
        if is_news {
            alarm(args, run)?;
        }
        Ok(is_news)
    });
    // A log that has no loss yet is no failure.
    result.unwrap_or(false)
}

fn alarm(args: &Watch, run: &LogRun<'_>) -> Result<(), String> {
    let text = match args.json {
        true => serde_json::to_string(&log::report(run)).map_err(|error| error.to_string())? + "\n",
        false => log::block(run, &screen::style()),
    };
    screen::print(&text);
    let told = summary(run);
    if let Some(command) = &args.exec {
        execute(command, run, &told);
    }
    if let Some(url) = &args.webhook {
        post(url, &told);
    }
    Ok(())
}

/// The alarm in one line.
fn summary(run: &LogRun<'_>) -> String {
    let judgement = run.judgement;
    let sign = judgement.alarms.first().map_or("", |alarm| alarm.sign.doc().title);
    let remedy = judgement.remedies.first().map_or(String::new(), |r| format!(" {}.", r.advice));
    format!(
        "{}: {} since step {}: {sign}.{remedy}",
        run.path,
        judgement.verdict.as_str(),
        judgement.onset.unwrap_or_default()
    )
}

fn execute(command: &str, run: &LogRun<'_>, text: &str) {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let onset = run.judgement.onset.unwrap_or_default().to_string();
    let result = Command::new(shell)
        .args([flag, command])
        .env("TAMEGRAD_PATH", run.path)
        .env("TAMEGRAD_VERDICT", run.judgement.verdict.as_str())
        .env("TAMEGRAD_ONSET_STEP", onset)
        .env("TAMEGRAD_TEXT", text)
        .status();
    match result {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("error: `{command}` ended with {status}"),
        Err(error) => eprintln!("error: `{command}` could not be started: {error}"),
    }
}

/// An alarm that cannot be sent is said, and watching goes on.
fn post(url: &str, text: &str) {
    let body = serde_json::json!({ "text": text }).to_string();
    let config = ureq::Agent::config_builder().timeout_global(Some(WEBHOOK_TIMEOUT)).build();
    let request =
        ureq::Agent::new_with_config(config).post(url).header("content-type", "application/json");
    if let Err(error) = request.send(&body) {
        eprintln!("error: the webhook {url} did not take the alarm: {error}");
    }
}
