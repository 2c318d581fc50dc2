//! Healthy runs, and some that rules often take for broken ones.

use super::zoo::{self, Parts};
use super::{Case, Group, Truth};

/// Every network of the zoo with so many variations of rate, batch, schedule and clipping, and
/// the special cases beside them.
pub(super) fn cases(seeds: u64) -> Vec<Case> {
    let case = |kind: &str, parts: &Parts, seed: u64| Case {
        name: format!("healthy/{kind}/{seed:02}"),
        group: Group::Healthy,
        recipe: parts.recipe(&format!("healthy-{kind}"), seed),
        truth: Truth::default(),
    };
    let zoo = zoo::all();
    let plain = zoo.iter().flat_map(|kind| {
        (0..seeds).map(|seed| case(kind.name, &zoo::varied(&kind.parts, seed), seed))
    });
    let special = zoo.iter().flat_map(|kind| {
        let special = specials(&kind.parts);
        (0..seeds.div_ceil(6)).flat_map(move |seed| {
            let named =
                |(name, parts): &(&str, Parts)| case(&format!("{}-{name}", kind.name), parts, seed);
            special.iter().map(named).collect::<Vec<_>>()
        })
    });
    plain.chain(special).collect()
}

/// Tiny batches; weight decay with a falling rate, which raises gradients (Defazio 2025); a batch
/// that is harder than the others; a loss summed over the batch, whose gradients are large.
fn specials(parts: &Parts) -> Vec<(&'static str, Parts)> {
    let with = |change: &dyn Fn(&mut Parts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        parts
    };
    let mut specials = vec![
        (
            "tiny-batch",
            with(&|p| {
                p.batch = 2;
                p.rate *= 0.25;
                p.steps = 800;
            }),
        ),
        (
            "hard-batch",
            with(&|p| {
                p.more.push("fault.bad-batch = { factor = 2, step = 250 }".into());
            }),
        ),
        (
            "decay",
            with(&|p| {
                p.optimizer = "adamw: weight_decay = 0.1";
                p.rate = 2e-3;
                p.schedule = "decay = \"cosine\"".into();
                p.steps = 600;
            }),
        ),
    ];
    if parts.data.contains("polynomial") {
        specials.push((
            "summed-loss",
            with(&|p| {
                p.training = ", loss = \"sum-squared-error\"".into();
                p.rate *= if p.optimizer == zoo::ADAM { 1.0 } else { 1.0 / 32.0 };
            }),
        ));
    }
    specials
}
