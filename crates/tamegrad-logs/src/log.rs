//! What a log holds: named series of numbers over steps, whatever the format.

use std::collections::HashMap;
use std::path::Path;

use tamegrad::Diagnosis;
use tamegrad_runs::{Ending, Event, Notice, Notices};

use crate::vocabulary::is_match;

/// One logged number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The step that the log gives, or the number of the record if it gives none. Not always
    /// ascending: a smaller step after a larger one is a rewind, or a new run in the same file.
    pub step: i64,
    /// Seconds since 1970; NaN if the log has no time.
    pub wall: f64,
    /// The number: NaN and infinity are values.
    pub value: f64,
}

/// All numbers with one name, in the order of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// The name as in the log.
    pub name: String,
    /// The numbers.
    pub points: Vec<Point>,
    /// Whether the values were computed from a histogram's bins, and so are estimates.
    pub estimated: bool,
    /// Numbers that were thinned out to keep the memory bounded; see [`LogBuilder`].
    pub thinned: u64,
}

/// One run as read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Log {
    /// All series, in the order in which their first points came.
    pub series: Vec<Series>,
    /// What was left out. At most [`NOTICES_MAX`](tamegrad_runs::NOTICES_MAX); the last then says how many more there were.
    pub notices: Vec<Notice>,
    /// What a guard that saw the run itself left of it; only tamegrad's own runs have it.
    pub recorded: Option<Recorded>,
    /// How much of it was damaged.
    pub damage: Damage,
}

/// What a run folder knows of its run beside the numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The last diagnosis of the guard that watched the run.
    pub diagnosis: Option<Diagnosis>,
    /// The first step with an alarm that came after that diagnosis.
    pub alarm_since: Option<u64>,
    /// How the run stands.
    pub ending: Ending,
    /// The last step that was seen, and when, in seconds since 1970.
    pub last: Option<(u64, f64)>,
    /// The earliest events other than findings: what the guard did, and what the writer left out.
    pub events: Vec<Event>,
}

/// How much of a log could not be used because it is damaged, in bytes or, of a database, in rows.
///
/// Neither a record that is cut short by the end of the file nor the lines of other programs in a text
/// are damage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// What was left out.
    pub left_out: u64,
    /// What there was, as far as it is known.
    pub of: u64,
    /// Whether nobody knows how much more there would have been.
    pub is_open: bool,
}

impl Damage {
    /// So many times as large as what was left out is a log that counts as read.
    const READ: u64 = 20;

    /// The share that was left out, from 0 to 1.
    pub fn share(&self) -> f64 {
        if self.of == 0 { 0.0 } else { (self.left_out as f64 / self.of as f64).min(1.0) }
    }

    /// Whether so much is missing, more than a twentieth or nobody knows how much, that a log without
    /// an alarm need not be healthy.
    pub fn is_partly_read(&self) -> bool {
        self.is_open || self.left_out.saturating_mul(Self::READ) > self.of
    }
}

/// Points kept of one log: 96 MB of them, up to twice that while they grow.
pub const POINTS_MAX: usize = 4_000_000;
/// Series kept of one log; points of further names are only counted.
pub const SERIES_MAX: usize = 100_000;
/// Bytes of a name that are kept.
const NAME_MAX: usize = 4096;

impl Log {
    /// The series of a name.
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }
}

/// A log that is being read. Readers push what they find, in the order of the file.
///
/// Memory is bounded: beyond [`POINTS_MAX`] points the longest series keep two of every four
/// neighbours, the smallest and the largest, where what is not finite counts as largest and the
/// earliest of equals stays, so that spikes and the first NaN survive. Beyond [`SERIES_MAX`] names,
/// the points of further names are only counted.
#[derive(Debug, Clone, Default)]
pub struct LogBuilder {
    log: Log,
    places: HashMap<String, usize>,
    points: usize,
    /// Points of names beyond [`SERIES_MAX`].
    nameless: u64,
    notices: Notices,
    named: Vec<String>,
}

