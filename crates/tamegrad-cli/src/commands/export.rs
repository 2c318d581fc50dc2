//! `tamegrad export`: a run folder as Parquet.

use tamegrad_runs::{RunFolder, export};

use super::{COULD_NOT_RUN, HEALTHY};
use crate::args::Export;
use crate::failure::Failure;
use crate::screen;

/// Writes the files and says where they are; what is broken in the run is left out and said.
pub(crate) fn run(args: &Export) -> Result<u8, Failure> {
    let out = args.out.as_ref().unwrap_or(&args.run);
    let run = RunFolder::open(&args.run)?;
    let notices = export(&run, out)?;
    for notice in &notices {
        eprintln!("{notice}");
    }
    for file in ["steps.parquet", "tensors.parquet"] {
        screen::print(&format!("{}\n", out.join(file).display()));
    }
    Ok(if notices.is_empty() { HEALTHY } else { COULD_NOT_RUN })
}
