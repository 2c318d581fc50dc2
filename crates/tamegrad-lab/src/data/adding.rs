//! The adding problem: remember two marked values over a long sequence and give their sum.
//!
//! From Hochreiter & Schmidhuber (1997), Long Short-Term Memory, experiment 4; used by Pascanu,
//! Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, to show
//! exploding gradients. Versions differ. This one: values uniform in 0..1 (Pascanu 2013), one
//! marker in each half of the sequence (Arjovsky, Shah & Bengio 2016) and the plain sum as target
//! (Le, Jaitly & Hinton 2015; Pascanu's program halves it). To always answer 1 gives a mean
//! squared error of 1/6, which a network must beat to have learnt anything.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{DataError, Dataset, Table, Targets, parameter};

/// `samples` training sequences and a fifth as many, at least one, for the test; inputs
/// `[length, 2]`, a step being (value, marker 0 or 1), and one target value in 0..2.
pub(super) fn load(samples: usize, length: usize, seed: u64) -> Result<Dataset, DataError> {
    parameter::at_least("samples", samples, 1)?;
    parameter::at_least("length", length, 2)?;
    parameter::table_size(samples, length.saturating_mul(2))?;

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let train = table(samples, length, &mut rng);
    let test = table((samples / 5).max(1), length, &mut rng);
    Ok(Dataset { train, test })
}

fn table(samples: usize, length: usize, rng: &mut ChaCha8Rng) -> Table {
    let mut inputs = Vec::with_capacity(samples * length * 2);
    let mut values = Vec::with_capacity(samples);
    for _ in 0..samples {
        let marked = [rng.random_range(0..length / 2), rng.random_range(length / 2..length)];
        let mut sum = 0.0;
        for step in 0..length {
            let value: f32 = rng.random_range(0.0..1.0);
            let marker = f32::from(u8::from(marked.contains(&step)));
            sum += value * marker;
            inputs.extend([value, marker]);
        }
        values.push(sum);
    }
    Table { inputs, input_shape: vec![length, 2], targets: Targets::Values { values, width: 1 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(table: &Table) -> &[f32] {
        match &table.targets {
            Targets::Values { values, width: 1 } => values,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_target_is_the_sum_of_one_marked_value_in_each_half() {
        for length in [2, 3, 7, 50] {
            let table = table(300, length, &mut ChaCha8Rng::seed_from_u64(1));
            let mut seen = vec![false; length];
            for (sequence, target) in table.inputs.chunks_exact(length * 2).zip(values(&table)) {
                let steps: Vec<&[f32]> = sequence.chunks_exact(2).collect();
                let marked: Vec<usize> = (0..length).filter(|&t| steps[t][1] == 1.0).collect();
                let [first, second] = marked[..] else { panic!("{marked:?}") };
                assert!(first < length / 2 && second >= length / 2, "{marked:?}");
                assert_eq!(*target, steps[first][0] + steps[second][0]);
                assert!(steps.iter().all(|s| (0.0..1.0).contains(&s[0])));
                assert!((0..length).all(|t| marked.contains(&t) || steps[t][1] == 0.0));
                marked.iter().for_each(|&step| seen[step] = true);
            }
            assert!(seen.iter().all(|&step| step), "steps never marked: {seen:?}");
        }
    }

    #[test]
    fn to_answer_one_costs_a_sixth() {
        let data = load(20_000, 10, 1).unwrap();
        let error = values(&data.train).iter().map(|y| (y - 1.0).powi(2)).sum::<f32>() / 20_000.0;
        assert!((error - 1.0 / 6.0).abs() < 0.005, "{error}");
    }

    #[test]
    fn the_test_part_is_a_fifth_and_new() {
        for (samples, test) in [(100, 20), (9, 1), (1, 1)] {
            let data = load(samples, 8, 1).unwrap();
            assert_eq!((data.train.rows(), data.test.rows()), (samples, test));
            assert_ne!(data.train.inputs[..16], data.test.inputs[..16]);
        }
    }
}
