//! What every reader promises of whatever it reads.

use std::collections::HashSet;
use std::path::Path;

use tamegrad_logs::{
    Format, Log, NOTICES_MAX, POINTS_MAX, ReadError, SERIES_MAX, read_verdict, scan_checkpoint,
};

/// Reads twice. The log is within the bounds, the same both times, and can be judged; an error can
/// be shown.
pub(crate) fn reading(format: &Format, read: impl Fn() -> Result<Log, ReadError>) {
    let log = match read() {
        Ok(log) => log,
        Err(error) => {
            assert_ne!(error.to_string(), "");
            return;
        }
    };
    let points: usize = log.series.iter().map(|series| series.points.len()).sum();
    assert!(points <= POINTS_MAX, "{points} points");
    assert!(log.series.len() <= SERIES_MAX, "{} series", log.series.len());
    assert!(log.notices.len() <= NOTICES_MAX, "{} notices", log.notices.len());
    let names: HashSet<&str> = log.series.iter().map(|series| &*series.name).collect();
    assert_eq!(names.len(), log.series.len(), "two series have one name");
    // As text, since NaN is not equal to itself.
    let again = read().map(|log| format!("{log:?}")).map_err(|error| error.to_string());
    assert_eq!(again, Ok(format!("{log:?}")), "read again");
    let verdict = read_verdict(&log, format, &[]);
    assert_eq!(verdict.map(drop), Ok(()), "a verdict that asks for no name");
}

/// Scans a checkpoint whose files have so many bytes in all: each is scanned once at most, and the
/// second scan says what the first said.
pub fn checkpoint(path: &Path, bytes: usize) {
    let (mut done, mut total) = (0, 0);
    let checkpoint = match scan_checkpoint(path, |now, of| (done, total) = (now, of)) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert_ne!(error.to_string(), "");
            return;
        }
    };
    assert_eq!(done, total, "bytes of progress");
    assert!(total <= bytes as u64, "{total} of {bytes} bytes scanned");
    assert!(checkpoint.notices.len() <= NOTICES_MAX, "{} notices", checkpoint.notices.len());
    let scanned = checkpoint.tensors.iter().filter_map(|tensor| tensor.stats);
    assert_eq!(scanned.map(|stats| stats.len).sum::<u64>(), checkpoint.total.len);
    let again = scan_checkpoint(path, |_, _| {}).map_err(|error| error.to_string());
    assert_eq!(again.map(|again| format!("{again:?}")), Ok(format!("{checkpoint:?}")));
}
