//! Which number of a record is its step, and what the step is where a count starts anew.

use std::collections::BTreeMap;

use crate::row::Row;

/// Names of the step, the best first. Compared without case, with `_` for spaces and dashes.
const STEP_NAMES: [&str; 21] = [
    "step",
    "global_step",
    "iteration",
    "iter",
    "steps",
    "current_steps",
    "trainer/global_step",
    "train/global_step",
    "_step",
    "num_updates",
    "update",
    "updates",
    "time/total_timesteps",
    "total_timesteps",
    "num_timesteps",
    "timesteps",
    "timestep",
    "iterations",
    "it",
    "epoch",
    "epochs",
];
const ITER: usize = 3;
const EPOCH: usize = 19;
/// Added to the place in [`STEP_NAMES`] where only the part behind the last slash has the name.
const BELOW_A_SLASH: usize = STEP_NAMES.len();
/// Longer than any name of the step.
const STEP_NAME_BYTES_MAX: usize = 20;

/// Records that are looked at to find that epochs repeat.
const RECORDS_TO_JUDGE_EPOCHS: i64 = 16;
/// Epochs whose first step is kept, for a return to them.
const EPOCHS_MAX: usize = 100_000;

/// Whether a name is one of the step's.
pub(crate) fn is_step_name(name: &str) -> bool {
    rank(name).is_some()
}

/// How good a name is for the step: 0 is best.
fn rank(name: &str) -> Option<usize> {
    let part = name.rsplit('/').next()?;
    if part.len() > STEP_NAME_BYTES_MAX {
        return None;
    }
    let place = |name: &str| STEP_NAMES.iter().position(|step| is_same(name, step));
    place(name).or_else(|| place(part).map(|place| place + BELOW_A_SLASH))
}

fn is_same(name: &str, step: &str) -> bool {
    let plain = |byte: u8| match byte {
        b' ' | b'-' => b'_',
        byte => byte.to_ascii_lowercase(),
    };
    name.len() == step.len() && name.bytes().map(plain).eq(step.bytes())
}

fn is_epoch(rank: usize) -> bool {
    rank % STEP_NAMES.len() >= EPOCH
}

/// The number as a step, if it is a whole one.
fn whole(value: f64) -> Option<i64> {
    // Up to here floats hold all whole numbers. NaN has a fraction that is NaN.
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
}

/// Gives each record of a file its step.
///
/// The step is the number of the best name that records have. A record without it happened at the
/// step of the one before: evaluations are logged so. If no record has a step it is the record's
/// number. Where a count of iterations starts anew with each epoch (mmcv), the step runs on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stepper {
    records: i64,
    best: Option<usize>,
    last: Option<i64>,
    epochs: Epochs,
    /// Epochs that are fractions, or repeat, say too little.
    ignores_epochs: bool,
    /// What the records' numbers are added to: the first epoch, if epochs were the steps before.
    base: i64,
    /// The epoch and the names of the record before.
    before: Option<(i64, String)>,
    /// Names of a record, and the cells in it that may be the step, with their ranks. Most records
    /// are like the one before, so that names are seldom looked at.
    known: (String, Vec<(usize, usize)>),
}

struct Key {
    index: usize,
    rank: usize,
    value: f64,
}

impl Stepper {
    /// The step of the next record, and the place of the cell in it that told it.
    pub(crate) fn step(&mut self, row: &Row) -> (i64, Option<usize>) {
        let number = self.records;
        self.records += 1;
        self.learn(row);
        let key = self.key(row);
        let told = key.as_ref().and_then(|key| whole(key.value));
        let index = key.as_ref().map(|key| key.index);
        if row.split().is_some() {
            // mmcv writes the length of the validation set where the iteration would be.
            return (self.last.or(told).unwrap_or(number), index);
        }
        let is_best = key.as_ref().is_some_and(|key| self.best.is_none_or(|best| key.rank <= best));
        let step = match (key, told) {
            (Some(key), Some(told)) if is_best => {
                self.best = Some(key.rank);
                if is_epoch(key.rank) {
                    told
                } else {
                    self.epochs.step(self.epoch(row), told, key.rank)
                }
            }
            _ => match self.last {
                Some(last) if self.best.is_some() => last,
                _ => self.base + number,
            },
        };
        self.last = Some(step);
        (step, index.filter(|_| is_best && told.is_some()))
    }

    fn key(&mut self, row: &Row) -> Option<Key> {
        let key = self.best_key(row)?;
        if !is_epoch(key.rank) {
            return Some(key);
        }
        let epoch = whole(key.value);
        let repeats = self.records <= RECORDS_TO_JUDGE_EPOCHS
            && self.before.as_ref().is_some_and(|(before, names)| {
                Some(*before) == epoch && names.as_str() == row.all_names()
            });
        if epoch.is_none() && key.value.is_finite() || repeats {
            self.ignores_epochs = true;
            if self.best.is_some_and(is_epoch) {
                self.best = None;
            }
            return None;
        }
        if let Some(epoch) = epoch
            && self.records <= RECORDS_TO_JUDGE_EPOCHS
        {
            if self.before.is_none() {
                self.base = epoch;
            }
            self.before = Some((epoch, row.all_names().to_owned()));
        }
        Some(key)
    }

    fn best_key(&self, row: &Row) -> Option<Key> {
        let (_, cells) = &self.known;
        cells
            .iter()
            .filter_map(|&(index, rank)| Some(Key { index, rank, value: row.value(index)? }))
            .filter(|key| is_epoch(key.rank) || whole(key.value).is_some())
            .filter(|key| !(self.ignores_epochs && is_epoch(key.rank)))
            .min_by_key(|key| key.rank)
    }

