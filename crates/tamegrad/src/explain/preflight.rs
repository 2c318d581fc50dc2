//! How a run is looked at before it begins.

use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "preflight",
    title: "How a run is looked at before it begins",
    what: "One batch is passed through the model, and the first update is tried on a copy. Nothing of the run \
           is changed.",
    why: "Initial weights or a learning rate that are far too large show at once, before hours are spent.",
    rule: |rules| {
        let rule = rules.preflight;
        format!(
            "Do not start if anything is not finite, if an output or a gradient leaves less than {} of \
             the powers of 2 above 1 that its number type has, if the first update changes a weight \
             matrix by more than {} times its size, or if the critical step size is below {}: the \
             smallest multiple of the update that raises the loss of its own batch. The signs and causes \
             that judge a first step are those of a run.",
            rule.headroom, rule.update, rule.critical,
        )
    },
    example: "Learning rate 10: the loss rises at 0.02 of the first update. Start at 0.1 or less.",
    remedy: "tamegrad.preflight(model, optimizer, batch, loss_fn); tamegrad preflight RECIPE.",
    source: "Measured on 138 small networks; Cohen 2021 for the critical step size.",
};
