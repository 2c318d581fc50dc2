//! Whether a name may be another one misspelt.

/// Whether `got` may be `name` misspelt: one letter in three may differ.
pub(super) fn is_near(got: &str, name: &str) -> bool {
    distance(got, name) <= name.chars().count().div_ceil(3)
}

/// How many letters must be put in, left out, replaced or swapped with their neighbour to get from
/// one word to the other, whatever their case ("optimal string alignment").
pub(super) fn distance(from: &str, to: &str) -> usize {
    let letters = |word: &str| -> Vec<char> { word.to_lowercase().chars().collect() };
    let (from, to) = (letters(from), letters(to));
    let mut before = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i; to.len() + 1];
        for j in 1..=to.len() {
            let replaced = last[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_edits() {
        let cases = [
            ("width", "width", 0),
            ("widht", "width", 1),
            ("wdth", "width", 1),
            ("Relu", "relu", 0),
            ("", "width", 5),
            ("learning-rate", "learning_rate", 1),
        ];
        for (from, to, want) in cases {
            assert_eq!(distance(from, to), want, "{from} to {to}");
        }
    }
}
