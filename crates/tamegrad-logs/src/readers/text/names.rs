//! What the words before a number say that it is.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::vocabulary::{self, LossName, is_gradient_norm};

/// The names seen so far, each looked at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// By the words of a line, and by the keys of dicts.
    seen: [HashMap<Box<[u8]>, Name, RandomState>; 2],
    known: Vec<String>,
    places: HashMap<String, u32>,
    /// Names that came after [`NAMES_MAX`] others and were passed over.
    pub(super) dropped: u64,
}

/// Names kept of one log, with the series of validation among them.
pub(super) const NAMES_MAX: usize = 2000;
/// Words before numbers that are remembered as names or as none.
const WORDS_MAX: usize = 8192;

/// A name that was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// Which of the known names; meaningless for those of no series.
    pub(super) id: u32,
    /// What it stands for.
    pub(super) class: Class,
    /// Whether the name itself says which data: `val_loss`, `train_loss`.
    pub(super) says_subset: Option<Subset>,
}

/// The data a number was computed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subset {
    /// What the model learns from.
    Train,
    /// What it is only tested on.
    Validation,
}

impl Names {
    /// The name that the words `raw` of a line give.
    pub(super) fn words(&mut self, raw: &[u8]) -> Name {
        self.look_up(raw, false)
    }

    /// The name that the key `raw` of a dict gives: each stands for something.
    pub(super) fn key(&mut self, raw: &[u8]) -> Name {
        self.look_up(raw, true)
    }

    fn look_up(&mut self, raw: &[u8], is_key: bool) -> Name {
        let [words, keys] = &self.seen;
        if let Some(&name) = if is_key { keys } else { words }.get(raw) {
            return name;
        }
        let text = normal(raw);
        let class = match classify(&text) {
            Class::Unknown if is_key && !text.is_empty() => Class::Other,
            Class::Unknown => position_at_end(raw),
            class => class,
        };
        let name = self.name(class, text);
        let [words, keys] = &mut self.seen;
        let seen = if is_key { keys } else { words };
        if seen.len() < WORDS_MAX {
            seen.insert(raw.into(), name);
        }
        name
    }

    /// A name of a series, made up by the reader.
    pub(super) fn own(&mut self, text: &str) -> u32 {
        self.intern(text.to_owned()).unwrap_or_default()
    }

    /// The text of a known name.
    pub(super) fn text(&self, id: u32) -> &str {
        self.known.get(id as usize).map_or("", String::as_str)
    }

    fn name(&mut self, class: Class, text: String) -> Name {
        let says_subset = subset_of_name(&text);
        if !class.is_value() && class != Class::Epoch {
            return Name { id: 0, class, says_subset };
        }
        match self.intern(text) {
            Some(id) => Name { id, class, says_subset },
            None => Name { id: 0, class: Class::Unknown, says_subset },
        }
    }

    fn intern(&mut self, text: String) -> Option<u32> {
        if let Some(&id) = self.places.get(&text) {
            return Some(id);
        }
        if self.known.len() >= NAMES_MAX {
            self.dropped += 1;
            return None;
        }
        let id = self.known.len() as u32;
        self.places.insert(text.clone(), id);
        self.known.push(text);
        Some(id)
    }
}

/// The data that a word of its own stands for.
pub(super) fn subset_of_word(word: &[u8]) -> Option<Subset> {
    if !(2..=10).contains(&word.len()) {
        return None;
    }
    let is_one_of = |words: &[&str]| words.iter().any(|w| word.eq_ignore_ascii_case(w.as_bytes()));
    match word.first()?.to_ascii_lowercase() {
        b'v' if is_one_of(&["val", "valid", "validation", "validate", "validating"]) => {
            Some(Subset::Validation)
        }
        b'e' if is_one_of(&["eval", "evaluation", "evaluate", "evaluating"]) => {
            Some(Subset::Validation)
        }
        b't' if is_one_of(&["test", "testing"]) => Some(Subset::Validation),
        b't' if is_one_of(&["train", "training", "tr"]) => Some(Subset::Train),
        b'd' if is_one_of(&["dev"]) => Some(Subset::Validation),
        _ => None,
    }
}

fn subset_of_name(name: &str) -> Option<Subset> {
    let mut parts = name.split(|letter: char| !letter.is_ascii_alphabetic());
    parts.find_map(|part| subset_of_word(part.as_bytes()))
}

/// What a number is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A loss.
    Loss,
    /// A norm of gradients.
    Gradient,
    /// The factor by which the loss is scaled for half precision.
    LossScale,
    /// What training and validation share, such as the learning rate.
    Shared,
    /// Another number that tells how training goes.
    Other,
    /// The position in the run; the larger the number, the more exactly.
    Step(u8),
    /// The epoch.
    Epoch,
    /// None of these.
    Unknown,
}

impl Class {
    /// Whether a line with this number is one of training, and no setting or prose.
    pub(super) fn is_core(self) -> bool {
        matches!(self, Self::Loss | Self::Gradient)
    }

    /// Whether the number goes into a series.
    pub(super) fn is_value(self) -> bool {
        !matches!(self, Self::Step(_) | Self::Epoch | Self::Unknown)
    }

