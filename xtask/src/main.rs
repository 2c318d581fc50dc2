//! The commands of the README and of CI, one file each; `bench` has a file for each bench.

mod bench;
mod burn_next;
mod debian;
mod eval;
mod format;
mod fuzz;
mod open_run;
mod package;
mod python;
mod test;
mod tidy;
mod trust;
mod valgrind;
mod venv;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::str::FromStr;

use bench::Bench;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  test         format check, clippy, tidy and every test, a few seconds of fuzzing; stops at the
               first failure
  format       every Rust file formatted; with --check, only looked at; a part of `test`
  tidy         the style rules that a machine can check, over every file of the project
  eval logs DIR | eval cases | eval loops
               the verdicts scored: on a corpus of logs against its labels, on runs whose truth is
               known, or on burn loops as users write them; `eval help` names the options
  burn-next VERSION|patch
               the tests of the burn integration with another version of burn, such as the next
               pre-release, in a copy in target/burn-next
  bench logs   the time of `diagnose` for an event file of 500 MB, against TensorBoard's own loaders,
               and of `scan` for a checkpoint of 4 GB, against a plain read of the mapped file
  bench observe
               the process time of burn training steps, watched, protected and bare in turns; leave
               the machine alone meanwhile
  bench stats  the time of statistics and clips, against a plain read of the same memory and
               against torch.nn.utils.clip_grad_norm_; leave the machine alone meanwhile
  open-run     a run folder and its Parquet files, opened by pyarrow and polars; a part of `test`
  package      every crate packaged, and the packages compiled; a part of `test`
  fuzz [TARGET...]
               every reader, or those named, against inputs that a fuzzer makes up; a part of `test`
  bench torch  the process time of torch training steps, watched and bare in turns
  python       the wheel built, its tests and examples in an environment with torch; a part of
               `test`
  trust [PART] what docs/guarantees.md promises: processes killed at random moments, disks that fail,
               promises broken on purpose, inputs that a fuzzer makes up; takes
               hours; the parts are dependencies, mutants, kills, wheel and fuzz
  valgrind     the tests of the kernels with every access to memory checked; a part of `test`
  help         this text

Options of fuzz:
  --seconds N  how long each target runs; 60 if not given

Options of trust:
  --kills N    how often each kind of process is killed; 500 if not given
  --faults N   how often each fault is tried; 20 if not given
  --inputs N   inputs of each fuzz target; 10 million if not given
  --no-torch   no torch run is killed

Options of bench:
  --json       print one JSON object in place of the table
  --rounds N   rounds that count, after one to warm up; 9 if not given

