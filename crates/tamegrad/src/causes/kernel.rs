//! Cause: the implementation of an operation, the compiler, or the hardware.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::origin::Origin;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "kernel",
    title: "A kernel, the compiler or the hardware",
    what: "The same batch is finite when the same numbers are computed in another way: without \
           compilation, with plain attention, or on the CPU.",
    why: "Fused kernels and compilers reorder sums and skip steps that look needless. Some versions \
          are wrong for some shapes, masks or cards, and no change of the model or its data helps.",
    rule: |_| {
        "Shown by experiments on the kept batch, and by nothing else: the batch breaks when it is \
         repeated as it was, and does not without compilation, with plain attention or on the CPU \
         in the same number type; or two repetitions give different bits."
            .to_owned()
    },
    example: "The batch of step 812 is NaN with the memory-efficient attention and finite with the \
              plain one, both in bfloat16.",
    remedy: "Use the implementation that is finite, or another version, and report the smallest batch \
             to its developers.",
    source: "8 of 112 public reports of broken training whose outcome is known; 3 more were \
             hardware.",
};

/// Weighs the experiments.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let experiments = &run.record.inspection.as_ref()?.experiments;
    let shown = super::by_experiments(experiments) == Some(CauseName::Kernel);
    shown.then(|| Cause::new(CauseName::Kernel, Ground::Experiment, Vec::new()))
}
