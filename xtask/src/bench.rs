//! `cargo xtask bench NAME`: programs that take turns on one machine, and the medians of their times.

mod logs;
mod observe;
mod stats;

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use serde::Serialize;

use crate::{cargo, number};

/// A bench and its options.
#[derive(Debug, PartialEq)]
pub(crate) struct Bench {
    which: Which,
    options: Options,
}

#[derive(Debug, PartialEq)]
enum Which {
    Logs,
    Observe,
    Stats,
    Torch,
}

#[derive(Debug, PartialEq)]
struct Options {
    /// JSON in place of the table.
    json: bool,
    /// Rounds that count.
    rounds: NonZeroUsize,
}

/// Runs a bench and prints what it found.
///
/// # Errors
/// A sentence about the program that could not be started or did not answer.
pub(crate) fn bench(root: &Path, Bench { which, options }: &Bench) -> Result<(), String> {
    match which {
        Which::Logs => logs::logs_and_print(root, options),
        Which::Observe => observe::observe_and_print(root, options),
        Which::Stats => stats::stats_and_print(root, options),
        Which::Torch => crate::python::bench(root, options.rounds.get()),
    }
}

/// Reads what follows `bench` on the command line.
pub(crate) fn parse(words: &[&str]) -> Result<Bench, String> {
    const WANT: &str = "want `logs`, `observe`, `stats` or `torch`";
    const ROUNDS: NonZeroUsize = NonZeroUsize::new(9).expect("9 is not 0");
    let mut words = words.iter().copied();
    let which = match words.next() {
        Some("logs") => Which::Logs,
        Some("observe") => Which::Observe,
        Some("stats") => Which::Stats,
        Some("torch") => Which::Torch,
        Some(unknown) => return Err(format!("unknown bench `{unknown}`, {WANT}")),
        None => return Err(format!("no bench given, {WANT}")),
    };
    let mut options = Options { json: false, rounds: ROUNDS };
    while let Some(word) = words.next() {
        match word {
            "--json" => options.json = true,
            "--rounds" => options.rounds = number(word, words.next())?,
            _ => return Err(format!("unexpected argument `{word}`")),
        }
    }
    Ok(Bench { which, options })
}

/// Prints what a bench found: its rows as JSON, or else the text.
fn print(options: &Options, rows: &[impl Serialize], text: &str) -> Result<(), String> {
    if options.json {
        println!("{}", json(rows)?);
    } else {
        print!("{text}");
    }
    Ok(())
}

/// A program that answers each line on its standard input with one line.
struct Server {
    name: &'static str,
    process: process::Child,
    /// There until the end, which closing it tells the program.
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start(name: &'static str, mut command: Command) -> Result<Server, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`{program}` could not be started: {error}"))?;
        let questions = process.stdin.take();
        let answers = process.stdout.take().ok_or_else(|| format!("{name} has no output"))?;
        Ok(Server { name, process, questions, answers: BufReader::new(answers) })
    }

    /// Builds a bench program of ours and starts it with so many threads.
    fn start_ours(root: &Path, package: &str, threads: usize) -> Result<Server, String> {
        eprintln!("building the bench program");
        let mut command = cargo(root, &format!("bench --quiet -p {package}"));
        command.env("RAYON_NUM_THREADS", threads.to_string());
        Server::start("the bench program", command)
    }

    fn ask(&mut self, question: &str) -> Result<String, String> {
        if let Some(questions) = &mut self.questions {
            // A program that is gone also leaves no answer, and that is the better complaint.
            let _ = writeln!(questions, "{question}").and_then(|()| questions.flush());
        }
        self.answer().map_err(|complaint| {
            // A question can hold the lengths of 10,000 tensors.
            let start: String = question.chars().take(60).collect();
            format!("{complaint} when asked `{start}`")
        })
    }

