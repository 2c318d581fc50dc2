//! A log with its verdict, as all reports take it.

use tamegrad_logs::{Ending, Log, Map, Reading, Recorded, Series, Source, read_verdict};
use tamegrad_report::log::{LogRun, LogSeries, Missing, RunEnd};

/// A log that was read and judged.
pub(crate) struct Judged<'a> {
    path: String,
    format: &'static str,
    pub(crate) log: &'a Log,
    pub(crate) reading: Reading<'a>,
    series: Vec<LogSeries>,
    missing: Vec<Missing<'static>>,
    notices: Vec<String>,
}

impl<'a> Judged<'a> {
    /// Reads the verdict of a log.
    ///
    /// # Errors
    /// In words, if it shows no run.
    pub(crate) fn of(source: &Source, log: &'a Log, map: &Map) -> Result<Self, String> {
        let reading = read_verdict(log, source.format(), map)?;
        if log.recorded.as_ref().is_some_and(|recorded| recorded.last.is_none()) {
            return Err(
                "no step was recorded: the run stopped before its first step, or before that step \
                 was written"
                    .to_owned(),
            );
        }
        if reading.is_empty() {
            return Err(format!(
                "got {} series, want a loss or a gradient norm; hint: list them with --list, then name \
                 the loss with --map loss=NAME",
                log.series.len()
            ));
        }
        let told = |series: &Series| LogSeries {
            name: series.name.clone(),
            points: series.points.len() as u64 + series.thinned,
            role: reading.roles.role(&series.name).map(|(role, _)| role.as_str()),
        };
        Ok(Self {
            path: source.path().display().to_string(),
            format: source.format().name,
            series: log.series.iter().map(told).collect(),
            missing: reading.missing.iter().map(missing).collect(),
            notices: log.notices.iter().map(ToString::to_string).collect(),
            log,
            reading,
        })
    }

    /// The same in the form that reports take.
    pub(crate) fn run(&self) -> LogRun<'_> {
        let reading = &self.reading;
        let norm_name = if reading.norm_is_added_up {
            Some("summed over the individual tensors")
        } else {
            name(reading.norm_series())
        };
        LogRun {
            path: &self.path,
            format: self.format,
            diagnosis: &reading.diagnosis,
            onset_wall: reading.onset_wall,
            end: self.log.recorded.as_ref().map(end),
            loss: name(reading.loss_series()).map(|name| (name, &reading.loss[..])),
            grad_norm: norm_name.map(|name| (name, &reading.grad_norm[..])),
            series: &self.series,
            decided_by: name(reading.decided_by),
            missing: &self.missing,
            notices: &self.notices,
            left_out: self.log.damage.share(),
            is_partly_read: self.log.damage.is_partly_read(),
        }
    }
}

fn missing(of: &tamegrad_logs::Missing) -> Missing<'static> {
    match *of {
        tamegrad_logs::Missing::Loss => Missing::Loss,
        tamegrad_logs::Missing::Hidden(what) => Missing::Hidden(what),
        tamegrad_logs::Missing::GradientNorm(option) => Missing::GradientNorm(option),
        tamegrad_logs::Missing::TensorNorms(option) => Missing::TensorNorms(option),
    }
}

fn end(recorded: &Recorded) -> RunEnd<'_> {
    let (state, how) = match &recorded.ending {
        Ending::Completed => ("completed", None),
        Ending::Stopped(how) => ("stopped", Some(how.as_str())),
        Ending::Running => ("running", None),
        Ending::Unended => ("did-not-end", None),
    };
    let (last_step, last_wall) = recorded.last.unzip();
    RunEnd { state, how, last_step, last_wall }
}

fn name(series: Option<&Series>) -> Option<&str> {
    series.map(|series| series.name.as_str())
}