impl LogBuilder {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes what a run folder knows of its run.
    pub(crate) fn recorded(&mut self, recorded: Recorded) {
        self.log.recorded = Some(recorded);
    }

    /// An empty log whose user gave these names to roles.
    pub fn with_named(named: &[String]) -> Self {
        Self { named: named.to_vec(), ..Self::default() }
    }

    /// Whether the user gave this name to a role; a file that has it is then a log.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.named.iter().any(|named| named == name || is_match(name, named))
    }

    /// The place of a series, which is created if needed; for [`LogBuilder::push_at`].
    pub fn place(&mut self, name: &str) -> usize {
        let name = &name[..name.floor_char_boundary(NAME_MAX)];
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        if self.log.series.len() >= SERIES_MAX {
            return usize::MAX;
        }
        let place = self.log.series.len();
        self.log.series.push(Series { name: name.to_owned(), ..Series::default() });
        self.places.insert(name.to_owned(), place);
        place
    }

    /// Adds a number to a series.
    pub fn push(&mut self, name: &str, point: Point) {
        let place = self.place(name);
        self.push_at(place, point);
    }

    /// Adds a number to the series at a place that [`LogBuilder::place`] gave.
    pub fn push_at(&mut self, place: usize, point: Point) {
        let Some(series) = self.log.series.get_mut(place) else {
            self.nameless += 1;
            return;
        };
        series.points.push(point);
        self.points += 1;
        if self.points > POINTS_MAX {
            self.thin_out();
        }
    }

    /// Adds an estimate, computed from a histogram, to a series.
    pub fn push_estimate(&mut self, name: &str, point: Point) {
        let place = self.place(name);
        if let Some(series) = self.log.series.get_mut(place) {
            series.estimated = true;
        }
        self.push_at(place, point);
    }

    /// Notes something that was left out or looked odd.
    pub fn notice(&mut self, path: &Path, offset: Option<u64>, text: impl Into<String>) {
        self.notices.push(path, offset, text);
    }

    /// Counts bytes or rows that were there.
    pub(crate) fn saw(&mut self, count: u64) {
        self.log.damage.of += count;
    }

    /// Counts, of those that were there, such as are damaged and left out.
    pub(crate) fn lose(&mut self, count: u64) {
        self.log.damage.left_out += count;
    }

    /// What is damaged of what was read so far.
    pub(crate) fn damage(&self) -> Damage {
        self.log.damage
    }

    /// Notes that what is missing cannot be counted.
    pub(crate) fn lose_the_rest(&mut self) {
        self.log.damage.is_open = true;
    }

    /// Adds a notice.
    pub(crate) fn add(&mut self, notice: Notice) {
        self.notices.add(notice);
    }

    /// The same log with the ends of long series alone: from `points` to twice as many of each, begun
    /// at a multiple of `points`, so that what is judged of a growing log seldom begins anew.
    pub(crate) fn ending(&self, points: usize) -> Self {
        let ending = |series: &Series| {
            let whole = series.points.len();
            let from = (whole / points).saturating_sub(1) * points;
            let end = series.points.get(from..).unwrap_or_default();
            Series {
                name: series.name.clone(),
                points: end.to_vec(),
                estimated: series.estimated,
                thinned: series.thinned + (whole - end.len()) as u64,
            }
        };
        let series: Vec<Series> = self.log.series.iter().map(ending).collect();
        Self {
            points: series.iter().map(|series| series.points.len()).sum(),
            log: Log { series, damage: self.log.damage, ..Log::default() },
            places: self.places.clone(),
            nameless: self.nameless,
            notices: self.notices.clone(),
            named: self.named.clone(),
        }
    }

    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.points == 0
    }

    /// The log.
    pub fn finish(mut self) -> Log {
        if self.nameless > 0 {
            let path = self.notices.first_path();
            let text = format!(
                "{} points left out, of series beyond the first {SERIES_MAX}",
                self.nameless
            );
            self.notice(&path, None, text);
        }
        self.log.notices = self.notices.finish();
        self.log
    }

    /// Halves the series that are at least half as long as the longest.
    fn thin_out(&mut self) {
        let longest = self.log.series.iter().map(|series| series.points.len()).max().unwrap_or(0);
        for series in &mut self.log.series {
            let before = series.points.len();
            if 2 * before < longest {
                continue;
            }
            series.points = series.points.chunks(4).flat_map(extremes).collect();
            series.points.shrink_to_fit();
            let gone = before - series.points.len();
            series.thinned += gone as u64;
            self.points -= gone;
        }
    }
}

