//! The examples as their users run them: bare, watched and protected, they end with the same weights.

use std::path::PathBuf;
use std::process::Command;

/// What an example prints, run with these arguments.
fn run(name: &str, arguments: &[&str]) -> String {
    // Cargo builds the examples of a package with its tests, in the folder beside theirs.
    let mut folder: PathBuf = std::env::current_exe().expect("a path");
    folder.pop();
    folder.pop();
    let program =
        folder.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let output = Command::new(&program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The line that tells the weights; burn prints what its `Learner` does before it.
fn weights(printed: &str) -> &str {
    let line = printed.lines().find(|line| line.starts_with("weights ")).unwrap_or_default();
    assert!(line.len() > 30, "{printed}");
    line
}

#[test]
fn a_guard_changes_no_bit_of_a_healthy_run() {
    let learner = cfg!(feature = "learner").then_some("learner");
    let others = ["mlp", "convolution", "gan", "accumulation", "characters", "resume"];
    for name in others.into_iter().chain(learner) {
        let [bare, observed, protected] =
            ["bare", "observe", "protect"].map(|mode| run(name, &[mode]));
        assert_eq!(weights(&bare), weights(&observed), "{name}");
        assert_eq!(weights(&bare), weights(&protected), "{name}");
        assert!(observed.contains("HEALTHY") || observed.contains("TOO-EARLY"), "{observed}");
    }
}

#[test]
fn the_loop_of_the_readme_is_an_example() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(readme) = std::fs::read_to_string(folder.join("../../README.md")) else {
        // The README of a packaged crate lies elsewhere.
        return;
    };
    let (_, code) = readme.split_once("```rust\n").expect("Rust code");
    let (code, _) = code.split_once("```").expect("an end");
    let example = std::fs::read_to_string(folder.join("examples/quickstart.rs")).expect("there");
    let mut lines = example.lines().map(str::trim);
    for line in code.lines().map(str::trim) {
        assert!(lines.any(|other| other == line), "the example has no line `{line}` here");
    }
}

#[test]
fn the_quickstart_is_saved_and_told_why() {
    let printed = run("quickstart", &[]);
    assert!(printed.contains("unscaled-target"), "{printed}");
}

#[test]
fn a_resumed_run_is_the_whole_one() {
    for mode in ["bare", "observe", "protect"] {
        assert_eq!(run("resume", &[mode]), run("resume", &[mode, "resumed"]), "{mode}");
    }
}
