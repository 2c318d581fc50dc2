//! Cause: a softmax over a row in which everything is masked.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity};
use crate::inspection::{Operand, Operation, OperationKind};
use crate::origin::Origin;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "masked-row",
    title: "A mask that ends in NaN",
    what: "A mask sets every score of a row to negative infinity, so that the softmax has nothing to \
           divide among the row's elements; or the infinities that it puts there are multiplied by 0 \
           or subtracted from each other.",
    why: "The softmax of a row of negative infinities is 0 / 0, which is NaN, and so is its gradient \
          even where the row's result is thrown away: NaN times 0 is NaN.",
    rule: |_| {
        "Supported when the first NaN comes from a softmax, its logarithm or attention, and a row of \
         its input is negative infinity throughout. Infinities in a mask are no fault as long as one \
         score of each row is finite. Also supported when such infinities, made in the pass, reach a \
         product, sum or difference whose result is NaN."
            .to_owned()
    },
    example: "3 of 512 rows of the attention scores are -inf throughout: sequences of padding only.",
    remedy: "Leave one entry of each row unmasked, or use a large negative number such as -1e4 in \
             place of -inf and multiply the result by the mask.",
    source: "9 of 112 public reports of broken training whose outcome is known.",
};

/// Weighs the operation that made the first NaN.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let seen = run.broken_by()?;
    // Infinities that came with the data are no mask.
    let operation = seen.operation.as_ref().filter(|_| seen.rows.is_empty())?;
    let rows = masked_rows(operation).map(|rows| Measure::new(Quantity::MaskedRows, rows as f64));
    let evidence = vec![rows.or_else(|| met_infinities(operation))?];
    Some(Cause::new(CauseName::MaskedRow, Ground::MaskedRow, evidence))
}

fn masked_rows(operation: &Operation) -> Option<u64> {
    use OperationKind::{Attention, LogSoftmax, Softmax};
    let rows = operation.operands.iter().map(|operand| operand.masked_rows).max()?;
    let divides = matches!(operation.kind, Attention | LogSoftmax | Softmax);
    (divides && rows > 0).then_some(rows)
}

/// Infinities that a mask has put there, where they met 0 or each other.
fn met_infinities(operation: &Operation) -> Option<Measure> {
    use OperationKind::{Add, Division, Exp, Matmul, Multiply, Sum};
    let meets = match operation.kind {
        Add | Division | Matmul | Multiply | Sum => !operation.is_backward,
        // The logarithm of a sum of exponentials, of which all are 0.
        Exp => true,
        _ => false,
    };
    // A function that is infinite there, or that has overflowed, is no mask.
    let by_mask = |of: &Operand| {
        of.made_by.is_some_and(|kind| kind != OperationKind::Cast && !kind.is_singular())
    };
    let is_exp = operation.kind == Exp;
    let is_masked = |of: &&Operand| {
        let infinite = of.neg_inf + if is_exp { 0 } else { of.pos_inf };
        infinite > 0 && of.nan == 0 && (of.is_constant() || by_mask(of))
    };
    let masked = operation.operands.iter().find(is_masked)?;
    let count = (masked.neg_inf + masked.pos_inf) as f64;
    (meets && operation.nan > 0).then(|| Measure::new(Quantity::MetInfinities, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{looked_into, operand};
    use crate::inspection::Inspection;

    #[test]
    fn infinities_of_a_mask_that_meet_0() {
        for (made_by, nan, found) in [
            (Some(OperationKind::LogSoftmax), 60, true),
            (Some(OperationKind::LogSoftmax), 0, false),
            (None, 60, false),
            (Some(OperationKind::Exp), 60, false),
            (Some(OperationKind::Where), 60, true),
        ] {
            let operands = vec![operand(384), Operand { neg_inf: 60, made_by, ..operand(384) }];
            let product = Operation::new(OperationKind::Multiply);
            let operation = Some(Operation { operands, nan, ..product });
            let run = looked_into(Inspection { operation, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{made_by:?} {nan}");
        }
    }

    #[test]
    fn an_exponential_that_overflows_is_no_mask() {
        for (neg_inf, pos_inf, found) in [(60, 0, true), (0, 60, false)] {
            let made_by = Some(OperationKind::Add);
            let operands = vec![Operand { neg_inf, pos_inf, made_by, ..operand(384) }];
            let exp = Operation::new(OperationKind::Exp);
            let operation = Some(Operation { operands, nan: 60, is_backward: true, ..exp });
            let run = looked_into(Inspection { operation, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{neg_inf} {pos_inf}");
        }
    }

    #[test]
    fn rows_of_a_softmax_and_of_nothing_else() {
        for (kind, masked_rows, found) in [
            (OperationKind::Softmax, 2, true),
            (OperationKind::Attention, 1, true),
            (OperationKind::Softmax, 0, false),
            (OperationKind::Sum, 2, false),
        ] {
            let operands = vec![Operand { masked_rows, ..operand(64) }];
            let operation = Some(Operation { operands, ..Operation::new(kind) });
            let run = looked_into(Inspection { operation, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{kind:?} {masked_rows}");
        }
    }
}
