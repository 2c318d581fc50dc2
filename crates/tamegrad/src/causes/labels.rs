//! Cause: labels that are no class of the model's, or targets that are no probability.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::inspection::Labels;
use crate::origin::Origin;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "labels",
    title: "Labels outside the classes",
    what: "The targets hold class numbers below 0 or above those of the model's output, or a loss \
           that expects probabilities is given targets below 0 or above 1.",
    why: "A class that does not exist has no output to learn from. A binary cross-entropy with a \
          target above 1 has no lower bound, so the outputs grow without end.",
    rule: |_| {
        "Supported when the integer targets of the step of the alarm, without those that the loss \
         ignores, are not all between 0 and the number of classes less 1; or when the targets of a \
         binary cross-entropy are not all between 0 and 1."
            .to_owned()
    },
    example: "10 classes, labels from 1 to 10: label 10 has no output.",
    remedy: "Number the classes from 0, give the last layer one output per class, and mark targets \
             to be left out with the loss function's ignore_index.",
    source: "3 of 112 public reports of broken training whose outcome is known.",
};

/// Weighs the targets of the step of the alarm.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    run.first_alarm()?;
    let seen = run.record.inspection.as_ref()?;
    let classes = seen.labels.filter(Labels::are_outside).map(of_labels);
    let evidence = classes.or_else(|| seen.probabilities.and_then(of_probabilities))?;
    Some(Cause::new(CauseName::Labels, Ground::ImpossibleTargets, evidence))
}

fn of_labels(labels: Labels) -> Vec<Measure> {
    let least = Measure::new(Quantity::SmallestLabel, labels.min as f64);
    let most = Measure::new(Quantity::LargestLabel, labels.max as f64);
    let last = labels.classes.checked_sub(1).map(|last| last as f64);
    let most = last.map_or(most, |last| most.against(Reference::Limit, last));
    vec![least.against(Reference::Limit, 0.0), most]
}

fn of_probabilities((min, max): (f64, f64)) -> Option<Vec<Measure>> {
    let least = Measure::new(Quantity::SmallestElement, min).against(Reference::Limit, 0.0);
    let most = Measure::new(Quantity::LargestElement, max).against(Reference::Limit, 1.0);
    (min < 0.0 || max > 1.0).then(|| vec![least.at(Place::Targets), most.at(Place::Targets)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{labels, looked_into};
    use crate::inspection::Inspection;

    #[test]
    fn classes_that_do_not_exist() {
        for (min, max, ignored, classes, found) in [
            (0, 9, 0, 10, false),
            (1, 10, 0, 10, true),
            (-1, 9, 0, 10, true),
            (0, 10, 0, 0, false),
            // All are left out: then their numbers say nothing.
            (1, 10, 32, 10, false),
        ] {
            let labels = Some(Labels { min, max, ignored, classes, ..labels(32) });
            let run = looked_into(Inspection { labels, ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{min} to {max} of {classes}");
        }
    }

    #[test]
    fn targets_that_are_no_probabilities() {
        for (range, found) in [((0.0, 1.0), false), ((-0.5, 1.0), true), ((0.0, 255.0), true)] {
            let run =
                looked_into(Inspection { probabilities: Some(range), ..Inspection::default() });
            assert_eq!(weigh(&run, None).is_some(), found, "{range:?}");
        }
    }
}
