//! `cargo xtask bench stats`: scans and clips against a plain read and torch, taking turns.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::{Machine, Options, Rounds, Server, print};
use crate::venv;

const TORCH_SCRIPT: &str = "xtask/src/bench/torch_clip.py";

/// How long torch's OpenMP threads may go on spinning after a call, and disturb what comes next.
const SPINNING: Duration = Duration::from_millis(30);

/// What is timed. Both sides know it by this name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// The yardstick of what reads; not a row of its own.
    Read,
    /// The yardstick of what reads, and then reads and writes; not a row of its own.
    ReadMultiply,
    Scan,
    ScanHistogram,
    ClipInactive,
    ClipActive,
    TorchClipGradNorm,
}

use What::{ClipActive, ClipInactive, Read, ReadMultiply, Scan, ScanHistogram, TorchClipGradNorm};

impl What {
    fn name(self) -> &'static str {
        match self {
            Read => "read",
            ReadMultiply => "read_multiply",
            Scan => "scan",
            ScanHistogram => "scan_histogram",
            ClipInactive => "clip_inactive",
            ClipActive => "clip_active",
            TorchClipGradNorm => "torch_clip_grad_norm",
        }
    }
}

/// A list of tensors that the bench program knows by its name.
struct List {
    name: &'static str,
    /// In the order of a round.
    whats: &'static [What],
    /// How often in a row each is done in a round.
    repeats: usize,
}

/// torch comes last, so that one pause a round is enough for its threads to rest.
const ALL: &[What] =
    &[Read, Scan, ScanHistogram, ClipInactive, ReadMultiply, ClipActive, TorchClipGradNorm];

/// They have no rows, and a line below the table.
const YARDSTICKS: [What; 2] = [Read, ReadMultiply];

const GPT2: &str = "gpt2-small";

/// The same lengths as GPT2 in half the bytes.
const HALVES: &[&str] = &["gpt2-small/bf16", "gpt2-small/f16"];

const LISTS: &[List] = &[
    List { name: GPT2, whats: ALL, repeats: 5 },
    List { name: "resnet-50", whats: ALL, repeats: 15 },
    List { name: "small-10000x256", whats: ALL, repeats: 30 },
    List { name: HALVES[0], whats: &[Read, Scan], repeats: 5 },
    List { name: HALVES[1], whats: &[Read, Scan], repeats: 5 },
];

/// Runs the bench and prints the table, or the JSON alone.
///
/// # Errors
/// A sentence about the bench program. Without torch the other rows are still printed.
pub(super) fn stats_and_print(root: &Path, options: &Options) -> Result<(), String> {
    let machine = Machine::look();
    let mut ours = Server::start_ours(root, "tamegrad-stats --bench stats", machine.threads)?;
    let mut torch = start_torch(root, machine.threads);
    if let Err(why) = &torch {
        eprintln!("torch is not compared: {why}");
    }
    let mut rows = Vec::new();
    let mut further = Further::default();
    for list in LISTS {
        eprintln!("{}: 1 + {} rounds", list.name, options.rounds);
        let rounds = measure(list, options, &mut ours, &mut torch)?;
        rows.extend(rows_of(list, &rounds));
        further.add(list.name, &rounds);
    }
    let torch =
        torch.map_or_else(|why| format!("torch: not compared: {why}"), |torch| torch.version);
    let further = further.lines(&rows);
    print(options, &rows, &format!("{}\n{further}{machine}\n{torch}\n", table(&rows)))
}

struct Torch {
    server: Server,
    /// As it says itself: `torch 2.15.0`.
    version: String,
}

/// torch with as many threads as we have, or why it is not there.
fn start_torch(root: &Path, threads: usize) -> Result<Torch, String> {
    let mut command = Command::new(venv::python_with_torch(root)?);
    command.arg(root.join(TORCH_SCRIPT)).arg(threads.to_string());
    let mut server = Server::start("torch_clip.py", command)?;
    let version = server.answer()?;
    Ok(Torch { server, version })
}

