//! How good the verdicts are: a corpus of logs whose labels say what happened.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tamegrad::Verdict;
use tamegrad::logs::Sample;
use tamegrad_logs::{ReadError, Reading, discover, read_verdict};

/// What a label says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// It ended in NaN.
    Nan,
    /// It diverged and did not come back.
    Diverged,
    /// It spiked and came back.
    SpikeRecovered,
    /// Nothing happened.
    Healthy,
    /// The label does not say; such a run is only read.
    Unknown,
}

impl Label {
    fn parse(text: &str) -> Self {
        let known = [Self::Nan, Self::Diverged, Self::SpikeRecovered, Self::Healthy];
        known.into_iter().find(|label| label.as_str() == text).unwrap_or(Self::Unknown)
    }

    /// Its name in the table of labels.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Nan => "nan",
            Self::Diverged => "diverged",
            Self::SpikeRecovered => "spike-recovered",
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
        }
    }

    /// Whether something happened.
    pub(crate) fn is_bad(self) -> bool {
        matches!(self, Self::Nan | Self::Diverged | Self::SpikeRecovered)
    }

    /// Whether a verdict says the same.
    pub(crate) fn agrees_with(self, verdict: Verdict) -> bool {
        match self {
            Self::Nan => verdict == Verdict::Exploded,
            Self::Diverged => matches!(verdict, Verdict::Exploding | Verdict::Dead),
            Self::SpikeRecovered => verdict == Verdict::Recovered,
            Self::Healthy => verdict == Verdict::Healthy,
            Self::Unknown => true,
        }
    }
}

/// A run of the corpus beside its label.
#[derive(Debug, Clone)]
pub(crate) struct Score {
    /// Its folder.
    pub(crate) id: String,
    /// What the label says.
    pub(crate) label: Label,
    /// The labelled onset.
    pub(crate) onset: Option<i64>,
    /// The format and the verdict; `Err` where it could not be read.
    pub(crate) read: Result<(String, Verdict), String>,
    /// The onset found.
    pub(crate) onset_found: Option<i64>,
    /// Logged records between the two.
    pub(crate) onset_error: Option<u64>,
}

impl Score {
    /// Whether an explosion was found.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.read.as_ref().is_ok_and(|(_, verdict)| verdict.is_explosion())
    }

    /// Whether the verdict is that of the label.
    pub(crate) fn is_exact(&self) -> bool {
        self.read.as_ref().is_ok_and(|(_, verdict)| self.label.agrees_with(*verdict))
    }

    /// Whether the onset is that of the label, but for three records.
    pub(crate) fn is_onset_near(&self) -> bool {
        self.onset_error.is_some_and(|records| records <= 3)
    }
}

/// Scores every run of a corpus: a folder with `labels.tsv`, whose columns `id`, `label` and
/// `onset_step` are used, and a folder for each id.
///
/// # Errors
/// [`ReadError`] if the table cannot be read or lacks a column.
pub(crate) fn score(
    corpus: &Path,
    mut each: impl FnMut(usize, usize),
) -> Result<Vec<Score>, ReadError> {
    let rows = labels(corpus)?;
    let count = rows.len();
    let mut scored = Vec::new();
    for (index, (id, label, onset)) in rows.into_iter().enumerate() {
        each(index, count);
        scored.push(score_one(corpus, id, label, onset));
    }
    Ok(scored)
}

fn labels(corpus: &Path) -> Result<Vec<(String, Label, Option<i64>)>, ReadError> {
    let path = corpus.join("labels.tsv");
    let text = fs::read_to_string(&path).map_err(|error| ReadError::io(&path, error))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let column = |name: &'static str| {
        header.iter().position(|column| *column == name).ok_or_else(|| ReadError::Broken {
            path: path.clone(),
            offset: 0,
            found: format!("the columns {}", header.join(", ")),
            wanted: "columns id, label and onset_step",
        })
    };
    let (id, label, onset) = (column("id")?, column("label")?, column("onset_step")?);
    let cell = |line: &str, at: usize| line.split('\t').nth(at).unwrap_or_default().to_owned();
    let rows = lines.filter(|line| !line.is_empty()).map(|line| {
        (cell(line, id), Label::parse(&cell(line, label)), cell(line, onset).parse().ok())
    });
    Ok(rows.collect())
}

