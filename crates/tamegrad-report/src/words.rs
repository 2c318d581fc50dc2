//! The words that the terminal and Markdown share.

mod measure;
mod operation;
mod title;

use tamegrad::causes::Cause;
use tamegrad::diagnosis::{Seen, SignSummary};
use tamegrad::remedies::{Change, Proposal, RemedyName};
use tamegrad::{Decision, Diagnosis, GradientAction, Layout, Names, Place, Run, Severity, Verdict};

pub use measure::measure;
pub(crate) use measure::measures;
pub use operation::checklist;
pub(crate) use operation::{first_nonfinite, line_of, operation};
pub use title::title;

use crate::number::{count, counted, number};

/// What a verdict says, in words.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "no alarm",
        Verdict::Recovered => "the loss recovered after an alarm",
        Verdict::Exploding => "the loss has not recovered since an alarm",
        Verdict::Exploded => "the run ended with NaN or Inf",
        Verdict::Dead => "the network stopped learning after an alarm",
        Verdict::NotLearning => "no alarm, but the loss is where it began",
        Verdict::TooEarly => "too few steps to say",
    }
}

/// Said where the origin is not known.
pub(crate) const ORIGIN_UNKNOWN: &str = "unknown: no layer or tensor stands out";
/// Said where no cause is supported.
pub(crate) const CAUSE_UNKNOWN: &str = "unknown: no known cause fits the numbers";
/// Said where no cause is supported and the fault is outside the model.
const CAUSE_IN_THE_LOSS: &str = "nothing in the model; check the loss function for log(0), 0/0, \
     sqrt(0) or a norm of 0 (whose slopes are infinite), the mean of an empty tensor, the standard \
     deviation of a single value, and the values that torch.where or a mask leaves out";

/// How much of a run was seen: `160 steps`, `12 records`.
pub(crate) fn seen(diagnosis: &Diagnosis) -> String {
    match diagnosis.seen {
        Seen::Steps(steps) => counted(steps, "step"),
        Seen::Records(records) => counted(records, "record"),
    }
}

/// The place where it began, described if it has no name. `quote` writes a layer's or a tensor's
/// name.
pub fn place(diagnosis: &Diagnosis, quote: impl Fn(&str) -> String) -> Option<String> {
    let outside = "outside the model, in the loss: all outputs of the pass are finite and of usual \
                   size";
    let name = diagnosis.origin_name().map(quote);
    match diagnosis.origin.as_ref()?.place {
        Place::Loss => Some(format!("{outside}, but the loss is not finite")),
        Place::LossGradient => {
            Some(format!("{outside}, but the gradient that the loss sends back is not finite"))
        }
        Place::Data => Some(match name {
            Some(layer) => format!("in the data, which reaches {layer}"),
            None => "in the data".to_owned(),
        }),
        _ => name,
    }
}

/// Said where no cause is supported.
pub fn no_cause(diagnosis: &Diagnosis) -> &'static str {
    match &diagnosis.origin {
        Some(origin) if origin.place.is_loss() => CAUSE_IN_THE_LOSS,
        _ => CAUSE_UNKNOWN,
    }
}

/// What has happened if the sign fired; otherwise what the sign is.
pub(crate) fn sign_title(sign: &SignSummary) -> &'static str {
    sign.first().map_or(sign.sign.doc().title, title)
}

/// A cause by its title, its name and its layer, if it is one.
pub(crate) fn cause(cause: &Cause, names: &Names) -> String {
    let doc = cause.name.doc();
    match cause.layer.and_then(|layer| names.name(Place::Layer(layer))) {
        Some(layer) => format!("{} ({}) in {layer}", doc.title, doc.name),
        None => format!("{} ({})", doc.title, doc.name),
    }
}

