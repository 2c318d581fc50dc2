//! `cargo xtask fuzz`: every reader, and a guard's state, against inputs that a fuzzer makes up, for a
//! bounded time.
//!
//! The targets are in cargo-fuzz's layout. This command needs neither cargo-fuzz nor a nightly
//! compiler: the flags that instrument the code are there in every one.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;
use std::{env, fs, io, thread};

use crate::{cargo, debian, number};

/// What the fuzzer needs to know of a run: which edges were taken, what was compared with what.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=16",
];

/// Bounds of a reader: seconds and MiB for one input of so many bytes.
const LIMITS: &[&str] = &["-timeout=10", "-rss_limit_mb=600", "-max_len=16384"];

/// How long each target runs if nothing is said.
const SECONDS: NonZeroU32 = NonZeroU32::new(60).expect("60 is not 0");

/// Which targets, and for how long each.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    seconds: NonZeroU32,
    /// All if empty.
    targets: Vec<String>,
}

/// Reads what follows `fuzz` on the command line.
pub(crate) fn parse(words: &[&str]) -> Result<Options, String> {
    let mut options = Options { seconds: SECONDS, targets: Vec::new() };
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--seconds" => options.seconds = number(word, words.next())?,
            _ if word.starts_with('-') => return Err(format!("unexpected argument `{word}`")),
            _ => options.targets.push(word.to_owned()),
        }
    }
    Ok(options)
}

/// Builds the targets and runs them one after the other, up to the first that finds something.
///
/// # Errors
/// What was found, in which file the input is, and how to read it again.
pub(crate) fn fuzz(root: &Path, options: &Options) -> Result<(), String> {
    let known = targets(root)?;
    let chosen = choose(&known, &options.targets)?;
    let place = Place::new(root, host()?, "release");
    let start = Instant::now();
    build(root, &place, &chosen)?;
    println!("built in {:.1} s", start.elapsed().as_secs_f64());
    let limit = format!("-max_total_time={}", options.seconds);
    chosen.iter().try_for_each(|target| run(root, &place, target, &limit))
}

/// [`fuzz`] of all targets with so many inputs each, whatever time that takes, as many at once as the
/// machine has cores.
pub(crate) fn inputs(root: &Path, count: NonZeroU32) -> Result<(), String> {
    let known = targets(root)?;
    let place = Place::new(root, host()?, "long");
    build(root, &place, &known)?;
    let limit = format!("-runs={count}");
    let left = Mutex::new(known.iter());
    let next = || left.lock().ok().and_then(|mut left| left.next());
    let worker =
        || std::iter::from_fn(next).try_for_each(|target| run(root, &place, target, &limit));
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err("a thread has panicked".into()))
        })
    })
}

/// The names of all targets, sorted.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/fuzz_targets");
    let fail = |error: io::Error| format!("{} could not be listed: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn choose(known: &[String], wanted: &[String]) -> Result<Vec<String>, String> {
    match wanted.iter().find(|name| !known.contains(name)) {
        Some(unknown) => Err(format!("unknown target `{unknown}`, want {}", known.join(", "))),
        None if wanted.is_empty() => Ok(known.to_vec()),
        None => Ok(wanted.to_vec()),
    }
}

/// Where programs, inputs and findings are.
struct Place {
    /// Below the target directory: nothing of a run is in the repository.
    folder: PathBuf,
    /// Named to cargo, so that the flags are not for build scripts.
    host: String,
    /// `long` takes more time to build, and less for an input.
    profile: &'static str,
}

impl Place {
    fn new(root: &Path, host: String, profile: &'static str) -> Place {
        let target = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
        Place { folder: root.join(target).join("fuzz"), host, profile }
    }

    fn program(&self, target: &str) -> PathBuf {
        let name = format!("{target}{}", env::consts::EXE_SUFFIX);
        self.folder.join(&self.host).join(self.profile).join(name)
    }

