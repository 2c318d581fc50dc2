//! `tamegrad export`: a run folder as Parquet.

use tamegrad_report::printable;
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
        screen::say(&notice.to_string());
    }
    for file in ["steps.parquet", "tensors.parquet"] {
        let path = out.join(file).display().to_string();
        screen::print(&format!("{}\n", printable(&path)));
    }
    Ok(if notices.is_empty() { HEALTHY } else { COULD_NOT_RUN })
}
