//! The plain recurrent network (Elman 1990): one cell, read out at the last time step.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use tamegrad::LayerInfo;
use tamegrad_burn::Probes;

use super::{Network, Shape, activate, activation_kind, linear, output_init};
use crate::init::{parameter, spectral_radius};
use crate::recipe;

/// A plain recurrent network: h_t = f(W_in x_t + W_rec h_(t-1) + b), output = W_out h_T + c, as
/// in Pascanu 2013, equation 2, with f outside. Tensors: `cell.input.weight` `[features, hidden]`,
/// `cell.recurrent.weight` `[hidden, hidden]`, `output.weight`.
#[derive(Module, Debug)]
pub struct Rnn {
    cell: Cell,
    output: Linear,
    #[module(skip)]
    sequence: [usize; 2],
}

#[derive(Module, Debug)]
struct Cell {
    input: Linear,
    recurrent: Linear,
    #[module(skip)]
    activation: recipe::Activation,
}

impl Rnn {
    /// Draws the weights of a recipe's network. A sample that is no sequence is taken as one of
    /// single numbers.
    pub fn new(recipe: &recipe::Rnn, shape: &Shape, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let sequence = match shape.input[..] {
            [steps, features] => [steps, features],
            ref other => [other.iter().product(), 1],
        };
        let (hidden, kind) = (recipe.hidden, recipe.activation);
        let input = linear(sequence[1], hidden, &recipe.init, kind, rng, device);
        let mut recurrent = linear(hidden, hidden, &recipe.init, kind, rng, device);
        recurrent.bias = None;
        if let Some(radius) = recipe.spectral_radius {
            let values: Vec<f64> = recurrent.weight.val().into_data().iter::<f64>().collect();
            let factor = radius / spectral_radius(&values, hidden).max(f64::MIN_POSITIVE);
            let scaled = values.into_iter().map(|v| v * factor).collect();
            recurrent.weight = parameter(scaled, [hidden, hidden], device);
        }
        let last = recipe::Activation::Linear;
        let output = linear(hidden, shape.outputs, &output_init(), last, rng, device);
        Self { cell: Cell { input, recurrent, activation: kind }, output, sequence }
    }
}

impl Network for Rnn {
    fn forward(&self, input: Tensor<2>, probes: &Probes) -> Tensor<2> {
        let [batch, _] = input.dims();
        let [steps, features] = self.sequence;
        let input = probes.input(input.reshape([batch, steps, features]));
        let driven = self.cell.input.forward(input);
        let mut h: Option<Tensor<2>> = None;
        for step in 0..steps {
            let x = driven.clone().narrow(1, step, 1).squeeze_dim::<2>(1);
            let z = match h {
                Some(h) => x + self.cell.recurrent.forward(h),
                None => x,
            };
            h = Some(probes.tap(activate(self.cell.activation, z)));
        }
        let last = h.unwrap_or_else(|| Tensor::zeros([batch, 1], &driven.device()));
        probes.tap(self.output.forward(last))
    }

    fn layers(&self) -> Vec<LayerInfo> {
        let step = |index| LayerInfo {
            activation: Some(activation_kind(self.cell.activation)),
            recurrent: true,
            ..LayerInfo::named(format!("cell@{index}"))
        };
        (0..self.sequence[0]).map(step).chain([LayerInfo::named("output")]).collect()
    }
}
