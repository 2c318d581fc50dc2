//! `cargo xtask bench logs`: `diagnose` against TensorBoard's loaders, `scan` against a plain read.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fs, num::NonZeroUsize};

use serde::Serialize;

use super::{Machine, Options, Rounds, Server, median, print};
use crate::venv;

const LOADER_SCRIPT: &str = "xtask/src/bench/event_loader.py";

/// Where the inputs are written, and taken away at the end: 9 GB.
const FOLDER: &str = "target/bench-logs";

const VENV: &str = "target/python-tensorboard";

const PACKAGES: &[&str] =
    &["tensorboard==2.21.0", "tensorboard-data-server==0.7.2", "setuptools==80.9.0"];

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Diagnose,
    DataServer,
    ReadF32,
    ScanF32,
    ReadBf16,
    ScanBf16,
}

use What::{DataServer, Diagnose, ReadBf16, ReadF32, ScanBf16, ScanF32};

/// A line of the table, and an object of the JSON.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    what: &'static str,
    ms: f64,
    /// How many times the time of `diagnose`, or of `scan`, this is; `None` where it did not run.
    ratio: Option<f64>,
    /// What the ratio is of.
    to: &'static str,
}

/// Runs the bench and prints the table, or the JSON alone.
///
/// # Errors
/// A sentence about the bench program. Without Python the other rows are still printed.
pub(super) fn logs_and_print(root: &Path, options: &Options) -> Result<(), String> {
    let machine = Machine::look();
    let folder = root.join(FOLDER);
    let result = measure(root, &folder, options.rounds, machine.threads);
    // Nine gigabytes are not left behind, whatever came of it.
    let _ = fs::remove_dir_all(&folder);
    let (rows, loader) = result?;
    print(options, &rows, &format!("{}{machine}\n{loader}\n", table(&rows)))
}

