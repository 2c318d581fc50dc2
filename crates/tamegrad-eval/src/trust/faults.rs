//! Disks and folders that fail while a run is written to them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::Duration;

use tamegrad_runs::RunFolder;

use super::folder::look;
use super::{Bench, CURVE, Line, Tried, end, folder, signal, text, wait_until};

/// Longer than the time between two saves.
const A_WHILE: Duration = Duration::from_millis(1300);

/// All faults, each tried so many times.
pub(super) fn all(bench: &mut Bench<'_>, tries: u64) -> Vec<Line> {
    let mut lines = vec![
        bench.line(
            "A folder that is moved or removed: training goes on, the diagnosis is kept",
            tries,
            "",
            gone,
        ),
        bench.line(
            "A folder that is not ours, a link, a file in the way: refused before training",
            tries,
            "",
            refused,
        ),
        bench.line("A second writer is refused, and the first goes on", tries, "", locked),
        bench.line(
            "A run that overwrites and is killed leaves the earlier run",
            tries,
            "",
            overwritten,
        ),
    ];
    let promises = [
        "A disk that is full for a while: nothing is lost, and the gap is told",
        "A disk that is full to the end: the diagnosis is printed and kept elsewhere",
        "A disk without inodes, or read-only: refused before training",
    ];
    let attempts = [full_for_a_while, full_to_the_end, no_room_at_all];
    for (promise, attempt) in promises.into_iter().zip(attempts) {
        lines.push(if Disk::mount("size=1m").is_ok() {
            bench.line(promise, tries, "", attempt)
        } else {
            Bench::not_tried(promise, "a small disk can only be mounted by root, on Linux")
        });
    }
    lines
}

/// A small disk in memory.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn mount(options: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path());
        let mounted = command.output().map_err(|error| error.to_string())?;
        if mounted.status.success() {
            Ok(Self { folder })
        } else {
            Err(String::from_utf8_lossy(&mounted.stderr).into_owned())
        }
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.path().join("x")
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.folder.path().join("fill");
        if let Ok(mut file) = File::create(&path) {
            while file.write_all(&[0; 4096]).is_ok() {}
            while file.write_all(&[0]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // If it cannot be taken off, the folder stays.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).output();
    }
}

/// A run that has begun. Where a promise is not kept, it is killed: it would train for ever.
struct Started(Option<Child>);

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn started(bench: &Bench<'_>, place: &Path, out: &Path) -> Result<Started, String> {
    let words = ["train", "r.toml", "--out", &text(out)];
    let started = Started(Some(bench.start(place, &words)?));
    wait_until("the first step", || out.join("diagnosis.json").exists())?;
    Ok(started)
}

fn stopped(mut started: Started) -> Result<(Output, String), String> {
    let child = started.0.take().ok_or("it was stopped already")?;
    signal(&child, "-TERM")?;
    let ended = end(child)?;
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    if !String::from_utf8_lossy(&ended.stdout).contains("HEALTHY") {
        return Err(format!("no diagnosis was printed: {told}"));
    }
    Ok((ended, told))
}

fn contains(told: &str, words: &str) -> Result<(), String> {
    if told.contains(words) { Ok(()) } else { Err(format!("want {words:?}, got {told}")) }
}

/// The diagnosis is where the words say.
fn fallback(told: &str) -> Result<(), String> {
    let path = told.split("the diagnosis is in ").nth(1).ok_or_else(|| told.to_owned())?;
    let path = Path::new(path.lines().next().unwrap_or_default().trim());
    let kept = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let _ = fs::remove_file(path);
    contains(&kept, "\"verdict\"")
}

fn gone(bench: &mut Bench<'_>, number: u64) -> Tried {
    let place = folder(CURVE)?;
    let out = place.path().join("x");
    let child = started(bench, place.path(), &out)?;
    let done = match number % 3 {
        0 => fs::rename(&out, place.path().join("y")),
        // Again where the writer has just made a file.
        1 => (0..100)
            .find_map(|_| fs::remove_dir_all(&out).ok())
            .map_or_else(|| Err(std::io::Error::other("the folder could not be removed")), Ok),
        _ => fs::rename(&out, place.path().join("y")).and_then(|()| fs::create_dir(&out)),
    };
    done.map_err(|error| error.to_string())?;
    sleep(A_WHILE);
    let (_, told) = stopped(child)?;
    contains(&told, "removed, moved or replaced")?;
    fallback(&told)?;
    if out.exists() && fs::read_dir(&out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err("something was written to a folder of somebody else".to_owned());
    }
    Ok(None)
}

