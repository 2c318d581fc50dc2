//! The kinds of folders that tamegrad writes, and what each may hold.

use super::{
    EVENTS_FILE, INFO_FILE, LOCK_FILE, RECENT_STEPS_FILE, RECENT_TENSORS_FILE, STATE_FILE,
    STEPS_FILE, TENSORS_FILE,
};

/// What a search is about.
pub const SEARCH_FILE: &str = "search.json";
/// The trials of a search, one per line.
pub const TRIALS_FILE: &str = "trials.jsonl";

/// What a folder of ours holds. A folder with anything else is not ours to write to.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The file that makes it one.
    pub marker: &'static str,
    /// The files that it may hold, those included that were half-written when the writer was killed.
    pub files: &'static [&'static str],
    /// The folders that it may hold, and what they may hold. A name that ends in `*` stands for all that
    /// begin so.
    pub folders: &'static [(&'static str, &'static Kind)],
}

/// The step of an alarm, which the Python package keeps in the run folder.
const INCIDENT: Kind = Kind {
    marker: "incident.json",
    files: &[
        "incident.json",
        "batch.json",
        "batch.safetensors",
        "random.safetensors",
        "parameters.safetensors",
        "optimizers.json",
        "optimizers.safetensors",
    ],
    folders: &[],
};

/// A run folder.
pub const RUN: Kind = Kind {
    marker: INFO_FILE,
    files: &[
        INFO_FILE,
        "run.json.new",
        STEPS_FILE,
        TENSORS_FILE,
        RECENT_STEPS_FILE,
        "steps.recent.arrows.new",
        RECENT_TENSORS_FILE,
        "tensors.recent.arrows.new",
        EVENTS_FILE,
        STATE_FILE,
        "diagnosis.json.new",
        LOCK_FILE,
        // Written beside the run by `train` and `export`.
        "checkpoint.bin",
        "checkpoint.bin.new",
        "report.json",
        "report.json.new",
        "steps.parquet",
        "tensors.parquet",
    ],
    // The second is one that was half-written when the writer was killed.
    folders: &[("incident-*", &INCIDENT), (".incident-*", &INCIDENT)],
};

/// The folder of a search for a fix.
pub const SEARCH: Kind = Kind {
    marker: SEARCH_FILE,
    files: &[
        SEARCH_FILE,
        "search.json.new",
        TRIALS_FILE,
        "trials.jsonl.new",
        "report.md",
        "report.md.new",
        "report.json",
        "report.json.new",
        "fixed.toml",
        "fixed.toml.new",
        LOCK_FILE,
    ],
    folders: &[("given", &RUN), ("fixed", &RUN)],
};
