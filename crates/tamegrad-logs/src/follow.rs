//! A run that is still being written: each look reads only what came since the last one.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use tamegrad_runs::ReadError;

use crate::discover::Source;
use crate::files::open;
use crate::log::Log;
use crate::readers::Growing;

/// Points of a series that are kept of a long log from the second look on, up to twice as many: so
/// what a look costs does not grow with the log.
const POINTS: usize = 20_000;
/// Bytes that are read at a time.
const CHUNK: u64 = 4 << 20;
/// Bytes of a record; one that is longer is for the reader of whole files.
const RECORD_MAX: usize = 80 << 20;
/// Bytes before the last look that must be there still, or the file is another.
const KNOWN: usize = 256;

/// A run that is looked at repeatedly.
///
/// Text, CSV, JSON lines and event files of one file each are read incrementally; all others are
/// re-read.
pub struct Follower {
    source: Source,
    growth: Option<Growth>,
}

impl Follower {
    /// Creates the follower of a run.
    pub fn new(source: Source) -> Self {
        Self { source, growth: None }
    }

    /// The run.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether the next look continues from this one.
    pub fn reads_on(&self) -> bool {
        self.growth.is_some()
    }

    /// The log as it is now. The first time it is complete; later, long series hold only their ends.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read(&mut self) -> Result<Log, ReadError> {
        let is_first = self.growth.is_none();
        if is_first && let Some(growing) = self.source.grow() {
            self.growth = Some(Growth { growing, offset: 0, known: Vec::new() });
        }
        if let Some(growth) = &mut self.growth {
            let path = self.source.path();
            let points = if is_first { usize::MAX } else { POINTS };
            if let Some(log) = growth.read(path, points).map_err(|e| ReadError::io(path, e))? {
                return Ok(log);
            }
            self.growth = None;
        }
        self.source.read()
    }
}

/// How far a file was read.
struct Growth {
    growing: Box<dyn Growing>,
    offset: u64,
    /// The bytes before the offset.
    known: Vec<u8>,
}

