//! Cause: normalisation that is missing in a deep network, or that itself multiplies gradients.

use super::{Cause, CauseName};
use crate::chain::Chain;
use crate::doc::Doc;
use crate::finding::Evidence;
use crate::observe::NormalisationKind;
use crate::record::Record;

/// The text of `explain`.
pub(super) const DOC: Doc = Doc {
    name: "normalisation",
    title: "Normalisation missing or harmful",
    what: "A deep network without normalisation, whose gains drifted apart; or batch norm in a \
           deep network without skip connections, which multiplies the gradient at every layer.",
    why: "Normalisation holds the scale of the signal at every layer. In a plain network, though, \
          batch norm has a backward gain of about 1.21 a layer at initialisation: 50 layers \
          multiply to 12,000. With skip connections it does not.",
    rule: "Harmful: at least 10 layers with batch norm and no skip connection, and a product of \
           all backward gains above 100. Missing: at least 10 layers without normalisation, a \
           product of backward gains at the alarm above 1,000 and at least 100 times that of the \
           first pass.",
    example: "50 layers with batch norm, no skip connections: product of backward gains 1.2e4.",
    remedy: "Harmful: add skip connections or use fewer layers. Missing: batch norm or layer \
             norm, before or after the activation, with skip connections where the net is deep.",
    source: "Yang et al. 2019, A Mean Field Theory of Batch Normalization (1.21 a layer); Ioffe \
             and Szegedy 2015.",
};

const DEEP: usize = 10;
const HARMFUL_PRODUCT: f64 = 100.0;
const MISSING_PRODUCT: f64 = 1e3;
const MISSING_GROWTH: f64 = 100.0;

/// Weighs the layers' normalisation against the chain of gains.
pub(super) fn weigh(record: &Record) -> Option<Cause> {
    let layers = |kind, residual_known_off: bool| {
        let fits = |layer: &&crate::observe::LayerInfo| {
            layer.normalisation == Some(kind)
                && !layer.recurrent
                && (!residual_known_off || layer.residual == Some(false))
        };
        record.layout.layers.iter().filter(fits).count()
    };
    let first = record.first_chain()?;
    let cause = |weight, evidence| {
        Some(Cause { name: CauseName::Normalisation, weight, layer: None, evidence })
    };
    let batch_normed = layers(NormalisationKind::Batch, true);
    if batch_normed >= DEEP && first.backward_product() > HARMFUL_PRODUCT {
        return cause(
            0.8,
            vec![
                Evidence::of("layers with batch norm and no skip connection", batch_normed as f64),
                Evidence::of("product of their backward gains", first.backward_product()),
                Evidence::of("mean backward gain of a layer", mean_gain(&first)),
            ],
        );
    }
    let plain = layers(NormalisationKind::None, false);
    let now = record.chain(record.alarm_pass()?);
    let grown = now.backward_product() / first.backward_product();
    (plain >= DEEP && now.backward_product() > MISSING_PRODUCT && grown > MISSING_GROWTH)
        .then(|| {
            cause(
                0.3,
                vec![
                    Evidence::of("layers without normalisation", plain as f64),
                    Evidence::against(
                        "product of backward gains",
                        now.backward_product(),
                        "at the first step",
                        first.backward_product(),
                    ),
                ],
            )
        })
        .flatten()
}

fn mean_gain(chain: &Chain) -> f64 {
    let count = chain.count(|link| link.backward).max(1);
    chain.backward_product().powf(1.0 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed, trace};
    use crate::observe::{Observation, RunFacts};
    use crate::signs::check::layout;

    #[test]
    fn harmful_without_skip_connections_only() {
        for (residual, kind, weight) in [
            (false, NormalisationKind::Batch, Some(0.8)),
            (true, NormalisationKind::Batch, None),
            (false, NormalisationKind::Layer, None),
        ] {
            let mut layout = layout(50);
            for layer in &mut layout.layers {
                layer.normalisation = Some(kind);
                layer.residual = Some(residual);
            }
            let trace = trace(&[1.0; 50], &[1.21; 50]);
            let record = alarmed(layout, RunFacts::default(), 2, |_| Observation {
                trace: Some(&trace),
                ..Observation::default()
            });
            assert_eq!(weigh(&record).map(|cause| cause.weight), weight, "{residual} {kind:?}");
        }
    }

    #[test]
    fn missing_when_a_deep_net_s_product_has_grown() {
        for (now, found) in [(1.5, true), (1.05, false)] {
            let mut layout = layout(30);
            layout.layers.iter_mut().for_each(|l| l.normalisation = Some(NormalisationKind::None));
            let traces = [trace(&[1.0; 30], &[1.0; 30]), trace(&[1.0; 30], &[now; 30])];
            let record = alarmed(layout, RunFacts::default(), 2, |step| Observation {
                trace: Some(&traces[step as usize]),
                ..Observation::default()
            });
            assert_eq!(weigh(&record).is_some(), found, "{now}");
        }
    }
}
