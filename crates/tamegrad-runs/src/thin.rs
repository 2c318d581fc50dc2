//! What of a run is kept in full and what is thinned out, so that a run of any length stays small.

use std::collections::{BTreeMap, VecDeque};

use super::table::TensorRecord;

/// How much a run folder holds. What goes beyond is thinned out, and that is counted in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Rows of `steps.arrows` up to which every step is written. Beyond, every tenth is, and a half
    /// as many rows again for steps that are not finite or round an incident; the tenth becomes a
    /// twentieth after half as many rows again, and so on.
    pub step_rows: u64,
    /// Rows of `tensors.arrows` up to which incidents are written in full, and, separately, up to
    /// which envelopes keep half their bound of steps before they grow.
    pub tensor_rows: u64,
    /// Steps that are kept in full before and after an incident, and at the end.
    pub full_steps: u32,
    /// Steps of one envelope.
    pub envelope_steps: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { step_rows: 1_000_000, tensor_rows: 4_000_000, full_steps: 200, envelope_steps: 100 }
    }
}

/// Rows that are kept in memory for the case of an incident, whatever [`Bounds::full_steps`] says.
const RING_ROWS_MAX: usize = 500_000;
/// Of so many steps one is kept when the bound is first reached.
const EVERY: u64 = 10;

/// Doublings after `count` of `bound` rows: one for each half of the bound.
fn doublings(count: u64, bound: u64) -> u32 {
    (count / (bound / 2).max(1)).min(32) as u32
}

/// Which steps are written.
#[derive(Debug, Default)]
pub(super) struct StepThinning {
    pub(super) bound: u64,
    /// Rows written as a matter of course.
    kept: u64,
    /// Rows written beyond the bound because they are special.
    special: u64,
    since: u64,
    /// Rows not written.
    pub(super) dropped: u64,
}

impl StepThinning {
    /// For a stream that already has some rows.
    pub(super) fn new(bound: u64, rows: u64) -> Self {
        Self { bound, kept: rows, ..Self::default() }
    }

    /// Whether the next row is written.
    pub(super) fn keeps(&mut self, is_special: bool) -> bool {
        if self.kept < self.bound {
            self.kept += 1;
            return true;
        }
        if is_special && self.special < self.bound / 2 {
            self.special += 1;
            return true;
        }
        self.since += 1;
        if self.since >= EVERY << doublings(self.kept - self.bound, self.bound) {
            self.since = 0;
            self.kept += 1;
            return true;
        }
        self.dropped += 1;
        false
    }
}

/// Which rows of tensors are written, and as what. All rows pass through a ring of the last steps;
/// an incident writes the ring as it is, and what leaves it otherwise goes into an envelope.
#[derive(Debug, Default)]
pub(super) struct TensorThinning {
    pub(super) bounds: Bounds,
    ring: VecDeque<Vec<TensorRecord>>,
    ring_rows: usize,
    envelopes: BTreeMap<u32, TensorRecord>,
    enveloped_steps: u64,
    /// Steps that are still written in full after an incident.
    full_left: u32,
    full_rows: u64,
    envelope_rows: u64,
    /// Rows that live on only in an envelope.
    pub(super) dropped: u64,
}

impl TensorThinning {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Counts a row that an earlier writer has written.
    pub(super) fn count(&mut self, record: &TensorRecord) {
        if record.steps > 1 {
            self.envelope_rows += 1;
        } else {
            self.full_rows += 1;
        }
    }

    /// Takes the rows of one step; what is to be written is added to `out`.
    pub(super) fn push(&mut self, records: Vec<TensorRecord>, out: &mut Vec<TensorRecord>) {
        if self.full_left > 0 && self.full_rows < self.bounds.tensor_rows {
            self.full_left -= 1;
            self.full_rows += records.len() as u64;
            out.extend(records);
            return;
        }
        self.ring_rows += records.len();
        self.ring.push_back(records);
        while self.ring.len() > self.bounds.full_steps as usize || self.ring_rows > RING_ROWS_MAX {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_rows -= oldest.len();
            self.envelop(oldest, out);
        }
    }

    /// Writes the last steps in full, and the next ones as they come; whether the bound allows it.
    pub(super) fn incident(&mut self, out: &mut Vec<TensorRecord>) -> bool {
        let is_allowed = self.full_rows < self.bounds.tensor_rows;
        if is_allowed {
            self.drain(out);
            self.full_left = self.bounds.full_steps;
        }
        is_allowed
    }

    /// Writes all that is held back, the last steps in full.
    pub(super) fn drain(&mut self, out: &mut Vec<TensorRecord>) {
        self.close(out);
        self.full_rows += self.ring_rows as u64;
        self.ring_rows = 0;
        out.extend(self.ring.drain(..).flatten());
    }

    /// All that is held back, in order: the open envelopes and the last steps.
    pub(super) fn held(&self) -> impl Iterator<Item = &TensorRecord> {
        self.envelopes.values().chain(self.ring.iter().flatten())
    }

    /// How many of these are of the last steps.
    pub(super) fn ring_rows(&self) -> usize {
        self.ring_rows
    }