fn score_one(corpus: &Path, id: String, label: Label, onset: Option<i64>) -> Score {
    let folder: PathBuf = corpus.join(&id);
    let (sources, errors) = discover(&folder);
    let mut failures: Vec<String> = errors.iter().map(ToString::to_string).collect();
    // Of several logs of one run that which tells the most.
    let mut best: Option<(usize, Score)> = None;
    for source in sources {
        let read = source.read().map_err(|error| error.to_string());
        let reading = read.as_ref().map_err(Clone::clone).and_then(|log| {
            let reading = read_verdict(log, source.format(), &[])?;
            Ok((reading.loss.len() + reading.grad_norm.len(), reading))
        });
        match reading {
            Ok((records, reading)) if !reading.is_empty() => {
                if best.as_ref().is_none_or(|(most, _)| records > *most) {
                    best =
                        Some((records, beside(&id, label, onset, source.format().name, &reading)));
                }
            }
            Ok(_) => failures.push("no loss and no gradient norm".to_owned()),
            Err(error) => failures.push(error),
        }
    }
    best.map(|(_, scored)| scored).unwrap_or_else(|| Score {
        id,
        label,
        onset,
        read: Err(failures.into_iter().next().unwrap_or_else(|| "no log".to_owned())),
        onset_found: None,
        onset_error: None,
    })
}

fn beside(
    id: &str,
    label: Label,
    onset: Option<i64>,
    format: &str,
    reading: &Reading<'_>,
) -> Score {
    let found = reading.diagnosis.onset.and_then(|step| i64::try_from(step.0).ok());
    let records = if reading.loss.is_empty() { &reading.grad_norm } else { &reading.loss };
    let error = onset.zip(found).map(|(a, b)| place(records, a).abs_diff(place(records, b)) as u64);
    Score {
        id: id.to_owned(),
        label,
        onset,
        read: Ok((format.to_owned(), reading.diagnosis.verdict)),
        onset_found: found,
        onset_error: error,
    }
}

/// The place of a step among the records.
fn place(records: &[Sample], step: i64) -> usize {
    records.iter().position(|sample| sample.step >= step).unwrap_or(records.len())
}

/// The sums over a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Totals {
    /// Runs of the corpus.
    pub(crate) runs: u64,
    /// Those that could be read.
    pub(crate) read: u64,
    /// Those in which something happened.
    pub(crate) bad: u64,
    /// Those of them with an alarm.
    pub(crate) alarms_on_bad: u64,
    /// Healthy ones.
    pub(crate) healthy: u64,
    /// Those of them with an alarm.
    pub(crate) alarms_on_healthy: u64,
    /// Bad and healthy ones with the verdict of their label.
    pub(crate) exact: u64,
    /// Bad ones whose onset is that of the label, but for three records.
    pub(crate) onset_within_3: u64,
}

/// Adds up.
pub(crate) fn totals(scored: &[Score]) -> Totals {
    let count = |of: &dyn Fn(&Score) -> bool| scored.iter().filter(|run| of(run)).count() as u64;
    let is_bad = |run: &Score| run.label.is_bad();
    let is_healthy = |run: &Score| run.label == Label::Healthy;
    Totals {
        runs: scored.len() as u64,
        read: count(&|run| run.read.is_ok()),
        bad: count(&is_bad),
        alarms_on_bad: count(&|run| is_bad(run) && run.is_alarmed()),
        healthy: count(&is_healthy),
        alarms_on_healthy: count(&|run| is_healthy(run) && run.is_alarmed()),
        exact: count(&|run| run.label != Label::Unknown && run.is_exact()),
        onset_within_3: count(&|run| is_bad(run) && run.is_onset_near()),
    }
}

/// The runs whose verdict, alarm or onset is not that of their label, by id, with what is off.
pub(crate) fn misses(scored: &[Score]) -> BTreeMap<&str, String> {
    let mut misses = BTreeMap::new();
    for run in scored {
        let off = match &run.read {
            Err(error) => Some(format!("not read: {error}")),
            Ok(_) if run.label == Label::Unknown => None,
            Ok((_, verdict)) if !run.is_exact() => {
                Some(format!("{} for {}", verdict.as_str(), run.label.as_str()))
            }
            Ok(_) if run.label.is_bad() && !run.is_onset_near() => {
                let words = |step: Option<i64>| step.map_or("none".to_owned(), |s| s.to_string());
                let (found, want) = (words(run.onset_found), words(run.onset));
                Some(format!("onset {found} for {want}"))
            }
            Ok(_) => None,
        };
        misses.extend(off.map(|off| (run.id.as_str(), off)));
    }
    misses
}
