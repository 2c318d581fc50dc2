//! Words by which whole lines are told apart: of interest, source code, the end of training.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// What a message says is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Loss,
    Gradient,
}

/// Whether a line can be of interest.
pub(super) fn is_hot(line: &[u8]) -> bool {
    has(&HOT, line)
}

/// Whether a line is source code.
pub(super) fn is_code(line: &[u8]) -> bool {
    let text = line.trim_ascii();
    STATEMENTS.iter().any(|start| text.starts_with(start))
        || text.ends_with(b":") && BLOCKS.iter().any(|start| text.starts_with(start))
        || has(&CODE, line)
}

/// What a message says is no number, at which training stops.
pub(super) fn stop(line: &[u8]) -> Option<Stop> {
    let found = STOPPED.as_ref()?.find(line)?;
    let (before, after) = (line.get(..found.start())?, line.get(found.end()..)?);
    // `stop if the loss is nan: true` and `nan losses: 0` tell nothing of this run.
    let word_end = after.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(after.len());
    if has(&UNREAL, before) || after[word_end..].trim_ascii_start().starts_with(b":") {
        return None;
    }
    let found = found.pattern().as_usize();
    Some(if found < GRADIENT_STOPS { Stop::Loss } else { Stop::Gradient })
}

/// Whether a line speaks of what may happen: `stop if the loss is nan`.
pub(super) fn is_condition(line: &[u8]) -> bool {
    has(&UNREAL, line)
}

/// Whether a line is the message of an error that was raised, and not the code that raises it.
pub(super) fn is_error(line: &[u8]) -> bool {
    has(&ERRORS, line)
}

static ERRORS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| words(&["error: ", "exception: "]));
/// Words before a message that make it a case that was thought of.
static UNREAL: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| words(&UNREAL_WORDS));
const UNREAL_WORDS: [&str; 7] = ["if ", "whether", "when ", "unless", "check", "avoid", "prevent"];

/// Words without which a line is of no interest.
static HOT: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| words(&HOT_WORDS));
const HOT_WORDS: [&str; 27] = [
    "loss", "norm", "grad", "epoch", "batch", "step", "iter", "ep=", "ep ", "%|", "trl:", "tel:",
    "overflow", "episode", "update", "cost", "xent", "nll", "entropy", " avg", "import ", "def ",
    "diverged", "ce=", "ce:", "recon", "obj",
];
/// What source code has and console output has not.
static CODE: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| words(&CODE_PARTS));
const CODE_PARTS: [&str; 16] = [
    "self.",
    "print(",
    "printf(",
    "+=",
    "= lambda",
    ".item(",
    ".backward(",
    "%.1",
    "%.2",
    "%.3",
    "%.4",
    "%.5",
    "%.6",
    "{:",
    "{}",
    "\\n",
];
/// How lines of source code begin.
const STATEMENTS: [&[u8]; 6] = [b"import ", b"from ", b"return ", b"raise ", b"assert ", b">>>"];
/// How those begin that end in a colon.
const BLOCKS: [&[u8]; 7] = [b"def ", b"class ", b"if ", b"for ", b"while ", b"with ", b"elif "];

/// Messages of programs that stop at a loss which is no number; the last are about gradients.
static STOPPED: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| words(&STOPS));
const STOPS: [&str; 39] = [
    "invalid loss, terminating",
    "loss became infinite or nan",
    "loss is nan",
    "loss is inf",
    "loss was nan",
    "loss is not finite",
    "loss not finite",
    "loss is infinite",
    "loss becomes nan",
    "loss became nan",
    "loss turned nan",
    "loss diverged",
    "diverged with loss",
    "model diverged",
    "training diverged",
    "training has diverged",
    "nan loss",
    "nan in loss",
    "nan detected in loss",
    "nan or inf in loss",
    "nan or inf found in loss",
    "nans in loss",
    "inf loss",
    "infinite loss",
    "non-finite loss",
    "nonfinite loss",
    "nan or inf loss",
    "losstensor is inf or nan",
    "returned nan values in its",
    "minimum loss scale reached",
    "loss scale already at minimum",
    "loss scale at minimum",
    "nan or inf found in input tensor",
    "found inf or nan global norm",
    "non-finite gradient norm",
    "gradient norm is nan",
    "grad norm is nan",
    "nan gradient",
    "non-finite norm",
];
/// Where in [`STOPS`] gradients begin.
const GRADIENT_STOPS: usize = 33;

fn words(words: &[&str]) -> Option<AhoCorasick> {
    let kind = Some(AhoCorasickKind::DFA);
    AhoCorasick::builder().ascii_case_insensitive(true).kind(kind).build(words).ok()
}

fn has(words: &LazyLock<Option<AhoCorasick>>, line: &[u8]) -> bool {
    words.as_ref().is_some_and(|words| words.is_match(line))
}