    /// The next line, also one that the program gives unasked.
    fn answer(&mut self) -> Result<String, String> {
        let name = self.name;
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(format!("{name} ended without an answer")),
            Ok(_) => match line.trim_end().strip_prefix("error: ") {
                Some(complaint) => Err(format!("{name} said `{complaint}`")),
                None => Ok(line.trim_end().to_owned()),
            },
            Err(error) => Err(format!("{name} could not be read: {error}")),
        }
    }

    fn milliseconds(&mut self, question: &str) -> Result<f64, String> {
        let answer = self.ask(question)?;
        answer.parse().map_err(|_| {
            format!("{}: got `{answer}` for `{question}`, want milliseconds", self.name)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.questions.take());
        // Nothing is left to be done about a program that ends badly after its last answer.
        let _ = self.process.wait();
    }
}

/// The answers to the same questions, round after round.
struct Rounds<Q> {
    questions: Vec<Q>,
    /// A row a round, in the order of the questions; `None` where there was nobody to answer.
    answers: Vec<Vec<Option<f64>>>,
}

impl<Q: Copy + PartialEq> Rounds<Q> {
    /// Asks every question in turn, in `count` rounds after one that only warms up.
    fn ask(
        questions: &[Q],
        count: NonZeroUsize,
        mut ask: impl FnMut(Q) -> Result<Option<f64>, String>,
    ) -> Result<Rounds<Q>, String> {
        let mut round = || questions.iter().map(|&question| ask(question)).collect();
        let warm_up: Result<Vec<_>, String> = round();
        warm_up?;
        let answers = (0..count.get()).map(|_| round()).collect::<Result<_, String>>()?;
        Ok(Rounds { questions: questions.to_vec(), answers })
    }

    /// The median; `None` for a question that was not answered in every round.
    fn median(&self, of: Q) -> Option<f64> {
        self.each(of).map(median)
    }

    /// The median of the ratios within each round: what disturbs a round disturbs both sides.
    fn ratio(&self, of: Q, to: Q) -> Option<f64> {
        let (of, to) = (self.each(of)?, self.each(to)?);
        Some(median(of.iter().zip(to).map(|(of, to)| of / to).collect()))
    }

    fn each(&self, of: Q) -> Option<Vec<f64>> {
        let at = self.questions.iter().position(|&question| question == of)?;
        self.answers.iter().map(|round| round[at]).collect()
    }
}

/// The rows of a bench as one JSON object.
fn json(rows: &[impl Serialize]) -> Result<String, String> {
    #[derive(Serialize)]
    struct Object<'a, R> {
        rows: &'a [R],
    }
    serde_json::to_string(&Object { rows }).map_err(|error| format!("no JSON: {error}"))
}

/// The middle of at least one number, or the mean of the middle two.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let count = numbers.len();
    (numbers[(count - 1) / 2] + numbers[count / 2]) / 2.0
}

/// Where and when the times were taken; without them a time means nothing.
struct Machine {
    cpu: Option<String>,
    threads: usize,
    /// UTC.
    date: Option<String>,
}

impl Machine {
    fn look() -> Machine {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let date = Command::new("date").args(["-u", "+%F"]).output().ok();
        let date = date.filter(|output| output.status.success());
        Machine {
            cpu: cpu_model(&cpus),
            threads: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            date: date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        }
    }
}

