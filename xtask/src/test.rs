//! `cargo xtask test`: the steps that every change must pass, in order, each with its time.

use std::io::{self, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use crate::{cargo, fuzz, open_run, python, tidy, valgrind, venv};

/// Runs every step in `root`, prints each with its time, and stops at the first that fails.
pub(crate) fn test(root: &Path) -> ExitCode {
    let steps = plan(Installed::look(root));
    let do_work = |work: &Work| match work {
        Work::Cargo(arguments) => run_cargo(root, arguments),
        Work::Tidy => tidy::tidy_and_print(root),
        Work::OpenRun => open_run::open_run(root),
        Work::Python => python::test(root),
        Work::Fuzz => fuzz::fuzz(root, &fuzz::Options::brief()),
        Work::Valgrind => valgrind::valgrind(root),
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

/// The cargo tools that a bare Rust installation may lack.
#[derive(Clone, Copy)]
struct Installed {
    rustfmt: bool,
    clippy: bool,
    nextest: bool,
    /// At least 3.10, with what makes virtual environments.
    python: bool,
    /// What libFuzzer is built with.
    cpp: bool,
    valgrind: bool,
}

struct Step {
    name: &'static str,
    work: Work,
    /// Something to know before the step runs.
    note: Option<&'static str>,
    /// Set when the step cannot run here: how to make it run.
    left_out: Option<&'static str>,
}

enum Work {
    /// `cargo` with these arguments, separated by spaces.
    Cargo(&'static str),
    Tidy,
    OpenRun,
    Python,
    Fuzz,
    Valgrind,
}

fn plan(installed: Installed) -> Vec<Step> {
    let step = |name, work| Step { name, work, note: None, left_out: None };
    let unless = |there: bool, hint| if there { None } else { Some(hint) };

    let mut steps = vec![
        Step {
            left_out: unless(installed.rustfmt, "rustup component add rustfmt"),
            ..step("format", Work::Cargo("fmt --all --check"))
        },
        Step {
            left_out: unless(installed.clippy, "rustup component add clippy"),
            ..step(
                "clippy",
                Work::Cargo("clippy --workspace --all-targets --profile ci -- -D warnings"),
            )
        },
        step(
            "without burn",
            Work::Cargo("check -p tamegrad-cli --no-default-features --profile ci"),
        ),
        step(
            "without SQLite",
            Work::Cargo("test -p tamegrad-logs --no-default-features --profile ci --lib no_sqlite"),
        ),
        step("package", Work::Cargo("package --workspace --no-verify --allow-dirty --quiet")),
        step("tidy", Work::Tidy),
    ];
    if installed.nextest {
        steps.extend([
            step("tests", Work::Cargo("nextest run --workspace --cargo-profile ci")),
            step("doc tests", Work::Cargo("test --doc --workspace --profile ci")),
        ]);
    } else {
        steps.push(Step {
            note: Some(
                "cargo-nextest is not installed: cargo test runs the tests, doc tests included",
            ),
            ..step("tests", Work::Cargo("test --workspace --profile ci"))
        });
    }
    steps.push(Step {
        left_out: unless(installed.python, "apt-get install python3-venv"),
        ..step("run folder", Work::OpenRun)
    });
    steps.push(Step {
        left_out: unless(installed.python, "apt-get install python3-venv"),
        ..step("python", Work::Python)
    });
    steps.push(Step {
        left_out: unless(installed.cpp, "apt-get install g++"),
        ..step("fuzz", Work::Fuzz)
    });
    steps.push(Step {
        left_out: unless(installed.valgrind, "apt-get install valgrind"),
        ..step("valgrind", Work::Valgrind)
    });
    steps
}

/// Whether all steps passed; a step that was left out counts as failed under `ci`.
fn run(
    steps: &[Step],
    ci: bool,
    mut do_work: impl FnMut(&Work) -> Result<(), String>,
    out: &mut impl Write,
) -> io::Result<bool> {
    let start = Instant::now();
    let mut left_out = Vec::new();
    for step in steps {
        let name = step.name;
        let command = step.work.command_line();
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
        let result = do_work(&step.work);
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

impl Work {
    fn command_line(&self) -> String {
        match self {
            Work::Cargo(arguments) => format!("cargo {arguments}"),
            Work::Tidy => "cargo xtask tidy".to_owned(),
            Work::OpenRun => "cargo xtask open-run".to_owned(),
            Work::Python => "cargo xtask python".to_owned(),
            Work::Fuzz => "cargo xtask fuzz --seconds 3".to_owned(),
            Work::Valgrind => "cargo xtask valgrind".to_owned(),
        }
    }
}

impl Installed {
    fn look(root: &Path) -> Installed {
        let answers = |tool| {
            cargo(root, &format!("{tool} --version"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        Installed {
            rustfmt: answers("fmt"),
            clippy: answers("clippy"),
            nextest: answers("nextest"),
            python: venv::is_possible(under_ci()),
            cpp: fuzz::has_cpp_compiler(under_ci()),
            valgrind: valgrind::is_installed(under_ci()),
        }
    }
}

fn run_cargo(root: &Path, arguments: &str) -> Result<(), String> {
    match cargo(root, arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("cargo could not be started: {error}")),
    }
}

fn under_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Installed = Installed {
        rustfmt: true,
        clippy: true,
        nextest: true,
        python: true,
        cpp: true,
        valgrind: true,
    };
    const RUST_ONLY: Installed = Installed {
        rustfmt: false,
        clippy: false,
        nextest: false,
        python: false,
        cpp: false,
        valgrind: false,
    };

    #[test]
    fn the_plan_follows_what_is_installed() {
        let cases: &[(Installed, &[&str])] = &[
            (
                ALL,
                &[
                    "cargo fmt --all --check",
                    "cargo clippy --workspace --all-targets --profile ci -- -D warnings",
                    "cargo check -p tamegrad-cli --no-default-features --profile ci",
                    "cargo test -p tamegrad-logs --no-default-features --profile ci --lib no_sqlite",
                    "cargo package --workspace --no-verify --allow-dirty --quiet",
                    "cargo xtask tidy",
                    "cargo nextest run --workspace --cargo-profile ci",
                    "cargo test --doc --workspace --profile ci",
                    "cargo xtask open-run",
                    "cargo xtask python",
                    "cargo xtask fuzz --seconds 3",
                    "cargo xtask valgrind",
                ],
            ),
            (
                RUST_ONLY,
                &[
                    "cargo check -p tamegrad-cli --no-default-features --profile ci",
                    "cargo test -p tamegrad-logs --no-default-features --profile ci --lib no_sqlite",
                    "cargo package --workspace --no-verify --allow-dirty --quiet",
                    "cargo xtask tidy",
                    "cargo test --workspace --profile ci",
                ],
            ),
            (
                Installed { rustfmt: true, ..RUST_ONLY },
                &[
                    "cargo fmt --all --check",
                    "cargo check -p tamegrad-cli --no-default-features --profile ci",
                    "cargo test -p tamegrad-logs --no-default-features --profile ci --lib no_sqlite",
                    "cargo package --workspace --no-verify --allow-dirty --quiet",
                    "cargo xtask tidy",
                    "cargo test --workspace --profile ci",
                ],
            ),
        ];
        for &(installed, expected) in cases {
            let steps = plan(installed);
            let runnable: Vec<String> = steps
                .iter()
                .filter(|step| step.left_out.is_none())
                .map(|step| step.work.command_line())
                .collect();
            assert_eq!(runnable, expected);
        }
    }

    /// Runs the plan with a scripted failure; gives the outcome, the commands run, the text.
    fn play(installed: Installed, ci: bool, failing: &str) -> (bool, Vec<String>, String) {
        let mut started = Vec::new();
        let mut text = Vec::new();
        let do_work = |work: &Work| {
            started.push(work.command_line());
            if started.last().is_some_and(|line| line == failing) {
                Err("exit status: 101".to_owned())
            } else {
                Ok(())
            }
        };
        let passed = run(&plan(installed), ci, do_work, &mut text).expect("a Vec takes any text");
        (passed, started, String::from_utf8(text).expect("the steps print UTF-8"))
    }

    #[test]
    fn the_first_failure_ends_the_run_and_names_the_command() {
        let (passed, started, text) = play(ALL, true, "cargo xtask tidy");
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
        assert_eq!(started[3..], ["cargo xtask tidy", "cargo test --workspace --profile ci"]);
        assert!(text.contains("LEFT OUT, `cargo fmt --all --check`"), "{text}");
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
        let (passed, started, _) = play(Installed { nextest: false, ..ALL }, true, "");
        assert!(passed);
        assert_eq!(started[6], "cargo test --workspace --profile ci", "{started:?}");
    }
}
