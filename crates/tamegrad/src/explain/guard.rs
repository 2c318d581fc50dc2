//! What the guard does in protect mode.

use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "guard",
    title: "What the guard does in protect mode",
    what: "The guard changes a run while it trains: it skips steps, scales gradients, lowers the learning rate, \
           and rewinds. It never changes the model or its code.",
    why: "Most explosions begin with a few steps. If these are bounded, the run goes on and the time that it \
          took so far is not lost. A healthy run is left alone, bit for bit.",
    rule: |rules| {
        let (ladder, trouble) = (rules.ladder, rules.update.live.trouble);
        let gradients = format!(
            "The least force comes first. A step whose loss or gradient is not finite is skipped. A \
             spike that is an alarm, or is {} times its mean, is scaled to {} sigma above the mean of \
             its own tensor, or as a whole if at least {} of the tensors spike. After {} scaled steps \
             in a row with a calm loss the new level is taken as usual. For {} steps after an alarm or \
             an action the run is in trouble: an update of more than {} of a weight matrix is then \
             made anew from smaller gradients, and undone if it is still above {} times that. ",
            ladder.tall_ratio,
            ladder.scaled_to,
            ladder.spiking,
            ladder.accept_after,
            ladder.trouble_steps,
            trouble,
            ladder.still_large,
        );
        let rate = format!(
            "The learning rate is multiplied by {} after {} actions within {} steps, at an alarm of the \
             loss, or at any alarm after the rate has risen above what the run has tolerated; at most \
             once in {} steps. It then grows by a factor of e in {} calm steps, and in {} once it is \
             above {} of the rate at which the trouble began. ",
            ladder.back_off,
            ladder.actions,
            ladder.action_window,
            ladder.rest_steps,
            ladder.growth_steps,
            ladder.slow_growth_steps,
            ladder.back_off,
        );
        let rewind = format!(
            "If the loss stays up, or steps are skipped one after the other, the run is rewound (see \
             `explain rewind`, `explain skip-step`); if nothing helps, it is told to stop. Levels of the \
             loss and of gains are not updated for {} steps after an alarm. A copy to undo an update \
             with is taken only where one may be needed: in trouble, without a history, with unusual \
             gradients or losses, and at a learning rate above {} times the highest of the last {} \
             steps.",
            ladder.uncalm_steps, ladder.rate_growth, ladder.rate_steps,
        );
        gradients + &rate + &rewind
    },
    example: "Step 400: the learning rate jumps from 0.05 to 1.5, the loss from 0.3 to 41. The update is \
              undone, the rate goes back to 0.05, and the run goes on.",
    remedy: "tamegrad.watch(model, optimizer, \"protect\"); tamegrad train RECIPE --guard protect.",
    source: "Skipping and rewinding: PaLM (Chowdhery 2022), section 5.1. Finding the rate: Jacobson, Congestion \
             Avoidance and Control (1988).",
};
