//! The multilayer perceptron: hidden layers of one width, and a linear output.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use tamegrad::LayerInfo;
use tamegrad_burn::Probes;

use super::block::{Dense, Ending, Norm, infos};
use super::{Network, Shape, linear, output_init};
use crate::recipe;

/// A multilayer perceptron. Tensors: `layers.17.linear.weight` `[inputs, width]`,
/// `layers.17.norm...`, `output.weight` `[width, outputs]`; with no hidden layer a linear model.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Dense>,
    output: Linear,
}

impl Mlp {
    /// Draws the weights of a recipe's perceptron.
    pub fn new(recipe: &recipe::Mlp, shape: &Shape, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let mut inputs = shape.input.iter().product();
        let mut hidden = |index: usize| {
            let own = recipe.layer.iter().find(|layer| layer.index == index);
            let ending = Ending {
                activation: own.and_then(|o| o.activation).unwrap_or(recipe.activation),
                normalisation: own.and_then(|o| o.normalisation).unwrap_or(recipe.normalisation),
                residual: recipe.residual,
            };
            let init = own.and_then(|o| o.init).unwrap_or(recipe.init);
            let width = own.and_then(|o| o.width).unwrap_or(recipe.width);
            let linear = linear(inputs, width, &init, ending.activation, rng, device);
            inputs = width;
            Dense { linear, norm: Norm::new(ending.normalisation, width, device), ending }
        };
        let layers = (0..recipe.depth).map(&mut hidden).collect();
        let last = recipe::Activation::Linear;
        let init = recipe.output_init.unwrap_or_else(output_init);
        let output = linear(inputs, shape.outputs, &init, last, rng, device);
        Self { layers, output }
    }
}

impl Network for Mlp {
    fn forward(&self, input: Tensor<2>, probes: &Probes) -> Tensor<2> {
        let mut h = probes.input(input);
        for (index, layer) in self.layers.iter().enumerate() {
            h = probes.tap(format_args!("layers.{index}"), layer.forward(h));
        }
        probes.tap("output", self.output.forward(h))
    }

    fn layers(&self) -> Vec<LayerInfo> {
        let hidden = infos("layers", self.layers.iter().map(|layer| &layer.ending));
        hidden.chain([LayerInfo::named("output")]).collect()
    }
}
