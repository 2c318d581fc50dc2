//! The words by which writers name what a training log holds.

/// Words for data that the model does not learn from.
pub(crate) const HELD_OUT: &[&str] = &[
    "val",
    "valid",
    "validation",
    "vali",
    "eval",
    "evaluation",
    "test",
    "testing",
    "dev",
    "best",
    "heldout",
    "holdout",
    "inference",
];
/// Words that make of the name of a loss that of something else: `loss_weight`, `best_loss`, `loss_std`.
const NO_LOSS: &[&str] = &[
    "scale",
    "scaler",
    "scaling",
    "weight",
    "weights",
    "coef",
    "coeff",
    "coefficient",
    "lr",
    "over",
    "std",
    "var",
    "variance",
    "min",
    "max",
    "count",
    "num",
    "time",
    "lambda",
    "alpha",
    "beta",
    "gamma",
    "target",
    "nan",
    "inf",
    "threshold",
    "patience",
    "ratio",
    "lossless",
    "packet",
    "stop",
    "n",
];
/// Words that alone say that a number is a loss.
const LOSS: &[&str] = &["nll", "nllloss", "xent", "xentropy", "crossentropy", "elbo", "trl", "bce"];
/// What may stand beside `cost` in the name of a loss: `page_cost` is none.
const OF_COST: &[&str] = &[
    "cost", "costs", "avg", "average", "mean", "train", "training", "total", "epoch", "batch",
    "step", "iter", "final", "current", "tr", "model",
];
/// Words that say so where nothing has the name of a loss.
const FAIR_LOSS: &[&str] = &[
    "ce",
    "xe",
    "objective",
    "obj",
    "objf",
    "objfunc",
    "criterion",
    "recon",
    "recons",
    "reconstruction",
    "kld",
];
/// Words of measures that are trained on now and then.
const WEAK_LOSS: &[&str] = &[
    "mse",
    "mae",
    "rmse",
    "huber",
    "l1",
    "l2",
    "err",
    "error",
    "td",
    "ppl",
    "perplexity",
    "bpb",
    "bpc",
    "divergence",
    "likelihood",
    "logp",
    "energy",
];
/// Words for gradients.
const GRADIENT: &[&str] = &["grad", "grads", "gradient", "gradients"];
/// Words for the size of a vector.
const NORM: &[&str] = &["norm", "norms", "l2", "l2norm", "magnitude"];
/// Words that make of the name of a norm that of something else.
const NO_NORM: &[&str] = &[
    "param",
    "params",
    "weight",
    "weights",
    "update",
    "updates",
    "max",
    "min",
    "std",
    "var",
    "ratio",
    "layernorm",
    "batchnorm",
    "penalty",
    "threshold",
    "input",
    "inputs",
    "cos",
    "noise",
];
/// Words for a gradient that was cut down already, which shows no explosion.
const CLIPPED: &[&str] = &["clipped", "afterclip", "after", "postclip", "post", "scaled"];
/// Words for one that was not yet.
const UNCLIPPED: &[&str] = &["before", "pre", "preclip", "beforeclip", "unclipped", "raw", "orig"];

/// A name in lower case, its words joined by `_`. Words end at all that is no letter or digit, and
/// before a capital: `train/CELoss` is `train_ce_loss`.
pub(crate) fn normal(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (at, &letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| letters.get(at)).copied().unwrap_or('_');
        let is_capital = letter.is_uppercase();
        let next_is_small = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        let begins = is_capital && next_is_small && (before.is_alphanumeric());
        let letter = if letter.is_alphanumeric() { letter } else { '_' };
        if begins && !out.ends_with('_') {
            out.push('_');
        }
        if !(letter == '_' && out.ends_with('_')) {
            out.extend(letter.to_lowercase());
        }
    }
    out.trim_matches('_').to_owned()
}

/// The words of a [`normal`] name.
pub(crate) fn words(normal: &str) -> impl DoubleEndedIterator<Item = &str> {
    normal.split('_')
}

/// Whether one of the words of a [`normal`] name is among these.
pub(crate) fn has(normal: &str, of: &[&str]) -> bool {
    words(normal).any(|word| of.contains(&word))
}

/// How surely a [`normal`] name is that of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LossName {
    /// It is not.
    No,
    /// A measure such as a squared error, which may be what is trained on.
    Weak,
    /// A word that hardly means anything else: `objective`, `ce`.
    Fair,
    /// It says so.
    Loss,
}