/// Why a remedy may help.
pub fn why(proposal: &Proposal) -> String {
    let first = proposal.evidence.first().map(|measure| measure.value);
    match (proposal.remedy, &proposal.change) {
        (RemedyName::SkipStep, _) => {
            "during training, skips non-finite steps, scales spikes, lowers the learning rate \
             and rewinds"
                .into()
        }
        (RemedyName::ClipGlobalNorm, Change::ClipGlobalNorm { max_norm }) => match first {
            Some(usual) if *max_norm > 1.5 * usual => {
                format!("twice the usual gradient norm, {}", number(usual))
            }
            Some(_) => format!("the usual gradient norm, {}", number(*max_norm)),
            None => "a common limit; the usual gradient norm is not known".into(),
        },
        (RemedyName::ClipTensorNorm, _) => {
            "caps each tensor at its share of the usual norm; calm layers are unaffected".into()
        }
        (RemedyName::ClipValue, _) => {
            "caps every element, but changes the direction of the gradient".into()
        }
        (RemedyName::WarmUp, _) => "takes small steps first, where the loss is steepest".into(),
        (RemedyName::LowerLearningRate, Change::LearningRate { factor, .. }) => {
            format!("shortens every step to {} of its length", number(*factor))
        }
        (RemedyName::Rewind, Change::Rewind { .. }) => {
            "the state before the explosion is still healthy".into()
        }
        (RemedyName::Rewind, _) => {
            "dead units do not come back; only a snapshot from before the spike has them alive"
                .into()
        }
        (RemedyName::ScaleTarget, _) => match first {
            Some(rms) => {
                format!("the RMS of the targets is {}; a new network outputs about 1", number(rms))
            }
            None => "for regression: unscaled targets make the first gradients large".into(),
        },
        (RemedyName::ScaleInput, _) => {
            let rms = first.map_or(String::new(), |rms| format!(" is {}", number(rms)));
            format!("the RMS of the inputs{rms}; curvature grows with its square")
        }
        (RemedyName::WeightDecay | RemedyName::L1Penalty | RemedyName::L2Penalty, _) => {
            "keeps the weights, and with them the gains, from drifting up".into()
        }
        (RemedyName::SmallerBatch, _) => "smaller batches stay out of sharp valleys".into(),
        (RemedyName::Reinitialise, _) => "gains start at 1, whatever the depth".into(),
        (RemedyName::BatchNorm, Change::BatchNorm { place }) => {
            format!("resets the scale at every layer, {} the activation", place.as_str())
        }
        (RemedyName::FilterRows, _) => "a bad row comes back in every epoch".into(),
        (RemedyName::FixLabels, _) => "a class that does not exist cannot be learned".into(),
        (RemedyName::DropEmptyBatch, _) => "0 / 1 is 0, and so is its gradient".into(),
        (RemedyName::GuardOperation, _) => {
            "clamp the input, not the result: the gradient of a clamped result is still infinite"
                .into()
        }
        (RemedyName::UnmaskRow, _) => "the softmax of a row of -inf is 0 / 0".into(),
        (RemedyName::OptimizerEps, _) => {
            "keeps the divisor above 0 where the second moment rounds to 0".into()
        }
        (RemedyName::NormaliseAccumulation, _) => {
            "the gradient is then of the same size, however much it is made of".into()
        }
        (RemedyName::LargerBatch, _) => "an average needs something to run over".into(),
        (RemedyName::WiderType, _) => "float16 ends at 65,504".into(),
        (RemedyName::OtherKernel, _) => {
            "the same numbers are finite when computed another way".into()
        }
        (RemedyName::BoundedActivation, _) => "the slope no longer grows with the input".into(),
        (RemedyName::FewerLayers, _) => "fewer factors in the chain".into(),
        (RemedyName::ClipGlobalNorm | RemedyName::LowerLearningRate | RemedyName::BatchNorm, _) => {
            String::new()
        }
    }
}

/// `quiet`, `too early`, `strain` or `ALARM`.
pub(crate) fn sign_state(sign: &SignSummary) -> &'static str {
    match sign.first().map(|finding| finding.severity) {
        None if sign.too_early.is_some() => "too early",
        None => "quiet",
        Some(Severity::Strain) => "strain",
        Some(Severity::Alarm) => "ALARM",
    }
}

/// When a sign was first up and how often: `step 61` and `12 times`; what it still
/// needs when it was too early; empty for a quiet one.
pub(crate) fn sign_times(sign: &SignSummary) -> (String, String) {
    let Some(first) = sign.first() else {
        let needs = sign.too_early.map(|needs| format!("needs {} more", count(needs.into())));
        return (needs.unwrap_or_default(), String::new());
    };
    let times = match sign.count {
        1 => "once".to_owned(),
        more => format!("{} times", count(more)),
    };
    (format!("step {}", count(first.step.0)), times)
}

