//! How commands end that are interrupted, killed or cannot write, and how they go on afterwards.

#![cfg(unix)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A curve that a small network learns without an alarm, in many steps.
const CURVE: &str = r#"name = "curve"
seed = 1
data.polynomial = { samples = 200, coefficients = [0.0, 0.0, 1.0], range = [-1.0, 1.0], noise = 0.05 }
model.mlp = { depth = 2, width = 16, activation = "tanh", init.xavier = {} }
optimizer.sgd = { learning_rate = 0.05, momentum = 0.9 }
training = { batch = 32, epochs = 30 }
"#;
/// Targets of up to 300 that no one scaled: the gradients explode in the first steps.
const EXPLODING: &str = r#"name = "exploding"
seed = 3
data.polynomial = { samples = 400, coefficients = [0.0, 50.0, 0.0, 300.0], range = [-1.0, 1.0], noise = 0.05 }
model.mlp = { depth = 3, width = 32, activation = "relu", init.he = {} }
optimizer.sgd = { learning_rate = 0.05 }
training = { batch = 32, epochs = 60 }
"#;
/// Longer than any test waits.
const ENDLESS: &str = "epochs = 1000000";
const PATIENCE: Duration = Duration::from_secs(60);

fn folder(recipe: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("r.toml"), recipe).expect("a recipe in it");
    folder
}

fn endless(recipe: &str) -> TempDir {
    let epochs = recipe.rfind("epochs = ").expect("epochs");
    folder(&format!("{}{ENDLESS} }}\n", &recipe[..epochs]))
}

fn start(folder: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tamegrad"))
        .args(args)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

fn run(folder: &Path, args: &[&str]) -> Output {
    start(folder, args).wait_with_output().expect("it ends")
}

fn wait_until(what: &str, mut is_met: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_met() {
        assert!(began.elapsed() < PATIENCE, "{what}: it never came");
        sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success(), "it ended before it was stopped");
}

/// Waits for the end of what was told to end.
fn end(mut child: Child) -> Output {
    wait_until("the end", || child.try_wait().expect("its state").is_some());
    let output = child.wait_with_output().expect("its output");
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// What `diagnose --json` says, and its exit code.
fn diagnose(folder: &Path, run_folder: &str) -> (Value, Option<i32>) {
    let output = run(folder, &["diagnose", run_folder, "--json"]);
    let found = serde_json::from_slice(&output.stdout).expect("JSON");
    (found, output.status.code())
}

/// The losses of a run folder, with their steps.
fn losses(folder: &Path) -> Vec<(u64, u64)> {
    let run = tamegrad_runs::RunFolder::open(folder).expect("a run folder");
    let steps = run.contents().steps;
    steps.iter().map(|row| (row.step, row.loss.expect("a loss").to_bits())).collect()
}

fn starts_and_trains(folder: &Path, args: &[&str], out: &str) -> Child {
    let child = start(folder, &[args, &["--out", out]].concat());
    let state = |name: &str| folder.join(out).join(name).join("diagnosis.json").exists();
    wait_until("the first step", || state("") || state("given"));
    sleep(Duration::from_millis(300));
    child
}

#[test]
fn a_signal_stops_the_run_which_reports_what_it_has() {
    let folder = endless(CURVE);
    for (name, code, words) in [
        ("INT", 130, "stopped by Ctrl-C"),
        ("TERM", 143, "stopped by SIGTERM"),
        ("HUP", 129, "stopped by SIGHUP"),
    ] {
        if name == "HUP" && is_hang_up_ignored() {
            // These tests run under `nohup`, and so does what they start.
            continue;
        }
        let child = starts_and_trains(folder.path(), &["train", "r.toml"], name);
        signal(&child, &format!("-{name}"));
        let ended = end(child);
        assert_eq!((ended.status.code(), &*text(&ended.stderr)), (Some(code), ""));
        assert!(text(&ended.stdout).contains(&format!("\n{words} after ")), "{name}");
        let out = folder.path().join(name);
        assert_eq!(json(&out.join("report.json"))["verdict"], "healthy");
        assert_eq!(json(&out.join("diagnosis.json"))["end"], words);
        let (found, code) = diagnose(folder.path(), name);
        assert_eq!((&found["verdict"], code), (&"healthy".into(), Some(0)));
        assert_eq!(
            (&found["end"]["state"], &found["end"]["how"]),
            (&"stopped".into(), &words.into())
        );
    }
}

fn is_hang_up_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[test]
fn a_hang_up_that_nohup_ignores_stays_ignored() {
    let folder = endless(CURVE);
    let child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$0\" train r.toml --out x -q"])
        .arg(env!("CARGO_BIN_EXE_tamegrad"))
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("it starts");
    wait_until("the first step", || folder.path().join("x/diagnosis.json").exists());
    if cfg!(target_os = "linux") {
        signal(&child, "-HUP");
        sleep(Duration::from_millis(300));
        assert!(child.try_wait().expect("its state").is_none());
    }
    signal(&child, "-TERM");
    assert_eq!(end(child).status.code(), Some(143));
}

