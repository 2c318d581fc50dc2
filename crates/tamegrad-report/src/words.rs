//! The words that the terminal and Markdown share.

use tamegrad::causes::Cause;
use tamegrad::diagnosis::SignSummary;
use tamegrad::origin::Place;
use tamegrad::remedies::Proposal;
use tamegrad::{Diagnosis, Evidence, GradientAction, Record, Severity, Verdict};

use crate::number::{count, counted, number};

/// What a verdict says, in words.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "no alarm",
        Verdict::Recovered => "an alarm came, and the loss recovered",
        Verdict::Exploding => "an alarm came, and the loss has not recovered",
        Verdict::Exploded => "the run ended with NaN or Inf",
        Verdict::Dead => "after an alarm the network no longer learns",
        Verdict::TooEarly => "too few steps to say",
    }
}

/// Said where the origin is not known.
pub(crate) const ORIGIN_UNKNOWN: &str = "not known: no layer or tensor stands out in the record";
/// Said where no cause is supported.
pub(crate) const CAUSE_UNKNOWN: &str = "not known: the numbers support no cause";
/// Said where no cause is supported and it broke outside the model.
const CAUSE_IN_THE_LOSS: &str = "nothing in the model made it; look in the loss function for log(0), \
     0/0, sqrt(0) or a norm of 0 (whose slopes are infinite), the mean of nothing, the deviation of one \
     value, and what torch.where or a mask leaves out";

/// The steps that a record has seen.
pub(crate) fn steps_seen(record: &Record) -> String {
    counted(record.rows.len() as u64 + record.rows_dropped, "step")
}

/// The name of the layer where it began, else of the tensor.
pub(crate) fn origin<'a>(diagnosis: &Diagnosis, record: &'a Record) -> Option<&'a str> {
    let origin = diagnosis.origin.as_ref()?;
    let layer = origin.layer.map(|id| record.layout.layer_name(id));
    layer.or_else(|| origin.tensor.map(|id| record.layout.tensor_name(id)))
}

/// The place where it began, in words where it has no name.
pub(crate) fn place(diagnosis: &Diagnosis, record: &Record) -> Option<String> {
    let kind = diagnosis.origin.as_ref().map(|origin| origin.place);
    let outside = "outside the model, in the loss: all outputs of the pass are finite and of their \
                   usual size";
    match kind {
        Some(Place::Loss) => Some(format!("{outside}, the loss is not")),
        Some(Place::LossGradient) => {
            Some(format!("{outside}, the gradient that the loss sends back is not finite"))
        }
        Some(Place::Data) if origin(diagnosis, record).is_none() => Some("in the data".to_owned()),
        _ => origin(diagnosis, record).map(str::to_owned),
    }
}

/// Said where no cause is supported.
pub(crate) fn no_cause(diagnosis: &Diagnosis) -> &'static str {
    match &diagnosis.origin {
        Some(origin) if origin.place.is_loss() => CAUSE_IN_THE_LOSS,
        _ => CAUSE_UNKNOWN,
    }
}

/// What has happened, of a sign that was up; what the sign is, of another.
pub(crate) fn sign_title(sign: &SignSummary) -> &'static str {
    sign.first.as_ref().map_or(sign.sign.doc().title, |finding| finding.title())
}

/// A cause by its title, its name and its layer, if it is one.
pub(crate) fn cause(cause: &Cause, record: &Record) -> String {
    let doc = cause.name.doc();
    match cause.layer {
        Some(layer) => {
            format!("{} ({}) in {}", doc.title, doc.name, record.layout.layer_name(layer))
        }
        None => format!("{} ({})", doc.title, doc.name),
    }
}

/// Evidence with its numbers: `forward gain of layers.17: 38 (its calm mean 1.9)`.
pub(crate) fn evidence(evidence: &Evidence) -> String {
    let Evidence { what, value, against } = evidence;
    match against {
        Some((reference, limit)) => {
            format!("{what}: {} ({reference} {})", number(*value), number(*limit))
        }
        None => format!("{what}: {}", number(*value)),
    }
}