/// The rows, and what TensorBoard says of itself.
fn measure(
    root: &Path,
    folder: &Path,
    rounds: NonZeroUsize,
    threads: usize,
) -> Result<(Vec<Row>, String), String> {
    let mut ours = Server::start_ours(root, "tamegrad-logs --bench logs", threads)?;
    let python = venv::python_with(root, VENV, PACKAGES, "a download of about 40 MB");
    if let Err(why) = &python {
        eprintln!("TensorBoard is not compared: {why}");
    }

    eprintln!("writing the inputs in {FOLDER}");
    let events = folder.join("events");
    make(&events)?;
    let event_file = write(&mut ours, "events", &events.join("events.out.tfevents.1.bench"))?;
    let tenth = write(&mut ours, "tenth-of-events", &folder.join("events.out.tfevents.1.tenth"))?;
    let f32s = write(&mut ours, "checkpoint-f32", &folder.join("f32.safetensors"))?;
    let bf16s = write(&mut ours, "checkpoint-bf16", &folder.join("bf16.safetensors"))?;

    let logs = Rounds::ask(&[Diagnose, DataServer], rounds, |what| match (what, &python) {
        (Diagnose, _) => ours.milliseconds(&format!("diagnose {event_file}")).map(Some),
        (_, Ok(python)) => data_server(python, &events).map(Some),
        (_, Err(_)) => Ok(None),
    })?;
    let scans = Rounds::ask(&[ReadF32, ScanF32, ReadBf16, ScanBf16], rounds, |what| {
        let question = match what {
            ReadF32 => format!("read {f32s}"),
            ScanF32 => format!("scan {f32s}"),
            ReadBf16 => format!("read {bf16s}"),
            _ => format!("scan {bf16s}"),
        };
        ours.milliseconds(&question).map(Some)
    })?;
    let mut rows = rows(&logs, &scans);
    let loader = match python {
        Ok(python) => {
            // Minutes even for a tenth of the file: once is enough beside the ratio it shows.
            let (version, ms) = event_loader(root, &python, &tenth)?;
            let diagnosed = (0..rounds.get())
                .map(|_| ours.milliseconds(&format!("diagnose {tenth}")))
                .collect::<Result<Vec<f64>, String>>()?;
            rows.insert(
                1,
                Row {
                    what: "EventFileLoader, a tenth of the file",
                    ms,
                    ratio: Some(ms / median(diagnosed)),
                    to: "diagnose of the tenth",
                },
            );
            format!("{version}, data server 0.7.2")
        }
        Err(why) => format!("TensorBoard: not compared: {why}"),
    };
    Ok((rows, loader))
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Has an input written. Its path is given back as text.
fn write(ours: &mut Server, what: &str, path: &Path) -> Result<String, String> {
    let path = path.display().to_string();
    ours.milliseconds(&format!("{what} {path}")).map(|_| path)
}

/// The milliseconds of the data server's own first load of a folder.
fn data_server(python: &Path, events: &Path) -> Result<f64, String> {
    let mut command = Command::new(data_server_program(python)?);
    command.args(["--reload", "once", "--port", "0", "--verbose", "--logdir"]).arg(events);
    let start = Instant::now();
    let mut process = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the data server could not be started: {error}"))?;
    let lines = process.stderr.take().map(|stderr| BufReader::new(stderr).lines());
    let mut lines = lines.into_iter().flatten().map_while(Result::ok);
    let is_done = lines.any(|line| line.contains("Finished load cycle"));
    let ms = start.elapsed().as_secs_f64() * 1e3;
    // It goes on serving until it is told to stop.
    let _ = process.kill().and_then(|()| process.wait());
    is_done.then_some(ms).ok_or_else(|| "the data server ended before it had loaded".to_owned())
}

fn data_server_program(python: &Path) -> Result<PathBuf, String> {
    let code = "import tensorboard_data_server as t; print(t.server_binary())";
    let output = Command::new(python)
        .args(["-c", code])
        .output()
        .map_err(|error| format!("`{}` could not be started: {error}", python.display()))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if path.is_empty() || path == "None" {
        return Err("tensorboard-data-server has no program for this system".to_owned());
    }
    Ok(path.into())
}

/// The version and the milliseconds of TensorBoard's loader in Python.
fn event_loader(root: &Path, python: &Path, path: &str) -> Result<(String, f64), String> {
    eprintln!("EventFileLoader reads a tenth of the file, which takes a minute");
    let mut command = Command::new(python);
    command.arg(root.join(LOADER_SCRIPT)).stderr(Stdio::null());
    let mut server = Server::start("event_loader.py", command)?;
    let version = server.answer()?;
    Ok((version, server.milliseconds(path)?))
}

fn rows(logs: &Rounds<What>, scans: &Rounds<What>) -> Vec<Row> {
    let row = |what, rounds: &Rounds<What>, of, of_what, to| {
        let ms = rounds.median(of)?;
        Some(Row { what, ms, ratio: rounds.ratio(of, of_what), to })
    };
    [
        row("diagnose, 500 MB of events", logs, Diagnose, Diagnose, "diagnose"),
        row("tensorboard-data-server", logs, DataServer, Diagnose, "diagnose"),
        row("scan, 4 GB of f32", scans, ScanF32, ScanF32, "scan"),
        row("plain read of the file", scans, ReadF32, ScanF32, "scan"),
        row("scan, 4 GB of bf16", scans, ScanBf16, ScanBf16, "scan"),
        row("plain read of the file", scans, ReadBf16, ScanBf16, "scan"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn table(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        format!("{:<38} {:>10.1} {ratio:>9} x {}\n", row.what, row.ms, row.to)
    };
    let head = format!("{:<38} {:>10} {:>9}\n", "what", "ms", "ratio");
    rows.iter().map(line).fold(head, |text, line| text + &line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::json;
    use crate::bench::tests::count;

    fn rounds(whats: &[What], ms: impl Fn(What) -> Option<f64>) -> Rounds<What> {
        Rounds::ask(whats, count(3), |what| Ok(ms(what))).expect("every question is answered")
    }

    #[test]
    fn the_ratios_are_to_our_own_time_and_what_did_not_run_has_no_row() {
        let scans = rounds(&[ReadF32, ScanF32, ReadBf16, ScanBf16], |what| {
            Some(if what == ReadF32 || what == ReadBf16 { 90.0 } else { 100.0 })
        });
        let logs = |server: Option<f64>| {
            rounds(
                &[Diagnose, DataServer],
                move |what| {
                    if what == Diagnose { Some(50.0) } else { server }
                },
            )
        };
        let ratios = |server| {
            let rows = rows(&logs(server), &scans);
            rows.iter().map(|row| (row.what, row.ratio)).collect::<Vec<_>>()
        };
        let with = ratios(Some(200.0));
        assert_eq!(with.len(), 6);
        assert_eq!(with[1], ("tensorboard-data-server", Some(4.0)));
        assert_eq!(with[3], ("plain read of the file", Some(0.9)));
        let without = ratios(None);
        assert_eq!(without.len(), 5);
        assert!(without.iter().all(|(what, _)| *what != "tensorboard-data-server"));
    }

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let rows = [
            Row { what: "scan", ms: 250.25, ratio: Some(1.0), to: "scan" },
            Row { what: "read", ms: 1234.5, ratio: None, to: "scan" },
        ];
        let table = table(&rows);
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["scan", "250.2", "1.000", "x", "scan"]);
        assert_eq!(lines[2], ["read", "1234.5", "-", "x", "scan"]);
        assert_eq!(
            json(&rows).as_deref(),
            Ok("{\"rows\":[{\"what\":\"scan\",\"ms\":250.25,\"ratio\":1.0,\"to\":\"scan\"},\
                {\"what\":\"read\",\"ms\":1234.5,\"ratio\":null,\"to\":\"scan\"}]}")
        );
    }
}
