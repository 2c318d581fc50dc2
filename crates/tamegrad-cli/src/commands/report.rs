//! `tamegrad report`: runs as one HTML file with figures.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad_logs::{Source, discover_mapped};
use tamegrad_page::{MARK, RunView, Width, figures, overlays, page, short_names};
use tamegrad_report::number::{count, counted};
use tamegrad_runs::RunError;

use super::judged::Judged;
use super::pictured::Pictured;
use super::{COULD_NOT_RUN, HEALTHY};
use crate::args::Report;
use crate::failure::Failure;
use crate::progress::FilesBar;
use crate::{screen, signals};

/// Bytes at the start of a file in which a report says what it is.
const HEAD: u64 = 1024;

/// Writes the report and says where it is: 0 when all runs are in it, 2 when one could not be read or
/// nothing could be written. What the verdicts are does not matter.
pub(crate) fn run(args: &Report, cancel: &AtomicBool) -> Result<u8, Failure> {
    let mut errors = Vec::new();
    let mut sources: Vec<Source> = Vec::new();
    for path in &args.paths {
        let (mut found, unread) = discover_mapped(path, &args.map);
        found.sort_by_key(|source| rank(source.path()));
        sources.extend(found);
        errors.extend(unread.iter().map(ToString::to_string));
    }
    let output = args.output.clone().unwrap_or_else(|| default_output(&args.paths));
    // Before the logs are read, which may take a while.
    check_place(&output, args.overwrite)?;
    let bar = FilesBar::new(sources.len(), args.quiet);
    let mut logs = Vec::new();
    for source in &sources {
        if cancel.load(Ordering::Relaxed) {
            bar.clear();
            return Ok(signals::exit_code());
        }
        bar.show(source.path());
        let of_run = |error: String| format!("{}: {error}", source.path().display());
        match source.read() {
            Ok(log) => logs.push((source, log)),
            Err(error) => errors.push(of_run(error.to_string())),
        }
        bar.tell(|| {});
    }
    bar.clear();
    let mut judged = Vec::new();
    for (source, log) in &logs {
        match Judged::of(source, log, &args.map) {
            Ok(run) => judged.push(run),
            Err(error) => errors.push(format!("{}: {error}", source.path().display())),
        }
    }
    for error in &errors {
        screen::say(&format!("error: {error}"));
    }
    let pictured: Vec<Pictured<'_>> = judged.iter().map(Pictured::of).collect();
    let views: Vec<RunView<'_>> = pictured.iter().map(Pictured::view).collect();
    write(&views, args, &output)?;
    Ok(if errors.is_empty() { HEALTHY } else { COULD_NOT_RUN })
}

/// The run as given comes before the fixed one.
fn rank(path: &Path) -> u8 {
    let is_in = |folder: &str| path.iter().any(|part| part == folder);
    if is_in("given") {
        0
    } else if is_in("fixed") {
        1
    } else {
        2
    }
}

/// In the working directory, named for the first run.
fn default_output(paths: &[PathBuf]) -> PathBuf {
    let first = paths.first().and_then(|path| fs::canonicalize(path).ok());
    let name = first.as_deref().and_then(Path::file_stem).map(|name| name.to_string_lossy());
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.as_deref().unwrap_or("tamegrad").chars().map(plain).collect();
    PathBuf::from(format!("{name}-report.html"))
}

fn write(views: &[RunView<'_>], args: &Report, output: &Path) -> Result<(), Failure> {
    if views.is_empty() {
        return Err(Failure::NoRun);
    }
    let text = page(views);
    write_file(output, &text)?;
    let mut told = format!("{} ({})\n", output.display(), size(text.len()));
    if let Some(folder) = &args.figures {
        let files = write_figures(views, folder, args.overwrite)?;
        told += &format!("{} ({})\n", folder.display(), counted(files as u64, "figure"));
    }
    if !args.quiet {
        screen::print(&told);
    }
    Ok(())
}

/// Writes the figures as SVG, those of several runs with the number of the run before the name.
fn write_figures(views: &[RunView<'_>], folder: &Path, overwrite: bool) -> Result<usize, Failure> {
    let fail = |error| Failure::Place { path: folder.to_owned(), error };
    fs::create_dir_all(folder).map_err(fail)?;
    let mut files = Vec::new();
    if views.len() > 1 {
        files
            .extend(overlays(views, &short_names(views)).into_iter().map(|of| (String::new(), of)));
    }
    for (index, view) in views.iter().enumerate() {
        let before = if views.len() > 1 { format!("{}-", index + 1) } else { String::new() };
        files.extend(figures(view).into_iter().map(|figure| (before.clone(), figure)));
    }
    let files: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|(before, figure)| {
            let path = folder.join(format!("{before}{}.svg", figure.name));
            (path, figure.file(Width::Wide))
        })
        .collect();
    for (path, _) in &files {
        check_place(path, overwrite)?;
    }
    for (path, text) in &files {
        write_file(path, text)?;
    }
    Ok(files.len())
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let place = |error| match error {
        RunError::Io { path, source } => Failure::Place { path, error: source },
        other => Failure::Run(other),
    };
    tamegrad_runs::overwrite(path, text.as_bytes()).map_err(place)
}

/// Checks that a file may be written: there is none, or one that an earlier report has left.
fn check_place(path: &Path, overwrite: bool) -> Result<(), Failure> {
    let fail = |error| Failure::Place { path: path.to_owned(), error };
    let in_the_way = || Failure::InTheWay { path: path.to_owned() };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fail(error)),
        Ok(metadata) if !metadata.is_file() => Err(in_the_way()),
        Ok(_) if overwrite => Ok(()),
        Ok(_) => {
            let mut head = Vec::new();
            File::open(path)
                .and_then(|file| file.take(HEAD).read_to_end(&mut head))
                .map_err(fail)?;
            let (name, _) = MARK.split_once(' ').unwrap_or((MARK, ""));
            let marks =
                [format!("<meta name=\"generator\" content=\"{name} "), format!("<!-- {name} ")];
            let head = String::from_utf8_lossy(&head);
            if marks.iter().any(|mark| head.contains(mark)) { Ok(()) } else { Err(in_the_way()) }
        }
    }
}

/// A number of bytes as a person reads it.
fn size(bytes: usize) -> String {
    format!("{} kB", count(bytes.div_ceil(1000) as u64))
}
