//! Which number of a line is its step: one kind for the whole log.

use std::collections::{HashMap, HashSet};

use super::names::GLOBAL;
use super::scan::{Bar, Marks, Place};

/// Where a line stands in the run, in every way that it may say so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// The iteration that the line itself gives.
    pub(super) own: Option<i64>,
    epoch: Option<i64>,
    /// The state of the progress bar on the line itself.
    pub(super) bar: Option<i64>,
    last_own: Option<i64>,
    /// Whether that is a count over all of training, by its name.
    is_global: bool,
    last_epoch: Option<i64>,
    last_bar: Option<i64>,
    /// The number of the record.
    pub(super) number: i64,
}

/// What counts as the step in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Iterations, running over all epochs.
    Iteration,
    /// Epochs.
    Epoch,
    /// States of a progress bar, running over all epochs.
    Bar,
    /// Records of the log.
    Number,
}

impl Position {
    /// The last iteration, epoch and state of a bar that were given.
    pub(super) fn last(&self) -> [Option<i64>; 3] {
        [self.last_own, self.last_epoch, self.last_bar]
    }

    fn by(&self, kind: Kind) -> Option<i64> {
        match kind {
            Kind::Iteration => self.own.or(self.last_own),
            Kind::Epoch => self.epoch.or(self.last_epoch),
            Kind::Bar => self.bar.or(self.last_bar),
            Kind::Number => Some(self.number),
        }
    }

    /// The step if `kind` counts; 0 before the log gives the first.
    pub(super) fn step(&self, kind: Kind) -> i64 {
        self.by(kind).unwrap_or(0)
    }
}

/// The kind of step that most of the records have. `points` are the positions of the points of
/// training with their series; epochs and bars count only if they tell most points apart.
pub(super) fn decide(points: &[(usize, Position)]) -> Kind {
    let is_most = |count: usize| 2 * count >= points.len() && count > 0;
    let tells_apart = |kind: Kind, percent: usize| {
        let steps = points.iter().filter_map(|(place, at)| Some((place, at.by(kind)?)));
        let count = steps.clone().count();
        is_most(count) && 100 * steps.collect::<HashSet<_>>().len() > percent * count
    };
    // Lines between two iterations are of the first.
    if 5 * points.iter().filter(|(_, at)| at.own.is_some()).count() > points.len() {
        return Kind::Iteration;
    }
    let is_global = is_most(points.iter().filter(|(_, at)| at.is_global).count());
    if is_global && tells_apart(Kind::Iteration, 50) {
        return Kind::Iteration;
    }
    // Where there are bars, epochs count only if hardly more than the last state of each is there.
    let is_barred = is_most(points.iter().filter(|(_, at)| at.bar.is_some()).count());
    let kinds =
        [(Kind::Epoch, if is_barred { 75 } else { 50 }), (Kind::Bar, 50), (Kind::Iteration, 50)];
    let kind = kinds.into_iter().find(|(kind, percent)| tells_apart(*kind, *percent));
    kind.map_or(Kind::Number, |(kind, _)| kind)
}

/// The position as the lines go by.
#[derive(Debug, Clone, Default)]
pub(super) struct Track {
    own: Option<i64>,
    is_global: bool,
    epoch: Option<i64>,
    bar: Option<i64>,
    /// Whether epochs count from 0.
    is_from_zero: bool,
    /// The largest end of a bar without words, which is that of training as a whole.
    bar_end: i64,
    /// What to add to iterations that start again with each epoch.
    offsets: HashMap<i64, i64>,
    previous: Option<(i64, i64)>,
    stride: i64,
}

impl Track {
    /// The position of the next line.
    pub(super) fn advance(&mut self, marks: &Marks, is_validation: bool, number: i64) -> Position {
        let epoch = marks.epoch;
        if epoch.is_some() && !is_validation {
            self.epoch = epoch;
            self.is_from_zero |= epoch == Some(0);
        }
        let own = self.own(marks, is_validation);
        let bar = self.bar(marks, is_validation);
        if !is_validation {
            self.own = own.or(self.own);
            self.is_global |= marks.step.is_some_and(|(rank, _)| rank >= GLOBAL);
        }
        Position {
            own,
            epoch: if marks.bar == Bar::Keras { epoch.or(self.epoch) } else { epoch },
            bar,
            last_own: self.own,
            is_global: self.is_global,
            last_epoch: self.epoch,
            last_bar: self.bar,
            number,
        }
    }

