//! `cargo xtask eval logs DIR`: the verdicts on a corpus of logs beside its labels.

use std::error::Error;

use serde::Serialize;

use crate::score::{Score, Totals, misses, score, totals};
use crate::{Logs, Scored, progress, to_json};

/// What `--json` prints.
#[derive(Serialize)]
struct EvalReport {
    #[serde(flatten)]
    totals: Totals,
    misses: Vec<Miss>,
}

#[derive(Serialize)]
struct Miss {
    id: String,
    miss: String,
}

/// Scores a corpus.
pub(crate) fn run(args: &Logs) -> Result<Scored, Box<dyn Error>> {
    let Some(corpus) = &args.corpus else { return crate::made::run(args) };
    let bar = progress(0, &args.output);
    let scores = score(corpus, |index, count| {
        bar.set_length(count as u64);
        bar.set_position(index as u64);
    })?;
    bar.finish_and_clear();
    let text = if args.output.json { to_json(&report(&scores))? } else { table(&scores) };
    Ok(Scored { text, exit_code: 0 })
}

fn report(scored: &[Score]) -> EvalReport {
    let misses = misses(scored).into_iter();
    EvalReport {
        totals: totals(scored),
        misses: misses.map(|(id, miss)| Miss { id: id.to_owned(), miss }).collect(),
    }
}

fn table(scored: &[Score]) -> String {
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
