//! Cause: normalisation that is missing in a deep network, or that itself multiplies gradients.

use super::{Cause, CauseName, Ground};
use crate::chain::Chain;
use crate::doc::Doc;
use crate::evidence::{Measure, Quantity, Reference};
use crate::observe::NormalisationKind;
use crate::origin::Origin;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "normalisation",
    title: "Normalisation missing or harmful",
    what: "A deep network has no normalisation and its gains drifted apart; or it has batch norm \
           but no skip connections, and batch norm multiplies the gradient at every layer.",
    why: "Normalisation holds the scale of the signal at every layer. In a plain network, though, \
          batch norm has a backward gain of about 1.21 per layer at initialisation, so 50 layers \
          multiply to 12,000. With skip connections this does not happen.",
    rule: |rules| {
        let rule = rules.normalisation;
        format!(
            "Harmful: at least {} layers have batch norm and no skip connection, and the product \
             of all backward gains is above {}. Missing: at least {} layers have no normalisation, \
             and the product of backward gains at the alarm is above {} and above {} times that of \
             the first pass.",
            rule.layers,
            rule.harmful_product,
            rule.layers,
            rule.missing_product,
            rule.missing_growth,
        )
    },
    example: "50 layers with batch norm, no skip connections: product of backward gains 1.2e4.",
    remedy: "Harmful: add skip connections or use fewer layers. Missing: add batch norm or layer \
             norm before or after the activation, with skip connections if the network is deep.",
    source: "Yang et al. 2019, A Mean Field Theory of Batch Normalization (1.21 per layer); Ioffe \
             and Szegedy 2015.",
};

/// Weighs the layers' normalisation against the chain of gains.
pub(super) fn weigh(run: &Run, _: Option<&Origin>) -> Option<Cause> {
    let (record, rule) = (&run.record, RULES.normalisation);
    let layers = |kind, residual_known_off: bool| {
        let fits = |layer: &&crate::observe::LayerInfo| {
            layer.normalisation == Some(kind)
                && !layer.recurrent
                && (!residual_known_off || layer.residual == Some(false))
        };
        record.layout.layers.iter().filter(fits).count()
    };
    let first = record.first_chain()?;
    let cause = |ground, evidence| Some(Cause::new(CauseName::Normalisation, ground, evidence));
    let batch_normed = layers(NormalisationKind::Batch, true);
    if batch_normed >= rule.layers && first.backward_product() > rule.harmful_product {
        return cause(
            Ground::BatchNormGains,
            vec![
                Measure::new(Quantity::BatchNormLayers, batch_normed as f64),
                Measure::new(Quantity::BackwardProduct, first.backward_product()),
                Measure::new(Quantity::MeanBackwardGain, mean_gain(&first)),
            ],
        );
    }
    let plain = layers(NormalisationKind::None, false);
    let now = record.chain(run.alarm_pass()?);
    let grown = now.backward_product() / first.backward_product();
    let is_missing = plain >= rule.layers
        && now.backward_product() > rule.missing_product
        && grown > rule.missing_growth;
    if !is_missing {
        return None;
    }
    let product = Measure::new(Quantity::BackwardProduct, now.backward_product());
    cause(
        Ground::DriftingGains,
        vec![
            Measure::new(Quantity::PlainLayers, plain as f64),
            product.against(Reference::First, first.backward_product()),
        ],
    )
}

fn mean_gain(chain: &Chain) -> f64 {
    let count = chain.count(|link| link.backward).max(1);
    chain.backward_product().powf(1.0 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed, alarmed_by, trace};
    use crate::observe::{Observation, RunFacts};
    use crate::signs::check::layout;

    #[test]
    fn harmful_without_skip_connections_only() {
        for (residual, kind, weight) in [
            (false, NormalisationKind::Batch, Some(Ground::BatchNormGains)),
            (true, NormalisationKind::Batch, None),
            (false, NormalisationKind::Layer, None),
        ] {
            let mut layout = layout(50);
            for layer in &mut layout.layers {
                layer.normalisation = Some(kind);
                layer.residual = Some(residual);
            }
            let run = alarmed_by(layout, &trace(&[1.0; 50], &[1.21; 50]));
            assert_eq!(weigh(&run, None).map(|cause| cause.ground), weight, "{residual} {kind:?}");
        }
    }

    #[test]
    fn missing_when_a_deep_net_s_product_has_grown() {
        for (now, found) in [(1.5, true), (1.05, false)] {
            let mut layout = layout(30);
            layout.layers.iter_mut().for_each(|l| l.normalisation = Some(NormalisationKind::None));
            let traces = [trace(&[1.0; 30], &[1.0; 30]), trace(&[1.0; 30], &[now; 30])];
            let run = alarmed(layout, RunFacts::default(), 2, |step| Observation {
                trace: Some(&traces[step as usize]),
                ..Observation::default()
            });
            assert_eq!(weigh(&run, None).is_some(), found, "{now}");
        }
    }
}
