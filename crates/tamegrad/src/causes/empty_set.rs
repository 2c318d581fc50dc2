//! Cause: a mean, or another average, over nothing.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::inspection::{Inspection, Operation, OperationKind};
use crate::origin::Origin;
use crate::record::NonFiniteAt;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "empty-set",
    title: "An average over nothing",
    what: "The loss averages over a part of the batch, and in this batch that part is empty: all \
           labels are ignored, no sample is positive, a mask is 0 everywhere. A standard deviation \
           of one value is such an average too.",
    why: "0 divided by 0 is NaN. Whether a batch has such an empty part is a matter of chance, so \
          the run breaks after hours, with nothing unusual in the model.",
    rule: |_| {
        "Supported when the loss ignores all labels of the step of the alarm; or when the first \
         value that is not finite comes from an average over no elements, from a standard deviation \
         of a single element, or from a division of 0 by a sum or count that is 0; or when the loss \
         is NaN and its gradient is exactly 0, so that no output has part in it."
            .to_owned()
    },
    example: "Step 4,312: 96 of 96 labels are ignored, and the cross-entropy is the mean of nothing.",
    remedy: "Divide by max(count, 1), or leave such batches out; where it happens often, use larger \
             batches.",
    source: "10 of 112 public reports of broken training whose outcome is known, such as \
             pytorch/pytorch#70348.",
};

/// Weighs the labels and the operation that broke.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let seen = run.broken_by();
    let seen = seen.and_then(|of| {
        let operation = of.operation.as_ref();
        ignored_labels(of)
            .or_else(|| average(operation?))
            .or_else(|| weighed_labels(operation?, run))
    });
    let evidence = seen.or_else(|| nothing_came_back(run))?;
    Some(Cause::new(CauseName::EmptySet, Ground::EmptySet, vec![evidence]))
}

fn ignored_labels(seen: &Inspection) -> Option<Measure> {
    let labels = seen.labels.filter(|labels| labels.ignored >= labels.len)?;
    let ignored = Measure::new(Quantity::IgnoredLabels, labels.ignored as f64);
    Some(ignored.against(Reference::Total, labels.len as f64))
}

/// A negative log-likelihood that is NaN though the logarithms are finite: the weights of its labels add up
/// to 0.
fn weighed_labels(operation: &Operation, run: &Run) -> Option<Measure> {
    let (step, _) = run.record.first_nonfinite?;
    let row = run.record.rows.iter().find(|row| row.step == step)?;
    let is_nan = row.loss.is_some_and(f64::is_nan) && operation.has_finite_operands();
    let is_found = operation.name.contains("nll_loss") && !operation.is_backward && is_nan;
    is_found.then(|| Measure::new(Quantity::AveragedElements, 0.0))
}

/// A gradient of exactly 0 from a loss that is NaN: no output has part in it.
fn nothing_came_back(run: &Run) -> Option<Measure> {
    let (step, NonFiniteAt::Loss) = run.record.first_nonfinite? else { return None };
    run.first_alarm().filter(|alarm| alarm.step >= step)?;
    let row = run.record.rows.iter().find(|row| row.step == step)?;
    let norm = row.gradient_norm.filter(|_| row.nonfinite_gradients == 0)?;
    let is_nan = row.loss.is_none_or(f64::is_nan);
    (norm == 0.0 && is_nan).then(|| Measure::new(Quantity::GradientNorm, 0.0).at(Place::Gradients))
}

/// The number of elements that the average ran over.
fn average(operation: &Operation) -> Option<Measure> {
    let first = operation.operands.first();
    let len = first.map(|operand| operand.len);
    let averaged = |len: u64| Some(Measure::new(Quantity::AveragedElements, len as f64));
    if len == Some(0) && operation.nan > 0 {
        return averaged(0);
    }
    match operation.kind {
        OperationKind::Std if len == Some(1) || is_undefined_deviation(operation) => averaged(1),
        OperationKind::Mean | OperationKind::Std | OperationKind::Loss if len == Some(0) => {
            averaged(0)
        }
        OperationKind::Division => {
            if let [count] = &operation.operands[..] {
                // The divisor alone is known: one number that no output has part in, and it is 0.
                let is_count = count.len == 1 && count.zeros == 1 && count.made_by.is_none();
                return is_count.then(|| Measure::new(Quantity::AveragedElements, 0.0));
            }
            let [above, below, ..] = &operation.operands[..] else { return None };
            let is_count = matches!(
                below.made_by,
                Some(
                    OperationKind::Sum
                        | OperationKind::Mean
                        | OperationKind::Cast
                        | OperationKind::Mask
                )
            );
            let is_zero = below.len > 0 && below.zeros == below.len;
            // A norm or a deviation that is 0 is no count.
            let is_number = below.len == 1 && below.made_by.is_none();
            let nothing = above.zeros == above.len && is_zero && (is_count || is_number);
            nothing.then(|| Measure::new(Quantity::AveragedElements, 0.0))
        }
        _ => None,
    }
}

