//! `cargo xtask trust`: whether what docs/guarantees.md promises holds. It takes hours; a short set of it is
//! a part of `test`.

mod mutants;
mod wheel;

use std::env::consts::EXE_SUFFIX;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{cargo, fuzz, number, python, run, run_cargo};

/// How often everything is tried.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    kills: NonZeroU32,
    faults: NonZeroU32,
    /// Inputs of each fuzz target.
    inputs: NonZeroU32,
    /// Whether the promises that a torch run needs are tried.
    torch: bool,
    /// One part alone.
    only: Option<Part>,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Dependencies,
    Mutants,
    Kills,
    Wheel,
    Fuzz,
}

impl Default for Options {
    fn default() -> Self {
        let count = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            kills: count(500),
            faults: count(20),
            inputs: count(10_000_000),
            torch: true,
            only: None,
        }
    }
}

/// Reads what follows `trust` on the command line.
pub(crate) fn parse(words: &[&str]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--kills" => options.kills = number(word, words.next())?,
            "--faults" => options.faults = number(word, words.next())?,
            "--inputs" => options.inputs = number(word, words.next())?,
            "--no-torch" => options.torch = false,
            "dependencies" => options.only = Some(Part::Dependencies),
            "mutants" => options.only = Some(Part::Mutants),
            "kills" => options.only = Some(Part::Kills),
            "wheel" => options.only = Some(Part::Wheel),
            "fuzz" => options.only = Some(Part::Fuzz),
            _ => return Err(format!("unexpected argument `{word}`")),
        }
    }
    Ok(options)
}

/// Tries all promises, and prints the tables of docs/guarantees.md.
///
/// # Errors
/// A sentence about the first part of which something did not hold or could not be tried.
pub(crate) fn trust(root: &Path, options: &Options) -> Result<(), String> {
    let all = [Part::Dependencies, Part::Mutants, Part::Kills, Part::Wheel, Part::Fuzz];
    for part in all.into_iter().filter(|part| options.only.is_none_or(|only| only == *part)) {
        match part {
            Part::Dependencies => {
                println!("Licences and sources of the dependencies (deny.toml)");
                dependencies(root)?;
            }
            Part::Mutants => {
                println!("Promises that are broken on purpose: a test has to fail for each");
                mutants::all(root)?;
            }
            Part::Kills => {
                println!("Kills and faults");
                kills(root, options)?;
            }
            Part::Wheel => {
                println!("The wheel, built twice");
                wheel::is_reproducible(root)?;
            }
            Part::Fuzz => {
                println!("Inputs that a fuzzer makes up");
                fuzz::inputs(root, options.inputs)?;
            }
        }
    }
    Ok(())
}

fn kills(root: &Path, options: &Options) -> Result<(), String> {
    // Of the whole workspace, so that what the tests have built is used.
    run_cargo(root, "build --profile ci --quiet --workspace --bins")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let program = |name| root.join(&target).join("ci").join(format!("{name}{EXE_SUFFIX}"));
    let mut command = Command::new(program("tamegrad-eval"));
    command.args(["trust", "--program"]).arg(program("tamegrad"));
    command.args(["--kills", &options.kills.to_string()]);
    command.args(["--faults", &options.faults.to_string()]);
    if options.torch {
        command.arg("--torch").arg(python::installed(root, "ci")?);
    }
    run(&mut command, "kills and faults")
}

/// `cargo deny`, where it is installed.
fn dependencies(root: &Path) -> Result<(), String> {
    let is_there = cargo(root, "deny --version").output().is_ok_and(|told| told.status.success());
    if !is_there {
        println!("not tried: there is no cargo-deny; hint: cargo install cargo-deny");
        return Ok(());
    }
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let of = format!("--manifest-path {manifest} --config deny.toml --all-features");
        // Without the advisories: their database is a download of its own.
        run_cargo(root, &format!("deny {of} check bans licenses sources"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_everything_is_tried_can_be_said() {
        let options = parse(&["--kills", "3", "--faults", "1", "--inputs", "1000", "--no-torch"]);
        let count = |count| NonZeroU32::new(count).expect("not 0");
        let (kills, faults, inputs) = (count(3), count(1), count(1000));
        assert_eq!(options, Ok(Options { kills, faults, inputs, torch: false, only: None }));
        assert_eq!(parse(&["fuzz"]).map(|options| options.only), Ok(Some(Part::Fuzz)));
        assert_eq!(parse(&["--kills"]), Err("--kills: got nothing, want a number from 1".into()));
        assert_eq!(parse(&["all"]), Err("unexpected argument `all`".into()));
    }
}
