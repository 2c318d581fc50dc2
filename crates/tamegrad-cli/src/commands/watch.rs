//! `tamegrad watch`: the verdict on a log that is still growing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tamegrad::Verdict;
use tamegrad_logs::{Follower, Map, Source, discover_mapped};
use tamegrad_report::log::{self, LogRun};
use tamegrad_report::printable;

use crate::args::Watch;
use crate::commands::diagnose::with_run;
use crate::commands::{COULD_NOT_RUN, FOUND, HEALTHY, to_json_line};
use crate::delivery::{Deliveries, Delivery};
use crate::failure::Failure;
use crate::{map, screen, signals};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A look that takes no longer may come again so soon that an alarm is told within a second.
const QUICK: Duration = Duration::from_millis(300);
/// After a longer one so many times as long passes: a fifth of the time goes into reading.
const REST: u32 = 4;
/// Different troubles that are told of one path while it is watched.
const TROUBLES_MAX: usize = 5;

/// Watches until Ctrl-C, or until nothing was written for `--idle` seconds: then 1 if there was an
/// alarm, 2 if there was none and something could not be read, 0 otherwise.
pub(crate) fn run(args: &Watch, cancel: &AtomicBool) -> Result<u8, Failure> {
    let path = &args.path;
    if path.metadata().is_ok_and(|about| !about.is_file() && !about.is_dir()) {
        // A pipe or a device will never be a log.
        Source::open(path)?;
    }
    let mut watching = Watching::new(args)?;
    let mut changed = Instant::now();
    let mut next_search = Instant::now();
    screen::say(&format!("watching {}; press Ctrl-C to stop", args.path.display()));
    let is_cancelled = loop {
        if Instant::now() >= next_search {
            let began = Instant::now();
            watching.search();
            next_search = after(began);
        }
        if watching.has_changed() {
            changed = Instant::now();
        }
        let is_over = args.idle.is_some_and(|idle| changed.elapsed() >= idle);
        watching.look(is_over, cancel);
        watching.deliveries.tend();
        if is_over || cancel.load(Ordering::Relaxed) {
            break cancel.load(Ordering::Relaxed);
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let code = watching.end();
    Ok(if is_cancelled { signals::exit_code() } else { code })
}

/// When to do again what was begun then and has now ended.
fn after(began: Instant) -> Instant {
    let took = began.elapsed();
    Instant::now() + if took <= QUICK { took } else { REST * took }
}

/// What is watched, what was told of it, and what is on its way.
struct Watching<'a> {
    args: &'a Watch,
    /// Roles of series, given or saved beside the logs.
    map: Rc<Map>,
    /// By the first file of each run.
    runs: BTreeMap<PathBuf, Watched>,
    /// The last verdict that was told of a run.
    alarms: HashMap<PathBuf, Verdict>,
    /// What is wrong with the path itself: it is not there, or no log is.
    unfound: Option<String>,
    /// What is wrong with a run now.
    troubles: BTreeMap<PathBuf, String>,
    /// What was ever told to be wrong with a path.
    told: HashMap<PathBuf, Vec<String>>,
    deliveries: Deliveries,
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

    /// Whether its files have changed since this was last asked, or are there again.
    fn has_changed(&mut self) -> bool {
        let mut seen = HashMap::new();
        for path in self.follower.source().files() {
            let Ok(metadata) = path.metadata() else { continue };
            let stamp = Stamp { len: metadata.len(), modified: metadata.modified().ok() };
            seen.insert(path, stamp);
        }
        let has_changed = seen != self.seen;
        self.seen = seen;
        self.is_unread |= has_changed;
        has_changed
    }

    fn is_due(&self, is_over: bool) -> bool {
        self.is_unread && (is_over || Instant::now() >= self.next_look)
    }
}

impl<'a> Watching<'a> {
    fn new(args: &'a Watch) -> Result<Self, Failure> {
        Ok(Self {
            args,
            map: map::with_saved(&args.path, &args.map)?.into(),
            runs: BTreeMap::new(),
            alarms: HashMap::new(),
            unfound: None,
            troubles: BTreeMap::new(),
            told: HashMap::new(),
            deliveries: Deliveries::default(),
        })
    }

    /// Looks for runs that have come, or whose files or format are others now. What cannot be read now
    /// may be later.
    fn search(&mut self) {
        let path = &self.args.path;
        self.unfound = None;
        // A link to nowhere is there, and what is wrong with it is said.
        if path.symlink_metadata().is_err() {
            if self.runs.is_empty() {
                self.not_found("does not exist yet; waiting for it".to_owned());
            }
            return;
        }
        let (sources, errors) = discover_mapped(path, &self.map);
        let found: HashSet<PathBuf> = sources.iter().flat_map(|s| s.paths().to_vec()).collect();
        // A run whose files are now of another run has become that one.
        let firsts: HashSet<PathBuf> =
            sources.iter().filter_map(|source| source.paths().first().cloned()).collect();
        self.runs.retain(|first, run| {
            firsts.contains(first)
                || run.follower.source().paths().iter().all(|path| !found.contains(path))
        });
        for source in sources {
            let Some(first) = source.paths().first().cloned() else { continue };
            let is_same = |known: &Watched| {
                let known = known.follower.source();
                known.paths() == source.paths() && known.format() == source.format()
            };
            if !self.runs.get(&first).is_some_and(is_same) {
                self.runs.insert(first, Watched::new(source));
            }
        }
        // A run that was read once says itself what is wrong with it.
        if !self.runs.contains_key(path) {
            for error in errors {
                self.not_found(format!("cannot be read yet ({error})"));
            }
        }
    }

    fn not_found(&mut self, what: String) {
        self.say_once(&self.args.path, &what);
        self.unfound = Some(what);
    }

    /// Whether a file of any run has changed.
    fn has_changed(&mut self) -> bool {
        let mut has_changed = false;
        let mut gone = Vec::new();
        for (first, run) in &mut self.runs {
            has_changed |= run.has_changed();
            if run.seen.is_empty() {
                gone.push(first.clone());
            }
        }
        for path in gone {
            self.trouble(&path, "has disappeared");
        }
        has_changed
    }

    /// Reads the runs that have something new, and alarms where there is something to say.
    fn look(&mut self, is_over: bool, cancel: &AtomicBool) {
        let due = self.runs.iter().filter(|(_, run)| !run.seen.is_empty() && run.is_due(is_over));
        let due: Vec<PathBuf> = due.map(|(path, _)| path.clone()).collect();
        for path in due {
            if cancel.load(Ordering::Relaxed) {
                break;
            }
            let Some(mut run) = self.runs.remove(&path) else { continue };
            let (began, read_on) = (Instant::now(), run.follower.reads_on());
            run.is_unread = false;
            match self.look_at(&path, &mut run.follower) {
                Ok(()) => drop(self.troubles.remove(&path)),
                Err(error) => self.trouble(&path, &error),
            }
            // What reading the whole took says nothing of reading on.
            let is_first = !read_on && run.follower.reads_on();
            run.next_look = if is_first { Instant::now() } else { after(began) };
            self.runs.insert(path, run);
        }
    }

    /// Reads what has come of a run, and alarms if there is something new to say.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    fn look_at(&mut self, path: &Path, follower: &mut Follower) -> Result<(), String> {
        let log = follower.read().map_err(|error| format!("cannot be read now ({error})"))?;
        let map = self.map.clone();
        with_run(follower.source(), &log, &map, |run| {
            let verdict = run.diagnosis.verdict;
            if verdict.is_explosion() && run.diagnosis.onset.is_some() {
                let before = self.alarms.insert(path.to_owned(), verdict);
                if before != Some(verdict) {
                    self.alarm(run)?;
                }
            }
            if run.is_partly_read {
                return Err(log::line(run, &tamegrad_report::Style::default())
                    .trim_end()
                    .to_owned());
            }
            Ok(())
        })
    }

    fn alarm(&mut self, run: &LogRun<'_>) -> Result<(), String> {
        let text = if self.args.json {
            to_json_line(&log::report(run)).map_err(|error| error.to_string())?
        } else {
            log::block(run, &screen::style())
        };
        screen::print(&text);
        let told = summary(run);
        if let Some(exec) = &self.args.exec {
            let environment = vec![
                ("TAMEGRAD_PATH", printable(run.path).into_owned()),
                ("TAMEGRAD_VERDICT", run.diagnosis.verdict.as_str().to_owned()),
                ("TAMEGRAD_ONSET_STEP", run.diagnosis.onset.unwrap_or_default().to_string()),
                ("TAMEGRAD_TEXT", told.clone()),
            ];
            self.deliveries.add(Delivery::exec(exec, environment));
        }
        #[cfg(feature = "webhook")]
        if let Some(url) = &self.args.webhook {
            self.deliveries.add(Delivery::post(url, &told));
        }
        Ok(())
    }

    /// Notes what is wrong with a run, and says it if it is news.
    fn trouble(&mut self, path: &Path, what: &str) {
        self.troubles.insert(path.to_owned(), what.to_owned());
        self.say_once(path, what);
    }

    fn say_once(&mut self, path: &Path, what: &str) {
        let told = self.told.entry(path.to_owned()).or_default();
        if told.len() < TROUBLES_MAX && told.iter().all(|before| before != what) {
            told.push(what.to_owned());
            screen::say(&format!("{}: {what}", path.display()));
        }
    }

    /// Waits for what is on its way, says what is still wrong, and gives the exit code.
    fn end(self) -> u8 {
        self.deliveries.finish();
        let unfound = self.unfound.as_ref().map(|what| (&self.args.path, what));
        let troubles: Vec<_> = unfound.into_iter().chain(&self.troubles).collect();
        for (path, what) in &troubles {
            screen::say(&format!("error: {}: {what}; no longer watched", path.display()));
        }
        match (self.alarms.is_empty(), troubles.is_empty()) {
            (false, _) => FOUND,
            (true, true) => HEALTHY,
            (true, false) => COULD_NOT_RUN,
        }
    }
}

/// The alarm in one line.
fn summary(run: &LogRun<'_>) -> String {
    let found = run.diagnosis;
    let sign = found.alarm().map_or("", tamegrad_report::title);
    let remedy = log::advice(found).map_or(String::new(), |advice| format!(" To fix: {advice}."));
    let text = format!(
        "{}: {} since step {}: {sign}.{remedy}",
        run.path,
        found.verdict.as_str(),
        found.onset.unwrap_or_default()
    );
    printable(&text).into_owned()
}
