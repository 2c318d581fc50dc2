//! `tamegrad eval CORPUS`: the verdicts on a corpus of logs beside its labels.

use std::path::Path;

use serde::Serialize;
use tamegrad_runs::score::{Scored, Totals, misses, score, totals};

use crate::args::Eval;
use crate::commands::{COULD_NOT_RUN, HEALTHY, to_json};
use crate::failure::Failure;
use crate::{progress, screen};

/// What `--json` prints.
#[derive(Serialize)]
struct EvalReport {
    runs: u64,
    read: u64,
    bad: u64,
    alarms_on_bad: u64,
    healthy: u64,
    alarms_on_healthy: u64,
    exact: u64,
    onset_within_3: u64,
    misses: Vec<Miss>,
}

#[derive(Serialize)]
struct Miss {
    id: String,
    miss: String,
}

/// Runs the cases, or scores a corpus.
pub(crate) fn run(args: &Eval) -> Result<u8, Failure> {
    #[cfg(feature = "train")]
    if let Some(crate::args::EvalWhat::Cases(cases)) = &args.what {
        return super::eval_cases::run(cases, &crate::CANCEL);
    }
    match &args.corpus {
        Some(corpus) => score_corpus(corpus, args),
        None => Ok(COULD_NOT_RUN),
    }
}

/// Scores a corpus. The exit code is 0 whatever the score: it is for people to judge.
fn score_corpus(corpus: &Path, args: &Eval) -> Result<u8, Failure> {
    let bar = progress::files(usize::MAX, args.quiet);
    let scored = score(corpus, |index, count| {
        bar.set_length(count as u64);
        bar.set_position(index as u64);
    })?;
    bar.finish_and_clear();
    let text = match args.json {
        true => to_json(&report(&scored))?,
        false => table(&scored),
    };
    screen::print(&text);
    Ok(HEALTHY)
}

fn report(scored: &[Scored]) -> EvalReport {
    let sums = totals(scored);
    let misses = misses(scored).into_iter();
    EvalReport {
        runs: sums.runs,
        read: sums.read,
        bad: sums.bad,
        alarms_on_bad: sums.alarms_on_bad,
        healthy: sums.healthy,
        alarms_on_healthy: sums.alarms_on_healthy,
        exact: sums.exact,
        onset_within_3: sums.onset_within_3,
        misses: misses.map(|(id, miss)| Miss { id: id.to_owned(), miss }).collect(),
    }
}

fn table(scored: &[Scored]) -> String {
    let Totals {
        runs,
        read,
        bad,
        alarms_on_bad,
        healthy,
        alarms_on_healthy,
        exact,
        onset_within_3,
    } = totals(scored);
    let mut text = format!(
        "runs                          {runs}\n\
         read                          {read} of {runs}\n\
         alarms on bad runs            {alarms_on_bad} of {bad}\n\
         alarms on healthy runs        {alarms_on_healthy} of {healthy}\n\
         verdict as labelled           {exact} of {}\n\
         onset within 3 records        {onset_within_3} of {bad}\n",
        bad + healthy
    );
    for (id, miss) in misses(scored) {
        text.push_str(&format!("miss  {id}: {miss}\n"));
    }
    text
}