/// The rounds of one list. torch is given up at its first error, with the error in its place.
fn measure(
    list: &List,
    options: &Options,
    ours: &mut Server,
    torch: &mut Result<Torch, String>,
) -> Result<Rounds<What>, String> {
    let &List { name, whats, repeats } = list;
    if whats.contains(&TorchClipGradNorm) {
        let lengths = ours.ask(&format!("{name} lengths 1"))?;
        or_give_up(torch, |server| server.ask(&format!("{name} define {lengths}")));
    }
    Rounds::ask(whats, options.rounds, |what| {
        let question = format!("{name} {} {repeats}", what.name());
        if what != TorchClipGradNorm {
            return ours.milliseconds(&question).map(Some);
        }
        let ms = or_give_up(torch, |server| server.milliseconds(&question));
        if ms.is_some() {
            thread::sleep(SPINNING);
        }
        Ok(ms)
    })
}

fn or_give_up<A>(
    torch: &mut Result<Torch, String>,
    ask: impl FnOnce(&mut Server) -> Result<A, String>,
) -> Option<A> {
    match ask(&mut torch.as_mut().ok()?.server) {
        Ok(answer) => Some(answer),
        Err(why) => {
            eprintln!("torch is no longer compared: {why}");
            *torch = Err(why);
            None
        }
    }
}

/// A line of the table, and an object of the JSON.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    list: &'static str,
    what: &'static str,
    ms: f64,
    ratio_to_read: f64,
    /// `None` where torch did not run.
    ratio_to_torch: Option<f64>,
}

fn rows_of(list: &List, rounds: &Rounds<What>) -> Vec<Row> {
    let row = |&what: &What| {
        Some(Row {
            list: list.name,
            what: what.name(),
            ms: rounds.median(what)?,
            ratio_to_read: rounds.ratio(what, Read)?,
            ratio_to_torch: rounds.ratio(what, TorchClipGradNorm),
        })
    };
    list.whats.iter().filter(|what| !YARDSTICKS.contains(what)).filter_map(row).collect()
}

fn table(rows: &[Row]) -> String {
    let mut text =
        format!("{:<16} {:<20} {:>9} {:>7} {:>8}\n", "list", "what", "ms", "x read", "x torch");
    for Row { list, what, ms, ratio_to_read, ratio_to_torch } in rows {
        let torch = ratio_to_torch.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        // A `String` takes any text.
        let _ = writeln!(text, "{list:<16} {what:<20} {ms:>9.3} {ratio_to_read:>7.3} {torch:>8}");
    }
    text
}