/// Several pieces of evidence in one line.
pub(crate) fn evidences(all: &[Evidence]) -> String {
    all.iter().map(evidence).collect::<Vec<_>>().join("; ")
}

/// `quiet`, `too early`, `strain` or `ALARM`.
pub(crate) fn sign_state(sign: &SignSummary) -> &'static str {
    match sign.first.as_ref().map(|finding| finding.severity) {
        None if sign.too_early.is_some() => "too early",
        None => "quiet",
        Some(Severity::Strain) => "strain",
        Some(Severity::Alarm) => "ALARM",
    }
}

/// When a sign was first up and how often: `step 61` and `12 times`; what it still
/// needs when it was too early; empty for a quiet one.
pub(crate) fn sign_times(sign: &SignSummary) -> (String, String) {
    let Some(first) = &sign.first else {
        let needs = sign.too_early.map(|needs| format!("needs {} more", count(needs.into())));
        return (needs.unwrap_or_default(), String::new());
    };
    let times = match sign.count {
        1 => "once".to_owned(),
        more => format!("{} times", count(more as u64)),
    };
    (format!("step {}", count(first.step.0)), times)
}

/// What a remedy treats: the cause, or its effect.
pub(crate) fn treats(proposal: &Proposal) -> &'static str {
    if proposal.treats_cause { "the cause" } else { "the effect" }
}

/// What the guard did: `5 actions of the guard, the first at step 200: 3 scaled, 1 skipped`.
/// `None` when it did nothing.
pub(crate) fn actions(record: &Record) -> Option<String> {
    let (first, _) = record.actions.first()?;
    let of = |is: &dyn Fn(&tamegrad::Decision) -> bool| {
        record.actions.iter().filter(|(_, decision)| is(decision)).count() as u64
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
    let total = counted(record.actions.len() as u64, "step");
    Some(format!(
        "the guard acted at {total}, first at step {}: {}",
        count(first.0),
        kinds.join(", ")
    ))
}

/// What the record no longer holds, for its memory is bounded; `None` when it holds all.
pub(crate) fn dropped(record: &Record) -> Option<String> {
    let rows = (record.rows_dropped, "step");
    let findings = (record.findings_dropped, "finding");
    let actions = (record.actions_dropped, "action");
    let parts: Vec<_> = [rows, findings, actions]
        .into_iter()
        .filter(|(dropped, _)| *dropped > 0)
        .map(|(dropped, what)| counted(dropped, what))
        .collect();
    (!parts.is_empty()).then(|| format!("not kept, to bound memory: {}", parts.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::sign;
    use tamegrad::SignName;
    use tamegrad::{Decision, Layout, RunFacts, Step};

    #[test]
    fn evidence_names_value_and_reference() {
        for (given, words) in [
            (Evidence::of("loss", f64::NAN), "loss: NaN"),
            (
                Evidence::against("gain", 38.04, "its calm mean", 1.9),
                "gain: 38 (its calm mean 1.9)",
            ),
        ] {
            assert_eq!(evidence(&given), words);
        }
    }

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
    fn actions_and_what_was_dropped_are_counted() {
        let mut record = Record::new(Layout::default(), RunFacts::default());
        assert_eq!((actions(&record), dropped(&record)), (None, None));
        let skip = Decision { gradients: GradientAction::Skip, ..Decision::default() };
        let scale = Decision {
            gradients: GradientAction::ScaleAll(0.1),
            learning_rate: 0.5,
            ..Decision::default()
        };
        record.actions = vec![(Step(1200), skip.clone()), (Step(1201), skip), (Step(1300), scale)];
        record.rows_dropped = 32_768;
        record.findings_dropped = 1;
        assert_eq!(
            actions(&record).as_deref(),
            Some(
                "the guard acted at 3 steps, first at step 1,200: 2 skipped, 1 scaled, \
                 1 at a lower learning rate"
            )
        );
        assert_eq!(
            dropped(&record).as_deref(),
            Some("not kept, to bound memory: 32,768 steps and 1 finding")
        );
    }
}