    /// Inputs that take a way of their own through the reader, kept from run to run.
    fn corpus(&self, target: &str) -> PathBuf {
        self.folder.join("corpus").join(target)
    }

    fn findings(&self, target: &str) -> PathBuf {
        self.folder.join("findings").join(target)
    }
}

/// The platform that the compiler itself runs on.
fn host() -> Result<String, String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output();
    let output = output.map_err(|error| format!("rustc could not be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| format!("got `{text}` of `rustc -vV`, want a host"))
}

fn build(root: &Path, place: &Place, targets: &[String]) -> Result<(), String> {
    let mut command = cargo(root, "build --locked --manifest-path fuzz/Cargo.toml");
    command.args(["--profile", place.profile]);
    command.arg("--target-dir").arg(&place.folder).args(["--target", &place.host]);
    command.args(targets.iter().flat_map(|target| ["--bin", target]));
    // The variable takes the place of any flags of the user, which may not go together with these.
    command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if !has_cpp_compiler(false) => Err(format!(
            "{status}, and there is no C++ compiler `c++`, which libFuzzer is built with; hint: \
             apt-get install g++"
        )),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("cargo could not be started: {error}")),
    }
}

/// Whether the program that the `cc` crate looks for first is there. With `install` Debian's package
/// is installed first where it is not.
pub(crate) fn has_cpp_compiler(install: bool) -> bool {
    let program = env::var("CXX").unwrap_or_else(|_| "c++".into());
    debian::is_there_or_installed("g++", install, || debian::runs(&program, &["--version"]))
}

/// Runs a target up to a limit, from its seeds and from what earlier runs kept.
fn run(root: &Path, place: &Place, target: &str, limit: &str) -> Result<(), String> {
    let (corpus, findings) = (place.corpus(target), place.findings(target));
    let scratch = Scratch::new(&place.folder, target)?;
    for folder in [&corpus, &findings] {
        make(folder)?;
    }
    let (program, log) = (place.program(target), place.folder.join(format!("{target}.log")));
    let output = create(&log)?;
    let mut command = Command::new(&program);
    command.args(LIMITS).arg(limit);
    command.arg(joined("-artifact_prefix=", findings.join("").as_os_str()));
    command.arg(&corpus).arg(root.join("fuzz/seeds").join(target));
    command.env("TMPDIR", &scratch.folder).stdout(Stdio::null()).stderr(output);
    let status = command
        .status()
        .map_err(|error| format!("{} could not be started: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    if status.success() {
        println!("{target}: {}", inputs_read(&text));
        return Ok(());
    }
    Err(match finding(&text) {
        Some((input, lines)) => format!(
            "{target} found an input that its code does not stand:\n{}\nread it again: {} {}\n\
             what was said: {}",
            lines.join("\n"),
            program.display(),
            input,
            log.display()
        ),
        None => format!("{target}: {status}; what was said: {}", log.display()),
    })
}

/// How many inputs were read, in words.
fn inputs_read(log: &str) -> String {
    // `#81921 DONE cov: 3263 ft: ...`
    let done = log.lines().rev().find_map(|line| line.strip_prefix('#')?.split_once("DONE"));
    let count = done.map_or("?", |(count, _)| count.trim());
    let covered = done.and_then(|(_, rest)| rest.trim().strip_prefix("cov: ")?.split(' ').next());
    format!("{count} inputs, {} edges taken", covered.unwrap_or("?"))
}

/// The file of the input that ended a run, and the lines that say what came of it.
fn finding(log: &str) -> Option<(&str, Vec<&str>)> {
    let input = log.lines().find_map(|line| line.split_once("Test unit written to "))?.1.trim();
    let says = ["panicked at", "ERROR: ", "memory allocation of"];
    let mut said = Vec::new();
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        if says.iter().any(|word| line.contains(word)) {
            said.push(line);
            // The message of a panic is in the line after.
            said.extend(line.contains("panicked at").then(|| lines.next()).flatten());
        }
    }
    Some((input, said))
}

