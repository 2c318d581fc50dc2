//! The words that the terminal and Markdown share.

mod measure;
mod operation;
mod title;

use std::collections::BTreeSet;

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
use crate::text::capital;

/// What a verdict says, in words.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "no alarm",
        Verdict::Recovered => "the loss recovered after an alarm",
        Verdict::Exploding => "the loss has not recovered since an alarm",
        Verdict::Exploded => "the run ended with NaN or Inf",
        Verdict::Dead => "the network stopped learning after an alarm",
        Verdict::NotLearning => "no alarm, but the loss has not improved",
        Verdict::TooEarly => "too few steps to say",
    }
}

/// The verdict in one sentence: what, when, where and why, as far as it is known.
pub fn sentence(diagnosis: &Diagnosis) -> String {
    let mut told = capital(verdict(diagnosis.verdict));
    match (diagnosis.verdict, diagnosis.onset) {
        (Verdict::Exploded, Some(onset)) => {
            told.push_str(&format!(" after the alarm at step {}", count(onset.0)));
        }
        (_, Some(onset)) => {
            told = told.replace("an alarm", &format!("the alarm at step {}", count(onset.0)));
        }
        (_, None) => told.push_str(&format!(" ({} seen)", seen(diagnosis))),
    }
    if let (Verdict::Recovered, Some(back)) = (diagnosis.verdict, diagnosis.recovered) {
        told.push_str(&format!(", by step {}", count(back.0)));
    }
    let cause = diagnosis
        .causes
        .first()
        .map(|cause| format!("likely cause: {}", uncapital(cause.name.doc().title)));
    let parts: Vec<String> = [Some(told), began(diagnosis), cause].into_iter().flatten().collect();
    parts.join("; ") + "."
}

fn began(diagnosis: &Diagnosis) -> Option<String> {
    let origin = diagnosis.origin.as_ref()?;
    Some(match (origin.place, diagnosis.origin_name()) {
        (place, _) if place.is_loss() => "it began in the loss, outside the model".to_owned(),
        (Place::Data, _) => "it began in the data".to_owned(),
        (_, Some(name)) if origin.layer().is_some() => format!("it began in layer {name}"),
        (_, name) => format!("it began in {}", name?),
    })
}

/// A title in the middle of a sentence.
fn uncapital(title: &str) -> String {
    let mut letters = title.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

/// Said where the origin is not known.
pub(crate) const ORIGIN_UNKNOWN: &str = "unknown: no layer or tensor stands out";
/// Said where no cause is supported.
pub(crate) const CAUSE_UNKNOWN: &str = "unknown: the numbers fit no known cause";
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
    let origin = diagnosis.origin.as_ref()?;
    let name = diagnosis.origin_name().map(|name| match origin.layer() {
        Some(_) => format!("{}{}", measure::before_layer(name), quote(name)),
        None => quote(name),
    });
    match origin.place {
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
        Some(layer) => format!("{} ({}) in {}", doc.title, doc.name, measure::layer(layer)),
        None => format!("{} ({})", doc.title, doc.name),
    }
}

