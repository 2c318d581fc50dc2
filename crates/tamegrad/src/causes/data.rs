//! Cause: a batch unlike its siblings, or data that is not finite.

use super::{Cause, CauseName};
use crate::explain::Doc;
use crate::finding::Evidence;
use crate::observe::BatchStats;
use crate::record::{BatchTrack, NonFiniteAt, Record};

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "data",
    title: "A bad batch",
    what: "The batch at the alarm holds values far larger than other batches do, or NaN or Inf.",
    why: "The gradient of a weight is the input times what comes back from the loss: inputs that \
          are 1,000 times larger make a gradient that is 1,000 times larger, once. With Adam one \
          such gradient stays in the second moment for thousands of steps.",
    rule: "Non-finite inputs or targets are the cause, whatever else stands. Otherwise: the \
           largest magnitude or the RMS of the inputs, or the largest target, of the batch at the \
           alarm or of the one before it is above 4 times the median of the 50 before.",
    example: "Step 300: largest input 16,000; median of the 50 batches before: 16.",
    remedy: "Skip the batch and look at its rows; scale or clamp inputs where such values are \
             legitimate.",
    source: "PaLM (Chowdhery 2022), section 5.1, skipped the batches round a spike.",
};

const UNLIKE_RATIO: f64 = 4.0;

/// Weighs the data at the alarm.
pub(super) fn weigh(record: &Record) -> Option<Cause> {
    let alarm = record.first_alarm()?.step;
    let cause = |weight, evidence| {
        Some(Cause { name: CauseName::Data, weight, layer: None, evidence: vec![evidence] })
    };
    if let Some((step, NonFiniteAt::Data)) = record.first_nonfinite
        && step <= alarm
    {
        let what = "step at which the data is first not finite";
        return cause(1.0, Evidence::of(what, step.0 as f64));
    }
    let batch = record.batch.at_alarm?;
    cause(0.97, unlike(&record.batch, &batch)?)
}

/// The number by which a batch is unlike those before it: its largest input, the RMS of its inputs,
/// or its largest target is above 4 times their median.
pub(crate) fn unlike(before: &BatchTrack, batch: &BatchStats) -> Option<Evidence> {
    let target = batch.target.map_or(f64::NAN, |target| target.max_abs);
    let sizes = [
        ("largest input of the batch", batch.input.max_abs, before.input_max.median()),
        ("RMS of the batch's inputs", batch.input.rms(), before.input_rms.median()),
        ("largest target of the batch", target, before.target_max.median()),
    ];
    sizes.into_iter().find_map(|(what, now, usual)| {
        let usual = usual.filter(|usual| now > UNLIKE_RATIO * usual)?;
        Some(Evidence::against(what, now, "median of the batches before", usual))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{Layout, Observation, RunFacts};
    use crate::signs::check::stats;

    #[test]
    fn a_batch_unlike_its_siblings_or_not_finite() {
        for (last, target, weight) in [
            (1000.0, 1.0, Some(0.97)),
            (1.5, 1.0, None),
            (1.0, 50.0, Some(0.97)),
            (f64::NAN, 1.0, Some(1.0)),
            (1.0, f64::INFINITY, Some(1.0)),
        ] {
            let record = alarmed(Layout::default(), RunFacts::default(), 60, |step| {
                let of = |last| stats(if step == 58 { last } else { 1.0 });
                let batch = Some(BatchStats { input: of(last), target: Some(of(target)) });
                Observation { batch, ..Observation::default() }
            });
            assert_eq!(weigh(&record).map(|cause| cause.weight), weight, "{last} {target}");
        }
    }

    #[test]
    fn a_batch_that_is_larger_all_over_is_unlike_though_its_largest_value_is_usual() {
        let mut values = [0.0; 25];
        values[0] = 1.0;
        let one_of_25 = tamegrad_stats::scan(&values);
        let mut before = BatchTrack::default();
        before.input_max.push(one_of_25.max_abs);
        before.input_rms.push(one_of_25.rms());
        let unlike_before = |values: &[f64]| {
            let batch = BatchStats { input: tamegrad_stats::scan(values), target: None };
            unlike(&before, &batch).map(|evidence| evidence.what)
        };
        assert_eq!(unlike_before(&[1.0; 25]).as_deref(), Some("RMS of the batch's inputs"));
        assert_eq!(unlike_before(&[0.7; 25]), None);
    }
}