#[test]
fn a_second_signal_ends_the_process_with_what_is_known() {
    let folder = endless(CURVE);
    let child = starts_and_trains(folder.path(), &["train", "r.toml", "-q"], "x");
    signal(&child, "-INT");
    // It may have ended already.
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert_eq!(end(child).status.code(), Some(130));
    let (found, code) = diagnose(folder.path(), "x");
    assert_eq!((&found["verdict"], code), (&"healthy".into(), Some(0)));
    assert_eq!(found["end"]["how"], "stopped by Ctrl-C");
}

#[test]
fn a_killed_run_is_no_milder_than_its_alarms_and_says_that_it_did_not_end() {
    let folder = folder(EXPLODING);
    let mut child = start(folder.path(), &["train", "r.toml", "--out", "x"]);
    let events = folder.path().join("x/events.jsonl");
    wait_until("the first alarm", || fs::metadata(&events).is_ok_and(|file| file.len() > 0));
    // It may have ended already: then there is nothing to kill.
    let _ = child.kill();
    let ended = end(child);
    let (found, code) = diagnose(folder.path(), "x");
    assert_eq!(code, Some(1), "{found}");
    // The end may have been on disk when the signal came.
    if ended.status.signal() == Some(9) && found["end"]["state"] != "completed" {
        assert_eq!(found["end"]["state"], "did-not-end");
        let told = text(&run(folder.path(), &["diagnose", "x"]).stdout);
        assert!(told.contains("did not end; last seen step "), "{told}");
    }
}

#[test]
fn a_killed_run_keeps_its_steps_and_goes_on_to_the_same_end() {
    let folder = folder(&CURVE.replace("epochs = 30", "epochs = 400"));
    let whole = run(folder.path(), &["train", "r.toml", "--json", "--out", "whole"]);
    let whole: Value = serde_json::from_slice(&whole.stdout).expect("a report");
    let wanted = losses(&folder.path().join("whole"));
    for (name, kill) in [("killed", "-KILL"), ("stopped", "-TERM")] {
        let child = start(folder.path(), &["train", "r.toml", "--out", name]);
        let steps = folder.path().join(name).join("diagnosis.json");
        wait_until("the first step", || steps.exists());
        sleep(Duration::from_millis(100));
        // It may have ended already.
        let _ = Command::new("kill").args([kill, &child.id().to_string()]).status();
        let ended = end(child);
        let kept = losses(&folder.path().join(name));
        assert!(!kept.is_empty() && wanted.starts_with(&kept), "{} steps", kept.len());
        let args = ["train", "r.toml", "--json", "--out", name, "--resume"];
        let resumed = run(folder.path(), &args);
        if ended.status.success() {
            assert!(text(&resumed.stderr).contains("has already finished"), "{resumed:?}");
            continue;
        }
        let report: Value = serde_json::from_slice(&resumed.stdout).expect("a report");
        assert_eq!(report["weights_hash"], whole["weights_hash"], "{name}");
        assert_eq!(report["verdict"], whole["verdict"]);
        // Every step once.
        assert_eq!(losses(&folder.path().join(name)), wanted, "{name}");
    }
    let args = ["train", "r.toml", "--out", "whole", "--resume"];
    assert_eq!(run(folder.path(), &args).status.code(), Some(2));
    fs::write(folder.path().join("r.toml"), CURVE).expect("another recipe");
    let other = run(folder.path(), &args);
    assert!(text(&other.stderr).contains("a run of another recipe"), "{other:?}");
}

