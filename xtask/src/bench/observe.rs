//! `cargo xtask bench observe`: steps of the burn integration, watched, protected and bare, in turns in
//! one process.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::{Machine, Options, Rounds, Server, print};

/// What a step is timed as, in the order of an answer of the bench program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Bare,
    /// Statistics of every tensor at every step.
    Observe,
    /// The same, with the probes of the gains at their default interval.
    Gains,
    /// The guard in protect mode, without probes.
    Protect,
    /// Bare once more: how far two equal things differ.
    Control,
    /// Observed, and recorded to a run folder by a thread of its own.
    Record,
}

use What::{Bare, Control, Gains, Observe, Protect, Record};

const WHATS: [What; 6] = [Bare, Observe, Gains, Protect, Control, Record];

/// Models of the bench program, with the steps of a round. Probes come every 25 steps: each round has
/// one such step at least.
const MODELS: [(&str, u64); 4] = [
    ("mlp-3x32/sgd", 2_000),
    ("mlp-30x256/sgd", 100),
    ("mlp-30x256/adam", 100),
    ("transformer-6x256/adam", 25),
];

/// Runs the bench and prints the table, or the JSON alone.
///
/// # Errors
/// A sentence about the bench program.
pub(super) fn observe_and_print(root: &Path, options: &Options) -> Result<(), String> {
    // Process time adds up the threads, and what they cost each other would be part of it.
    let machine = Machine { threads: 1, ..Machine::look() };
    let mut ours = Server::start_ours(root, "tamegrad-lab --bench observe", machine.threads)?;
    let mut rows = Vec::new();
    for (model, steps) in MODELS {
        eprintln!("{model}: 1 + {} rounds", options.rounds);
        let mut times = [0.0; 6];
        let rounds = Rounds::ask(&WHATS, options.rounds, |what| {
            if what == Bare {
                times = parse(&ours.ask(&format!("{model} {steps}"))?)?;
            }
            Ok(Some(times[what as usize]))
        })?;
        rows.extend(row(model, &rounds));
    }
    print(options, &rows, &format!("{}{machine}\n", table(&rows)))
}

/// The six times of an answer.
fn parse(answer: &str) -> Result<[f64; 6], String> {
    let complaint = || format!("the bench program answered `{answer}`, want six numbers");
    let times: Result<Vec<f64>, _> = answer.split(' ').map(str::parse).collect();
    times.ok().and_then(|times| times.try_into().ok()).ok_or_else(complaint)
}

/// A line of the table, and an object of the JSON.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    model: &'static str,
    /// Process time of the bare step.
    bare_ms: f64,
    /// Each by the bare step of its round.
    observe: f64,
    gains: f64,
    protect: f64,
    control: f64,
    /// By the observed step of its round.
    record: f64,
}

fn row(model: &'static str, rounds: &Rounds<What>) -> Option<Row> {
    Some(Row {
        model,
        bare_ms: rounds.median(Bare)?,
        observe: rounds.ratio(Observe, Bare)?,
        gains: rounds.ratio(Gains, Bare)?,
        protect: rounds.ratio(Protect, Bare)?,
        control: rounds.ratio(Control, Bare)?,
        record: rounds.ratio(Record, Observe)?,
    })
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<24} {:>9} {:>9} {:>12} {:>9} {:>9} {:>9}\n",
        "step of", "bare ms", "observe", "with gains", "protect", "control", "record"
    );
    for Row { model, bare_ms, observe, gains, protect, control, record } in rows {
        // A `String` takes any text.
        let _ = writeln!(
            text,
            "{model:<24} {bare_ms:>9.3} {observe:>9.3} {gains:>12.3} {protect:>9.3} {control:>9.3} \
             {record:>9.3}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::json;
    use crate::bench::tests::count;

    #[test]
    fn an_answer_is_six_numbers() {
        assert_eq!(parse("1 2.5 3 4 5 6"), Ok([1.0, 2.5, 3.0, 4.0, 5.0, 6.0]));
        let complaint = "the bench program answered `1 2`, want six numbers";
        assert_eq!(parse("1 2"), Err(complaint.to_owned()));
    }

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let times = [20.0, 20.5, 20.75, 21.0, 20.0, 20.705];
        let rounds = Rounds::ask(&WHATS, count(2), |what| Ok(Some(times[what as usize])));
        let rows: Vec<Row> = row("mlp-30x256/sgd", &rounds.expect("answers")).into_iter().collect();
        assert_eq!(
            table(&rows),
            "\
step of                    bare ms   observe   with gains   protect   control    record
mlp-30x256/sgd              20.000     1.025        1.038     1.050     1.000     1.010
"
        );
        assert_eq!(
            json(&rows).as_deref(),
            Ok("{\"rows\":[{\"model\":\"mlp-30x256/sgd\",\"bare_ms\":20.0,\"observe\":1.025,\
                \"gains\":1.0375,\"protect\":1.05,\"control\":1.0,\"record\":1.01}]}")
        );
    }
}
