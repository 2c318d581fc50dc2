//! The order in which the training rows are seen: a pure function of (seed, step).

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Which rows belong to the batch of each step.
///
/// An epoch is one random order of all rows, cut into batches; the rows left over at its end are
/// dropped, so that all batches have one size. With fewer rows than a batch, an epoch is one batch
/// of all rows. What a step sees depends on nothing but the seed and the step: to rewind the data
/// is to ask for an earlier step.
#[derive(Debug, Clone)]
pub struct Batches {
    rows: u32,
    batch: usize,
    seed: u64,
    /// The epoch that `order` belongs to; kept because steps mostly follow each other.
    epoch: Option<u64>,
    order: Vec<u32>,
}

impl Batches {
    /// Batches of `batch` rows (0 counts as 1) out of `rows` (those from 2^32 - 1 on are not
    /// seen), in an order drawn by `seed`.
    pub fn new(rows: usize, batch: usize, seed: u64) -> Batches {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        Batches { rows, batch: batch.max(1), seed, epoch: None, order: Vec::new() }
    }

    /// Number of steps in which each row is seen at most once, at least 1.
    pub fn batches_per_epoch(&self) -> u64 {
        (self.rows as usize / self.batch).max(1) as u64
    }

    /// Row numbers of the batch of `step`, counted from 0; empty only if there are no rows.
    pub fn rows_of(&mut self, step: u64) -> &[u32] {
        let epoch = step / self.batches_per_epoch();
        if self.epoch != Some(epoch) {
            self.order = permutation(self.rows, self.seed, epoch);
            self.epoch = Some(epoch);
        }
        let start = (step % self.batches_per_epoch()) as usize * self.batch;
        let end = start.saturating_add(self.batch).min(self.order.len());
        &self.order[start..end]
    }
}

/// The order of one epoch. The name in the key keeps it apart from other draws by the same seed.
fn permutation(rows: u32, seed: u64, epoch: u64) -> Vec<u32> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..23].copy_from_slice(b"batches");
    let mut order: Vec<u32> = (0..rows).collect();
    order.shuffle(&mut ChaCha8Rng::from_seed(key));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_each_row_once_and_drops_the_short_batch() {
        // rows, batch, batches per epoch, rows of a batch
        let cases = [
            (10, 3, 3, 3),
            (9, 3, 3, 3),
            (10, 10, 1, 10),
            (4, 10, 1, 4),
            (4, usize::MAX, 1, 4),
            (4, 0, 4, 1),
            (0, 5, 1, 0),
        ];
        for (rows, batch, per_epoch, size) in cases {
            let mut batches = Batches::new(rows, batch, 5);
            assert_eq!(batches.batches_per_epoch(), per_epoch, "{rows} rows by {batch}");
            let mut seen = Vec::new();
            for step in 0..per_epoch {
                let batch = batches.rows_of(step);
                assert_eq!(batch.len(), size);
                seen.extend_from_slice(batch);
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), per_epoch as usize * size);
            assert!(seen.iter().all(|&row| (row as usize) < rows));
        }
    }

    #[test]
    fn any_order_of_asking_gives_the_same_rows() {
        let mut forward = Batches::new(50, 8, 11);
        let by_step: Vec<Vec<u32>> = (0..30).map(|step| forward.rows_of(step).to_vec()).collect();
        let mut rewound = Batches::new(50, 8, 11);
        for step in [29, 3, 17, 4, 0, 29, 12, 6, 5] {
            assert_eq!(rewound.rows_of(step), by_step[step as usize], "step {step}");
        }
        assert_eq!(forward.rows_of(u64::MAX).len(), 8);
    }

    #[test]
    fn seed_and_epoch_change_the_order() {
        let epoch = |seed, step| Batches::new(100, 100, seed).rows_of(step).to_vec();
        let identity: Vec<u32> = (0..100).collect();
        assert_ne!(epoch(1, 0), identity);
        assert_ne!(epoch(1, 0), epoch(1, 1));
        assert_ne!(epoch(1, 0), epoch(2, 0));
        // Not a sum of both: a later epoch of one seed is not an earlier one of the next.
        assert_ne!(epoch(1, 1), epoch(2, 0));
    }
}