Exit codes: 0 all passed, 1 something failed, 2 the command was not understood.
With CI=true, `test` also fails when rustfmt, clippy or valgrind is not installed; valgrind it
installs itself from Debian's packages where it may.
TAMEGRAD_TORCH_PYTHON names a Python that has torch and the packages for the tests. Without it, `test`,
`python` and `bench` make a virtual environment in target/python-torch the first time, a download of
about 3 GB; without Python `bench` leaves torch out.
";

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match parse(&words) {
        Ok(task) => perform(&project_root(), task).unwrap_or_else(|complaint| {
            eprintln!("{complaint}");
            ExitCode::FAILURE
        }),
        Err(complaint) => {
            eprint!("{complaint}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Carries out a task. An error is a complaint that was not printed yet.
fn perform(root: &Path, task: Task) -> Result<ExitCode, String> {
    match task {
        Task::Test => return Ok(test::test(root)),
        Task::Eval(words) => return Ok(eval::eval(root, &words)),
        Task::Format { check } => format::format(root, check)?,
        Task::Tidy => tidy::tidy_and_print(root)?,
        Task::OpenRun => open_run::open_run(root)?,
        Task::Package => package::package(root)?,
        Task::Valgrind => valgrind::valgrind(root)?,
        Task::Fuzz(options) => fuzz::fuzz(root, &options)?,
        Task::Python => python::test(root)?,
        Task::Trust(options) => trust::trust(root, &options)?,
        Task::Bench(bench) => bench::bench(root, &bench)?,
        Task::BurnNext(version) => burn_next::burn_next(root, &version)?,
        Task::Help => print!("{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, PartialEq)]
enum Task {
    Test,
    Format { check: bool },
    Tidy,
    OpenRun,
    Package,
    Fuzz(fuzz::Options),
    Valgrind,
    Trust(trust::Options),
    Python,
    Bench(Bench),
    BurnNext(String),
    Eval(Vec<String>),
    Help,
}

fn parse(words: &[&str]) -> Result<Task, String> {
    match *words {
        ["test"] => Ok(Task::Test),
        ["format"] => Ok(Task::Format { check: false }),
        ["format", "--check"] => Ok(Task::Format { check: true }),
        ["tidy"] => Ok(Task::Tidy),
        ["open-run"] => Ok(Task::OpenRun),
        ["package"] => Ok(Task::Package),
        ["valgrind"] => Ok(Task::Valgrind),
        ["trust", ref rest @ ..] => trust::parse(rest).map(Task::Trust),
        ["fuzz", ref rest @ ..] => fuzz::parse(rest).map(Task::Fuzz),
        ["python"] => Ok(Task::Python),
        ["bench", ref rest @ ..] => bench::parse(rest).map(Task::Bench),
        ["burn-next", version] => Ok(Task::BurnNext(version.to_owned())),
        ["burn-next", ..] => Err("burn-next: want one version of burn".to_owned()),
        ["eval", ref rest @ ..] => {
            Ok(Task::Eval(rest.iter().map(|&word| word.to_owned()).collect()))
        }
        ["help" | "--help" | "-h"] => Ok(Task::Help),
        [] => Err("no command given".to_owned()),
        [
            "test" | "format" | "tidy" | "open-run" | "package" | "python" | "valgrind" | "help"
            | "--help" | "-h",
            extra,
            ..,
        ] => Err(format!("unexpected argument `{extra}`")),
        [unknown, ..] => Err(format!("unknown command `{unknown}`")),
    }
}

/// The number from 1 that follows an option on the command line.
fn number<N: FromStr>(option: &str, word: Option<&str>) -> Result<N, String> {
    word.and_then(|word| word.parse().ok()).ok_or_else(|| {
        let got = word.map_or("nothing".to_owned(), |word| format!("`{word}`"));
        format!("{option}: got {got}, want a number from 1")
    })
}

/// The folder that holds `xtask/`. Asked at run time first, since a checkout may have been moved
/// after it was built.
fn project_root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo builds: this program is there as well, in the folder of its profile.
fn target() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let target = program.ancestors().nth(2).map(Path::to_path_buf);
    target.ok_or_else(|| format!("{} is in no target folder", program.display()))
}

/// The cargo that started us, so that a toolchain chosen by `cargo +name` stays chosen.
fn cargo(root: &Path, arguments: &str) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).current_dir(root);
    command
}

/// Runs cargo with these arguments, separated by spaces, to its end.
fn run_cargo(root: &Path, arguments: &str) -> Result<(), String> {
    match cargo(root, arguments).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("cargo could not be started: {error}")),
    }
}

/// Runs a command, which an error calls `name`, to its end.
fn run(command: &mut Command, name: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name}: {status}")),
        Err(error) => Err(format!("{name} could not be started: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_one_task_or_are_refused() {
        let cases: &[(&[&str], Result<Task, &str>)] = &[
            (&["test"], Ok(Task::Test)),
            (&["format"], Ok(Task::Format { check: false })),
            (&["format", "--check"], Ok(Task::Format { check: true })),
            (&["format", "crates"], Err("unexpected argument `crates`")),
            (&["tidy"], Ok(Task::Tidy)),
            (&["open-run"], Ok(Task::OpenRun)),
            (&["package"], Ok(Task::Package)),
            (&["valgrind"], Ok(Task::Valgrind)),
            (&["python"], Ok(Task::Python)),
            (&["bench", "stats"], Ok(Task::Bench(bench::parse(&["stats"]).expect("a bench")))),
            (&["bench"], Err("no bench given, want `logs`, `observe`, `stats` or `torch`")),
            (&["fuzz", "text"], Ok(Task::Fuzz(fuzz::parse(&["text"]).expect("options")))),
            (&["trust", "--kills"], Err("--kills: got nothing, want a number from 1")),
            (&["eval", "cases"], Ok(Task::Eval(vec!["cases".to_owned()]))),
            (&["help"], Ok(Task::Help)),
            (&["--help"], Ok(Task::Help)),
            (&["-h"], Ok(Task::Help)),
            (&[], Err("no command given")),
            (&["tset"], Err("unknown command `tset`")),
            (&["tidy", "crates"], Err("unexpected argument `crates`")),
        ];
        for (words, expected) in cases {
            let got = parse(words);
            assert_eq!(got.as_ref().map_err(String::as_str), expected.as_ref().map_err(|&e| e));
        }
    }
}