#[test]
fn a_stopped_search_stops_without_a_fix_and_goes_on_where_it_stood() {
    let folder = folder(EXPLODING);
    let whole = run(folder.path(), &["fix", "r.toml", "--json", "--out", "whole"]);
    let whole: Value = serde_json::from_slice(&whole.stdout).expect("a report");
    for (name, kill) in [("killed", "-KILL"), ("stopped", "-INT")] {
        let child = start(folder.path(), &["fix", "r.toml", "--json", "--out", name]);
        let trials = folder.path().join(name).join("trials.jsonl");
        let tried = || fs::read_to_string(&trials).unwrap_or_default().lines().count();
        wait_until("two trials", || tried() >= 2);
        let _ = Command::new("kill").args([kill, &child.id().to_string()]).status();
        let ended = end(child);
        let kept = tried();
        if ended.status.code() == Some(130) {
            let report: Value = serde_json::from_slice(&ended.stdout).expect("a report");
            assert_eq!(report["chosen"], Value::Null);
            assert_eq!(report["trials"].as_array().map(Vec::len), Some(kept));
        }
        let (given, code) = diagnose(folder.path(), &format!("{name}/given"));
        assert_eq!((&given["verdict"], code), (&whole["given"]["verdict"], Some(1)), "{name}");
        let args = ["fix", "r.toml", "--json", "--out", name, "--resume"];
        let resumed = run(folder.path(), &args);
        let mut resumed: Value = serde_json::from_slice(&resumed.stdout).expect("a report");
        let mut whole = whole.clone();
        for report in [&mut resumed, &mut whole] {
            for trial in report["trials"].as_array_mut().expect("trials") {
                trial["seconds"] = Value::Null;
            }
        }
        assert_eq!(resumed, whole, "{name}");
    }
}

#[test]
fn what_cannot_be_written_stops_the_command_before_the_training() {
    let folder = endless(CURVE);
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("mine")).expect("a folder");
    fs::write(at("mine/events.jsonl.bak"), "mine").expect("a file");
    fs::write(at("file"), "mine").expect("a file");
    std::os::unix::fs::symlink(at("file"), at("link")).expect("a link");
    fs::create_dir(at("linked")).expect("a folder");
    std::os::unix::fs::symlink(at("file"), at("linked/steps.arrows")).expect("a link");
    for command in ["train", "fix"] {
        for out in ["mine", "file", "file/x", "link", "linked", "/proc/x"] {
            for more in [&["--out", out][..], &["--out", out, "--overwrite"]] {
                let child = start(folder.path(), &[&[command, "r.toml"], more].concat());
                let ended = end(child);
                let told = text(&ended.stderr);
                assert_eq!(ended.status.code(), Some(2), "{command} {more:?}: {told}");
                assert!(told.starts_with("error: ") && told.contains(out), "{told}");
            }
        }
    }
    assert_eq!(fs::read_to_string(at("file")).expect("still there"), "mine");
    assert_eq!(fs::read_dir(at("mine")).expect("still there").count(), 1);
}

#[test]
fn a_run_that_is_being_written_is_not_touched() {
    let folder = endless(CURVE);
    let first = starts_and_trains(folder.path(), &["train", "r.toml", "-q"], "x");
    let args = ["train", "r.toml", "--out", "x"];
    for more in ["--overwrite", "--resume"] {
        let second = run(folder.path(), &[&args[..], &[more]].concat());
        assert_eq!(second.status.code(), Some(2));
        let told = text(&second.stderr);
        assert!(told.contains(&format!("another process ({}) is writing", first.id())), "{told}");
    }
    let (found, _) = diagnose(folder.path(), "x");
    assert_eq!(found["end"]["state"], "running");
    let second = starts_and_trains(folder.path(), &["train", "r.toml", "-q"], "x-2");
    for child in [first, second] {
        signal(&child, "-TERM");
        assert_eq!(end(child).status.code(), Some(143));
    }
}

#[test]
fn a_folder_that_is_moved_away_costs_no_diagnosis() {
    let folder = endless(CURVE);
    let child = starts_and_trains(folder.path(), &["train", "r.toml"], "x");
    fs::rename(folder.path().join("x"), folder.path().join("y")).expect("moved");
    // Somebody else's by now.
    fs::create_dir(folder.path().join("x")).expect("made");
    sleep(Duration::from_millis(1200));
    signal(&child, "-INT");
    let ended = end(child);
    let told = text(&ended.stderr);
    assert!(text(&ended.stdout).contains("HEALTHY"), "{told}");
    assert!(told.contains("warning: the run is not recorded at present"), "{told}");
    let fallback = told.split("the diagnosis is in ").nth(1).expect("a place").trim();
    assert!(json(Path::new(fallback))["diagnosis"]["verdict"] == "healthy");
    fs::remove_file(fallback).expect("removed");
    assert_eq!(fs::read_dir(folder.path().join("x")).expect("still there").count(), 0);
}
