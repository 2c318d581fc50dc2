//! Cause: an activation that grows faster than its input (exp, x^2).

use super::{Cause, CauseName, Ground};
use crate::doc::Doc;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::observe::{Layout, TensorId};
use crate::origin::Origin;
use crate::rules::RULES;
use crate::run::Run;

/// The text of `explain`.
pub(crate) const DOC: Doc = Doc {
    name: "activation",
    title: "An activation that grows faster than its input",
    what: "The layer at the origin applies exp, a square or another function whose slope grows \
           with its input.",
    why: "The gain of such a layer is not constant: it grows with the incoming signal. Once inputs \
          drift upward the gain runs away, forward and backward at the same time, and no \
          initialisation prevents it. exp overflows f32 at an input of 88.7.",
    rule: |rules| {
        let rule = rules.superlinear;
        format!(
            "Supported when the origin is a layer whose activation is known to grow faster than \
             linearly. Where the activations are not known, judged by how much the loss changes \
             when one weight matrix grows by 1%, at the alarm or in the first pass: supported \
             when 1% of a matrix, and of each one before it that is neither recurrent nor rescaled \
             by normalisation (which leaves it less than {} of what the last matrix does), changes the \
             loss by more than {} times what 1% of the last matrix \
             does, and that is at least {}%. Between linear or \
             piecewise linear activations, all matrices of a chain change it alike; the activation \
             is after a matrix that changes it more than {} times as much as the next.",
            rule.rescaled, rule.ratio, rule.last, rule.degree,
        )
    },
    example: "recipes/exploding-digits.toml, layers.17 (exp): forward gain 6.57 while calm, 1,444 at \
              step 111.",
    remedy: "Replace the activation with a bounded or linear one, normalise before it, or clip the \
             gradient.",
    source: "f32 overflow of exp: IEEE 754. Published failures with exp layers are reproduced in \
             AUTOTRAINER (Zhang 2021). Euler's theorem on homogeneous functions; Du, Hu, Lee 2018, \
             Algorithmic Regularization in Learning Deep Homogeneous Models.",
};

/// Weighs the origin's activation, or else what the elasticities of the loss tell of it.
pub(super) fn weigh(run: &Run, origin: Option<&Origin>) -> Option<Cause> {
    known(run, origin).or_else(|| measured(run))
}

/// By the elasticities of the alarm's pass, or of the first where that one has none that is a number.
fn measured(run: &Run) -> Option<Cause> {
    let record = &run.record;
    let passes = [&record.alarm_elasticities, &record.first_elasticities];
    let evidence = passes.into_iter().flatten().map(|of| superlinear(of, &record.layout));
    let evidence = evidence.into_iter().find(|found| !found.is_empty())?;
    let tensor = evidence.first().and_then(|measure| measure.place.tensor());
    let layer = tensor.and_then(|id| record.layout.layer_of(id));
    Some(Cause::new(CauseName::Activation, Ground::Superlinear, evidence).of_layer(layer))
}

/// The matrices whose outputs pass through such an activation: those that have more of an elasticity
/// than the next, most first.
fn superlinear(elasticities: &[Option<f64>], layout: &Layout) -> Vec<Measure> {
    let rule = RULES.superlinear;
    let known = elasticities.iter().enumerate().filter_map(|(id, of)| Some((id, (*of)?)));
    // A matrix that is multiplied at every time step has more by itself.
    let is_recurrent = |id| layout.layer_of(TensorId(id)).is_some_and(|of| layout.is_recurrent(of));
    let mut known: Vec<(usize, f64)> = known.filter(|(id, _)| !is_recurrent(*id)).collect();
    let Some((_, last)) = known.last().copied().filter(|(_, last)| *last >= rule.last) else {
        return Vec::new();
    };
    // Of one that normalisation rescales, the loss does not know the scale.
    known.retain(|(_, elasticity)| *elasticity > rule.rescaled * last);
    let limit = rule.ratio * last;
    let above = known.iter().take_while(|(_, elasticity)| *elasticity > limit).count();
    let degrees = known.windows(2).take(above).map(|pair| (pair[0], pair[0].1 / pair[1].1));
    let mut grown: Vec<_> = degrees.filter(|(_, degree)| *degree > rule.degree).collect();
    grown.sort_by(|a, b| b.1.total_cmp(&a.1));
    let measure = |((id, elasticity), _): ((usize, f64), f64)| {
        let measure = Measure::new(Quantity::LossElasticity, elasticity);
        measure.at(Place::Tensor(TensorId(id))).against(Reference::Limit, limit)
    };
    grown.into_iter().map(measure).collect()
}

fn known(run: &Run, origin: Option<&Origin>) -> Option<Cause> {
    let origin = origin?;
    let layer = origin.layer()?;
    run.record.layout.layers.get(layer.0).filter(|layer| layer.is_superlinear())?;
    let mut evidence = origin.evidence.clone();
    let link = run.telling_chain().and_then(|chain| chain.links.get(layer.0).copied());
    let gains = link.into_iter().flat_map(|link| [link.forward, link.backward]).flatten();
    if let Some(largest) = gains.reduce(f64::max) {
        evidence.push(Measure::new(Quantity::LargestGain, largest).at(Place::Layer(layer)));
    }
    Some(Cause::new(CauseName::Activation, Ground::Superlinear, evidence).of_layer(Some(layer)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causes::check::{alarmed_by, trace};
    use crate::observe::{ActivationKind, LayerId};
    use crate::origin;
    use crate::signs::check::layout;

    #[test]
    fn an_activation_that_nobody_names_shows_in_the_elasticities() {
        for (name, elasticities, found) in [
            ("exp everywhere", [213.0, 91.2, 26.1, 2.0], Some(2)),
            ("exp after the first layer", [60.0, 2.0, 2.0, 2.0], Some(0)),
            ("piecewise linear", [1.99, 2.0, 2.0, 2.0], None),
            ("exp after what is normalised", [1e-6, 60.0, 2.0, 2.0], Some(1)),
            ("one matrix for many time steps", [2.0, 60.0, 2.0, 2.0], None),
            // Targets that are too large, or a loss that the outputs hardly change.
            ("not of the outputs", [0.6, 0.2, 0.1, 0.01], None),
        ] {
            let mut run = alarmed_by(layout(4), &trace(&[1.0; 4], &[1.0; 4]));
            run.record.alarm_elasticities = Some(elasticities.map(Some).to_vec());
            let layer = weigh(&run, None).map(|cause| cause.layer);
            assert_eq!(layer, found.map(|layer| Some(LayerId(layer))), "{name}");
            // The alarm's pass may be broken: then the first tells.
            run.record.first_elasticities = run.record.alarm_elasticities.replace(vec![None; 4]);
            assert_eq!(weigh(&run, None).map(|cause| cause.layer), layer, "{name}");
        }
    }

    #[test]
    fn an_exp_layer_at_the_origin_and_only_there() {
        for (exp_at, kind, found) in [
            (1, ActivationKind::Superlinear, true),
            (1, ActivationKind::Linear, false),
            (2, ActivationKind::Superlinear, false),
        ] {
            let mut layout = layout(3);
            layout.layers[exp_at].activation = Some(("exp".into(), kind));
            let run = alarmed_by(layout, &trace(&[1.0, 40.0, 1.0], &[1.0; 3]));
            let origin = origin::find(&run);
            assert_eq!(origin.as_ref().and_then(Origin::layer), Some(LayerId(1)));
            assert_eq!(weigh(&run, origin.as_ref()).is_some(), found, "{exp_at} {kind:?}");
        }
    }
}
