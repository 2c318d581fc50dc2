//! How a log is judged.

use crate::doc::Doc;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "logs",
    title: "How a log is judged",
    what: "A log holds a record for many steps, often rounded or averaged, and is judged from its end. So the \
           rules of the signs have other numbers here.",
    why: "What a live run shows within a step may be one record of a log, or none.",
    rule: |rules| {
        let (loss, gradient) = (rules.log_loss, rules.log_gradient);
        let jump = format!(
            "A jump of the loss is {} times the median of the {} records before, {} times the highest of \
             them, {} of their sigmas above it, and, once there are {} records, above {} sigmas of the \
             logarithm over the last {}. A sigma is at least {} of the level. A loss that crosses 0 jumps \
             by {} times the range of those records. ",
            loss.jump_ratio,
            loss.near,
            loss.jump_over_highest,
            loss.jump_sigmas,
            rules.warm_up.logs,
            loss.log_sigmas,
            loss.far,
            loss.spread_min,
            loss.jump_ranges,
        );
        let rise = format!(
            "A rise is {} times the level and {} sigma above it, in all but one of {} records ({} sigma \
             less suffice for the others), with a peak of {} sigma. A lasting rise is {} times the level \
             in {} of all records to the end, at least {}, and above {} of that logarithmic limit, with \
             a sigma of at least {}. It begins where the loss stays above {} times the level before. ",
            loss.rise_ratio,
            loss.rise_sigmas,
            loss.rise_records,
            loss.rise_slack,
            loss.rise_peak_sigmas,
            loss.lasting_ratio,
            loss.lasting_part,
            loss.lasting_records,
            loss.lasting_log,
            loss.log_spread_min,
            loss.begin_ratio,
        );
        let first = format!(
            "In the first {} records a loss explodes if it is {} times the first one and what comes \
             after, and then stays flat within {} of its level and above {} of the first. A loss that \
             lies up in the last of so few records, {} times the first, is too early to tell. Where the \
             logarithm spreads by more than {}, an episode of fewer than {} records does not count. ",
            loss.near,
            loss.first_ratio,
            loss.flat,
            loss.lost_of_first,
            loss.early_ratio,
            loss.heavy,
            loss.heavy_records,
        );
        let outcome = format!(
            "The first episode that is {} as severe as the worst is the onset; before NaN, a rise within \
             {} records is. A finite explosion of {} records before Inf counts as such. A run has \
             recovered if the loss is back at all of the records before (or {} times the level), or ends \
             within {} times the level and below {} of the peak. A loss that spreads by less than {} of \
             its level is dead. ",
            loss.beside_worst,
            loss.before_nan,
            loss.finite_first,
            loss.home,
            loss.recovered_ratio,
            loss.recovered_of_peak,
            loss.dead_spread,
        );
        let (spike, high) = (rules.spike.logs, rules.high_gradient.logs);
        let spikes = format!(
            "A gradient norm is held against the median of the {} records before (sigma of the logarithm \
             at least {}). It spikes at {} sigma and {} times the median. {} spikes are an alarm; the \
             first may be as low as {} sigma and {} times, and {} of the highest. One spike of {} sigma \
             and {} times is, if the loss goes above {} times the highest before it. ",
            gradient.window,
            gradient.sigma_floor,
            spike.sigmas,
            spike.ratio,
            rules.log_spikes,
            rules.log_lesser_spike.sigmas,
            rules.log_lesser_spike.ratio,
            gradient.first_of_highest,
            rules.log_joint_spike.sigmas,
            rules.log_joint_spike.ratio,
            gradient.loss_leap,
        );
        let growth = format!(
            "A norm that rises from record to record, from {} times the median on, is an alarm at {} \
             sigma and {} times ({} sigma and {} times among the first records), if it rises for {} \
             records or the loss rises by {} sigma (at least {} of its level each). So is a norm above \
             {:e}, unless the loss falls below {} of what it was. ",
            gradient.growth_begin,
            rules.log_growth.sigmas,
            rules.log_growth.ratio,
            rules.log_early_growth.sigmas,
            rules.log_early_growth.ratio,
            gradient.growth_records,
            gradient.loss_sigmas,
            gradient.loss_spread_min,
            high.absurd,
            gradient.loss_falls,
        );
        let parts = format!(
            "A loss that is the sum of logged parts to within {} has not exploded if no part is above {} \
             times its height in the {} records before: then its weights have changed. A log of fewer \
             than {} records says nothing.",
            rules.log_parts.explained,
            rules.log_parts.calm,
            rules.log_parts.near,
            rules.log_records_min,
        );
        jump + &rise + &first + &outcome + &spikes + &growth + &parts
    },
    example: "Loss 0.31, 0.30, 0.32, then 41, 55, 60 to the end: exploding, onset at the record of 41.",
    remedy: "tamegrad diagnose LOG; --list shows which series were judged.",
    source: "Made on the runs of tamegrad's laboratory, written down as logs are. docs/evaluation.md has the \
             figures.",
};