    fn own(&mut self, marks: &Marks, is_validation: bool) -> Option<i64> {
        match (marks.step, marks.place) {
            _ if marks.bar == Bar::Keras => None,
            (Some((rank, step)), _) if rank >= GLOBAL => Some(step),
            // Batches are always those of an epoch.
            (Some((2, at)), _) if !is_validation && marks.step_of.is_some() => {
                Some(self.in_epoch(Place { at, of: marks.step_of.unwrap_or(0) }))
            }
            (Some((rank, step)), _) if rank > 2 || rank == 2 && !is_validation => {
                Some(self.epoch.map_or(step, |epoch| self.running(epoch, step, marks.step_of)))
            }
            // The batches of validation are counted apart.
            _ if is_validation => None,
            (_, Some(place)) if marks.bar == Bar::None => Some(self.in_epoch(place)),
            (step, _) => step.map(|(_, step)| step),
        }
    }

    fn bar(&mut self, marks: &Marks, is_validation: bool) -> Option<i64> {
        let Bar::Tqdm { is_described } = marks.bar else { return None };
        let place = marks.place.filter(|_| !is_validation)?;
        let has_values = !marks.pairs.is_empty();
        let bar = self.in_epoch(place);
        if has_values || !is_described && place.of >= self.bar_end {
            self.bar = Some(bar);
            self.bar_end = self.bar_end.max(place.of);
        }
        has_values.then_some(bar)
    }

    /// `50/7330` of the present epoch as a number that runs over all of them.
    fn in_epoch(&self, place: Place) -> i64 {
        let first = i64::from(!self.is_from_zero);
        let before = self.epoch.map_or(0, |epoch| epoch.saturating_sub(first).max(0));
        before.saturating_mul(place.of).saturating_add(place.at)
    }

    /// Makes iterations run on where each epoch, perhaps of a known length, starts them again.
    fn running(&mut self, epoch: i64, at: i64, of: Option<i64>) -> i64 {
        let (last_epoch, last) = self.previous.unwrap_or((epoch, at));
        let last_offset = self.offsets.get(&last_epoch).copied().unwrap_or(0);
        if epoch == last_epoch && at > last {
            self.stride = at - last;
        } else if epoch < last_epoch - 1 {
            self.offsets.retain(|known, _| *known <= epoch);
        }
        let offset = match self.offsets.get(&epoch) {
            Some(&known) => known,
            None if epoch > last_epoch && at <= last => {
                let length = of.map(|of| of.saturating_mul(epoch - last_epoch));
                last_offset.saturating_add(length.unwrap_or(last + self.stride - at))
            }
            None if epoch > last_epoch => last_offset,
            None => 0,
        };
        if self.offsets.len() > 1 << 16 {
            self.offsets.clear();
        }
        self.offsets.insert(epoch, offset);
        self.previous = Some((epoch, at));
        at.saturating_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_run_on_over_epochs() {
        let mut track = Track::default();
        let given = [(1, 0), (1, 100), (1, 200), (2, 0), (2, 100), (1, 200), (2, 200), (3, 0)];
        let got: Vec<i64> =
            given.iter().map(|&(epoch, at)| track.running(epoch, at, None)).collect();
        assert_eq!(got, [0, 100, 200, 300, 400, 200, 500, 600]);
        // The next run in the same log.
        let got: Vec<i64> =
            [(1, 0), (1, 50), (2, 0)].map(|(e, at)| track.running(e, at, None)).to_vec();
        assert_eq!(got, [0, 50, 100]);
    }

    #[test]
    fn iterations_over_all_epochs_stay() {
        let mut track = Track::default();
        let got: Vec<i64> =
            [(1, 500), (2, 600), (3, 700)].map(|(e, at)| track.running(e, at, None)).to_vec();
        assert_eq!(got, [500, 600, 700]);
    }
}
