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
    let (rate, more) = (parts.rate, "fault.bad-batch = { factor = 2, step = 250 }".into());
    let schedule = "decay = \"cosine\"".into();
    let mut specials = vec![
        ("tiny-batch", Parts { batch: 2, rate: 0.25 * rate, steps: 800, ..parts.clone() }),
        ("hard-batch", Parts { more: [&parts.more[..], &[more]].concat(), ..parts.clone() }),
        ("decay", {
            let (optimizer, rate) = ("adamw: weight_decay = 0.1", 2e-3);
            Parts { optimizer, rate, schedule, steps: 600, ..parts.clone() }
        }),
    ];
    if parts.data.contains("polynomial") {
        let training = ", loss = \"sum-squared-error\"".into();
        let rate = if parts.optimizer == zoo::ADAM { rate } else { rate / 32.0 };
        specials.push(("summed-loss", Parts { training, rate, ..parts.clone() }));
    }
    specials
}
