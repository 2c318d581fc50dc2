//! How a run is summed up.

use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "verdict",
    title: "How a run is summed up",
    what: "One word for the whole run: healthy, exploding, exploded, recovered, dead, not learning or too \
           early to tell.",
    why: "A run may have had alarms and be well again, or have had none and have learned nothing.",
    rule: |rules| {
        let rule = rules.verdict;
        format!(
            "A run of fewer than {} steps without an alarm is too early to tell. It has exploded if its \
             last loss, its last update, or the gradients of its last {} steps are not finite. It has \
             recovered from an alarm if there was none in the last {} steps and their median loss is \
             back at the level before the alarm (see `explain loss-fluctuates` for the margin). If the \
             alarm came within the first {} steps there is no such level: then the loss must be below \
             that of the start after {} steps. It has not recovered if its loss is above {} of that of a \
             constant answer that long after the alarm. Without an alarm, a run whose loss is not below \
             that of the start after {} steps is not learning, unless a metric has risen. A dead run is \
             one with the cause spike-then-dead.",
            rule.steps_min,
            rule.broken,
            rule.end,
            rule.level_steps,
            rule.learning_steps,
            rule.of_constant,
            rule.learning_steps,
        )
    },
    example: "Alarm at step 400; the loss is 0.31 at the end and was 0.30 before: recovered.",
    remedy: "Exit code 0 stands for a healthy run, 1 for an explosion, 2 for one that could not be judged.",
    source: "tamegrad's own.",
};
