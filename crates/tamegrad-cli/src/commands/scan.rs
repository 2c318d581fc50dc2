//! `tamegrad scan`: the tensors of safetensors files.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad_logs::{Checkpoint, ReadError, TensorReport, scan_checkpoint};
use tamegrad_report::checkpoint::{self, CheckpointReport, ScannedTensor, UnscannedTensor};

use super::{COULD_NOT_RUN, FOUND, HEALTHY, to_json_line};
use crate::args::Scan;
use crate::failure::{self, Failure};
use crate::progress::BytesBar;
use crate::{screen, signals};

/// Scans one path after another. Exit code 1 when a tensor holds NaN or Inf, 2 when anything could
/// not be read, also beside such a tensor.
pub(crate) fn run(args: &Scan, cancel: &AtomicBool) -> Result<u8, Failure> {
    let bar = BytesBar::new(args.quiet || args.json);
    let (mut is_broken, mut is_unread) = (false, false);
    for (index, path) in args.files.iter().enumerate() {
        let scanned = scan(path, &bar, cancel);
        bar.clear();
        let report = match scanned {
            Ok(checkpoint) => report(path, checkpoint),
            Err(error) => {
                let notices = vec![error.to_string()];
                failure::show(&Failure::Read(error));
                is_unread = true;
                if !args.json {
                    continue;
                }
                // A machine gets an object for each path, whatever became of it.
                CheckpointReport::new(path.display().to_string(), vec![], vec![], notices)
            }
        };
        is_broken |= !report.broken.is_empty();
        is_unread |= !report.notices.is_empty();
        if args.json {
            screen::print(&to_json_line(&report)?);
        } else if !args.quiet {
            let gap = if index > 0 { "\n" } else { "" };
            let text = checkpoint::text(&report, args.all, &screen::style());
            screen::print(&format!("{gap}{text}"));
        }
    }
    Ok(match (is_unread, is_broken) {
        (true, _) => COULD_NOT_RUN,
        (false, true) => FOUND,
        (false, false) => HEALTHY,
    })
}

fn scan(path: &Path, bar: &BytesBar, cancel: &AtomicBool) -> Result<Checkpoint, ReadError> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    bar.start(&name.to_string_lossy());
    scan_checkpoint(path, |done, total| {
        bar.show(done, total);
        if cancel.load(Ordering::Relaxed) {
            // Half a scan says nothing, and there is nothing to put away.
            bar.clear();
            std::process::exit(signals::exit_code().into());
        }
    })
}

fn report(path: &Path, checkpoint: Checkpoint) -> CheckpointReport {
    let (mut scanned, mut not_scanned) = (Vec::new(), Vec::new());
    for TensorReport { name, dtype, shape, stats, headroom_log2, .. } in checkpoint.tensors {
        let Some(stats) = stats else {
            not_scanned.push(UnscannedTensor { name, dtype, shape });
            continue;
        };
        scanned.push(ScannedTensor {
            name,
            dtype,
            shape,
            len: stats.len,
            l2: stats.l2,
            max_abs: stats.max_abs,
            mean: stats.mean,
            nans: stats.nans,
            infs: stats.infs,
            zeros: stats.zeros,
            headroom_log2,
        });
    }
    let notices = checkpoint.notices.iter().map(ToString::to_string).collect();
    CheckpointReport::new(path.display().to_string(), scanned, not_scanned, notices)
}
