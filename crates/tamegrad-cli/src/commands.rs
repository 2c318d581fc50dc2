//! The commands, one file each.

pub(crate) mod diagnose;
pub(crate) mod explain;
#[cfg(feature = "parquet")]
pub(crate) mod export;
#[cfg(feature = "train")]
pub(crate) mod fix;
mod judged;
mod pictured;
#[cfg(feature = "train")]
pub(crate) mod preflight;
#[cfg(feature = "train")]
mod recipe;
pub(crate) mod report;
pub(crate) mod scan;
#[cfg(feature = "train")]
pub(crate) mod train;
pub(crate) mod watch;

use tamegrad::Verdict;

use crate::failure::Failure;

/// Exit code: nothing was found, or what was found is cured.
pub(crate) const HEALTHY: u8 = 0;
/// Exit code: exploding gradients were found (and, for `fix`, not cured); for `scan`, NaN or Inf.
pub(crate) const FOUND: u8 = 1;
/// Exit code: the command could not run; for `scan`, not read all.
pub(crate) const COULD_NOT_RUN: u8 = 2;

/// The exit code of a verdict: of a run that was trained, and of one that was read from its log.
pub(crate) fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Healthy | Verdict::Recovered | Verdict::NotLearning | Verdict::TooEarly => HEALTHY,
        Verdict::Exploding | Verdict::Exploded | Verdict::Dead => FOUND,
    }
}

/// The exit code of a log: 2 rather than 0 where what could not be read may hide an explosion.
pub(crate) fn exit_code_of_log(verdict: Verdict, is_partly_read: bool) -> u8 {
    match exit_code(verdict) {
        HEALTHY if is_partly_read => COULD_NOT_RUN,
        code => code,
    }
}

/// The exit code of several logs: an explosion counts most, then what could not be read.
pub(crate) fn exit_code_of_all(codes: impl IntoIterator<Item = u8>) -> u8 {
    let weight = |code: &u8| [HEALTHY, COULD_NOT_RUN, FOUND].iter().position(|of| of == code);
    codes.into_iter().max_by_key(weight).unwrap_or(HEALTHY)
}

#[cfg(feature = "train")]
/// A report as JSON text.
pub(crate) fn to_json<T: serde::Serialize>(report: &T) -> Result<String, Failure> {
    tamegrad_report::json::to_string(report).map_err(Failure::Json)
}

/// A report as a line of JSON.
pub(crate) fn to_json_line<T: serde::Serialize>(report: &T) -> Result<String, Failure> {
    tamegrad_report::json::to_line(report).map_err(Failure::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explosion_counts_more_than_what_could_not_be_read() {
        for (codes, want) in [
            (&[][..], HEALTHY),
            (&[HEALTHY, COULD_NOT_RUN, HEALTHY], COULD_NOT_RUN),
            (&[COULD_NOT_RUN, FOUND, HEALTHY], FOUND),
        ] {
            assert_eq!(exit_code_of_all(codes.iter().copied()), want, "{codes:?}");
        }
        assert_eq!(exit_code_of_log(Verdict::Healthy, true), COULD_NOT_RUN);
        assert_eq!(exit_code_of_log(Verdict::TooEarly, true), COULD_NOT_RUN);
        assert_eq!(exit_code_of_log(Verdict::Dead, true), FOUND);
        assert_eq!(exit_code_of_log(Verdict::Recovered, false), HEALTHY);
    }
}
