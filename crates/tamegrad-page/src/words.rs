//! The sentences of a page.

use tamegrad::{Diagnosis, Place, Verdict};
use tamegrad_report::number::{count, counted};

/// The verdict in one sentence: what, when, where and why, as far as it is known.
pub(crate) fn sentence(found: &Diagnosis) -> String {
    let onset = found.onset.map(|step| format!(" at step {}", count(step.0))).unwrap_or_default();
    let seen = match found.seen {
        tamegrad::diagnosis::Seen::Steps(steps) => counted(steps, "step"),
        tamegrad::diagnosis::Seen::Records(records) => counted(records, "record"),
    };
    let what = match found.verdict {
        Verdict::Healthy => return format!("No sign of exploding gradients in {seen}."),
        Verdict::TooEarly => return format!("Too early to say: only {seen} were seen."),
        Verdict::NotLearning => {
            let why = why(found).map(|why| format!("; {why}")).unwrap_or_default();
            return format!("No alarm in {seen}, but the loss is where it began{why}.");
        }
        Verdict::Exploded => format!("Training exploded{onset} and ended with NaN or Inf"),
        Verdict::Exploding => format!("Training went wrong{onset} and has not recovered"),
        Verdict::Dead => format!("Training went wrong{onset} and the network stopped learning"),
        Verdict::Recovered => match found.recovered {
            Some(back) => format!("Trouble{onset}, recovered by step {}", count(back.0)),
            None => format!("Trouble{onset}, and the loss recovered"),
        },
    };
    let parts = [place(found), why(found)].into_iter().flatten();
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { format!("{what}.") } else { format!("{what}: {}.", parts.join("; ")) }
}

/// Where it began.
fn place(found: &Diagnosis) -> Option<String> {
    let origin = found.origin.as_ref()?;
    let name = found.origin_name();
    Some(match (origin.place, name) {
        (Place::Loss | Place::LossGradient, _) => {
            "it began in the loss, outside the model".to_owned()
        }
        (Place::Data, _) => "it began in the data".to_owned(),
        (_, Some(name)) if origin.layer().is_some() => format!("it began in layer {name}"),
        (_, Some(name)) => format!("it began in {name}"),
        (_, None) => return None,
    })
}

/// The best supported cause.
fn why(found: &Diagnosis) -> Option<String> {
    let title = found.causes.first()?.name.doc().title;
    let mut letters = title.chars();
    let first = letters.next()?.to_lowercase();
    Some(format!("likely cause: {first}{}", letters.as_str()))
}

/// The verdict in a word or two, as a badge.
pub(crate) fn badge(found: &Diagnosis) -> String {
    found.verdict.as_str().replace('-', " ")
}

/// Whether a verdict is good, bad, or in between: a class of the style sheet.
pub(crate) fn mood(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "good",
        Verdict::Recovered | Verdict::NotLearning | Verdict::TooEarly => "mixed",
        Verdict::Exploding | Verdict::Exploded | Verdict::Dead => "bad",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamegrad::Step;
    use tamegrad::logs::{History, Sample, diagnose};

    #[test]
    fn the_verdict_in_a_sentence() {
        let value = |step: i64| if step < 40 { 2.0 } else { f64::NAN };
        let loss: Vec<Sample> = (0..50).map(|step| Sample { step, value: value(step) }).collect();
        let exploded = diagnose(&History { loss: &loss, ..History::default() });
        let healthy = diagnose(&History { loss: &loss[..40], ..History::default() });
        let recovered = Diagnosis {
            verdict: Verdict::Recovered,
            recovered: Some(Step(1200)),
            ..exploded.clone()
        };
        for (found, sentence_of) in [
            (&healthy, "No sign of exploding gradients in 40 records."),
            (&exploded, "Training exploded at step 40 and ended with NaN or Inf."),
            (&recovered, "Trouble at step 40, recovered by step 1,200."),
        ] {
            assert_eq!(sentence(found), sentence_of);
        }
    }
}
