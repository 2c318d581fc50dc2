//! Cause: a batch unlike its siblings, or data that is not finite.

use super::{Cause, CauseName};
use crate::doc::Doc;
use crate::finding::Evidence;
use crate::record::Record;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "data",
    title: "A bad batch",
    what: "The batch at the alarm holds values far larger than other batches do, or NaN or Inf.",
    why: "The gradient of a weight is the input times what comes back from the loss: inputs that \
          are 1,000 times larger make a gradient that is 1,000 times larger, once. With Adam one \
          such gradient stays in the second moment for thousands of steps.",
    rule: "Non-finite inputs or targets are the cause, whatever else stands. Otherwise: the \
           largest magnitude or the RMS of one of the inputs, or the largest target, of the batch \
           at the alarm or of the one before it is above 4 times the median of the 50 before.",
    example: "Step 300: largest input 16,000; median of the 50 batches before: 16.",
    remedy: "Skip the batch and look at its rows; scale or clamp inputs where such values are \
             legitimate.",
    source: "PaLM (Chowdhery 2022), section 5.1, skipped the batches round a spike.",
};

/// Weighs the data at the alarm.
pub(super) fn weigh(record: &Record) -> Option<Cause> {
    let alarm = record.first_alarm()?.step;
    let cause = |weight, evidence| {
        Some(Cause { name: CauseName::Data, weight, layer: None, evidence: vec![evidence] })
    };
    if let Some(what) = record.broken_data()
        && let Some((step, _)) = record.first_nonfinite
        && step <= alarm
    {
        return cause(1.0, Evidence::of(what, step.0 as f64));
    }
    cause(0.97, record.batch.unlike_at_alarm()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchTrack, DataTrack, INPUTS_MAX};
    use crate::causes::check::alarmed;
    use crate::observe::{Layout, NamedInput, Observation, RunFacts};
    use crate::signs::check::stats;

    /// A record of 60 batches whose inputs and targets are of size 1, but for the one before the
    /// alarm.
    fn record_with(inputs: &[(&str, f64)], target: f64) -> Record {
        let batch = |is_odd: bool| -> Vec<NamedInput<'_>> {
            let size = |odd| stats(if is_odd { odd } else { 1.0 });
            inputs.iter().map(|(name, odd)| NamedInput { name, stats: size(*odd) }).collect()
        };
        let (usual, odd) = (batch(false), batch(true));
        alarmed(Layout::default(), RunFacts::default(), 60, |step| Observation {
            inputs: if step == 58 { &odd } else { &usual },
            targets: Some(stats(if step == 58 { target } else { 1.0 })),
            ..Observation::default()
        })
    }

    #[test]
    fn a_batch_unlike_its_siblings_or_not_finite() {
        const NAN: f64 = f64::NAN;
        const INFINITY: f64 = f64::INFINITY;
        for (inputs, target, found) in [
            (&[("x", 1000.0)][..], 1.0, Some((0.97, "largest input of the batch"))),
            (&[("x", 1.5)], 1.0, None),
            (&[("x", 1.0)], 50.0, Some((0.97, "largest target of the batch"))),
            (&[], 50.0, Some((0.97, "largest target of the batch"))),
            (&[("x", NAN)], 1.0, Some((1.0, "step at which the data is first not finite"))),
            (&[("x", 1.0)], INFINITY, Some((1.0, "step at which a target is first not finite"))),
            (&[("x", 1.0), ("extra", 9.0)], 1.0, Some((0.97, "largest element of input `extra`"))),
            (
                &[("x", 1.0), ("extra", NAN)],
                1.0,
                Some((1.0, "step at which input `extra` is first not finite")),
            ),
        ] {
            let cause = weigh(&record_with(inputs, target));
            let told = cause.as_ref().map(|cause| (cause.weight, &*cause.evidence[0].what));
            assert_eq!(told, found, "{inputs:?} {target}");
        }
    }

    #[test]
    fn what_was_zero_so_far_has_no_usual_size() {
        let track = |usual: f64| {
            let mut track = DataTrack::default();
            track.max.push(usual);
            BatchTrack { inputs: vec![("h".to_owned(), track)], ..BatchTrack::default() }
        };
        for (usual, found) in [(0.0, false), (0.01, true)] {
            let batch = [NamedInput { name: "h", stats: stats(0.4) }];
            assert_eq!(track(usual).unlike(&batch, None).is_some(), found, "{usual}");
        }
    }

    #[test]
    fn inputs_beyond_those_that_are_told_apart_are_judged_with_the_last() {
        let names: Vec<String> = (0..INPUTS_MAX + 3).map(|i| format!("input{i}")).collect();
        let mut inputs: Vec<_> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
        inputs[INPUTS_MAX + 1].1 = 50.0;
        let record = record_with(&inputs, 1.0);
        assert_eq!(record.batch.inputs.len(), INPUTS_MAX);
        let evidence = weigh(&record).map(|cause| cause.evidence[0].clone());
        let what = "largest element of input `input31` or a later one";
        let want = Evidence::against(what, 50.0, "median of the batches before", 1.0);
        assert_eq!(evidence, Some(want));
    }

    #[test]
    fn an_input_that_comes_twice_in_a_step_is_the_data_of_both_passes() {
        let record = record_with(&[("x", 1.0), ("x", 30.0)], 1.0);
        assert_eq!(record.batch.inputs.len(), 1);
        let evidence = weigh(&record).map(|cause| cause.evidence[0].what.clone());
        assert_eq!(evidence.as_deref(), Some("largest input of the batch"));
    }

    #[test]
    fn a_batch_that_is_larger_all_over_is_unlike_though_its_largest_value_is_usual() {
        let mut values = [0.0; 25];
        values[0] = 1.0;
        let one_of_25 = tamegrad_stats::scan(&values);
        let mut track = DataTrack::default();
        track.max.push(one_of_25.max_abs);
        track.rms.push(one_of_25.rms());
        let before = BatchTrack { inputs: vec![("x".to_owned(), track)], ..BatchTrack::default() };
        let unlike_before = |values: &[f64]| {
            let batch = [NamedInput { name: "x", stats: tamegrad_stats::scan(values) }];
            before.unlike(&batch, None).map(|evidence| evidence.what)
        };
        assert_eq!(unlike_before(&[1.0; 25]).as_deref(), Some("RMS of the batch's inputs"));
        assert_eq!(unlike_before(&[0.7; 25]), None);
    }
}
