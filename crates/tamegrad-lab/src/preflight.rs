//! A recipe before its first update: the chain of gains, the headroom, and the size of the first
//! step.

use tamegrad::Preflight;
use tamegrad_burn::FirstUpdate;

use crate::model::Network;
use crate::prepare::{Prepared, SetupError, clip, loss, optimizer, prepare};
use crate::recipe::Recipe;
use crate::schedule::learning_rate;
use crate::with_network::{WithNetwork, with_network};

/// Looks at the first batch of a recipe and at the update that it would make, on a model that is
/// thrown away: the same weights, data and update as in the first step of [`crate::train()`].
///
/// # Errors
/// When the data cannot be loaded.
pub fn preflight(recipe: &Recipe) -> Result<Preflight, SetupError> {
    Ok(with_network(recipe, prepare(recipe)?, Look { recipe }))
}

struct Look<'a> {
    recipe: &'a Recipe,
}

impl WithNetwork for Look<'_> {
    type Output = Preflight;

    fn run<N: Network>(self, network: N, prepared: Prepared) -> Preflight {
        look(&network, prepared, self.recipe)
    }
}

fn look<N: Network>(model: &N, mut prepared: Prepared, recipe: &Recipe) -> Preflight {
    let rate = learning_rate(
        recipe.optimizer.learning_rate(),
        &recipe.schedule,
        0,
        prepared.planned_steps,
    ) * recipe.fault.map_or(1.0, |fault| fault.rate_factor(0));
    let update = FirstUpdate::new(optimizer(recipe), rate).with_clip(clip(recipe));
    let batch = prepared.batch(0, recipe.fault.as_ref());
    let kind = recipe.loss();
    tamegrad_burn::preflight(model, model.layers(), update, |model, probes| {
        loss(model, probes, &batch, kind, &recipe.regularise)
    })
}