/// A folder for the files that the readers are given, gone at the end.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn new(beside: &Path, target: &str) -> Result<Scratch, String> {
        // In memory where that can be: a file is written for each input.
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory } else { beside };
        let folder = above.join(format!("tamegrad-fuzz-{target}-{}", std::process::id()));
        make(&folder)?;
        Ok(Scratch { folder })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed does no harm, and an error here would hide what was found.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder)
        .map_err(|error| format!("{} could not be made: {error}", folder.display()))
}

fn create(path: &Path) -> Result<fs::File, String> {
    fs::File::create(path)
        .map_err(|error| format!("{} could not be written: {error}", path.display()))
}

fn joined(start: &str, end: &OsStr) -> OsString {
    let mut word = OsString::from(start);
    word.push(end);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_seconds_and_targets() {
        let options = |seconds, targets: &[&str]| Options {
            seconds: NonZeroU32::new(seconds).expect("not 0"),
            targets: targets.iter().map(|&name| name.to_owned()).collect(),
        };
        let cases: &[(&[&str], Result<Options, &str>)] = &[
            (&[], Ok(options(60, &[]))),
            (&["text", "--seconds", "5", "wandb"], Ok(options(5, &["text", "wandb"]))),
            (&["--seconds", "0"], Err("--seconds: got `0`, want a number from 1")),
            (&["--seconds"], Err("--seconds: got nothing, want a number from 1")),
            (&["--second", "5"], Err("unexpected argument `--second`")),
        ];
        for (words, expected) in cases {
            let got = parse(words);
            assert_eq!(got.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e));
        }
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_known_ones() {
        let known = ["csv_rows", "text"].map(str::to_owned);
        let wanted = |names: &[&str]| {
            choose(&known, &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(wanted(&[]), Ok(known.to_vec()));
        assert_eq!(wanted(&["text"]), Ok(vec!["text".to_owned()]));
        assert_eq!(wanted(&["tex"]), Err("unknown target `tex`, want csv_rows, text".to_owned()));
    }

    #[test]
    fn what_the_fuzzer_says_is_read() {
        let good = "INFO: Seed: 1\n#2\tINITED cov: 7\n#81921\tDONE   cov: 3263 ft: 11175\nDone\n";
        assert_eq!(inputs_read(good), "81921 inputs, 3263 edges taken");
        assert_eq!(finding(good), None);
        let bad = "thread '<unnamed>' panicked at crates/x.rs:1:2:\nattempt to add with overflow\n\
                   note: run\n==7== ERROR: libFuzzer: deadly signal\n\
                   artifact_prefix='a/'; Test unit written to a/crash-1f\nBase64: AA==\n";
        let said = [
            "thread '<unnamed>' panicked at crates/x.rs:1:2:",
            "attempt to add with overflow",
            "==7== ERROR: libFuzzer: deadly signal",
        ];
        assert_eq!(finding(bad), Some(("a/crash-1f", said.to_vec())));
    }

    #[test]
    fn each_reader_has_a_target_and_each_target_seeds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("above is the project");
        let targets = targets(root).expect("the targets can be listed");
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).expect("it is there");
        let readers = fs::read_dir(root.join("crates/tamegrad-logs/src/readers"));
        for entry in readers.expect("the readers can be listed") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            // What two readers share is no reader, nor is what stands in their place without SQLite.
            let is_reader = |name: &&str| !matches!(*name, "sqlite" | "no_sqlite");
            let Some(reader) = name.strip_suffix(".rs").filter(is_reader) else {
                continue;
            };
            assert!(targets.iter().any(|target| target == reader), "no target for {reader}");
        }
        for target in &targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not built");
            let seeds = fs::read_dir(root.join("fuzz/seeds").join(target));
            assert!(seeds.is_ok_and(|mut seeds| seeds.next().is_some()), "{target} has no seed");
        }
    }
}
