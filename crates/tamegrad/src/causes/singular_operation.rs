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
         numbers far from overflow. What it was given must be finite. Also supported when an \
         infinity that such a function has made in the pass turns into NaN elsewhere. An exponential \
         that overflows counts for less: something else may have made its input large."
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
    let layer = operation.module.as_deref().and_then(|name| run.record.layout.layer_named(name));
    let cause = |kind, evidence| {
        let ground = match kind {
            OperationKind::Exp => Ground::Exponential,
            _ => Ground::Operation,
        };
        Some(Cause::new(CauseName::SingularOperation, ground, evidence).of_layer(layer))
    };
    if let Some((kind, evidence)) = met_infinities(operation) {
        return cause(kind, vec![evidence]);
    }
    // What was broken before is not its doing; what it has made itself may be kept with it.
    let is_own = |operand: &Operand| operand.made_by == Some(kind);
    let is_given_broken = operation.operands.iter().any(|of| of.nonfinite() > 0 && !is_own(of));
    if !is_known || is_given_broken || operation.overflows_narrow_type() {
        return None;
    }
    cause(kind, evidence(operation))
}

/// Infinities that such a function has made in the pass, where they became NaN: the function's kind, and how
/// many. An infinity alone may be meant.
fn met_infinities(operation: &Operation) -> Option<(OperationKind, Measure)> {
    let made = operation.operands.iter().find_map(|of| {
        let is_infinite = of.neg_inf + of.pos_inf > 0 && of.nan == 0;
        of.made_by.filter(|kind| kind.is_singular() && is_infinite).map(|kind| (kind, of))
    });
    let (kind, of) = made.filter(|_| operation.nan > 0 && !operation.is_backward)?;
    let count = Measure::new(Quantity::NonFiniteElements, (of.neg_inf + of.pos_inf) as f64);
    Some((kind, count.against(Reference::Total, of.len as f64)))
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
    fn what_was_given_nan_has_not_made_it() {
        for (nan, is_found) in [(1, false), (0, true)] {
            let operands = vec![Operand { nan, negatives: 8, ..operand(16) }];
            let power = Operation { operands, nan: 1, ..Operation::new(OperationKind::Power) };
            assert_eq!(found(power).is_some(), is_found, "{nan}");
        }
    }

    #[test]
    fn an_infinity_that_it_has_made_and_that_turns_into_nan_elsewhere() {
        use OperationKind::{Exp, Log, Where};
        for (made_by, told) in [
            (Log, Some((Ground::Operation, Some((Quantity::NonFiniteElements, 4.0))))),
            (Exp, Some((Ground::Exponential, Some((Quantity::NonFiniteElements, 4.0))))),
            (Where, None),
        ] {
            let infinite = Operand { neg_inf: 4, made_by: Some(made_by), ..operand(16) };
            let operands = vec![operand(16), infinite];
            let product = Operation::new(OperationKind::Multiply);
            assert_eq!(found(Operation { operands, nan: 4, ..product }), told, "{made_by:?}");
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
