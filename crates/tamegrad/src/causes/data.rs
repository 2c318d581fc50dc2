//! Cause: a batch unlike its siblings, or data that is not finite.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::inspection::Operand;
use crate::origin::{Origin, first_seen};
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "data",
    title: "A bad batch",
    what: "The batch at the alarm holds values far larger than those of other batches, or NaN or \
           Inf.",
    why: "The gradient of a weight is its input times what comes back from the loss, so inputs \
          that are 1,000 times larger make the gradient 1,000 times larger, once. With Adam, one \
          such gradient stays in the second moment for thousands of steps.",
    rule: |rules| {
        format!(
            "Non-finite inputs or targets are the cause, whatever else is found (unless they were not \
             finite in an earlier step whose loss and gradients were, as an additive mask), and so are \
             label sequences that are longer than their inputs where the loss is infinite. \
             Otherwise, the batch at the alarm and the one before it are checked. A batch is bad if the largest \
             magnitude or the RMS of one of its inputs, or its largest target, is above {} times \
             the median of the {} batches before.",
            rules.data.ratio, rules.data.batches,
        )
    },
    example: "Step 300: largest input 16,000; median of the 50 batches before: 16.",
    remedy: "Skip the batch and look at its rows. Where such values are legitimate, scale or clamp \
             the inputs.",
    source: "PaLM (Chowdhery 2022), section 5.1, skipped the batches around a spike.",
};

/// Weighs the data at the alarm.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let record = &run.record;
    let alarm = run.first_alarm()?.step;
    let cause = |ground, evidence| Some(Cause::new(CauseName::Data, ground, evidence));
    if let Some((step, place)) = record.broken_data()
        && step <= alarm
    {
        let mut evidence = vec![first_seen(place, step)];
        evidence.extend(broken_rows(run));
        return cause(Ground::BrokenData, evidence);
    }
    if let Some(evidence) = too_long(run).or_else(|| from_outside(run)) {
        return cause(Ground::BrokenData, vec![evidence]);
    }
    cause(Ground::UnlikeBatch, vec![record.batch.unlike_at_alarm()?])
}

/// How many rows of the data are not finite, for each input in which some are.
fn broken_rows(run: &Run) -> Vec<Measure> {
    let rows = run.record.inspection.iter().flat_map(|seen| &seen.rows);
    rows.map(|broken| Measure::new(Quantity::BrokenRows, broken.count as f64)).collect()
}

/// What an operation was given that is not finite and that nothing in the pass has made: it came with the
/// data, or was computed from it.
fn from_outside(run: &Run) -> Option<Measure> {
    let operation = run.broken_by()?.operation.as_ref().filter(|of| !of.is_backward)?;
    // What only passes data on has made none of it.
    let has_rows = run.record.inspection.as_ref().is_some_and(|seen| !seen.rows.is_empty());
    let came = |of: &Operand| of.made_by.is_none_or(|kind| has_rows && kind.passes_on());
    let is_data = |of: &&Operand| of.nonfinite() > 0 && !of.is_constant() && came(of);
    let operand = operation.operands.iter().find(is_data)?;
    let count =
        Measure::new(Quantity::NonFiniteElements, operand.nonfinite() as f64).at(Place::Data);
    (!operation.kind.masks()).then(|| count.against(Reference::Total, operand.len as f64))
}

