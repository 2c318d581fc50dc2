//! A recipe before its first update: the chain of gains, the headroom, and the size of the first
//! step.

use tamegrad::Preflight;
use tamegrad_burn::FirstUpdate;

use crate::model::{Conv, Mlp, Network, Rnn, weights_rng};
use crate::prepare::{Prepared, SetupError, clip, loss, optimizer, prepare};
use crate::recipe::{Model, Recipe};
use crate::schedule::learning_rate;

/// Looks at the first batch of a recipe and at the update that it would make, on a model that is
/// thrown away: the same weights, data and update as in the first step of [`crate::train()`].
///
/// # Errors
/// When the data cannot be loaded.
pub fn preflight(recipe: &Recipe) -> Result<Preflight, SetupError> {
    let prepared = prepare(recipe)?;
    let mut rng = weights_rng(recipe.seed);
    let (shape, device) = (prepared.shape.clone(), prepared.device.clone());
    Ok(match &recipe.model {
        Model::Mlp(mlp) => look(&Mlp::new(mlp, &shape, &mut rng, &device), prepared, recipe),
        Model::Conv(conv) => look(&Conv::new(conv, &shape, &mut rng, &device), prepared, recipe),
        Model::Rnn(rnn) => look(&Rnn::new(rnn, &shape, &mut rng, &device), prepared, recipe),
    })
}

fn look<N: Network>(model: &N, mut prepared: Prepared, recipe: &Recipe) -> Preflight {
    let rate = learning_rate(&recipe.optimizer, &recipe.schedule, 0, prepared.planned_steps);
    let update = FirstUpdate::new(optimizer(recipe), rate)
        .with_clip(clip(recipe))
        .with_weight_decay(recipe.optimizer.weight_decay);
    let batch = prepared.batch(0);
    let kind = recipe.loss();
    tamegrad_burn::preflight(model, model.layers(), update, |model, probes| {
        loss(model, probes, &batch, kind, &recipe.regularise)
    })
}
