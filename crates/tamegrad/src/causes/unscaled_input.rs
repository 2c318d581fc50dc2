//! Cause: inputs far from the scale that initialisations and learning rates are made for.

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::observe::LayerId;
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
            "Supported when the median RMS of the first {} batches of inputs is above {}, the first \
             alarm comes before step {}, and the first {} layers hold none that normalises.",
            rules.data.first, rule.rms, rule.steps, rule.layers,
        )
    },
    example: "Pixels from 0 to 255 in a small convolutional network, SGD 0.05: an alarm at step 0, and \
              nothing is learned any more. From 0 to 1, the same run is healthy.",
    remedy: "Standardise the inputs: subtract the mean of the training data, and divide by its \
             standard deviation.",
    source: "LeCun et al. 1998, Efficient BackProp, section 4.3.",
};

/// Weighs the size of the inputs. The first layer carries it.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let (record, rule) = (&run.record, RULES.input);
    let rms = record.input_rms().filter(|rms| rms.is_finite() && *rms > rule.rms)?;
    run.first_alarm().filter(|alarm| alarm.step.0 < rule.steps)?;
    let layers = &record.layout.layers;
    let first = &layers[..layers.len().min(rule.layers)];
    if first.iter().any(|layer| layer.only_normalises || layer.normalisation.is_some()) {
        return None;
    }
    let size = Measure::new(Quantity::DataRms, rms).at(Place::Data).against(Reference::Usual, 1.0);
    let layer = (!first.is_empty()).then_some(LayerId(0));
    Some(Cause::new(CauseName::UnscaledInput, Ground::InputSize, vec![size]).of_layer(layer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::alarmed;
    use crate::observe::{LayerInfo, Layout, NamedInput, Observation, RunFacts};
    use crate::signs::check::{seen, stats};

    fn is_found(layout: Layout, rms: f64, steps: u64) -> bool {
        let batch = [NamedInput { name: "x", stats: stats(rms) }];
        let run = alarmed(layout, RunFacts::default(), steps, |step| Observation {
            inputs: &batch,
            ..seen(step, 1e6, &[])
        });
        weigh(&run, None).is_some()
    }

    #[test]
    fn large_inputs_and_an_early_alarm() {
        for (rms, steps, found) in
            [(150.0, 3, true), (3.0, 3, false), (150.0, 500, false), (f64::INFINITY, 3, false)]
        {
            assert_eq!(is_found(Layout::default(), rms, steps), found, "{rms} {steps}");
        }
    }

    #[test]
    fn a_normalisation_behind_the_inputs_makes_their_size_indifferent() {
        let norm = LayerInfo { only_normalises: true, ..LayerInfo::named("norm") };
        for (norm_at, found) in [(0, false), (1, false), (3, true)] {
            let mut layers = vec![LayerInfo::named("fc"); 4];
            layers[norm_at] = norm.clone();
            let layout = Layout { layers, ..Layout::default() };
            assert_eq!(is_found(layout, 150.0, 3), found, "{norm_at}");
        }
    }
}