/// What a remedy treats: the cause, or its effect.
pub(crate) fn treats(proposal: &Proposal) -> &'static str {
    if proposal.treats_cause { "the cause" } else { "the effect" }
}

/// What the guard did: `the guard acted on 5 steps, first on step 200: 3 scaled, 1 skipped`.
/// `None` when it did nothing.
pub(crate) fn actions(run: &Run) -> Option<String> {
    let (first, _) = run.actions().first()?;
    let of = |is: &dyn Fn(&tamegrad::Decision) -> bool| {
        run.actions().iter().filter(|(_, decision)| is(decision)).count() as u64
    };
    let scales = |action: &GradientAction| {
        matches!(action, GradientAction::ScaleAll(_) | GradientAction::Scale(_))
    };
    let kinds = [
        (of(&|d| d.gradients == GradientAction::Skip), "skipped"),
        (of(&|d| scales(&d.gradients)), "scaled"),
        (of(&|d| d.learning_rate < 1.0), "at a lower learning rate"),
        (of(&|d| d.rewind.is_some()), "rewound"),
        (of(&|d| d.stop), "stopped"),
    ];
    let kinds = kinds.iter().filter(|(times, _)| *times > 0);
    let kinds: Vec<_> = kinds.map(|(times, kind)| format!("{} {kind}", count(*times))).collect();
    let total = counted(run.actions().len() as u64, "step");
    Some(format!(
        "the guard acted on {total}, first on step {}: {}",
        count(first.0),
        kinds.join(", ")
    ))
}

/// What the guard made the loop do at a step: `gradients times 1.0000e-1, back to step 40`.
pub fn action(decision: &Decision, layout: &Layout) -> String {
    let mut parts = match &decision.gradients {
        GradientAction::Keep => Vec::new(),
        GradientAction::Skip => vec!["no update".to_owned()],
        GradientAction::ScaleAll(factor) => vec![format!("gradients times {factor:.4e}")],
        GradientAction::Scale(of) => {
            let name = |id| layout.tensor_name(id);
            of.iter().map(|(id, f)| format!("gradient of {} times {f:.4e}", name(*id))).collect()
        }
    };
    if decision.learning_rate < 1.0 {
        parts.push(format!("learning rate times {:.4e}", decision.learning_rate));
    }
    parts.extend(decision.rewind.map(|to| format!("back to step {}", to.0)));
    parts.extend(decision.stop.then(|| "stop".to_owned()));
    parts.join(", ")
}

/// What is no longer held, because memory is bounded; `None` if everything is.
pub(crate) fn dropped(run: &Run) -> Option<String> {
    let parts = [
        (run.record().rows_dropped(), "step"),
        (run.findings_dropped(), "finding"),
        (run.actions_dropped(), "action"),
    ];
    let parts = parts.into_iter().filter(|(dropped, _)| *dropped > 0);
    let parts: Vec<_> = parts.map(|(dropped, what)| counted(dropped, what)).collect();
    (!parts.is_empty()).then(|| format!("dropped to bound memory: {}", parts.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{protected, sign};
    use tamegrad::SignName;

    #[test]
    fn a_sign_says_its_state_and_its_times_or_what_it_needs() {
        use Severity::{Alarm, Strain};
        for (given, state, first, times) in [
            ((None, 0, None), "quiet", "", ""),
            ((None, 0, Some(1)), "too early", "needs 1 more", ""),
            ((None, 0, Some(1500)), "too early", "needs 1,500 more", ""),
            ((Some(Strain), 1, None), "strain", "step 1,200", "once"),
            ((Some(Alarm), 2000, None), "ALARM", "step 1,200", "2,000 times"),
        ] {
            let sign = sign(SignName::MetricStalls, given);
            assert_eq!(sign_state(&sign), state, "{given:?}");
            assert_eq!(sign_times(&sign), (first.to_owned(), times.to_owned()), "{given:?}");
        }
    }

    #[test]
    fn actions_are_counted_by_their_kind() {
        let guard = protected();
        assert_eq!(
            actions(guard.run()).as_deref(),
            Some(
                "the guard acted on 4 steps, first on step 150: 3 skipped, 1 scaled, 2 at a lower \
                 learning rate"
            )
        );
        assert_eq!(dropped(guard.run()), None);
        assert_eq!(actions(crate::check::healthy().run()), None);
    }
}
