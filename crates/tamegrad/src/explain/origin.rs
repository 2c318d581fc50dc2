//! How the place is found in which an explosion began.

use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "origin",
    title: "How the layer is found in which it began",
    what: "The origin is the layer, the tensor, the data or the loss function in which the trouble started, \
           and not where it was largest.",
    why: "Gradients multiply on their way, so the largest gradient is often many layers away from the layer \
          that is at fault.",
    rule: |rules| {
        let rule = rules.origin;
        let broken = format!(
            "If something was not finite: the first thing that was not, in order of execution. If all \
             outputs of that pass are finite and none is above {} times its usual size, it is the loss. \
             A parameter is named if its gradients were finite and no larger than {:e}. ",
            rule.unusual_output, rules.high_gradient.live.very_high,
        );
        let early = format!(
            "For an alarm in the first {} steps: a layer whose gain stood out from the others at step 0, \
             being above {} and above {} times their median, unless another has risen by more than the \
             {}th power of that. ",
            rules.warm_up.live, rule.gain_high, rule.stands_out, rule.risen_further,
        );
        let later = format!(
            "Else: the layer whose gain rose most, provided that it is above {} (a gain between {} and {} \
             is usual) and {} sigma above its own history, or {} sigma and {} times its mean, because a \
             history of few passes has a wide spread. The history has at least {} passes (decay {}). Of \
             layers that rose by at least {} of the largest rise, the one nearest to the loss. A \
             recurrent cell is one layer, with the product of its gains over the time steps. Where gains \
             are unknown: the first tensor with an alarm, or with a strain within {} steps before it. Of several \
             ranks, one is named whose loss, inputs or gradient is not finite where others are, or above \
             {} times their median.",
            rule.gain_high,
            rule.gain_low,
            rule.gain_high,
            rule.leaves_sigmas,
            rule.far_sigmas,
            rule.far_ratio,
            rule.history_min,
            rules.baseline.gain_decay,
            rule.shares,
            rule.near_alarm,
            rule.rank_ratio,
        );
        let logs = format!(
            " In a log that has norms of single tensors: the first tensor, from {} records before the \
             onset on, whose norm is more than {} sigma above the records before it, of which there are \
             at least {}.",
            rules.log_tensor.early, rules.log_tensor.sigmas, rules.log_tensor.window_min,
        );
        broken + &early + &later + &logs
    },
    example: "Step 111: backward gain of layers.17 is 42, usual 1.1; all others are between 0.9 and 1.2.",
    remedy: "Look at the named layer first. guard.diagnosis() shows the chain of gains.",
    source: "The chain rule: Pascanu, Mikolov, Bengio 2013, section 2.1.",
};
