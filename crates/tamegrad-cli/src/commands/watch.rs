//! `tamegrad watch`: the verdict on a log that is still growing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tamegrad::{Step, Verdict};
use tamegrad_logs::{Follower, Source, discover_mapped};
use tamegrad_report::log::{self, LogRun};

use crate::args::Watch;
use crate::commands::diagnose::with_run;
use crate::commands::{FOUND, HEALTHY, STOPPED};
use crate::failure::Failure;
use crate::screen;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A look that takes no longer may come again so soon that an alarm is told within a second.
const QUICK: Duration = Duration::from_millis(300);
/// After a longer one so many times as long passes: a fifth of the time goes into reading.
const REST: u32 = 4;
/// How long a webhook may take.
#[cfg(feature = "webhook")]
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Watches until Ctrl-C, or until nothing was written for `--idle` seconds: then 1 if there was an
/// alarm, 0 if not.
pub(crate) fn run(args: &Watch, cancel: &AtomicBool) -> Result<u8, Failure> {
    let mut watched: Vec<Watched> = Vec::new();
    let mut told: HashMap<PathBuf, (Step, Verdict)> = HashMap::new();
    let mut changed = Instant::now();
    let mut next_search = Instant::now();
    let mut alarmed = false;
    eprintln!("watching {}; press Ctrl-C to stop", args.path.display());
    loop {
        if Instant::now() >= next_search {
            let began = Instant::now();
            search(args, &mut watched);
            next_search = after(began);
        }
        let has_changed = watched.iter_mut().fold(false, |any, run| run.has_changed() | any);
        if has_changed {
            changed = Instant::now();
        }
        let is_over = args.idle.is_some_and(|idle| changed.elapsed().as_secs_f64() >= idle);
        for run in watched.iter_mut().filter(|run| run.is_due(is_over)) {
            if cancel.load(Ordering::Relaxed) {
                break;
            }
            let (began, read_on) = (Instant::now(), run.follower.reads_on());
            run.is_unread = false;
            alarmed |= look(args, &mut run.follower, &mut told);
            // What reading the whole took says nothing of reading on.
            let is_first = !read_on && run.follower.reads_on();
            run.next_look = if is_first { Instant::now() } else { after(began) };
        }
        if cancel.load(Ordering::Relaxed) {
            return Ok(STOPPED);
        }
        if is_over {
            return Ok(if alarmed { FOUND } else { HEALTHY });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// When to do again what was begun then and has now ended.
fn after(began: Instant) -> Instant {
    let took = began.elapsed();
    Instant::now() + if took <= QUICK { took } else { REST * took }
}

/// A run, how its files were when it was last looked at, and when it may be read next.
struct Watched {
    follower: Follower,
    seen: HashMap<PathBuf, Stamp>,
    is_unread: bool,
    next_look: Instant,
}

/// What tells that a file has grown.
#[derive(PartialEq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
}

impl Watched {
    fn new(source: Source) -> Self {
        let (follower, seen) = (Follower::new(source), HashMap::new());
        Self { follower, seen, is_unread: true, next_look: Instant::now() }
    }

    /// Whether its files have changed since this was last asked.
    fn has_changed(&mut self) -> bool {
        let mut has_changed = false;
        for path in files(self.follower.source().paths()) {
            let Ok(metadata) = path.metadata() else { continue };
            let stamp = Stamp { len: metadata.len(), modified: metadata.modified().ok() };
            has_changed |= self.seen.get(&path) != Some(&stamp);
            self.seen.insert(path, stamp);
        }
        self.is_unread |= has_changed;
        has_changed
    }

    fn is_due(&self, is_over: bool) -> bool {
        self.is_unread && (is_over || Instant::now() >= self.next_look)
    }
}

/// Looks for runs that have come, or whose files or format are others now. What cannot be read now
/// may be later.
fn search(args: &Watch, watched: &mut Vec<Watched>) {
    if !args.path.exists() {
        return;
    }
    for source in discover_mapped(&args.path, &args.map).0 {
        let is_same =
            |known: &Source| known.paths() == source.paths() && known.format() == source.format();
        if !watched.iter().any(|run| is_same(run.follower.source())) {
            watched.retain(|run| run.follower.source().path() != source.path());
            watched.push(Watched::new(source));
        }
    }
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

/// Reads what has come of a run and alarms if there is something new to say. Says whether it alarmed.
fn look(
    args: &Watch,
    follower: &mut Follower,
    told: &mut HashMap<PathBuf, (Step, Verdict)>,
) -> bool {
    let Ok(log) = follower.read() else { return false };
    let source = follower.source();
    let result = with_run(source, &log, &args.map, |run| {
        let verdict = run.diagnosis.verdict;
        let Some(onset) = run.diagnosis.onset.filter(|_| verdict.is_explosion()) else {
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
    let text = if args.json {
        serde_json::to_string(&log::report(run)).map_err(|error| error.to_string())? + "\n"
    } else {
        log::block(run, &screen::style())
    };
    screen::print(&text);
    let told = summary(run);
    if let Some(command) = &args.exec {
        execute(command, run, &told);
    }
    #[cfg(feature = "webhook")]
    if let Some(url) = &args.webhook {
        post(url, &told);
    }
    Ok(())
}

/// The alarm in one line.
fn summary(run: &LogRun<'_>) -> String {
    let found = run.diagnosis;
    let sign = found.alarm().map_or("", tamegrad_report::title);
    let remedy = log::advice(found).map_or(String::new(), |advice| format!(" To fix: {advice}."));
    format!(
        "{}: {} since step {}: {sign}.{remedy}",
        run.path,
        found.verdict.as_str(),
        found.onset.unwrap_or_default()
    )
}

fn execute(command: &str, run: &LogRun<'_>, text: &str) {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let onset = run.diagnosis.onset.unwrap_or_default().to_string();
    let result = Command::new(shell)
        .args([flag, command])
        .env("TAMEGRAD_PATH", run.path)
        .env("TAMEGRAD_VERDICT", run.diagnosis.verdict.as_str())
        .env("TAMEGRAD_ONSET_STEP", onset)
        .env("TAMEGRAD_TEXT", text)
        .status();
    match result {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("error: `{command}` failed: {status}"),
        Err(error) => eprintln!("error: `{command}` could not be started: {error}"),
    }
}

#[cfg(feature = "webhook")]
/// An alarm that cannot be sent is said, and watching goes on.
fn post(url: &str, text: &str) {
    let body = serde_json::json!({ "text": text }).to_string();
    let config = ureq::Agent::config_builder().timeout_global(Some(WEBHOOK_TIMEOUT)).build();
    let request =
        ureq::Agent::new_with_config(config).post(url).header("content-type", "application/json");
    if let Err(error) = request.send(&body) {
        eprintln!("error: the alarm could not be sent to the webhook {url}: {error}");
    }
}