/// Whether a standard deviation is NaN at finite numbers: each is one of a single element.
fn is_undefined_deviation(operation: &Operation) -> bool {
    !operation.is_backward && operation.nan > 0 && operation.is_undefined()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{labels, looked_into, operand};
    use crate::inspection::{Labels, Operand};

    #[test]
    fn all_labels_are_ignored() {
        for (ignored, found) in [(31, false), (32, true)] {
            let labels = Some(Labels { ignored, ..labels(32) });
            let run = looked_into(Inspection { labels, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{ignored}");
        }
    }

    #[test]
    fn labels_whose_weights_are_all_0() {
        for (name, largest, found) in
            [("nll_loss2d", 0, true), ("nll_loss2d", 1, false), ("mse_loss", 0, false)]
        {
            let operands = vec![Operand { pos_inf: largest, ..operand(96) }];
            let loss = Operation::new(OperationKind::Loss);
            let operation = Some(Operation { operands, name: name.into(), ..loss });
            let run = looked_into(Inspection { operation, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{name} {largest}");
        }
    }

    #[test]
    fn a_loss_that_sends_nothing_back() {
        for (norm, found) in [(0.0, true), (0.1, false), (f64::NAN, false)] {
            let mut run = looked_into(Inspection::default());
            run.record.rows[1].gradient_norm = Some(norm);
            assert_eq!(weigh(&run, None).is_some(), found, "{norm}");
        }
    }

    #[test]
    fn an_infinite_loss_that_sends_nothing_back_is_no_average_over_nothing() {
        for (loss, found) in [(f64::INFINITY, false), (f64::NAN, true)] {
            let mut run = looked_into(Inspection::default());
            run.record.rows[1].loss = Some(loss);
            run.record.rows[1].gradient_norm = Some(0.0);
            assert_eq!(weigh(&run, None).is_some(), found, "{loss}");
        }
    }

    #[test]
    fn deviations_of_one_row_each() {
        for (nan, found) in [(32, true), (0, false)] {
            let operands = vec![Operand { largest: Some(2.0), ..operand(32) }];
            let operation = Some(Operation { operands, nan, ..Operation::new(OperationKind::Std) });
            let run = looked_into(Inspection { operation, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{nan}");
        }
    }

    #[test]
    fn averages_over_nothing() {
        let zeros = |len| Operand { zeros: len, ..operand(len) };
        let count = |len| Operand { made_by: Some(OperationKind::Sum), ..zeros(len) };
        let norm = Operand { made_by: Some(OperationKind::Norm), ..zeros(1) };
        for (name, kind, operands, found) in [
            ("mean of nothing", OperationKind::Mean, vec![operand(0)], true),
            ("mean of something", OperationKind::Mean, vec![operand(4)], false),
            ("deviation of one", OperationKind::Std, vec![operand(1)], true),
            ("deviation of equals", OperationKind::Std, vec![operand(9)], false),
            ("0 by a count of 0", OperationKind::Division, vec![zeros(1), count(1)], true),
            ("rows of 0 by counts of 0", OperationKind::Division, vec![zeros(9), count(9)], true),
            ("something by 0", OperationKind::Division, vec![zeros(1)], true),
            ("1 by 0", OperationKind::Division, vec![operand(1), count(1)], false),
            ("0 by some values of 0", OperationKind::Division, vec![zeros(9), zeros(9)], false),
            ("0 by a norm of 0", OperationKind::Division, vec![zeros(9), norm], false),
        ] {
            let operation = Some(Operation { operands, ..Operation::new(kind) });
            let run = looked_into(Inspection { operation, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{name}");
        }
    }
}
