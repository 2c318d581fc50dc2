//! `tamegrad preflight`: a recipe before its first update.

use tamegrad_lab::preflight;
use tamegrad_report::{preflight as words, svg};

use super::recipe::read_recipe;
use super::{FOUND, HEALTHY, to_json};
use crate::args::Preflight;
use crate::failure::Failure;
use crate::screen;

/// Looks at the first pass and update; exit code 1 when something is wrong with them.
pub(crate) fn run(args: &Preflight) -> Result<u8, Failure> {
    let file = read_recipe(&args.common)?;
    let seen = preflight(&file.recipe)?;
    if let Some(path) = &args.svg {
        let title = format!("{} before its first update", file.recipe.name);
        std::fs::write(path, svg::svg(&seen, &title))
            .map_err(|error| Failure::WritePicture { path: path.clone(), error })?;
    }
    if args.common.json {
        screen::print(&to_json(&words::report(&seen))?);
    } else if !args.common.quiet {
        screen::print(&words::text(&seen, &screen::style()));
    }
    Ok(if seen.warnings().is_empty() { HEALTHY } else { FOUND })
}
