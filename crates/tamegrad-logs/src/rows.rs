//! Rows of named numbers put into series over steps.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::log::{LogBuilder, Point};
use crate::row::Row;
use crate::step::{Stepper, is_step_name};
use crate::vocabulary::{LossName, normal};

/// Different names of one log: more come only from keys that are data.
const NAMES_MAX: usize = 20_000;

/// Where rows go: the log, with a bound on the number of names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    /// The log.
    pub(crate) log: LogBuilder,
    /// The file that the rows come from.
    pub(crate) path: PathBuf,
    places: HashMap<String, usize>,
    kind: Kind,
    has_too_many_names: bool,
    knows_a_name: bool,
}

/// The names of the last row and what they mean. Most rows are like the one before, so that names
/// are seldom looked up.
#[derive(Debug, Clone, Default)]
struct Kind {
    prefix: String,
    split: Option<&'static str>,
    names: String,
    /// The series of each cell, as far as there is room for it.
    places: Vec<Option<usize>>,
    /// The cells that may hold the time of the day.
    clocks: Vec<usize>,
}

impl Rows {
    /// Rows of a file, for a log.
    pub(crate) fn new(log: LogBuilder, path: &Path) -> Self {
        Self { log, path: path.to_owned(), ..Self::default() }
    }

    /// Adds the numbers of a row, named below a prefix, at the step that the row tells.
    pub(crate) fn push(&mut self, prefix: &str, row: &Row, stepper: &mut Stepper) {
        if row.is_empty() {
            return;
        }
        let (step, key) = stepper.step(row);
        self.knows_a_name |= key.is_some();
        let kind = &self.kind;
        if (kind.names.as_str(), kind.prefix.as_str(), kind.split)
            != (row.all_names(), prefix, row.split())
        {
            self.learn(prefix, row);
        }
        let clock = self
            .kind
            .clocks
            .iter()
            .find_map(|&index| Some((index, time_of_day(row.value(index)?)?)));
        let wall = clock.map_or(f64::NAN, |(_, wall)| wall);
        for (index, value) in row.values().enumerate() {
            if key == Some(index) || clock.is_some_and(|(at, _)| at == index) {
                continue;
            }
            // A series is made when it gets its first number, so that none is empty.
            let place = match self.kind.places.get(index) {
                Some(&Some(place)) => Some(place),
                _ => self.place(index, row),
            };
            if let Some(place) = place {
                self.log.push_at(place, Point { step, wall, value });
            }
        }
    }

    /// Whether there was a step, a loss or a name that the user gave: without any the file is hardly a log.
    pub(crate) fn look_like_a_log(&self) -> bool {
        self.knows_a_name && !self.log.is_empty()
    }

    /// The rows as they are now, with the ends of the series alone: to see what would come of more.
    pub(crate) fn ending(&mut self, points: usize) -> Self {
        let log = std::mem::take(&mut self.log);
        let ending = Self { log: log.ending(points), ..self.clone() };
        self.log = log;
        ending
    }

    /// Notes what was left out.
    pub(crate) fn notice(&mut self, offset: impl Into<Option<u64>>, text: impl Into<String>) {
        self.log.notice(&self.path, offset.into(), text);
    }

    fn learn(&mut self, prefix: &str, row: &Row) {
        let kind = &mut self.kind;
        prefix.clone_into(&mut kind.prefix);
        row.all_names().clone_into(&mut kind.names);
        kind.split = row.split();
        kind.places.clear();
        kind.places.resize(row.len(), None);
        kind.clocks.clear();
        let cells = row.cells().enumerate();
        kind.clocks.extend(cells.filter(|(_, (name, _))| is_clock(name)).map(|(index, _)| index));
    }

    /// The place of a cell's series, which is made if there is room for it.
    fn place(&mut self, index: usize, row: &Row) -> Option<usize> {
        let (cell, _) = row.cells().nth(index)?;
        let parts = [self.kind.prefix.as_str(), self.kind.split.unwrap_or_default(), cell];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let name = parts.join("/");
        let place = match self.places.get(&name) {
            Some(&place) => place,
            None if self.places.len() < NAMES_MAX => {
                let place = self.log.place(&name);
                self.knows_a_name |= is_loss_name(&name) || self.log.is_named(&name);
                self.places.insert(name, place);
                place
            }
            None => {
                if !std::mem::replace(&mut self.has_too_many_names, true) {
                    let text = format!(
                        "got more than {NAMES_MAX} names; those from {name:?} on are left out"
                    );
                    self.notice(None, text);
                }
                return None;
            }
        };
        *self.kind.places.get_mut(index)? = Some(place);
        Some(place)
    }
}

/// Whether a name is that of a loss.
pub(crate) fn is_loss_name(name: &str) -> bool {
    name.as_bytes().windows(4).any(|part| part.eq_ignore_ascii_case(b"loss"))
        || LossName::of(&normal(name)) == LossName::Loss
}

/// Whether a name is one that logs have and other tables have not.
pub(crate) fn is_log_name(name: &str) -> bool {
    is_step_name(name) || is_loss_name(name)
}

fn is_clock(name: &str) -> bool {
    matches!(name, "_timestamp" | "timestamp" | "time" | "wall_time" | "ts")
}

/// A time of the day in seconds since 1970, if the number is one, in seconds or milliseconds. A
/// `time` that is small is the length of a step (mmcv).
fn time_of_day(value: f64) -> Option<f64> {
    match value {
        1e9..1e11 => Some(value),
        1e12..1e14 => Some(value / 1e3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &[&[(&str, f64)]]) -> crate::Log {
        let mut sink = Rows::new(LogBuilder::new(), Path::new("a"));
        let (mut row, mut stepper) = (Row::default(), Stepper::default());
        for cells in rows {
            row.clear();
            cells.iter().for_each(|(name, value)| row.push(name, *value));
            sink.push("", &row, &mut stepper);
        }
        sink.log.finish()
    }

    #[test]
    fn a_time_of_the_day_is_no_series_but_a_length_is() {
        let log = read(&[
            &[("loss", 1.0), ("time", 1.7e9)],
            &[("loss", 1.0), ("time", 0.25)],
            &[("loss", 1.0), ("timestamp", 1.7e12)],
        ]);
        let walls: Vec<f64> = log.series[0].points.iter().map(|point| point.wall).collect();
        assert_eq!((walls[0], walls[2]), (1.7e9, 1.7e9));
        assert!(walls[1].is_nan());
        assert_eq!(log.series("time").map(|series| series.points.len()), Some(1));
        assert!(log.series("timestamp").is_none());
    }

    #[test]
    fn names_are_bounded_and_it_is_said() {
        let names: Vec<String> = (0..NAMES_MAX + 5).map(|index| format!("name {index}")).collect();
        let rows: Vec<[(&str, f64); 1]> = names.iter().map(|name| [(name.as_str(), 1.0)]).collect();
        let log = read(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>());
        assert_eq!(log.series.len(), NAMES_MAX);
        assert_eq!(log.notices.len(), 1);
        assert!(log.notices[0].text.contains("name 20000"), "{}", log.notices[0].text);
    }
}