/// Why a remedy may help.
pub fn why(proposal: &Proposal) -> String {
    let first = proposal.evidence.first().map(|measure| measure.value);
    match (proposal.remedy, &proposal.change) {
        (RemedyName::SkipStep, _) => {
            "it skips non-finite steps, scales spikes, lowers the learning rate and rewinds".into()
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
            "dead units do not recover; only a snapshot from before the spike has them alive".into()
        }
        (RemedyName::ScaleTarget, _) => match first {
            Some(rms) => {
                format!("the RMS of the targets is {}; a new network outputs about 1", number(rms))
            }
            None => "for regression: unscaled targets make the first gradients large".into(),
        },
        (RemedyName::ScaleInput, _) => {
            let rms =
                first.map_or("a large RMS".into(), |rms| format!("an RMS of {}", number(rms)));
            format!("the inputs have {rms}, and curvature grows with its square")
        }
        (RemedyName::WeightDecay | RemedyName::L1Penalty | RemedyName::L2Penalty, _) => {
            "keeps the weights, and with them the gains, from drifting up".into()
        }
        (RemedyName::SmallerBatch, _) => "smaller batches avoid sharp minima".into(),
        (RemedyName::Reinitialise, _) => "the gains start at 1, at any depth".into(),
        (RemedyName::BatchNorm, Change::BatchNorm { place }) => {
            format!("resets the scale at every layer, {} the activation", place.as_str())
        }
        (RemedyName::FilterRows, _) => "a bad row comes back in every epoch".into(),
        (RemedyName::FixLabels, _) => "a class that does not exist cannot be learned".into(),
        (RemedyName::DropEmptyBatch, _) => {
            "an empty average is then 0, with a gradient of 0".into()
        }
        (RemedyName::GuardOperation, _) => {
            "clamp the input, not the result: the gradient of a clamped result is still infinite"
                .into()
        }
        (RemedyName::UnmaskRow, _) => "the softmax of a row of -inf is 0 / 0".into(),
        (RemedyName::OptimizerEps, _) => {
            "keeps the divisor above 0 where the second moment rounds to 0".into()
        }
        (RemedyName::NormaliseAccumulation, _) => {
            "makes the gradient independent of the batch size".into()
        }
        (RemedyName::LargerBatch, _) => "larger batches are never empty".into(),
        (RemedyName::WiderType, _) => "the largest float16 number is 65,504".into(),
        (RemedyName::OtherKernel, _) => {
            "the same numbers are finite when computed another way".into()
        }
        (RemedyName::BoundedActivation, _) => "the slope no longer grows with the input".into(),
        (RemedyName::FewerLayers, _) => "fewer layers multiply the gradient".into(),
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

/// What the guard can do at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActionKind {
    /// The step was left out.
    Skip,
    /// The gradients were scaled.
    Scale,
    /// The step was taken at a lower learning rate.
    LowerRate,
    /// The run went back to a snapshot.
    Rewind,
    /// The run was stopped.
    Stop,
}

impl ActionKind {
    /// All, the mildest first.
    pub const ALL: [Self; 5] = [Self::Skip, Self::Scale, Self::LowerRate, Self::Rewind, Self::Stop];

    /// What was done, in a word or two.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skipped",
            Self::Scale => "scaled",
            Self::LowerRate => "rate lowered",
            Self::Rewind => "rewound",
            Self::Stop => "stopped",
        }
    }

    /// What a decision consists of.
    pub fn of(decision: &Decision) -> impl Iterator<Item = Self> {
        let scales =
            matches!(decision.gradients, GradientAction::ScaleAll(_) | GradientAction::Scale(_));
        let all = [
            (decision.gradients == GradientAction::Skip, Self::Skip),
            (scales, Self::Scale),
            (decision.learning_rate < 1.0, Self::LowerRate),
            (decision.rewind.is_some(), Self::Rewind),
            (decision.stop, Self::Stop),
        ];
        all.into_iter().filter(|(is, _)| *is).map(|(_, kind)| kind)
    }
}

/// What the guard did: `the guard acted on 5 steps, first on step 200: 3 scaled, 1 skipped`.
/// `None` when it did nothing.
pub(crate) fn actions(run: &Run) -> Option<String> {
    let actions = run.actions().iter();
    acted(actions.flat_map(|(step, decision)| ActionKind::of(decision).map(|kind| (step.0, kind))))
}

/// The same of steps and what was done at them.
pub fn acted(actions: impl IntoIterator<Item = (u64, ActionKind)>) -> Option<String> {
    let actions: Vec<(u64, ActionKind)> = actions.into_iter().collect();
    let steps: BTreeSet<u64> = actions.iter().map(|(step, _)| *step).collect();
    let first = steps.first()?;
    let kinds = ActionKind::ALL.iter().filter_map(|kind| {
        let times = actions.iter().filter(|(_, of)| of == kind).count() as u64;
        let words = match kind {
            ActionKind::LowerRate => "at a lower learning rate",
            kind => kind.as_str(),
        };
        (times > 0).then(|| format!("{} {words}", count(times)))
    });
    Some(format!(
        "the guard acted on {}, first on step {}: {}",
        counted(steps.len() as u64, "step"),
        count(*first),
        kinds.collect::<Vec<_>>().join(", ")
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
    use tamegrad::logs::{History, Sample, diagnose};
    use tamegrad::{LayerId, Origin, SignName, Step};

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
    fn the_verdict_in_a_sentence() {
        let value = |step: i64| if step < 40 { 2.0 } else { f64::NAN };
        let loss: Vec<Sample> = (0..50).map(|step| Sample { step, value: value(step) }).collect();
        let exploded = diagnose(&History { loss: &loss, ..History::default() });
        let healthy = diagnose(&History { loss: &loss[..40], ..History::default() });
        let with = |verdict| Diagnosis { verdict, ..exploded.clone() };
        let recovered = Diagnosis { recovered: Some(Step(1200)), ..with(Verdict::Recovered) };
        let early = Diagnosis { verdict: Verdict::TooEarly, ..healthy.clone() };
        for (found, sentence_of) in [
            (&healthy, "No alarm (40 records seen)."),
            (&early, "Too few steps to say (40 records seen)."),
            (&exploded, "The run ended with NaN or Inf after the alarm at step 40."),
            (&with(Verdict::Exploding), "The loss has not recovered since the alarm at step 40."),
            (&with(Verdict::Dead), "The network stopped learning after the alarm at step 40."),
            (&recovered, "The loss recovered after the alarm at step 40, by step 1,200."),
        ] {
            assert_eq!(sentence(found), sentence_of);
        }
        let (layers, place) = (vec!["fc1".to_owned()], Place::Layer(LayerId(0)));
        let names = Names { layers, ..Names::default() };
        let origin = Some(Origin::new(place, Vec::new()));
        assert_eq!(
            sentence(&Diagnosis { names, origin, ..exploded }),
            "The run ended with NaN or Inf after the alarm at step 40; it began in layer fc1."
        );
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
