//! Which series is a metric that tells whether anything is learned, and which way is better.

use crate::log::{Log, Series};
use crate::vocabulary::{HELD_OUT, has, normal, words};

/// Ends of words for what improves by falling, and by rising.
const LOWER: &[&str] = &[
    "loss",
    "nll",
    "ppl",
    "perplexity",
    "bpb",
    "error",
    "err",
    "rmse",
    "mse",
    "mae",
    "wer",
    "cer",
    "fid",
];
const HIGHER: &[&str] = &[
    "acc", "accuracy", "top1", "f1", "auc", "auroc", "bleu", "rouge", "rouge1", "rougel", "map",
    "iou", "dice", "reward", "return", "psnr", "ssim", "r2", "metric",
];
/// Words of names that are no metric whatever else they say.
const OTHER: &[&str] = &["scale", "weight", "coef", "lr", "best", "std", "min", "time", "runtime"];

/// The metric of a log: of held-out data before others, and of these the one with the most numbers.
pub(super) fn find(log: &Log) -> Option<&Series> {
    let scored = log.series.iter().filter(|series| !series.points.is_empty());
    let scored = scored.map(|series| (score(&normal(&series.name)), series));
    let known = scored.filter(|(score, _)| *score > 0);
    let best = known.reduce(|a, b| {
        let order = |(score, series): &(u32, &Series)| (*score, series.points.len());
        if order(&b) > order(&a) { b } else { a }
    });
    best.map(|(_, series)| series)
}

/// Whether a metric of this name improves by falling.
pub(super) fn is_lower_better(name: &str) -> bool {
    let name = normal(name);
    ends_in(&name, LOWER) && !ends_in(&name, HIGHER)
}

fn ends_in(name: &str, ends: &[&str]) -> bool {
    // `mAcc` and `aAcc` are accuracies, `mIoU` is an IoU; a short end alone could be any word's.
    let is_end = |word: &str, end: &&str| {
        word == *end || end.len() >= 3 && word.len() == end.len() + 1 && word.ends_with(end)
    };
    words(name).any(|word| ends.iter().any(|end| is_end(word, end)))
}

/// How well a name tells that it is a metric; 0 if it is none.
fn score(name: &str) -> u32 {
    let is_held_out = has(name, HELD_OUT);
    let (is_lower, is_higher) = (ends_in(name, LOWER), ends_in(name, HIGHER));
    // `val/acc.error` is the accuracy of a class, and tells less than that of all.
    if is_lower == is_higher || has(name, OTHER) {
        return 0;
    }
    match (is_higher, is_held_out) {
        (true, true) => 90,
        (false, true) if name.ends_with("loss") => 80,
        (false, true) => 70,
        (true, false) if words(name).count() <= 2 && !has(name, &["train", "training"]) => 60,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_metrics() {
        // (name, score, whether lower is better)
        for (name, want, is_lower) in [
            ("val_accuracy", 90, false),
            ("eval/f1", 90, false),
            ("val/mIoU", 90, false),
            ("eval_loss", 80, true),
            ("valid ppl", 70, true),
            ("metric", 60, false),
            ("Reward", 60, false),
            ("train_accuracy", 0, false),
            ("loss", 0, true),
            ("reward_loss", 0, false),
            ("val/Acc.error", 0, false),
            ("val_loss_scale", 0, true),
            ("eval_runtime", 0, false),
        ] {
            assert_eq!(score(&normal(name)), want, "{name}");
            assert_eq!(is_lower_better(name), is_lower, "{name}");
        }
    }
}