/// The smallest and the largest of up to four neighbours, in their order.
fn extremes(points: &[Point]) -> impl Iterator<Item = Point> + use<> {
    let height = |point: &Point| if point.value.is_finite() { point.value } else { f64::INFINITY };
    let (mut low, mut high) = (0, 0);
    for (index, point) in points.iter().enumerate() {
        if height(point) < height(&points[low]) {
            low = index;
        }
        if height(point) > height(&points[high]) {
            high = index;
        }
    }
    let first = points.get(low.min(high)).copied();
    let second = points.get(low.max(high)).copied().filter(|_| low != high);
    first.into_iter().chain(second)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tamegrad_runs::NOTICES_MAX;

    /// A log of series with a value at each step, a second each.
    pub(crate) fn log_of(series: &[(&str, &[f64])]) -> Log {
        let mut builder = LogBuilder::new();
        for (name, values) in series {
            for (step, &value) in (0_i64..).zip(*values) {
                builder.push(name, Point { step, wall: 1.7e9 + step as f64, value });
            }
        }
        builder.finish()
    }

    fn point(step: i64, value: f64) -> Point {
        Point { step, wall: f64::NAN, value }
    }

    #[test]
    fn thinning_keeps_spikes_and_the_first_nan() {
        let values = [1.0, 9.0, 1.0, 2.0, 3.0, f64::NAN, f64::NAN, 3.0, 5.0];
        let points: Vec<Point> =
            values.iter().enumerate().map(|(step, &value)| point(step as i64, value)).collect();
        let steps: Vec<i64> = points.chunks(4).flat_map(extremes).map(|p| p.step).collect();
        assert_eq!(steps, [0, 1, 4, 5, 8]);
    }

    #[test]
    fn points_are_bounded_and_the_rest_is_counted() {
        let mut builder = LogBuilder::new();
        let (loss, norm) = (builder.place("loss"), builder.place("norm"));
        for step in 0..POINTS_MAX as i64 {
            builder.push_at(loss, point(step, 0.0));
        }
        builder.push_at(norm, point(0, 1.0));
        let log = builder.finish();
        assert_eq!(log.series[1].points.len(), 1);
        let kept = log.series[0].points.len() as u64;
        assert!(kept < POINTS_MAX as u64);
        assert_eq!(kept + log.series[0].thinned, POINTS_MAX as u64);
    }

    #[test]
    fn an_ending_keeps_places_and_begins_at_a_multiple() {
        let mut builder = LogBuilder::new();
        for step in 0..38 {
            builder.push("loss", point(step, step as f64));
        }
        builder.push("lr", point(0, 1.0));
        let mut ending = builder.ending(10);
        ending.push("loss", point(38, 38.0));
        let log = ending.finish();
        let loss = &log.series[0];
        assert_eq!((loss.points[0].step, loss.points.len(), loss.thinned), (20, 19, 20));
        assert_eq!(log.series[1].points.len(), 1);
        let whole = format!("{:?}", builder.ending(usize::MAX).finish());
        assert_eq!(whole, format!("{:?}", builder.finish()));
    }

    #[test]
    fn notices_are_bounded_and_the_rest_is_counted() {
        let mut builder = LogBuilder::new();
        for offset in 0..150 {
            builder.notice(Path::new("a.log"), Some(offset), "a broken record");
        }
        let notices = builder.finish().notices;
        assert_eq!(notices.len(), NOTICES_MAX);
        assert_eq!(notices[0].to_string(), "a.log at byte 0: a broken record");
        assert_eq!(notices[NOTICES_MAX - 1].to_string(), "a.log: 51 more such notices");
    }
}
