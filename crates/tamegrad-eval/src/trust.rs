//! Whether what is promised of run folders holds: processes that are killed at random moments, and disks
//! that fail. docs/guarantees.md has the table.

mod faults;
mod folder;
mod kills;

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{Scored, Trust, progress};

/// A curve that a small network learns without an alarm.
pub(crate) const CURVE: &str = r#"name = "curve"
seed = 1
data.polynomial = { samples = 200, coefficients = [0.0, 0.0, 1.0], range = [-1.0, 1.0], noise = 0.05 }
model.mlp = { depth = 2, width = 16, activation = "tanh", init.xavier = {} }
optimizer.sgd = { learning_rate = 0.05, momentum = 0.9 }
training = { batch = 32, epochs = 1000000 }
"#;
/// Targets of up to 300 that no one scaled: the gradients explode in the first steps.
pub(crate) const EXPLODING: &str = r#"name = "exploding"
seed = 3
data.polynomial = { samples = 400, coefficients = [0.0, 50.0, 0.0, 300.0], range = [-1.0, 1.0], noise = 0.05 }
model.mlp = { depth = 3, width = 32, activation = "relu", init.he = {} }
optimizer.sgd = { learning_rate = 0.05 }
training = { batch = 32, epochs = 60 }
"#;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one promise came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// The promise.
    pub(crate) promise: &'static str,
    /// How often it was tried.
    pub(crate) tries: u64,
    /// How often it held.
    pub(crate) held: u64,
    /// Figures, or why it could not be tried.
    pub(crate) detail: String,
    /// The first few failures.
    pub(crate) failures: Vec<String>,
}

/// What one try came to: figures, or what did not hold.
pub(crate) type Tried = Result<Option<f64>, String>;

/// Where the tries are made.
pub(crate) struct Bench<'a> {
    pub(crate) program: &'a Path,
    pub(crate) torch: Option<&'a Path>,
    cancel: &'a AtomicBool,
    random: u64,
}

impl Bench<'_> {
    /// A number from 0 up to 1, of a generator that is the same in each run.
    pub(crate) fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Starts the program in a folder.
    pub(crate) fn start(&self, folder: &Path, words: &[&str]) -> Result<Child, String> {
        Command::new(self.program)
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} could not be started: {error}", self.program.display()))
    }

    /// Runs the program in a folder to its end.
    pub(crate) fn run(&self, folder: &Path, words: &[&str]) -> Result<Output, String> {
        end(self.start(folder, words)?)
    }

    /// Tries a promise many times; the figure of a try is told as the largest and the mean.
    fn line(
        &mut self,
        promise: &'static str,
        tries: u64,
        figure: &str,
        mut attempt: impl FnMut(&mut Self, u64) -> Tried,
    ) -> Line {
        let mut line = Line { promise, tries: 0, held: 0, detail: String::new(), failures: vec![] };
        let mut figures = Vec::new();
        for number in 0..tries {
            if self.cancel.load(Ordering::Relaxed) {
                break;
            }
            line.tries += 1;
            match attempt(self, number) {
                Ok(value) => {
                    line.held += 1;
                    figures.extend(value);
                }
                Err(failure) if line.failures.len() < 5 => line.failures.push(failure),
                Err(_) => {}
            }
        }
        if !figures.is_empty() {
            let largest = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mean = figures.iter().sum::<f64>() / figures.len() as f64;
            line.detail = format!("{figure}: mean {mean:.2}, largest {largest:.2}");
        }
        line
    }

    fn not_tried(promise: &'static str, why: &str) -> Line {
        let detail = format!("not tried: {why}");
        Line { promise, tries: 0, held: 0, detail, failures: vec![] }
    }
}

/// Waits for the end of a process.
pub(crate) fn end(mut child: Child) -> Result<Output, String> {
    let began = Instant::now();
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            return Err("the process did not end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stderr);
    if told.contains("panicked") { Err(format!("it panicked: {told}")) } else { Ok(output) }
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut is_met: impl FnMut() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !is_met() {
        if began.elapsed() > PATIENCE {
            return Err(format!("{what}: it never came"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Tries everything, and prints the table.
pub(crate) fn run(args: &Trust, cancel: &AtomicBool) -> Result<Scored, Box<dyn Error>> {
    let bar = progress(2, &args.output);
    let (program, torch) = (&args.program, args.torch.as_deref());
    let random = 0x9E37_79B9_7F4A_7C15;
    let mut bench = Bench { program, torch, cancel, random };
    bar.set_message("kills");
    let mut lines = kills::all(&mut bench, args.kills);
    bar.inc(1);
    bar.set_message("faults");
    lines.extend(faults::all(&mut bench, args.faults));
    bar.finish_and_clear();
    let holds = lines.iter().all(|line| line.held == line.tries);
    let text = if args.output.json { serde_json::to_string(&lines)? + "\n" } else { table(&lines) };
    Ok(Scored { text, exit_code: u8::from(!holds) })
}

fn table(lines: &[Line]) -> String {
    let mut text = "| promise | tries | held | figures |\n|---|--:|--:|---|\n".to_owned();
    for Line { promise, tries, held, detail, .. } in lines {
        text.push_str(&format!("| {promise} | {tries} | {held} | {detail} |\n"));
    }
    for line in lines {
        for failure in &line.failures {
            text.push_str(&format!("\n{}: {failure}\n", line.promise));
        }
    }
    text
}

/// A fresh folder with a recipe in it.
pub(crate) fn folder(recipe: &str) -> Result<tempfile::TempDir, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    std::fs::write(folder.path().join("r.toml"), recipe).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, name: &str) -> Result<(), String> {
    let kill = Command::new("kill").args([name, &child.id().to_string()]).status();
    match kill {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("kill {name} failed: the process ended before")),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The path as text; the folders here have names of ASCII.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
