//! The Python package: its wheel built and installed into the environment with torch, its tests,
//! its examples and its bench.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use crate::venv;

const CRATE: &str = "crates/tamegrad-python";

/// What builds the wheel and tests it, beside torch.
const PACKAGES: &[&str] = &[
    "maturin>=1.9,<2",
    "pytest>=9,<10",
    "pytest-xdist>=3.8,<4",
    "ruff>=0.17,<0.18",
    "lightning>=2.6",
    "transformers>=5",
    "accelerate>=1.15",
    "stable-baselines3>=2.7",
    "optax>=0.2.8,<0.3",
    "jsonschema>=4.25,<5",
];

/// The file in the environment that says that the packages are there.
const MARK: &str = "target/python-torch/tamegrad-test-packages";

/// Other tools, whose cost the bench measures beside ours.
const RIVALS: &[&str] = &[
    "wandb==0.31.0",
    "zclip==1.0.0",
    "trainscope==1.8.1",
    "stabilityguard==0.3.0",
    "trainpulse==0.4.0",
];

/// Builds the wheel, installs it, checks the style, and runs the tests and the examples.
///
/// # Errors
/// One line: what could not be started, or the step that failed.
pub(crate) fn test(root: &Path) -> Result<(), String> {
    let python = installed(root, "ci")?;
    let folder = root.join(CRATE);
    for rules in [&["check", "--quiet"][..], &["format", "--check", "--quiet"]] {
        run(Command::new(&python).args(["-m", "ruff"]).args(rules).current_dir(&folder))?;
    }
    // Many of the tests wait for processes that load torch: two at a time take half as long.
    run(Command::new(&python).args(["-m", "pytest", "-q", "-rs", "-n", "2"]).current_dir(&folder))?;
    for example in ["digits.py", "gpt_rate_jump.py", "fix_digits.py", "fix_gpt.py"] {
        let example = Path::new("examples").join(example);
        run(Command::new(&python).arg(example).current_dir(&folder))?;
    }
    let torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"];
    run(Command::new(&python).args(torchrun).arg("examples/ddp.py").current_dir(&folder))
}

/// Measures what watching costs and prints a line of JSON a model.
///
/// # Errors
/// As [`test`].
pub(crate) fn bench(root: &Path, rounds: usize) -> Result<(), String> {
    let python = installed(root, "release")?;
    if is_ours() {
        run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(RIVALS))?;
    }
    let script = root.join(CRATE).join("benches/overhead.py");
    run(Command::new(python).arg(script).args(["--rivals", "--rounds", &rounds.to_string()]))
}

/// A Python with torch, the packages for the tests, and a wheel of this state of the code, built with
/// the cargo profile `profile`: `ci` shares what the tests of the crates have built.
pub(crate) fn installed(root: &Path, profile: &str) -> Result<std::path::PathBuf, String> {
    let python = venv::python_with_torch(root)?;
    let mark = root.join(MARK);
    let wanted = PACKAGES.join("\n");
    if is_ours() && fs::read_to_string(&mark).ok().as_ref() != Some(&wanted) {
        run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(PACKAGES))?;
        fs::write(&mark, &wanted)
            .map_err(|error| format!("{} could not be written: {error}", mark.display()))?;
    }
    let wheels = root.join("target/wheels");
    let manifest = root.join(CRATE).join("Cargo.toml");
    if wheels.exists() {
        fs::remove_dir_all(&wheels).map_err(|error| format!("target/wheels: {error}"))?;
    }
    let build = ["-m", "maturin", "build", "--profile", profile, "--quiet", "--manifest-path"];
    run(Command::new(&python).args(build).arg(manifest).arg("--out").arg(&wheels))?;
    let install = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--force-reinstall"];
    let wheel = ["--find-links".as_ref(), wheels.as_os_str(), "tamegrad".as_ref()];
    run(Command::new(&python).args(install).args(wheel))?;
    Ok(python)
}

/// Whether the environment is the one made here: whoever names a Python has the packages in it, and
/// gets nothing installed but the wheel.
fn is_ours() -> bool {
    env::var_os(venv::VARIABLE).is_none_or(|python| python.is_empty())
}

fn run(command: &mut Command) -> Result<(), String> {
    let whole = format!("{command:?}");
    crate::run(command, &whole)
}