fn cpu_model(cpus: &str) -> Option<String> {
    let mut fields = cpus.lines().filter_map(|line| line.split_once(':'));
    let (_, model) = fields.find(|(name, _)| name.trim() == "model name")?;
    Some(model.trim().to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cpu) = &self.cpu {
            write!(f, "{cpu}, ")?;
        }
        match self.threads {
            1 => write!(f, "1 thread")?,
            threads => write!(f, "{threads} threads")?,
        }
        self.date.as_ref().map_or(Ok(()), |date| write!(f, ", {date}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn count(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).expect("a count is not 0")
    }

    #[test]
    fn a_bench_and_its_options_are_read_or_refused() {
        let bench = |which, json, rounds| {
            Ok(Bench { which, options: Options { json, rounds: count(rounds) } })
        };
        let stats = |json, rounds| bench(Which::Stats, json, rounds);
        let cases: &[(&[&str], Result<Bench, &str>)] = &[
            (&["stats"], stats(false, 9)),
            (&["stats", "--json"], stats(true, 9)),
            (&["stats", "--rounds", "3"], stats(false, 3)),
            (&["stats", "--rounds", "1", "--json"], stats(true, 1)),
            (&["observe"], bench(Which::Observe, false, 9)),
            (&["logs"], bench(Which::Logs, false, 9)),
            (&[], Err("no bench given, want `logs`, `observe`, `stats` or `torch`")),
            (&["stat"], Err("unknown bench `stat`, want `logs`, `observe`, `stats` or `torch`")),
            (
                &["--json"],
                Err("unknown bench `--json`, want `logs`, `observe`, `stats` or `torch`"),
            ),
            (&["stats", "logs"], Err("unexpected argument `logs`")),
            (&["stats", "--rounds"], Err("--rounds: got nothing, want a number from 1")),
            (&["stats", "--rounds", "0"], Err("--rounds: got `0`, want a number from 1")),
            (&["stats", "--rounds", "few"], Err("--rounds: got `few`, want a number from 1")),
        ];
        for (words, expected) in cases {
            let got = parse(words);
            assert_eq!(got.as_ref().map_err(String::as_str), expected.as_ref().map_err(|&e| e));
        }
    }

    #[test]
    fn medians() {
        let cases: &[(&[f64], f64)] =
            &[(&[3.0], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 9.0, 2.0], 3.0)];
        for &(numbers, expected) in cases {
            assert_eq!(median(numbers.to_vec()), expected, "{numbers:?}");
        }
    }

    /// Rounds with the answers of `script`, a line a round, `-` where nobody answers.
    fn scripted(script: &str, count: usize) -> Result<Rounds<char>, String> {
        let mut answers = script.split_whitespace();
        Rounds::ask(&['a', 'b'], super::tests::count(count), |_| match answers.next() {
            Some("-") => Ok(None),
            Some(number) => number.parse().map(Some).map_err(|_| format!("got `{number}`")),
            None => Err("no more answers".to_owned()),
        })
    }

    #[test]
    fn ratios_are_taken_within_rounds_and_the_first_round_is_dropped() {
        let rounds = scripted("1 1  10 20  30 20  40 10", 3).expect("four rounds of answers");
        assert_eq!([rounds.median('a'), rounds.median('b')], [Some(30.0), Some(20.0)]);
        // 0.5, 10 and 0.5 in the rounds; 1 for the medians
        let rounds = scripted("1 1  10 20  30 3  20 40", 3).expect("four rounds of answers");
        assert_eq!(rounds.ratio('a', 'b'), Some(0.5));
        assert_eq!(rounds.ratio('a', 'c'), None);
    }

    #[test]
    fn one_missing_answer_leaves_the_question_out_unless_it_was_only_to_warm_up() {
        let rounds = scripted("1 1  10 20  30 -", 2).expect("three rounds of answers");
        assert_eq!([rounds.median('a'), rounds.median('b')], [Some(20.0), None]);
        assert_eq!(rounds.ratio('a', 'b'), None);
        let rounds = scripted("1 -  10 20", 1).expect("two rounds of answers");
        assert_eq!(rounds.median('b'), Some(20.0));
    }

    #[test]
    fn an_error_ends_the_rounds() {
        let cases = [("1 1 10 x", "got `x`"), ("1 oh", "got `oh`"), ("1 1", "no more answers")];
        for (script, expected) in cases {
            assert_eq!(scripted(script, 1).err().as_deref(), Some(expected), "{script}");
        }
    }

    #[test]
    fn the_machine_is_named_as_far_as_it_is_known() {
        let cpus = "processor\t: 0\nmodel name\t: AMD EPYC 9R14\nmodel name\t: other\n";
        let known =
            Machine { cpu: cpu_model(cpus), threads: 2, date: Some("2026-11-23".to_owned()) };
        assert_eq!(known.to_string(), "AMD EPYC 9R14, 2 threads, 2026-11-23");
        let unknown = Machine { cpu: cpu_model("Features\t: fp\n"), threads: 1, date: None };
        assert_eq!(unknown.to_string(), "1 thread");
    }
}
