//! The split of one table into a training and a test part, drawn by seed.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Dataset, Table};

/// Share of the samples that the generators of points (circles, blobs, polynomial) hold out.
pub(super) const TEST_FRACTION: f64 = 0.3;

/// Holds out `test_fraction` of the rows (rounded to a whole row, at least one and not all),
/// drawn without regard to the targets. Both parts keep the order of the table.
pub(super) fn split(table: &Table, test_fraction: f64, rng: &mut ChaCha8Rng) -> Dataset {
    let rows = table.rows();
    let test_rows = (rows as f64 * test_fraction).round() as usize;
    let test_rows = test_rows.clamp(1, rows.saturating_sub(1).max(1)).min(rows);

    let mut order: Vec<u32> = (0..rows as u32).collect();
    order.shuffle(rng);
    let (test, train) = order.split_at_mut(test_rows);
    test.sort_unstable();
    train.sort_unstable();
    Dataset { train: part(table, train), test: part(table, test) }
}

/// The given rows as a table of their own.
pub(super) fn part(table: &Table, rows: &[u32]) -> Table {
    let (inputs, targets) = table.gather(rows);
    Table { inputs, input_shape: table.input_shape.clone(), targets }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::data::Targets;

    fn numbered(rows: usize) -> Table {
        Table {
            inputs: (0..rows).map(|row| row as f32).collect(),
            input_shape: vec![1],
            targets: Targets::Values { values: (0..rows).map(|r| r as f32).collect(), width: 1 },
        }
    }

    #[test]
    fn each_row_lands_in_one_part_with_its_target() {
        // rows, fraction, rows of test
        let cases = [
            (10, 0.3, 3),
            (10, 0.01, 1),
            (10, 0.99, 9),
            (2, 0.5, 1),
            (2, 0.9, 1),
            (1000, 0.2, 200),
        ];
        for (rows, fraction, want) in cases {
            let data = split(&numbered(rows), fraction, &mut ChaCha8Rng::seed_from_u64(3));
            assert_eq!((data.train.rows(), data.test.rows()), (rows - want, want));
            let mut seen: Vec<f32> = Vec::new();
            for part in [&data.train, &data.test] {
                let Targets::Values { values, .. } = &part.targets else { panic!("values") };
                assert_eq!(values, &part.inputs);
                assert!(part.inputs.is_sorted());
                seen.extend(&part.inputs);
            }
            seen.sort_by(f32::total_cmp);
            assert_eq!(seen, numbered(rows).inputs);
        }
    }

    #[test]
    fn the_seed_decides_the_rows() {
        let test_rows =
            |seed| split(&numbered(100), 0.3, &mut ChaCha8Rng::seed_from_u64(seed)).test.inputs;
        assert_eq!(test_rows(1), test_rows(1));
        assert_ne!(test_rows(1), test_rows(2));
        assert_ne!(test_rows(1), numbered(30).inputs);
    }
}