impl LossName {
    /// What a name says, whatever data it is of.
    pub(crate) fn of(normal: &str) -> Self {
        if has(normal, NO_LOSS) {
            return Self::No;
        }
        let is_cost =
            || has(normal, &["cost", "costs"]) && words(normal).all(|word| OF_COST.contains(&word));
        let is_cross_entropy = || has(normal, &["cross"]) && has(normal, &["entropy", "ent"]);
        if words(normal).any(is_loss_word) || is_cross_entropy() || is_cost() {
            return Self::Loss;
        }
        // Words for a measure stand at the end: `l2_cache_size` is none.
        let last = words(normal).rfind(|word| !is_number(word)).unwrap_or_default();
        if FAIR_LOSS.contains(&last) {
            Self::Fair
        } else if WEAK_LOSS.contains(&last) {
            Self::Weak
        } else {
            Self::No
        }
    }
}

/// Whether a word alone says that a number is a loss: `loss`, `losses`, `closs`, `lossd`, `loss1`.
fn is_loss_word(word: &str) -> bool {
    let plain = word.trim_end_matches(|letter: char| letter.is_ascii_digit());
    plain.ends_with("loss")
        || plain == "losses"
        || plain.starts_with("loss") && plain.len() <= 8 && !plain.starts_with("lossl")
        || LOSS.contains(&plain)
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a [`normal`] name is that of a norm of gradients before they are clipped.
pub(crate) fn is_gradient_norm(normal: &str) -> bool {
    let has_norm = has(normal, NORM) && has(normal, GRADIENT);
    let is_joined = words(normal).any(|word| {
        let plain = word.trim_end_matches(|letter: char| letter.is_ascii_digit());
        plain.ends_with("gnorm") || plain.ends_with("gradnorm") || plain.ends_with("gradientnorm")
    });
    let is_plain = matches!(normal, "norm" | "total_norm" | "global_norm" | "norm_total")
        || has(normal, UNCLIPPED) && has(normal, &["clip", "clipping", "norm"]);
    (has_norm || is_joined || is_plain) && !has(normal, NO_NORM) && !is_clipped(normal)
}

fn is_clipped(normal: &str) -> bool {
    let is_before = has(normal, UNCLIPPED);
    has(normal, CLIPPED) || has(normal, &["clip", "clipping"]) && !is_before
}

/// Whether a name is that of a pattern, in which `*` stands for any text and `?` for any letter.
pub(crate) fn is_match(name: &str, pattern: &str) -> bool {
    // Brackets stand for themselves: `loss[0]` is a name.
    let escaped = pattern.replace('[', "[[]");
    glob::Pattern::new(&escaped).is_ok_and(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    #[test]
    fn patterns_of_names() {
        for (name, pattern, want) in [
            ("critic/loss", "critic/*", true),
            ("loss[0]", "loss[?]", true),
            ("loss[0]", "loss[0]", true),
            ("Loss", "loss", false),
            ("a/b/loss", "a/*loss", true),
        ] {
            assert_eq!(is_match(name, pattern), want, "{name} {pattern}");
        }
    }

    use super::*;

    #[test]
    fn names_are_cut_into_words() {
        for (name, want) in [
            ("train/CELoss", "train_ce_loss"),
            ("CrossEntropyLoss", "cross_entropy_loss"),
            ("Gen Loss Total", "gen_loss_total"),
            ("val/mIoU", "val_m_iou"),
            ("grad_2.0_norm/fc", "grad_2_0_norm_fc"),
            ("LR", "lr"),
            ("L1Loss", "l1_loss"),
        ] {
            assert_eq!(normal(name), want);
        }
    }

    #[test]
    fn names_of_losses() {
        use LossName::{Fair, Loss, No, Weak};
        for (name, want) in [
            ("train/loss", Loss),
            ("critic_loss_1", Loss),
            ("xent", Loss),
            ("Cost", Loss),
            ("train-cross-entropy", Loss),
            ("actor/pg_loss", Loss),
            ("D_loss", Loss),
            ("losses/total", Loss),
            ("ce", Fair),
            ("train/recon", Fair),
            ("objective", Fair),
            ("mse", Weak),
            ("page_cost", No),
            ("loss_scale", No),
            ("best_loss_std", No),
            ("entropy", No),
            ("accuracy", No),
            ("l2_cache_size", No),
        ] {
            assert_eq!(LossName::of(&normal(name)), want, "{name}");
        }
    }

    #[test]
    fn names_of_gradient_norms() {
        for (name, want) in [
            ("grad_norm", true),
            ("grad_norm_0", true),
            ("actor/grad_norm", true),
            ("l2_grads", true),
            ("gnorm", true),
            ("before_clip", true),
            ("grad_norm/before_clip", true),
            ("policy/gradient-norm", true),
            ("grad_norm_clipped", false),
            ("grad_norm_after_clip", false),
            ("clip_grad_norm", false),
            ("params_norm", false),
            ("layer_norm", false),
            ("weight_norm", false),
            ("gradient_penalty", false),
        ] {
            assert_eq!(is_gradient_norm(&normal(name)), want, "{name}");
        }
    }
}
