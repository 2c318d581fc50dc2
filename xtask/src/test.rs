//! `cargo xtask test`: the steps that every change must pass, in order, each with its time.

use std::io::{self, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use crate::{cargo, fuzz, parse, perform, run_cargo, valgrind, venv};

/// Runs every step in `root`, prints each with its time, and stops at the first that fails.
pub(crate) fn test(root: &Path) -> ExitCode {
    let steps = plan(|tool| tool.is_there(root));
    let do_work = |command: &str| match command.strip_prefix("xtask ") {
        Some(words) => {
            let words: Vec<&str> = words.split(' ').collect();
            perform(root, parse(&words)?).map(|_| ())
        }
        None => run_cargo(root, command),
    };
    match run(&steps, under_ci(), do_work, &mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("could not print the steps: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What may be missing beside a bare Rust installation.
#[derive(Clone, Copy, PartialEq)]
enum Tool {
    Rustfmt,
    Clippy,
    Nextest,
    /// At least 3.10, with what makes virtual environments.
    Python,
    /// What libFuzzer is built with.
    Cpp,
    Valgrind,
}

struct Step {
    name: &'static str,
    /// What follows `cargo`, separated by spaces.
    command: &'static str,
    /// Something to know before the step runs.
    note: Option<&'static str>,
    /// Set when the step cannot run here: how to make it run.
    left_out: Option<&'static str>,
}

fn plan(is_there: impl Fn(Tool) -> bool) -> Vec<Step> {
    let step = |name, command| Step { name, command, note: None, left_out: None };
    let with = |tool, hint, name, command| {
        let left_out = if is_there(tool) { None } else { Some(hint) };
        Step { left_out, ..step(name, command) }
    };
    let python = |name, command| with(Tool::Python, "apt-get install python3-venv", name, command);

    let clippy = "clippy --workspace --all-targets --profile ci -- -D warnings";
    let no_sqlite = "test -p tamegrad-logs --no-default-features --profile ci --lib no_sqlite";
    let mut steps = vec![
        with(Tool::Rustfmt, "rustup component add rustfmt", "format", "xtask format --check"),
        with(Tool::Clippy, "rustup component add clippy", "clippy", clippy),
        step("without burn", "check -p tamegrad-cli --no-default-features --profile ci"),
        step("without SQLite", no_sqlite),
        step("package", "xtask package"),
        step("tidy", "xtask tidy"),
    ];
    if is_there(Tool::Nextest) {
        steps.extend([
            step("tests", "nextest run --workspace --cargo-profile ci"),
            step("doc tests", "test --doc --workspace --profile ci"),
        ]);
    } else {
        let note = "cargo-nextest is not installed: cargo test runs the tests, doc tests included";
        steps.push(Step { note: Some(note), ..step("tests", "test --workspace --profile ci") });
    }
    steps.extend([
        python("run folder", "xtask open-run"),
        python("python", "xtask python"),
        with(Tool::Cpp, "apt-get install g++", "fuzz", "xtask fuzz --seconds 3"),
        with(Tool::Valgrind, "apt-get install valgrind", "valgrind", "xtask valgrind"),
    ]);
    steps
}

/// Whether all steps passed; a step that was left out counts as failed under `ci`.
fn run(
    steps: &[Step],
    ci: bool,
    mut do_work: impl FnMut(&str) -> Result<(), String>,
    out: &mut impl Write,
) -> io::Result<bool> {
    let start = Instant::now();
    let mut left_out = Vec::new();
    for step in steps {
        let name = step.name;
        let command = format!("cargo {}", step.command);
        if let Some(hint) = step.left_out {
            writeln!(out, "==> {name}: LEFT OUT, `{command}` cannot run here; hint: {hint}")?;
            if ci {
                writeln!(out, "{name} failed: under CI=true every step must run")?;
                return Ok(false);
            }
            writeln!(out)?;
            left_out.push(name);
            continue;
        }
        writeln!(out, "==> {name}: {command}")?;
        if let Some(note) = step.note {
            writeln!(out, "{note}")?;
        }
        out.flush()?;
        let step_start = Instant::now();
        let result = do_work(step.command);
        let seconds = step_start.elapsed().as_secs_f64();
        if let Err(complaint) = result {
            writeln!(out, "{name} failed after {seconds:.1} s: {complaint}")?;
            writeln!(out, "run it again: {command}")?;
            return Ok(false);
        }
        writeln!(out, "{name} passed in {seconds:.1} s\n")?;
    }
    let passed = steps.len() - left_out.len();
    write!(out, "{passed} steps passed in {:.1} s", start.elapsed().as_secs_f64())?;
    if !left_out.is_empty() {
        write!(out, "; left out: {}", left_out.join(", "))?;
    }
    writeln!(out)?;
    Ok(true)
}

impl Tool {
    /// Under CI what Debian's packages have is installed first where it is not there.
    fn is_there(self, root: &Path) -> bool {
        let answers = |tool: &str| {
            cargo(root, &format!("{tool} --version"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        match self {
            Tool::Rustfmt => answers("fmt"),
            Tool::Clippy => answers("clippy"),
            Tool::Nextest => answers("nextest"),
            Tool::Python => venv::is_possible(under_ci()),
            Tool::Cpp => fuzz::has_cpp_compiler(under_ci()),
            Tool::Valgrind => valgrind::is_installed(under_ci()),
        }
    }
}

fn under_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: IsThere = |_| true;
    const RUST_ONLY: IsThere = |_| false;

    type IsThere = fn(Tool) -> bool;

    #[test]
    fn the_plan_follows_what_is_installed() {
        let cases: &[(IsThere, &[&str])] = &[
            (
                ALL,
                &[
                    "xtask format --check",
                    "clippy --workspace --all-targets --profile ci -- -D warnings",
                    "check -p tamegrad-cli --no-default-features --profile ci",
                    "test -p tamegrad-logs --no-default-features --profile ci --lib no_sqlite",
                    "xtask package",
                    "xtask tidy",
                    "nextest run --workspace --cargo-profile ci",
                    "test --doc --workspace --profile ci",
                    "xtask open-run",
                    "xtask python",
                    "xtask fuzz --seconds 3",
                    "xtask valgrind",
                ],
            ),
            (
                RUST_ONLY,
                &[
                    "check -p tamegrad-cli --no-default-features --profile ci",
                    "test -p tamegrad-logs --no-default-features --profile ci --lib no_sqlite",
                    "xtask package",
                    "xtask tidy",
                    "test --workspace --profile ci",
                ],
            ),
            (
                |tool| tool == Tool::Rustfmt,
                &[
                    "xtask format --check",
                    "check -p tamegrad-cli --no-default-features --profile ci",
                    "test -p tamegrad-logs --no-default-features --profile ci --lib no_sqlite",
                    "xtask package",
                    "xtask tidy",
                    "test --workspace --profile ci",
                ],
            ),
        ];
        for &(is_there, expected) in cases {
            let steps = plan(is_there);
            let runnable = steps.iter().filter(|step| step.left_out.is_none());
            let runnable: Vec<&str> = runnable.map(|step| step.command).collect();
            assert_eq!(runnable, expected);
        }
    }

    /// Runs the plan with a scripted failure; gives the outcome, the commands run, the text.
    fn play(is_there: IsThere, ci: bool, failing: &str) -> (bool, Vec<String>, String) {
        let mut started = Vec::new();
        let mut text = Vec::new();
        let do_work = |command: &str| {
            started.push(command.to_owned());
            if command == failing { Err("exit status: 101".to_owned()) } else { Ok(()) }
        };
        let passed = run(&plan(is_there), ci, do_work, &mut text).expect("a Vec takes any text");
        (passed, started, String::from_utf8(text).expect("the steps print UTF-8"))
    }

    #[test]
    fn the_first_failure_ends_the_run_and_names_the_command() {
        let (passed, started, text) = play(ALL, true, "xtask tidy");
        assert!(!passed);
        assert_eq!(started.len(), 6, "{started:?}");
        assert!(text.contains("tidy failed after"), "{text}");
        assert!(text.ends_with("exit status: 101\nrun it again: cargo xtask tidy\n"), "{text}");
    }

    #[test]
    fn all_steps_pass() {
        let (passed, started, text) = play(ALL, true, "");
        assert!(passed);
        assert_eq!(started.len(), 12, "{started:?}");
        assert!(text.contains("\n12 steps passed in "), "{text}");
    }

    #[test]
    fn a_missing_component_is_said_and_fails_only_under_ci() {
        let (passed, started, text) = play(RUST_ONLY, false, "");
        assert!(passed);
        assert_eq!(started[3..], ["xtask tidy", "test --workspace --profile ci"]);
        assert!(text.contains("LEFT OUT, `cargo xtask format --check`"), "{text}");
        assert!(text.contains("hint: rustup component add clippy"), "{text}");
        assert!(text.contains("cargo-nextest is not installed"), "{text}");
        assert!(
            text.ends_with("; left out: format, clippy, run folder, python, fuzz, valgrind\n"),
            "{text}"
        );

        let (passed, started, text) = play(RUST_ONLY, true, "");
        assert!(!passed);
        assert_eq!(started, Vec::<String>::new());
        assert!(text.ends_with("format failed: under CI=true every step must run\n"), "{text}");
    }

    #[test]
    fn nextest_alone_may_be_missing_under_ci() {
        let (passed, started, _) = play(|tool| tool != Tool::Nextest, true, "");
        assert!(passed);
        assert_eq!(started[6], "test --workspace --profile ci", "{started:?}");
    }
}
