//! Cause: inputs far from the scale that initialisations and learning rates are made for.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::observe::LayerInfo;
use crate::origin::Origin;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "unscaled-input",
    title: "Inputs are not scaled",
    what: "The inputs are tens or thousands in size: pixels from 0 to 255, prices, times in seconds.",
    why: "Initialisations keep the size of what they are given. Inputs of 100 make outputs of about \
          100 and the first layer's gradient 100 times larger, and the largest stable learning rate \
          falls with their square.",
    rule: |rules| {
        let rule = rules.input;
        format!(
            "Supported when the RMS of what the first layer with weights is given in the first pass is \
             above {}, the first alarm comes before step {}, and no layer before the second one with \
             weights normalises. Where no pass was looked at, it is the median RMS of the first {} \
             batches of inputs.",
            rule.rms, rule.steps, rules.data.first,
        )
    },
    example: "Pixels from 0 to 255 in a small convolutional network, SGD 0.05: an alarm at step 0, and \
              nothing is learned any more. From 0 to 1, the same run is healthy.",
    remedy: "Standardise the inputs: subtract the mean of the training data, and divide by its \
             standard deviation.",
    source: "LeCun et al. 1998, Efficient BackProp, section 4.3.",
};

/// Weighs the size of what reaches the first weights, whatever the model makes of its arguments before.
/// Their layer carries it.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let (record, rule) = (&run.record, RULES.input);
    let layout = &record.layout;
    let mut weighted = layout.with_matrices();
    let (first, second) = (weighted.next(), weighted.next());
    let until = second.map_or(layout.layers.len(), |second| second.0);
    let normalises = |layer: &LayerInfo| layer.only_normalises || layer.normalisation.is_some();
    if layout.layers[..until].iter().any(normalises) {
        return None;
    }
    let rms = record.input_rms().filter(|rms| rms.is_finite() && *rms > rule.rms)?;
    run.first_alarm().filter(|alarm| alarm.step.0 < rule.steps)?;
    let size = Measure::new(Quantity::DataRms, rms).at(Place::Data).against(Reference::Usual, 1.0);
    Some(Cause::new(CauseName::UnscaledInput, Ground::InputSize, vec![size]).of_layer(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed, trace};
    use crate::observe::{LayerTrace, Layout, NamedInput, Observation, RunFacts};
    use crate::signs::check::{layout, seen, stats};

    fn is_found(layout: Layout, rms: f64, steps: u64, pass: Option<&LayerTrace>) -> bool {
        let batch = [NamedInput { name: "x", stats: stats(rms) }];
        let run = alarmed(layout, RunFacts::default(), steps, |step| Observation {
            inputs: &batch,
            trace: pass,
            ..seen(step, 1e6, &[])
        });
        weigh(&run, None).is_some()
    }

    #[test]
    fn large_inputs_and_an_early_alarm() {
        for (rms, steps, found) in
            [(150.0, 3, true), (3.0, 3, false), (150.0, 500, false), (f64::INFINITY, 3, false)]
        {
            assert_eq!(is_found(Layout::default(), rms, steps, None), found, "{rms} {steps}");
        }
    }

    #[test]
    fn what_reaches_the_first_weights_counts_and_not_what_the_model_is_called_with() {
        for (argument, reaches, found) in [(150.0, 1.0, false), (1.0, 150.0, true)] {
            let mut pass = trace(&[1.0; 4], &[1.0; 4]);
            pass.layers[0].input = Some(stats(reaches));
            assert_eq!(is_found(layout(4), argument, 3, Some(&pass)), found, "{argument}");
        }
    }

    #[test]
    fn a_normalisation_behind_the_first_weights_makes_their_size_indifferent() {
        // An activation, without weights, may stand before it.
        for (norm_at, found) in [(0, false), (1, false), (2, false), (4, true)] {
            let mut layout = layout(5);
            for without in [1, 2] {
                layout.tensors[without].is_matrix = false;
            }
            layout.layers[norm_at].only_normalises = true;
            layout.tensors[norm_at].is_matrix = false;
            if norm_at == 0 {
                layout.tensors[1].is_matrix = true;
            }
            assert_eq!(is_found(layout, 150.0, 3, None), found, "{norm_at}");
        }
    }
}
