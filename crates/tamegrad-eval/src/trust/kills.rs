//! Processes that are killed at random moments.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tamegrad_runs::Ending;

use super::folder::{Seen, look};
use super::{Bench, CURVE, EXPLODING, Line, Tried, end, folder, now, signal, text, wait_until};

/// A torch loop that records its run to the folder that is named, for ever.
const TORCH_RUN: &str = include_str!("torch_run.py");
/// What may be missing of a run that was killed.
const LOST_MAX: f64 = 1.0;

/// All kinds of processes, each killed so many times.
pub(super) fn all(bench: &mut Bench<'_>, tries: u64) -> Vec<Line> {
    let seconds = "seconds of steps that are missing";
    let mut lines = vec![
        bench.line("`kill -9` of `train`: whole, at most a second lost", tries, seconds, train),
        bench.line("`kill -9` of `fix`: runs and trials whole", tries, "trials kept", fix),
        bench.line(
            "`kill -9` of `watch`: the log is untouched, the next watch alarms",
            tries / 5,
            "",
            watch,
        ),
        bench.line("SIGINT, SIGTERM and SIGHUP end a run with its report", tries / 5, "", stop),
    ];
    let promise = "`kill -9` of a torch run: whole, at most a second lost";
    lines.push(if bench.torch.is_some() {
        bench.line(promise, tries, seconds, torch)
    } else {
        Bench::not_tried(promise, "no Python with torch")
    });
    lines
}

/// What is left of a run that was killed at that time.
fn killed(folder: &Path, at: f64) -> Tried {
    let Some(seen) = look(folder)? else { return Ok(None) };
    if has_ended(&seen) {
        // It was killed on its way out.
        return Ok(None);
    }
    if seen.ending != Ending::Unended {
        return Err(format!("it reads as {:?}", seen.ending));
    }
    let lost = at - seen.last_wall;
    if lost > LOST_MAX {
        return Err(format!("{lost:.2} s are missing after {} steps", seen.steps));
    }
    Ok(Some(lost.max(0.0)))
}

/// A run that has exploded ends by itself.
fn has_ended(seen: &Seen) -> bool {
    seen.ending == Ending::Completed && seen.is_explosion
}

fn train(bench: &mut Bench<'_>, number: u64) -> Tried {
    // Every fourth explodes and goes on, which makes events and fills the files.
    let recipe = if number.is_multiple_of(4) { EXPLODING } else { CURVE };
    let recipe = recipe.replace("epochs = 60", "epochs = 1000000");
    let place = folder(&recipe)?;
    let mut child = bench.start(place.path(), &["train", "r.toml", "-q", "--out", "x"])?;
    sleep(Duration::from_secs_f64(0.02 + 2.0 * bench.random().powi(2)));
    if child.try_wait().map_err(|error| error.to_string())?.is_some() {
        return match look(&place.path().join("x"))? {
            Some(seen) if has_ended(&seen) => Ok(None),
            _ => Err("it ended by itself, and not whole".to_owned()),
        };
    }
    let at = now();
    child.kill().map_err(|error| error.to_string())?;
    end(child)?;
    killed(&place.path().join("x"), at)
}

fn fix(bench: &mut Bench<'_>, _: u64) -> Tried {
    let place = folder(EXPLODING)?;
    let mut child = bench.start(place.path(), &["fix", "r.toml", "-q", "--out", "x"])?;
    sleep(Duration::from_secs_f64(0.02 + 1.5 * bench.random()));
    child.kill().map_err(|error| error.to_string())?;
    end(child)?;
    let out = place.path().join("x");
    for run in ["given", "fixed"] {
        look(&out.join(run)).map_err(|error| format!("{run}: {error}"))?;
    }
    let trials = fs::read_to_string(out.join("trials.jsonl")).unwrap_or_default();
    if let Some(line) = trials.split_inclusive('\n').find(|line| {
        !line.ends_with('\n') || serde_json::from_str::<serde_json::Value>(line).is_err()
    }) {
        return Err(format!("a trial is torn: {line}"));
    }
    let given = look(&out.join("given"))?;
    if !trials.is_empty() && given.is_none_or(|given| !given.is_explosion) {
        return Err("a trial is kept, and the run as given reads as no explosion".to_owned());
    }
    Ok(Some(trials.lines().count() as f64))
}

fn watch(bench: &mut Bench<'_>, _: u64) -> Tried {
    let place = folder(CURVE)?;
    let log = place.path().join("log.csv");
    let mut wanted = "step,loss\n".to_owned();
    (0..60).for_each(|step| wanted.push_str(&format!("{step},{}\n", 2.0 - f64::from(step) / 60.0)));
    fs::write(&log, &wanted).map_err(|error| error.to_string())?;
    let mut child = bench.start(place.path(), &["watch", "log.csv"])?;
    sleep(Duration::from_secs_f64(0.02 + 0.5 * bench.random()));
    child.kill().map_err(|error| error.to_string())?;
    end(child)?;
    if fs::read_to_string(&log).map_err(|error| error.to_string())? != wanted {
        return Err("the log has changed".to_owned());
    }
    let mut file = OpenOptions::new().append(true).open(&log).map_err(|e| e.to_string())?;
    file.write_all(b"60,nan\n61,nan\n62,nan\n").map_err(|error| error.to_string())?;
    let ended = bench.run(place.path(), &["watch", "log.csv", "--idle", "0.6"])?;
    if ended.status.code() == Some(1) { Ok(None) } else { Err(format!("{ended:?}")) }
}

fn stop(bench: &mut Bench<'_>, number: u64) -> Tried {
    let (name, code) = [("-INT", 130), ("-TERM", 143), ("-HUP", 129)][number as usize % 3];
    let place = folder(CURVE)?;
    let child = bench.start(place.path(), &["train", "r.toml", "-q", "--out", "x"])?;
    let out = place.path().join("x");
    wait_until("the first step", || out.join("diagnosis.json").exists())?;
    sleep(Duration::from_secs_f64(bench.random()));
    signal(&child, name)?;
    let ended = end(child)?;
    let Some(seen) = look(&out)? else { return Err("no step is there".to_owned()) };
    let is_reported = out.join("report.json").exists();
    match (ended.status.code(), seen.ending) {
        (Some(got), Ending::Stopped(_)) if got == code && is_reported => Ok(None),
        (got, ending) => Err(format!("{name}: exit code {got:?}, {ending:?}")),
    }
}

fn torch(bench: &mut Bench<'_>, number: u64) -> Tried {
    let place = folder(TORCH_RUN)?;
    let out = place.path().join("x");
    let kind = if number.is_multiple_of(4) { "explode" } else { "calm" };
    let Some(python) = bench.torch else { return Ok(None) };
    let mut child = Command::new(python)
        .args([&text(&place.path().join("r.toml")), &text(&out), kind])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // To load torch takes seconds.
    wait_until("the first step", || {
        out.join("diagnosis.json").exists() || child.try_wait().is_ok_and(|end| end.is_some())
    })?;
    sleep(Duration::from_secs_f64(1.5 * bench.random()));
    let at = now();
    child.kill().map_err(|error| error.to_string())?;
    let ended = end(child)?;
    if ended.status.code().is_some() {
        return Err(format!("it ended: {}", String::from_utf8_lossy(&ended.stderr)));
    }
    killed(&out, at)
}
