//! `cargo xtask eval cases`: runs that explode and runs that do not, and what is said of them.

use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad_lab::cases::summary::{Summary, summarise};
use tamegrad_lab::cases::{self, Case, Extent, Outcome, table};

use crate::{Cases, Scored, progress, to_json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs the cases that the folder does not hold yet, and scores all.
pub(crate) fn run(args: &Cases, cancel: &AtomicBool) -> Result<Scored> {
    let extent = if args.quick { Extent::Quick } else { Extent::Full };
    let name = if args.quick { "cases-quick" } else { "cases" };
    let folder = args.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    make_folder(&folder)?;
    let chosen =
        |case: &Case| args.only.is_empty() || args.only.iter().any(|only| case.name.contains(only));
    let list: Vec<Case> = cases::list(extent).into_iter().filter(chosen).collect();
    let rows = Rows::open(&folder.join("rows.jsonl"))?;
    let (mut outcomes, left) = rows.already(list.clone());
    let bar = progress(list.len(), &args.output);
    bar.set_position(outcomes.len() as u64);
    let mut failed: Option<Box<dyn Error>> = None;
    cases::run(&left, cancel, &mut |outcome| {
        bar.set_message(outcome.name.clone());
        bar.inc(1);
        if let Err(error) = rows.add(&outcome) {
            failed.get_or_insert(error);
            cancel.store(true, Ordering::Relaxed);
        }
        outcomes.push(outcome);
    })?;
    bar.finish_and_clear();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let place = |outcome: &Outcome| list.iter().position(|case| case.name == outcome.name);
    outcomes.sort_by_key(place);
    let summary = summarise(&outcomes);
    write(&folder.join("cases.csv"), &table::csv(&outcomes))?;
    write(&folder.join("cases.md"), &table::markdown(&summary, &outcomes))?;
    keep_recipes_of_misses(&folder.join("misses"), &summary, &list)?;
    let text = if args.output.json { to_json(&summary)? } else { text(&summary, &folder) };
    let exit_code = if cancel.load(Ordering::Relaxed) {
        130
    } else if outcomes.len() < list.len() {
        2
    } else {
        0
    };
    Ok(Scored { text, exit_code })
}

/// The outcomes as they come, one JSON object a line, so that a run that was stopped goes on. The
/// first line says which build made them: another build's say nothing of this one's rules.
struct Rows {
    path: PathBuf,
    known: Vec<Outcome>,
}

impl Rows {
    fn open(path: &Path) -> Result<Self> {
        let build = format!("{{\"build\":\"{:016x}\"}}", hash_of_this_program());
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        let is_ours = lines.next() == Some(build.as_str());
        let (mut whole, mut known) = (build + "\n", Vec::new());
        // A line that was cut short is a case to run again.
        for line in lines.filter(|_| is_ours) {
            if let Ok(outcome) = serde_json::from_str(line) {
                whole.push_str(line);
                whole.push('\n');
                known.push(outcome);
            }
        }
        write(path, &whole)?;
        Ok(Self { path: path.to_path_buf(), known })
    }

    /// The outcomes of listed cases that are known, and the cases that are left.
    fn already(&self, list: Vec<Case>) -> (Vec<Outcome>, Vec<Case>) {
        let of = |case: &Case| self.known.iter().find(|outcome| outcome.name == case.name);
        let known = list.iter().filter_map(of).cloned().collect();
        (known, list.into_iter().filter(|case| of(case).is_none()).collect())
    }

    fn add(&self, outcome: &Outcome) -> Result<()> {
        let line = serde_json::to_string(outcome)? + "\n";
        let file = fs::OpenOptions::new().append(true).open(&self.path);
        let added = file.and_then(|mut file| file.write_all(line.as_bytes()));
        added.map_err(|error| cannot_write(&self.path, &error))
    }
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| cannot_write(path, &error))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Box<dyn Error> {
    let path = path.display();
    format!("cannot write {path}: {error}; hint: choose another folder with --out").into()
}

fn hash_of_this_program() -> u64 {
    let mut hasher = DefaultHasher::new();
    let program = std::env::current_exe().and_then(fs::read).unwrap_or_default();
    hasher.write(&program);
    hasher.finish()
}

/// Writes the recipe of each miss, so that `train`, `preflight` and `fix` can look at it.
fn keep_recipes_of_misses(folder: &Path, summary: &Summary, list: &[Case]) -> Result<()> {
    let missed = |case: &&Case| summary.misses.iter().any(|miss| miss.name == case.name);
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
    }
    make_folder(folder)?;
    for case in list.iter().filter(missed) {
        let file = format!("{}.toml", case.name.replace('/', "-"));
        write(&folder.join(file), &case.recipe)?;
    }
    Ok(())
}

fn text(summary: &Summary, folder: &Path) -> String {
    let mut text = String::new();
    for (what, part, of) in table::figures(summary) {
        let percent = 100.0 * part as f64 / of.max(1) as f64;
        text.push_str(&format!("{what:50} {part:>5} of {of:<5} {percent:5.1}%\n"));
    }
    if let Some(lead) = summary.lead_median_steps {
        text.push_str(&format!("{:50} {lead:>5} steps\n", "faults that grow, median lead"));
    }
    for rival in &summary.rivals {
        text.push_str(&format!(
            "rival {:44} {:>5} failing, {} healthy, lead {}\n",
            rival.name,
            rival.failing_alarms,
            rival.healthy_alarms,
            rival.lead_median_steps.map_or("none".into(), |lead| lead.to_string())
        ));
    }
    let count = summary.misses.len();
    text.push_str(&format!(
        "\n{count} misses, each run and the misses by name: {}\n",
        folder.join("cases.md").display()
    ));
    text
}