impl Growth {
    /// Reads on to the end; `None` where the file is not the one that was read before, or is damaged.
    fn read(&mut self, path: &Path, points: usize) -> io::Result<Option<Log>> {
        let mut file = open(path)?;
        file.seek(SeekFrom::Start(self.offset - self.known.len() as u64))?;
        let (mut before, mut rest) = (Vec::new(), Vec::new());
        file.by_ref().take(self.known.len() as u64).read_to_end(&mut before)?;
        if before != self.known {
            return Ok(None);
        }
        while file.by_ref().take(CHUNK).read_to_end(&mut rest)? > 0 {
            let Some(whole) = self.growing.whole(&rest) else { return Ok(None) };
            if let Some(records) = rest.get(..whole).filter(|records| !records.is_empty()) {
                self.growing.take(records, self.offset);
                self.offset += whole as u64;
                self.known.extend_from_slice(&records[whole.saturating_sub(KNOWN)..]);
                self.known.drain(..self.known.len().saturating_sub(KNOWN));
                rest.drain(..whole);
            }
            if rest.len() > RECORD_MAX {
                return Ok(None);
            }
        }
        Ok(Some(self.growing.look(&rest, points)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    /// Writes a log in pieces cut at any byte; after each the follower must read what a whole read
    /// does, but for a record that is cut.
    fn check(name: &str, text: &[u8], cuts: &[usize]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut file = File::create(&path).unwrap();
        let mut follower: Option<Follower> = None;
        let mut from = 0;
        for &cut in cuts.iter().chain([&text.len()]) {
            file.write_all(&text[from..cut]).unwrap();
            from = cut;
            if follower.is_none() {
                follower = Source::open(&path).ok().map(Follower::new);
            }
            let Some(follower) = &mut follower else { continue };
            let log = follower.read().unwrap();
            assert_eq!(follower.growth.as_ref().map(|g| g.offset > 0), Some(true), "{name} {cut}");
            let whole = follower.source().read().unwrap();
            let is_cut = !matches!(text.get(cut.wrapping_sub(1)), Some(b'\n' | b'\r'));
            if !is_cut || cut == text.len() {
                assert_eq!(log.series.len(), whole.series.len(), "{name} {cut}");
                let points = |log: &Log| format!("{:?}", log.series);
                assert_eq!(points(&log), points(&whole), "{name} {cut}");
            }
        }
        assert_eq!(follower.map(|follower| follower.reads_on()), Some(true), "{name}");
    }

    #[test]
    fn what_is_read_on_is_what_a_whole_read_gives() {
        let rows = |row: &dyn Fn(usize) -> String| (0..60).map(row).collect::<String>();
        let csv = "step,loss\n".to_owned() + &rows(&|i| format!("{i},{}\n", 3.0 / (i + 1) as f64));
        let lines = rows(&|i| format!("{{\"step\": {i}, \"loss\": {}}}\n", 3.5 - i as f64 / 60.0));
        let text = rows(&|i| format!("step {i}: loss 2.{i} gnorm 0.{i}\n"));
        let bars = rows(&|i| {
            format!(
                "\rEpoch 1: {}%|##| {i}/60 [00:{i:02}<00:59, 1.0it/s, loss=2.{i}]",
                i * 100 / 60
            )
        });
        let bar = |epoch: usize| {
            rows(&|i| format!("\r{}/60 [==>...] - ETA: 1s - loss: {}.{i}", i + 1, 3 - epoch))
        };
        let keras = format!("Epoch 1/2\n{}\nEpoch 2/2\n{}", bar(1), bar(2));
        for (name, text) in [
            ("a.csv", &csv),
            ("a.jsonl", &lines),
            ("text.log", &text),
            ("bars.log", &bars),
            ("keras.log", &keras),
        ] {
            let ends: Vec<usize> = text
                .match_indices(['\n', '\r'])
                .map(|(at, _)| at + 1)
                .skip(20)
                .step_by(7)
                .collect();
            check(name, text.as_bytes(), &ends);
            check(name, text.as_bytes(), &[700, 701, 720, 777, 778, 1000]);
        }
    }

    #[test]
    fn a_file_that_was_written_anew_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let rows = |level: f64, count: usize| -> String {
            let row = |i| format!("{i},{}\n", level + i as f64);
            "step,loss\n".to_owned() + &(0..count).map(row).collect::<String>()
        };
        std::fs::write(&path, rows(1.0, 30)).unwrap();
        let mut follower = Follower::new(Source::open(&path).unwrap());
        let mut first = |text: String| {
            std::fs::write(&path, text).unwrap();
            let log = follower.read().unwrap();
            (log.series[0].points[0].value, log.series[0].points.len())
        };
        assert_eq!(first(rows(1.0, 40)), (1.0, 40));
        assert_eq!(first(rows(5.0, 50)), (5.0, 50));
        assert_eq!(first(rows(5.0, 60)), (5.0, 60));
        assert_eq!(first(rows(7.0, 10)), (7.0, 10));
    }

    #[test]
    fn long_series_are_looked_at_by_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let row = |i: usize| format!("{i},2\n");
        let text: String = (0..3 * POINTS).map(row).collect();
        std::fs::write(&path, "step,loss\n".to_owned() + &text).unwrap();
        let mut follower = Follower::new(Source::open(&path).unwrap());
        assert_eq!(follower.read().unwrap().series[0].points.len(), 3 * POINTS);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(row(3 * POINTS).as_bytes()).unwrap();
        let series = &follower.read().unwrap().series[0];
        assert_eq!((series.points.len(), series.thinned), (POINTS + 1, 2 * POINTS as u64));
        assert_eq!(series.points[POINTS].step, 3 * POINTS as i64);
    }
}