fn refused(bench: &mut Bench<'_>, number: u64) -> Tried {
    let place = folder(CURVE)?;
    let at = |name: &str| place.path().join(name);
    fs::write(at("mine"), "mine").map_err(|error| error.to_string())?;
    fs::create_dir(at("full")).map_err(|error| error.to_string())?;
    fs::write(at("full/notes.txt"), "mine").map_err(|error| error.to_string())?;
    fs::create_dir(at("linked")).map_err(|error| error.to_string())?;
    #[cfg(unix)]
    std::os::unix::fs::symlink(at("mine"), at("linked/events.jsonl")).map_err(|e| e.to_string())?;
    let out = ["full", "linked", "mine", "mine/x"][number as usize % 4];
    for command in ["train", "fix"] {
        let ended = bench.run(place.path(), &[command, "r.toml", "--out", out, "--overwrite"])?;
        if ended.status.code() != Some(2) {
            return Err(format!("{command} --out {out}: {ended:?}"));
        }
    }
    for name in ["mine", "full/notes.txt"] {
        let kept = fs::read_to_string(at(name)).map_err(|error| error.to_string())?;
        contains(&kept, "mine")?;
    }
    Ok(None)
}

fn locked(bench: &mut Bench<'_>, number: u64) -> Tried {
    let place = folder(CURVE)?;
    let out = place.path().join("x");
    let child = started(bench, place.path(), &out)?;
    let more = ["--overwrite", "--resume"][number as usize % 2];
    let ended = bench.run(place.path(), &["train", "r.toml", "--out", "x", more])?;
    if ended.status.code() != Some(2) {
        return Err(format!("{more}: {ended:?}"));
    }
    stopped(child)?;
    look(&out)?.map(|_| None).ok_or_else(|| "no step is there".to_owned())
}

fn overwritten(bench: &mut Bench<'_>, _: u64) -> Tried {
    let place = folder(&CURVE.replace("epochs = 1000000", "epochs = 3"))?;
    let out = place.path().join("x");
    bench.run(place.path(), &["train", "r.toml", "-q", "--out", "x"])?;
    let before = look(&out)?.ok_or("no first run")?.steps;
    fs::write(place.path().join("r.toml"), CURVE).map_err(|error| error.to_string())?;
    let words = ["train", "r.toml", "-q", "--out", "x", "--overwrite"];
    let mut child = bench.start(place.path(), &words)?;
    wait_until("the first step", || place.path().join("x-2/diagnosis.json").exists())?;
    sleep(Duration::from_secs_f64(bench.random()));
    child.kill().map_err(|error| error.to_string())?;
    end(child)?;
    let after = look(&out)?.ok_or("the earlier run is gone")?.steps;
    if before == after { Ok(None) } else { Err(format!("{before} steps, then {after}")) }
}

fn full_for_a_while(bench: &mut Bench<'_>, _: u64) -> Tried {
    let place = folder(CURVE)?;
    let disk = Disk::mount("size=8m")?;
    let out = disk.run_folder();
    let child = started(bench, place.path(), &out)?;
    let fill = disk.fill();
    sleep(A_WHILE);
    fs::remove_file(fill).map_err(|error| error.to_string())?;
    sleep(A_WHILE);
    let (_, told) = stopped(child)?;
    contains(&told, "the run is not recorded at present")?;
    contains(&told, "the run is recorded again")?;
    look(&out)?.ok_or("no step is there")?;
    let contents = RunFolder::open(&out).map_err(|error| error.to_string())?.contents();
    let gap = contents.events.iter().find(|event| event.kind == "not-written");
    let gap = gap.ok_or("the gap is not in the run")?;
    if gap.data["steps"] == 0 { Ok(None) } else { Err(gap.text.clone()) }
}

fn full_to_the_end(bench: &mut Bench<'_>, _: u64) -> Tried {
    let place = folder(CURVE)?;
    let disk = Disk::mount("size=2m")?;
    let out = disk.run_folder();
    let child = started(bench, place.path(), &out)?;
    disk.fill();
    sleep(A_WHILE);
    let (ended, told) = stopped(child)?;
    if ended.status.code() != Some(2) {
        return Err(format!("exit code {:?}", ended.status.code()));
    }
    fallback(&told)?;
    // What was written before is whole.
    look(&out).map(|_| None)
}

fn no_room_at_all(bench: &mut Bench<'_>, number: u64) -> Tried {
    let place = folder(CURVE)?;
    let disk = Disk::mount(["nr_inodes=3", "ro"][number as usize % 2])?;
    let out = text(&disk.run_folder());
    let ended = bench.run(place.path(), &["train", "r.toml", "--out", &out])?;
    match ended.status.code() {
        Some(2) => contains(&String::from_utf8_lossy(&ended.stderr), "cannot write").map(|()| None),
        code => Err(format!("exit code {code:?}")),
    }
}