    /// Whether validation has a number of its own under this name.
    pub(super) fn has_validation(self) -> bool {
        matches!(self, Self::Loss | Self::Other)
    }
}

/// Counts that run over the whole of training.
pub(super) const GLOBAL: u8 = 5;

/// The name as a series has it: lower-case words joined by `_`, at most four, without words that
/// only lead up to it.
pub(super) fn normal(raw: &[u8]) -> String {
    let raw = String::from_utf8_lossy(raw).to_lowercase();
    let mut words: Vec<&str> = raw.split_ascii_whitespace().collect();
    let is_filler = |part: &&str| word(part) == Word::Filler || is_file_name(part);
    while words.last().is_some_and(is_filler) {
        words.pop();
    }
    let first = words.iter().rposition(is_filler).map_or(0, |last| last + 1);
    let first = first.max(words.len().saturating_sub(4));
    let name = words.get(first..).unwrap_or_default().join("_");
    match name.as_str() {
        // The short names of llm.c's own log.
        "trl" => "train_loss".to_owned(),
        "tel" => "val_loss".to_owned(),
        _ => name,
    }
}

/// What the last word of several says, if that is where in the run a line stands: `trainer step`. In
/// `every step` and `best epoch` it is something else.
fn position_at_end(raw: &[u8]) -> Class {
    let raw = String::from_utf8_lossy(raw).to_lowercase();
    let mut words = raw.split_ascii_whitespace().rev();
    let last = words.next().map_or(Class::Unknown, classify);
    let is_other = |word: &str| NO_POSITION.contains(&word) || self::word(word) == Word::Setting;
    match last {
        Class::Step(_) | Class::Epoch if !words.any(is_other) => last,
        _ => Class::Unknown,
    }
}

/// Words before `step` with which it is not that of the line.
const NO_POSITION: &[&str] = &[
    "after",
    "checkpoint",
    "each",
    "episode",
    "eval",
    "first",
    "last",
    "log",
    "logging",
    "more",
    "n",
    "next",
    "number",
    "per",
    "print",
    "remaining",
    "resume",
    "resumed",
    "resuming",
    "save",
    "saved",
    "saving",
    "skip",
    "skipped",
    "skipping",
    "this",
    "total",
    "until",
    "up",
    "which",
];

/// Whether a word is the name of a file of code: loggers print it before what they have to say.
pub(super) fn is_file_name(word: &str) -> bool {
    word.rsplit_once('.').is_some_and(|(name, ending)| {
        !name.is_empty() && SOURCES.iter().any(|known| ending.eq_ignore_ascii_case(known))
    })
}

/// Endings of files of code.
const SOURCES: &[&str] = &[
    "py", "ipynb", "cc", "cpp", "cu", "c", "h", "hpp", "rs", "go", "java", "lua", "jl", "js", "ts",
];

/// What a name that [`normal`] gave stands for.
pub(super) fn classify(name: &str) -> Class {
    // `Learning iteration 3`, `time/total_timesteps`
    let last = name.rsplit('/').next().unwrap_or(name);
    let leads = ["train_", "training_", "learning_", "optimizer_"];
    let bare = leads.iter().find_map(|lead| last.strip_prefix(lead)).unwrap_or(last);
    match bare {
        "num_updates" | "global_step" | "global_steps" | "globalstep" | "global-step"
        | "total_timesteps" | "timesteps" | "timestep" | "time_step" | "num_timesteps"
        | "step_num" | "env_steps" | "env_step" | "total_steps_done" | "gradient_steps"
        | "global_iter" | "global_iteration" => {
            return Class::Step(GLOBAL);
        }
        "step" | "steps" | "iter" | "iteration" | "iterations" | "iters" | "it" | "itr"
        | "itrs" | "update" | "updates" | "n_iter" | "cur_iter" | "num_iter"
        | "iteration_number" | "up" | "iter_num" | "cur_step" | "num_steps" | "step_count"
        | "optimizer_step" => {
            return Class::Step(4);
        }
        "s" => return Class::Step(3),
        "batch" | "minibatch" | "mini-batch" | "mini_batch" | "batch_idx" | "batch_id" | "mb"
        | "batch_num" | "batch_no" | "minibatches" | "batches" => {
            return Class::Step(2);
        }
        "episode" | "episodes" | "game" | "rollout" => return Class::Step(1),
        "epoch" | "ep" | "epochs" | "epoch_num" | "epoch_no" | "epoch_idx" => return Class::Epoch,
        _ => {}
    }
    value_class(name)
}

