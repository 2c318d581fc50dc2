//! Making the network that a recipe describes, of whichever kind, and doing something with it.

use burn::tensor::FloatDType;

use crate::model::{Conv, Mlp, Network, Rnn, Transformer, cast, weights_rng};
use crate::prepare::Prepared;
use crate::recipe::{Model, Recipe};

/// What is done with a network of whichever kind a recipe describes.
pub(crate) trait WithNetwork {
    /// What comes of it.
    type Output;

    /// Does it with the network and what else was prepared.
    fn run<N: Network>(self, network: N, prepared: Prepared) -> Self::Output;
}

/// Draws the weights of a recipe's network, in the type that it computes in, and does something
/// with it.
pub(crate) fn with_network<W: WithNetwork>(
    recipe: &Recipe,
    prepared: Prepared,
    what: W,
) -> W::Output {
    let mut rng = weights_rng(recipe.seed);
    let (shape, device) = (prepared.shape.clone(), prepared.device.clone());
    match &recipe.model {
        Model::Mlp(mlp) => typed(Mlp::new(mlp, &shape, &mut rng, &device), prepared, what),
        Model::Conv(conv) => typed(Conv::new(conv, &shape, &mut rng, &device), prepared, what),
        Model::Rnn(rnn) => typed(Rnn::new(rnn, &shape, &mut rng, &device), prepared, what),
        Model::Transformer(transformer) => {
            typed(Transformer::new(transformer, &shape, &mut rng, &device), prepared, what)
        }
    }
}

fn typed<N: Network, W: WithNetwork>(network: N, prepared: Prepared, what: W) -> W::Output {
    match prepared.dtype {
        FloatDType::F32 => what.run(network, prepared),
        dtype => what.run(cast(network, dtype), prepared),
    }
}
