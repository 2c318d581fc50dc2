//! The temporal-order problem: name the order of two symbols that were seen far apart.
//!
//! From Hochreiter & Schmidhuber (1997), Long Short-Term Memory, experiment 6a, in the form of
//! Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks: the
//! sequence is random symbols from {c, d, e, f}, except that one step in [T/10, 2T/10) and one in
//! [5T/10, 6T/10) hold A or B. Divisions round down. Chance is right one time in four.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{DataError, Dataset, Table, Targets, parameter};

/// A, B, c, d, e, f, in the order of the input's features.
const SYMBOLS: usize = 6;

/// `samples` training sequences and a fifth as many, at least one, for the test; inputs
/// `[length, 6]`, each step one-hot; classes AA = 0, AB = 1, BA = 2, BB = 3.
pub(super) fn load(samples: usize, length: usize, seed: u64) -> Result<Dataset, DataError> {
    parameter::at_least("samples", samples, 1)?;
    parameter::at_least("length", length, 10)?;
    parameter::table_size(samples, length.saturating_mul(SYMBOLS))?;

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let train = table(samples, length, &mut rng);
    let test = table((samples / 5).max(1), length, &mut rng);
    Ok(Dataset { train, test })
}

fn table(samples: usize, length: usize, rng: &mut ChaCha8Rng) -> Table {
    let tenth = length / 10;
    let mut inputs = vec![0.0; samples * length * SYMBOLS];
    let mut labels = Vec::with_capacity(samples);
    for sequence in inputs.chunks_exact_mut(length * SYMBOLS) {
        let at = [tenth, length / 2].map(|start| start + rng.random_range(0..tenth));
        let relevant = [rng.random_range(0..2), rng.random_range(0..2)];
        for (step, one_hot) in sequence.chunks_exact_mut(SYMBOLS).enumerate() {
            let distractor = rng.random_range(2..SYMBOLS);
            let symbol = at.iter().position(|&t| t == step).map_or(distractor, |i| relevant[i]);
            one_hot[symbol] = 1.0;
        }
        labels.push((2 * relevant[0] + relevant[1]) as u32);
    }
    let targets = Targets::Classes { labels, classes: 4 };
    Table { inputs, input_shape: vec![length, SYMBOLS], targets }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The symbols of each sequence, written out, with its class.
    fn written(samples: usize, length: usize) -> Vec<(String, u32)> {
        let table = table(samples, length, &mut ChaCha8Rng::seed_from_u64(1));
        let Targets::Classes { labels, classes: 4 } = table.targets else { panic!("classes") };
        let sequences = table
            .inputs
            .chunks_exact(length * SYMBOLS)
            .map(|sequence| sequence.chunks_exact(SYMBOLS).map(letter).collect::<String>());
        sequences.zip(labels).collect()
    }

    fn letter(one_hot: &[f32]) -> char {
        assert_eq!(one_hot.iter().sum::<f32>(), 1.0);
        let symbol = one_hot.iter().position(|&x| x == 1.0).expect("one-hot");
        ['A', 'B', 'c', 'd', 'e', 'f'][symbol]
    }

    #[test]
    fn the_class_is_the_order_of_the_two_capitals() {
        // length, steps of the first capital, steps of the second
        let cases = [(10, 1..2, 5..6), (25, 2..4, 12..14), (50, 5..10, 25..30)];
        for (length, first, second) in cases {
            for (text, class) in written(200, length) {
                let capitals: Vec<(usize, char)> =
                    text.chars().enumerate().filter(|(_, c)| c.is_uppercase()).collect();
                let [(p0, v0), (p1, v1)] = capitals[..] else { panic!("{text}") };
                assert!(first.contains(&p0) && second.contains(&p1), "{text}");
                let names = ["AA", "AB", "BA", "BB"];
                assert_eq!(names[class as usize], format!("{v0}{v1}"), "{text}");
            }
        }
    }

    #[test]
    fn classes_and_distractors_are_even() {
        let sequences = written(4000, 20);
        for class in 0..4 {
            let count = sequences.iter().filter(|s| s.1 == class).count();
            assert!((900..1100).contains(&count), "class {class}: {count}");
        }
        for symbol in ['c', 'd', 'e', 'f'] {
            let count: usize = sequences.iter().map(|s| s.0.matches(symbol).count()).sum();
            // 18 of the 20 steps of each sequence are distractors: 18,000 of each symbol.
            assert!((17_500..18_500).contains(&count), "{symbol}: {count}");
        }
    }

    #[test]
    fn the_test_part_is_a_fifth() {
        for (samples, test) in [(100, 20), (9, 1), (1, 1)] {
            let data = load(samples, 10, 1).unwrap();
            assert_eq!((data.train.rows(), data.test.rows()), (samples, test));
        }
    }
}