/// Ratios that the rows do not say by themselves, with the names of their lists.
#[derive(Default)]
struct Further {
    histograms: Vec<(&'static str, f64)>,
    /// What memory alone takes, against torch: nothing that reads can take less than the first,
    /// and no clip less than the second.
    yardsticks: [Vec<(&'static str, f64)>; 2],
}

impl Further {
    fn add(&mut self, list: &'static str, rounds: &Rounds<What>) {
        self.histograms.extend(rounds.ratio(ScanHistogram, Scan).map(|ratio| (list, ratio)));
        for (ratios, what) in self.yardsticks.iter_mut().zip(YARDSTICKS) {
            ratios.extend(rounds.ratio(what, TorchClipGradNorm).map(|ratio| (list, ratio)));
        }
    }

    fn lines(&self, rows: &[Row]) -> String {
        let scan = |list: &str| {
            let mut rows = rows.iter();
            rows.find(|row| row.list == list && row.what == Scan.name()).map(|row| row.ms)
        };
        // As many elements in both, so the ratio of the rates is that of the times turned round.
        let rates = HALVES.iter().filter_map(|&half| Some((half, scan(GPT2)? / scan(half)?)));
        let [read, read_multiply] = &self.yardsticks;
        [
            ("scan_histogram x scan".to_owned(), &self.histograms),
            (format!("elements per second of scan x {GPT2}"), &rates.collect()),
            ("plain read x torch".to_owned(), read),
            ("plain read, then plain multiply in place x torch".to_owned(), read_multiply),
        ]
        .iter()
        .filter(|(_, ratios)| !ratios.is_empty())
        .map(|(what, ratios)| {
            let ratios: Vec<String> =
                ratios.iter().map(|(list, ratio)| format!("{list} {ratio:.3}")).collect();
            format!("{what}: {}\n", ratios.join(", "))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::json;
    use crate::bench::tests::count;

    /// The rows of `list` when each `what` takes these milliseconds; torch only if it is there.
    fn rows(list: &List, ms: impl Fn(What) -> Option<f64>) -> Vec<Row> {
        let rounds = Rounds::ask(list.whats, count(3), |what| Ok(ms(what)));
        rows_of(list, &rounds.expect("every question is answered"))
    }

    fn ms(what: What) -> Option<f64> {
        Some(match what {
            Read => 20.0,
            ReadMultiply => 48.0,
            Scan => 22.0,
            ScanHistogram => 24.0,
            ClipInactive => 23.0,
            ClipActive => 50.0,
            TorchClipGradNorm => 64.0,
        })
    }

    const ROW: Row =
        Row { list: GPT2, what: "", ms: 0.0, ratio_to_read: 0.0, ratio_to_torch: None };

    #[test]
    fn every_what_but_the_read_has_a_row_in_the_order_of_a_round() {
        let row = |what, ms, read, torch| Row {
            what,
            ms,
            ratio_to_read: read,
            ratio_to_torch: Some(torch),
            ..ROW
        };
        assert_eq!(
            rows(&LISTS[0], ms),
            [
                row("scan", 22.0, 1.1, 0.34375),
                row("scan_histogram", 24.0, 1.2, 0.375),
                row("clip_inactive", 23.0, 1.15, 0.359375),
                row("clip_active", 50.0, 2.5, 0.78125),
                row("torch_clip_grad_norm", 64.0, 3.2, 1.0),
            ]
        );
    }

    #[test]
    fn without_torch_the_other_rows_are_there() {
        let rows = rows(&LISTS[0], |what| ms(what).filter(|_| what != TorchClipGradNorm));
        let whats: Vec<&str> = rows.iter().map(|row| row.what).collect();
        assert_eq!(whats, ["scan", "scan_histogram", "clip_inactive", "clip_active"]);
        assert!(rows.iter().all(|row| row.ratio_to_torch.is_none()), "{rows:?}");
    }

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let rows = [
            Row {
                what: "scan",
                ms: 21.4562,
                ratio_to_read: 1.0,
                ratio_to_torch: Some(0.25),
                ..ROW
            },
            Row { list: HALVES[0], what: "scan", ms: 1234.5, ratio_to_read: 1.125, ..ROW },
        ];
        assert_eq!(
            table(&rows),
            "\
list             what                        ms  x read  x torch
gpt2-small       scan                    21.456   1.000    0.250
gpt2-small/bf16  scan                  1234.500   1.125        -
"
        );
        assert_eq!(
            json(&rows).as_deref(),
            Ok("{\"rows\":[{\"list\":\"gpt2-small\",\"what\":\"scan\",\"ms\":21.4562,\
                \"ratio_to_read\":1.0,\"ratio_to_torch\":0.25},\
                {\"list\":\"gpt2-small/bf16\",\"what\":\"scan\",\"ms\":1234.5,\
                \"ratio_to_read\":1.125,\"ratio_to_torch\":null}]}")
        );
    }

    #[test]
    fn the_further_lines_compare_histograms_and_element_types() {
        let scan = |list, ms| Row { list, what: "scan", ms, ..ROW };
        let rows = [scan(GPT2, 24.0), scan(HALVES[0], 12.0), scan(HALVES[1], 16.0)];
        let rounds = Rounds::ask(ALL, count(3), |what| Ok(ms(what)));
        let mut further = Further::default();
        further.add(GPT2, &rounds.expect("every question is answered"));
        assert_eq!(
            further.lines(&rows),
            "scan_histogram x scan: gpt2-small 1.091\n\
             elements per second of scan x gpt2-small: gpt2-small/bf16 2.000, gpt2-small/f16 1.500\n\
             plain read x torch: gpt2-small 0.312\n\
             plain read, then plain multiply in place x torch: gpt2-small 0.750\n"
        );
    }

    #[test]
    fn without_torch_nothing_is_compared_with_it() {
        let rounds =
            Rounds::ask(ALL, count(3), |what| Ok(ms(what).filter(|_| what != TorchClipGradNorm)));
        let mut further = Further::default();
        further.add(GPT2, &rounds.expect("every question is answered"));
        assert_eq!(further.lines(&[]), "scan_histogram x scan: gpt2-small 1.091\n");
    }
}