    /// The epoch of a record that has another step.
    fn epoch(&self, row: &Row) -> Option<i64> {
        let (_, cells) = &self.known;
        let &(index, _) = cells.iter().find(|(_, rank)| is_epoch(*rank))?;
        row.value(index).filter(|value| value.abs() < 9e15).map(|value| value.floor() as i64)
    }

    fn learn(&mut self, row: &Row) {
        let (names, cells) = &mut self.known;
        if names.as_str() != row.all_names() {
            row.all_names().clone_into(names);
            cells.clear();
            let ranks = row.cells().map(|(name, _)| rank(name)).enumerate();
            cells.extend(ranks.filter_map(|(index, rank)| Some((index, rank?))));
        }
    }
}

/// Iterations that start anew with each epoch, made to run on.
#[derive(Debug, Clone, Default)]
struct Epochs {
    epoch: Option<i64>,
    last: i64,
    /// Added to the iterations of this epoch.
    start: i64,
    /// The same of all epochs before, for a return to one.
    starts: BTreeMap<i64, i64>,
}

impl Epochs {
    fn step(&mut self, epoch: Option<i64>, count: i64, rank: usize) -> i64 {
        if let Some(epoch) = epoch {
            match self.epoch {
                Some(before) if epoch > before && self.is_new(count, rank) => {
                    self.start = self.start.saturating_add(self.last);
                    self.starts.insert(epoch, self.start);
                    if self.starts.len() > EPOCHS_MAX {
                        self.starts.pop_first();
                    }
                }
                Some(before) if epoch < before => {
                    let _ = self.starts.split_off(&epoch.saturating_add(1));
                    self.start = self.starts.values().next_back().copied().unwrap_or(0);
                }
                _ => {}
            }
            self.epoch = Some(epoch);
        }
        self.last = count;
        self.start.saturating_add(count)
    }

    /// Whether a count, in a later epoch, was started anew. `iter` is logged at the same places of
    /// each epoch. Other names count on as a rule, and may lag a little in another kind of record.
    fn is_new(&self, count: i64, rank: usize) -> bool {
        if rank == ITER { count <= self.last } else { count < self.last / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row as `name=value ...`, with `val` for a validation; against the steps.
    fn check(rows: &[&str], want: &[i64]) {
        let (mut row, mut stepper) = (Row::default(), Stepper::default());
        let mut got = Vec::new();
        for text in rows {
            row.clear();
            for cell in text.split(' ') {
                match cell.split_once('=') {
                    Some((name, value)) => row.push(name, value.parse().unwrap()),
                    None => row.push_text("mode", cell),
                }
            }
            got.push(stepper.step(&row).0);
        }
        assert_eq!(got, want, "{rows:?}");
    }

    #[test]
    fn the_best_name_wins_whatever_its_case() {
        check(&["epoch=1 Step=7 loss=1", "epoch=1 Step=9 loss=1"], &[7, 9]);
        check(&["iter=3 _step=0", "iter=4 _step=1"], &[3, 4]);
        check(&["total-timesteps=5120 x=1"], &[5120]);
        check(&["log/step=5 loss=1", "log/step=6 loss=1"], &[5, 6]);
        check(&["loss=2", "loss=1"], &[0, 1]);
    }

    #[test]
    fn records_without_the_step_are_at_the_last_one() {
        check(
            &["step=100 loss=1", "epoch=1 val=2", "val_acc=3", "step=200 loss=1"],
            &[100, 100, 100, 200],
        );
        check(&["step=1 loss=1", "step=nan loss=1", "step=3 loss=1"], &[1, 1, 3]);
    }

    #[test]
    fn steps_may_go_back() {
        check(&["step=1 a=1", "step=2 a=1", "step=1 a=1"], &[1, 2, 1]);
        check(&["epoch=1 step=90 a=1", "epoch=1 step=10 a=1"], &[90, 10]);
    }

    #[test]
    fn epochs_are_steps_unless_they_repeat_or_are_fractions() {
        check(&["epoch=1 a=1", "epoch=2 a=1", "epoch=3 a=1"], &[1, 2, 3]);
        check(&["epoch=1 a=1", "epoch=1 val_a=1", "epoch=2 a=1"], &[1, 1, 2]);
        check(&["epoch=1 a=1", "epoch=1 a=1", "epoch=2 a=1"], &[1, 2, 3]);
        check(&["epoch=0 a=1", "epoch=0.5 a=1", "epoch=1 a=1"], &[0, 1, 2]);
    }

    #[test]
    fn iterations_of_epochs_run_on() {
        check(
            &["epoch=1 iter=10", "epoch=1 iter=20", "epoch=2 iter=10", "epoch=2 iter=20"],
            &[10, 20, 30, 40],
        );
        // The log interval is longer than half an epoch.
        check(&["epoch=1 iter=50", "epoch=2 iter=50", "epoch=3 iter=50"], &[50, 100, 150]);
        // Iterations that count on: nothing to add.
        check(&["epoch=1 iter=10", "epoch=2 iter=20", "epoch=3 iter=30"], &[10, 20, 30]);
        // A validation has the length of its set in `iter`.
        check(&["epoch=1 iter=20", "epoch=1 iter=64 val", "epoch=2 iter=20"], &[20, 20, 40]);
        // Resumed from the second epoch.
        check(
            &["epoch=1 iter=9", "epoch=2 iter=9", "epoch=3 iter=9", "epoch=2 iter=9"],
            &[9, 18, 27, 18],
        );
        // A step that lags by one in the next epoch's first record is no restart.
        check(&["epoch=0 step=150 v=1", "epoch=1 step=149 w=1"], &[150, 149]);
    }
}