fn value_class(name: &str) -> Class {
    let parts = || name.split(|letter: char| !letter.is_alphanumeric()).filter(|p| !p.is_empty());
    let has = |words: &[&str]| parts().any(|part| words.contains(&part));
    let last = parts().next_back().unwrap_or_default();
    if parts().any(|part| word(part) == Word::Setting) {
        return Class::Unknown;
    }
    let plain = vocabulary::normal(name);
    match LossName::of(&plain) {
        LossName::Loss | LossName::Fair => return Class::Loss,
        LossName::No if parts().any(|part| part.ends_with("loss")) && has(&["scale", "scaler"]) => {
            return Class::LossScale;
        }
        _ => {}
    }
    if has(&["grad", "amp", "fp16"]) && matches!(last, "scale" | "scaler")
        || matches!(name, "grad_scale" | "gradscale" | "loss-scale" | "lossscale")
    {
        return Class::LossScale;
    }
    if is_gradient_norm(&plain)
        || matches!(name, "grad" | "grads" | "gradient" | "gradients")
        || has(&["grad", "grads"]) && last == "total"
    {
        return Class::Gradient;
    }
    if name.contains("learning_rate") || name.contains("learning-rate") || has(&["lr"]) {
        return Class::Shared;
    }
    if word(last) == Word::Measure { Class::Other } else { Class::Unknown }
}

/// What a word of a name says, whatever the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It belongs to a sentence and is no part of the name.
    Filler,
    /// The number is a setting, `loss_weight: 0.5` and `max_norm=35`, or no present value:
    /// `val_loss improved from inf`.
    Setting,
    /// At the end of a name: the number tells how training goes.
    Measure,
    /// None of these.
    Other,
}

fn word(word: &str) -> Word {
    match word {
        "a" | "an" | "and" | "at" | "attempted" | "became" | "become" | "becomes" | "by"
        | "current" | "currently" | "debug" | "equals" | "error:" | "for" | "got" | "in"
        | "infinite" | "info" | "is" | "its" | "new" | "now" | "of" | "on" | "or" | "reducing"
        | "setting" | "the" | "to" | "warning" | "was" | "with" => Word::Filler,
        "alpha" | "batches" | "best" | "beta" | "coef" | "coeff" | "coefficient" | "count"
        | "decay" | "decoder" | "delta" | "dim" | "dtype" | "encoder" | "eps" | "epsilon"
        | "every" | "factor" | "fn" | "freq" | "from" | "func" | "gamma" | "improved" | "init"
        | "initial" | "interval" | "lambda" | "lowest" | "margin" | "max" | "min" | "minimum"
        | "mode" | "num" | "patience" | "previous" | "ratio" | "reduction" | "scheduler"
        | "smoothing" | "target" | "threshold" | "time" | "tol" | "type" | "w" | "warmup"
        | "weight" | "weights" | "window" => Word::Setting,
        "acc" | "acc1" | "acc5" | "accuracy" | "auc" | "bleu" | "bpb" | "bpc" | "cer" | "clip"
        | "entropy" | "err" | "error" | "f1" | "kl" | "mae" | "mse" | "norm" | "perplexity"
        | "pnorm" | "ppl" | "reward" | "rewards" | "rmse" | "scale" | "top1" | "top5" | "wer" => {
            Word::Measure
        }
        _ => Word::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_to_what_they_say() {
        for (raw, name) in [
            ("lm loss", "lm_loss"),
            ("Train  Loss", "train_loss"),
            ("Current learning rate is", "learning_rate"),
            ("setting loss scale to", "loss_scale"),
            ("model has diverged with loss", "loss"),
            ("one two three four loss", "two_three_four_loss"),
            ("trl", "train_loss"),
            ("the", ""),
        ] {
            assert_eq!(normal(raw.as_bytes()), name);
        }
    }

    #[test]
    fn names_say_what_a_number_is() {
        for (name, class) in [
            ("loss", Class::Loss),
            ("loss_ce_0", Class::Loss),
            ("s0.loss_cls", Class::Loss),
            ("train/loss", Class::Loss),
            ("train_loss_batch", Class::Loss),
            ("d_loss", Class::Loss),
            ("lossd", Class::Loss),
            ("gloss", Class::Loss),
            ("lossless", Class::Unknown),
            ("gloss_encoder", Class::Unknown),
            ("loss_weight", Class::Unknown),
            ("loss_scale", Class::LossScale),
            ("gnorm", Class::Gradient),
            ("grad_norm", Class::Gradient),
            ("grad-norm", Class::Gradient),
            ("grad_2.0_norm_total", Class::Gradient),
            ("norm", Class::Gradient),
            ("max_norm", Class::Unknown),
            ("params_norm", Class::Other),
            ("lr", Class::Shared),
            ("lr_architecture1", Class::Shared),
            ("learning_rate", Class::Shared),
            ("val_acc", Class::Other),
            ("nll_loss", Class::Loss),
            ("train-cross-entropy", Class::Loss),
            ("entropy", Class::Other),
            ("num_updates", Class::Step(GLOBAL)),
            ("train_step", Class::Step(4)),
            ("epoch", Class::Epoch),
            ("train_epoch", Class::Epoch),
            ("batch_size", Class::Unknown),
            ("warmup_step", Class::Unknown),
            ("learning_iteration", Class::Step(4)),
            ("time/total_timesteps", Class::Step(GLOBAL)),
            ("loss_improved_from", Class::Unknown),
            ("avg_cost", Class::Loss),
            ("page_cost", Class::Unknown),
            ("time", Class::Unknown),
        ] {
            assert_eq!(classify(name), class, "{name}");
        }
    }
}