/// Sequences of labels that their inputs are too short for: the loss of such a sequence is infinite.
fn too_long(run: &Run) -> Option<Measure> {
    let seen = run.broken_by()?;
    if let Some(labels) = seen.labels.filter(|labels| labels.too_long > 0) {
        return Some(Measure::new(Quantity::LongTargets, labels.too_long as f64));
    }
    // The loss of a sequence that fits is finite.
    let operation = seen.operation.as_ref().filter(|of| of.name.contains("ctc_loss"))?;
    let infinite = operation.operands.iter().map(|operand| operand.pos_inf).max()?;
    (infinite > 0).then(|| Measure::new(Quantity::LongTargets, infinite as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchTrack, DataTrack, INPUTS_MAX};
    use crate::causes::check::{alarmed, looked_into, operand};
    use crate::inspection::{Inspection, Operation, OperationKind};
    use crate::observe::{Layout, NamedInput, Observation, RunFacts};
    use crate::signs::check::{layout, stats};

    /// A record of 60 batches whose inputs and targets are of size 1, but for the one before the
    /// alarm.
    fn run_with(inputs: &[(&str, f64)], target: f64) -> Run {
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
        let (x, extra) = (Place::Input(0), Place::Input(1));
        let unlike = |place| Some((Ground::UnlikeBatch, Quantity::LargestElement, place));
        let broken = |place| Some((Ground::BrokenData, Quantity::FirstNonFinite, place));
        for (inputs, target, found) in [
            (&[("x", 1000.0)][..], 1.0, unlike(x)),
            (&[("x", 1.5)], 1.0, None),
            (&[("x", 1.0)], 50.0, unlike(Place::Targets)),
            (&[], 50.0, unlike(Place::Targets)),
            (&[("x", NAN)], 1.0, broken(x)),
            (&[("x", 1.0)], INFINITY, broken(Place::Targets)),
            (&[("x", 1.0), ("extra", 9.0)], 1.0, unlike(extra)),
            (&[("x", 1.0), ("extra", NAN)], 1.0, broken(extra)),
        ] {
            let cause = weigh(&run_with(inputs, target), None);
            let told = cause.map(|cause| (cause.ground, cause.evidence[0]));
            let told = told.map(|(ground, first)| (ground, first.quantity, first.place));
            assert_eq!(told, found, "{inputs:?} {target}");
        }
    }

    #[test]
    fn an_infinite_input_of_steps_that_were_well_is_a_mask() {
        for (loss, found) in [(Some(0.5), false), (None, true)] {
            let inputs = [NamedInput { name: "mask", stats: stats(f64::INFINITY) }];
            let gradients = [Some(stats(1.0))];
            let run = alarmed(layout(1), RunFacts::default(), 60, |step| Observation {
                inputs: &inputs,
                gradients: &gradients,
                loss: if step == 59 { Some(f64::NAN) } else { loss },
                ..Observation::default()
            });
            let ground = weigh(&run, None).map(|cause| cause.ground);
            assert_eq!(ground, found.then_some(Ground::BrokenData), "{loss:?}");
        }
    }

    #[test]
    fn numbers_that_nothing_in_the_pass_has_made() {
        for (kind, made_by, nan, found) in [
            (OperationKind::Multiply, None, 3, true),
            (OperationKind::Multiply, Some(OperationKind::Log), 3, false),
            (OperationKind::Multiply, None, 0, false),
        ] {
            let operands = vec![Operand { nan, made_by, ..operand(64) }];
            let operation = Some(Operation { operands, ..Operation::new(kind) });
            let run = looked_into(Inspection { operation, ..Inspection::default() });
            let ground = weigh(&run, None).map(|cause| cause.ground);
            assert_eq!(ground, found.then_some(Ground::BrokenData), "{kind:?} {made_by:?} {nan}");
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
        let run = run_with(&inputs, 1.0);
        assert_eq!(run.record.batch.inputs.len(), INPUTS_MAX);
        let evidence = weigh(&run, None).map(|cause| cause.evidence[0]);
        let want = Measure::new(Quantity::LargestElement, 50.0).at(Place::Input(INPUTS_MAX - 1));
        assert_eq!(evidence, Some(want.against(Reference::Usual, 1.0)));
    }

    #[test]
    fn an_input_that_comes_twice_in_a_step_is_the_data_of_both_passes() {
        let run = run_with(&[("x", 1.0), ("x", 30.0)], 1.0);
        assert_eq!(run.record.batch.inputs.len(), 1);
        let place = weigh(&run, None).map(|cause| cause.evidence[0].place);
        assert_eq!(place, Some(Place::Input(0)));
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
            before.unlike(&batch, None).map(|measure| measure.quantity)
        };
        assert_eq!(unlike_before(&[1.0; 25]), Some(Quantity::DataRms));
        assert_eq!(unlike_before(&[0.7; 25]), None);
    }
}