    fn envelop(&mut self, records: Vec<TensorRecord>, out: &mut Vec<TensorRecord>) {
        let segment = |records: Option<&TensorRecord>| records.map(|record| record.segment);
        if segment(self.envelopes.values().next()) != segment(records.first()) {
            self.close(out);
        }
        for record in records {
            match self.envelopes.get_mut(&record.tensor) {
                Some(envelope) => {
                    extend(envelope, &record);
                    self.dropped += 1;
                }
                None => drop(self.envelopes.insert(record.tensor, record)),
            }
        }
        self.enveloped_steps += 1;
        let steps = u64::from(self.bounds.envelope_steps);
        if self.enveloped_steps >= steps << doublings(self.envelope_rows, self.bounds.tensor_rows) {
            self.close(out);
        }
    }

    fn close(&mut self, out: &mut Vec<TensorRecord>) {
        self.enveloped_steps = 0;
        self.envelope_rows += self.envelopes.len() as u64;
        out.extend(std::mem::take(&mut self.envelopes).into_values());
    }
}

/// Extends an envelope by the row of a later step.
fn extend(envelope: &mut TensorRecord, row: &TensorRecord) {
    envelope.step = row.step;
    envelope.steps = envelope.steps.saturating_add(row.steps);
    let share = f64::from(row.steps) / f64::from(envelope.steps);
    // Not `mean + (value - mean) * share`: with an infinite mean that would be NaN.
    let mean = |mean: f64, value: f64| mean * (1.0 - share) + value * share;
    envelope.l2 = mean(envelope.l2, row.l2);
    envelope.mean = mean(envelope.mean, row.mean);
    envelope.l2_min = envelope.l2_min.min(row.l2_min);
    envelope.l2_max = larger(envelope.l2_max, row.l2_max);
    envelope.max_abs = larger(envelope.max_abs, row.max_abs);
    envelope.nans = envelope.nans.saturating_add(row.nans);
    envelope.infs = envelope.infs.saturating_add(row.infs);
    envelope.zeros = envelope.zeros.saturating_add(row.zeros);
}

/// The larger of two, where NaN is larger than all.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorRow;

    fn record(step: u64, l2: f64) -> TensorRecord {
        let nans = u64::from(l2.is_nan());
        let row = TensorRow { l2, max_abs: l2, mean: 1.0, nans, zeros: 2, ..TensorRow::default() };
        TensorRecord::new(step, 0, &row)
    }

    fn small() -> Bounds {
        Bounds { step_rows: 100, tensor_rows: 40, full_steps: 4, envelope_steps: 3 }
    }

    /// The rows written for the steps, as (last step, number of steps).
    fn written(steps: std::ops::Range<u64>, incident: u64, bounds: Bounds) -> Vec<(u64, u32)> {
        let (mut thinning, mut out) = (TensorThinning::new(bounds), Vec::new());
        for step in steps {
            thinning.push(vec![record(step, 1.0)], &mut out);
            if step == incident {
                assert!(thinning.incident(&mut out));
            }
        }
        thinning.drain(&mut out);
        out.iter().map(|record| (record.step, record.steps)).collect()
    }

    #[test]
    fn round_an_incident_and_at_the_end_rows_are_full_and_else_enveloped() {
        assert_eq!(
            written(0..22, 8, small()),
            [
                (2, 3),
                // Closed early: the incident is at step 8, and the four last steps are full.
                (4, 2),
                (5, 1),
                (6, 1),
                (7, 1),
                (8, 1),
                (9, 1),
                (10, 1),
                (11, 1),
                (12, 1),
                (15, 3),
                (17, 2),
                (18, 1),
                (19, 1),
                (20, 1),
                (21, 1)
            ]
        );
    }

    #[test]
    fn an_envelope_keeps_the_extremes_and_counts() {
        let mut envelope = record(7, 3.0);
        extend(&mut envelope, &record(8, 9.0));
        assert_eq!((envelope.l2_min, envelope.l2, envelope.l2_max), (3.0, 6.0, 9.0));
        extend(&mut envelope, &record(9, f64::NAN));
        extend(&mut envelope, &record(10, 1.0));
        assert_eq!((envelope.l2_min, envelope.step, envelope.steps), (1.0, 10, 4));
        assert!(envelope.l2_max.is_nan() && envelope.max_abs.is_nan());
        assert_eq!((envelope.nans, envelope.zeros, envelope.mean), (1, 8, 1.0));
    }

    #[test]
    fn an_infinite_step_makes_the_mean_infinite_and_not_nan() {
        let mut envelope = record(0, f64::INFINITY);
        extend(&mut envelope, &record(1, 1.0));
        extend(&mut envelope, &record(2, 1.0));
        assert_eq!(envelope.l2, f64::INFINITY);
    }

    #[test]
    fn rows_grow_only_with_the_logarithm_beyond_the_bounds() {
        let (mut thinning, mut out) = (TensorThinning::new(small()), Vec::new());
        for step in 0..100_000 {
            thinning.push(vec![record(step, 1.0)], &mut out);
            thinning.incident(&mut out);
        }
        assert!(out.len() < 40 + 20 * 16, "{}", out.len());

        let mut steps = StepThinning::new(100, 0);
        let kept = (0..1_000_000).filter(|step| steps.keeps(step % 7 == 0)).count() as u64;
        assert!(kept < 100 + 50 + 50 * 14, "{kept}");
        assert_eq!(kept + steps.dropped, 1_000_000);
    }

    #[test]
    fn special_steps_are_kept_beyond_the_bound() {
        let mut steps = StepThinning::new(100, 100);
        assert!(!steps.keeps(false));
        assert!(steps.keeps(true));
        assert_eq!((0..50).filter(|_| steps.keeps(false)).count(), 5);
    }
}
