//! Cause: a function at a point where it, or its slope, is infinite: log(0), sqrt(0), x / 0.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::inspection::{Operand, Operation, OperationKind};
use crate::origin::Origin;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "singular-operation",
    title: "A function at a point where it is infinite",
    what: "A logarithm, square root, norm, standard deviation, division, power, exponential or \
           inverse trigonometric function was given values at which it, or its slope, is infinite \
           or undefined.",
    why: "The slope of a square root at 0 is infinite, and so is that of a norm of zeros, though \
          both are finite there: the loss looks well, and its gradient is NaN. One such element \
          among thousands is enough.",
    rule: |_| {
        "Supported when the first value that is not finite comes from such a function, forward or \
         backward, at the step of the first alarm, or from any other function that is NaN at finite \
         numbers far from overflow. An exponential that overflows counts for less: \
         something else may have made its input large."
            .to_owned()
    },
    example: "sqrt in losses.py, line 24, got 12 zeros of 640; its gradient is infinite there.",
    remedy: "Keep the function away from that point: sqrt(x + eps), log(clamp(x, min=eps)), \
             x / (y + eps), in the function's input and not in its result. Under a torch.where, do \
             so in the branch that is not taken as well.",
    source: "13 of 112 public reports of broken training whose outcome is known.",
};

/// Weighs the operation that made the first value that is not finite.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let operation = run.broken_by()?.operation.as_ref()?;
    use OperationKind::{Custom, Other};
    let kind = operation.kind;
    let is_known = kind.is_singular() || matches!(kind, Other | Custom) && operation.is_undefined();
    if !is_known || operation.overflows_narrow_type() {
        return None;
    }
    let ground = match operation.kind {
        OperationKind::Exp => Ground::Exponential,
        _ => Ground::Operation,
    };
    let layer = operation.module.as_deref().and_then(|name| run.record.layout.layer_named(name));
    Some(Cause::new(CauseName::SingularOperation, ground, evidence(operation)).of_layer(layer))
}

/// What the function was given that it cannot bear.
fn evidence(operation: &Operation) -> Vec<Measure> {
    let of_operand = |operand: &Operand| {
        let counted = |quantity, count: u64| {
            let measure = Measure::new(quantity, count as f64);
            (count > 0).then(|| measure.against(Reference::Total, operand.len as f64))
        };
        let largest = || Some(Measure::new(Quantity::LargestElement, operand.largest?));
        match operation.kind {
            OperationKind::Exp | OperationKind::InverseTrigonometric => largest(),
            OperationKind::Log | OperationKind::Sqrt | OperationKind::Power => {
                counted(Quantity::NegativeElements, operand.negatives)
                    .or_else(|| counted(Quantity::ZeroElements, operand.zeros))
            }
            _ => counted(Quantity::ZeroElements, operand.zeros),
        }
    };
    // A quotient is singular in its divisor alone.
    let skipped = usize::from(operation.kind == OperationKind::Division);
    let operands = operation.operands.iter().skip(skipped.min(operation.operands.len() / 2));
    let found: Vec<Measure> = operands.filter_map(of_operand).take(1).collect();
    let broken = (operation.nan + operation.inf) as f64;
    let result = Measure::new(Quantity::NonFiniteElements, broken);
    if found.is_empty() && broken > 0.0 { vec![result] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{looked_into, operand};
    use crate::inspection::Inspection;

    fn found(operation: Operation) -> Option<(Ground, Option<(Quantity, f64)>)> {
        let operation = Some(operation);
        let run = looked_into(Inspection { operation, ..Inspection::default() });
        let cause = weigh(&run, None)?;
        let first = cause.evidence.first().map(|measure| (measure.quantity, measure.value));
        Some((cause.ground, first))
    }

    #[test]
    fn what_the_function_was_given() {
        let zeros = Operand { zeros: 12, ..operand(640) };
        let below = Operand { negatives: 3, zeros: 2, ..operand(640) };
        let large = Operand { largest: Some(91.0), ..operand(640) };
        use OperationKind::{Add, Division, Exp, Log, Other, Sqrt};
        for (kind, operands, told) in [
            (
                Sqrt,
                vec![zeros.clone()],
                Some((Ground::Operation, Some((Quantity::ZeroElements, 12.0)))),
            ),
            (Log, vec![below], Some((Ground::Operation, Some((Quantity::NegativeElements, 3.0))))),
            (
                Division,
                vec![operand(1), zeros],
                Some((Ground::Operation, Some((Quantity::ZeroElements, 12.0)))),
            ),
            (Exp, vec![large], Some((Ground::Exponential, Some((Quantity::LargestElement, 91.0))))),
            (Log, vec![], Some((Ground::Operation, None))),
            (Add, vec![operand(1)], None),
            (Other, vec![operand(1)], None),
        ] {
            assert_eq!(found(Operation { operands, ..Operation::new(kind) }), told, "{kind:?}");
        }
    }

    #[test]
    fn a_function_of_any_kind_that_is_nan_at_usual_numbers() {
        for (largest, nan, is_found) in [(2.0, 14, true), (2.0, 0, false), (1e30, 14, false)] {
            let operands = vec![Operand { largest: Some(largest), ..operand(160) }];
            let dtype_max = Some(f64::from(f32::MAX));
            let other = Operation::new(OperationKind::Other);
            let other = Operation { operands, nan, dtype_max, ..other };
            assert_eq!(found(other).is_some(), is_found, "{largest} {nan}");
        }
    }

    #[test]
    fn an_overflow_that_a_wider_type_would_hold_is_no_singular_point() {
        for (wider_is_finite, is_found) in [(Some(true), false), (Some(false), true)] {
            let dtype_max = Some(65_504.0);
            let power = Operation::new(OperationKind::Power);
            let power = Operation { wider_is_finite, dtype_max, inf: 3, ..power };
            assert_eq!(found(power).is_some(), is_found, "{wider_is_finite:?}");
        }
    }
}
