//! Promises that are broken on purpose, in a copy of the project: the tests have to notice.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cargo;

/// A promise, and the change that breaks it.
struct Mutant {
    promise: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    package: &'static str,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        promise: "what was saved survives a power cut",
        file: "crates/tamegrad-runs/src/disk.rs",
        from: "if self.is_unsynced {",
        to: "if false {",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "one writer",
        file: "crates/tamegrad-runs/src/place.rs",
        from: "match file.try_lock() {",
        to: "match Ok::<(), TryLockError>(()) {",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "an error in writing is told",
        file: "crates/tamegrad-runs/src/write.rs",
        from: "files.and(steps).and(tensors).and(events)",
        to: "files.and(steps).and(tensors).and(events).or(Ok(()))",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "the diagnosis so far is written at an alarm",
        file: "crates/tamegrad-runs/src/keeper.rs",
        from: "let _ = writer.state(&known.state(None));",
        to: "",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "rows are on the disk before they make a batch",
        file: "crates/tamegrad-runs/src/write.rs",
        from: "self.steps.keep(&rows, self.new_steps)?;",
        to: "drop(rows);",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "a folder that is not ours is left alone",
        file: "crates/tamegrad-runs/src/place.rs",
        from: "        refuse_foreign(folder, kind)?;\n        let lock",
        to: "        let lock",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "nothing is written through a link",
        file: "crates/tamegrad-runs/src/disk.rs",
        from: "if path.symlink_metadata()?.is_file() {",
        to: "if path.metadata()?.is_file() {",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "a folder that was moved away is noticed",
        file: "crates/tamegrad-runs/src/place.rs",
        from: "(Some(_), Err(_)) => false,",
        to: "(Some(_), Err(_)) => true,",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "a run that goes on has each step once",
        file: "crates/tamegrad-runs/src/recorder.rs",
        from: "(row.segment, row.step.0) <= last)",
        to: "(row.segment, row.step.0) < last && false)",
        package: "tamegrad-runs",
    },
    Mutant {
        promise: "no verdict is milder than the alarms",
        file: "crates/tamegrad-logs/src/verdict.rs",
        from: "if let Some(step) = recorded.alarm_since",
        to: "if let Some(step) = recorded.alarm_since.filter(|_| false)",
        package: "tamegrad-logs",
    },
];

/// Breaks one promise after the other, and runs the tests that guard it.
///
/// # Errors
/// The first promise that no test noticed to be broken.
pub(super) fn all(root: &Path) -> Result<(), String> {
    let copy = root.join("target/mutants");
    copy_project(root, &copy)?;
    for package in ["tamegrad-runs", "tamegrad-logs"] {
        if !passes(&copy, package)? {
            return Err(format!("the tests of {package} fail before anything is broken"));
        }
    }
    for mutant in MUTANTS {
        let path = copy.join(mutant.file);
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", mutant.file))?;
        let broken = text.replacen(mutant.from, mutant.to, 1);
        if broken == text {
            return Err(format!("{} has no `{}`", mutant.file, mutant.from));
        }
        write(&path, &broken)?;
        let passes = passes(&copy, mutant.package);
        write(&path, &text)?;
        if passes.map_err(|error| format!("{}: {error}", mutant.promise))? {
            return Err(format!("no test notices when this is broken: {}", mutant.promise));
        }
        println!("noticed: {}", mutant.promise);
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Copies the files that git tracks; what has not changed keeps its time, so that it is not built anew.
pub(super) fn copy_project(root: &Path, copy: &Path) -> Result<(), String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output();
    let listed = listed.map_err(|error| format!("git could not list the files: {error}"))?;
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty())
    {
        let (from, to) = (root.join(name), copy.join(name));
        let bytes = fs::read(&from).map_err(|error| format!("{name}: {error}"))?;
        if fs::read(&to).is_ok_and(|known| known == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(copy))
            .and_then(|()| fs::write(&to, bytes))
            .map_err(|error| format!("could not copy {name}: {error}"))?;
    }
    Ok(())
}

/// Whether the tests of a package pass.
fn passes(copy: &Path, package: &str) -> Result<bool, String> {
    let succeeds = |more: &[&str]| {
        let mut command = cargo(copy, "test --profile ci --quiet --lib --package");
        command.arg(package).args(more).arg("--target-dir").arg(copy.join("target"));
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.map(|status| status.success()).map_err(|error| format!("cargo: {error}"))
    };
    if !succeeds(&["--no-run"])? {
        return Err(format!("{package} does not build"));
    }
    succeeds(&[])
}
