//! The models that a recipe can describe, and what they have in common.

mod block;
mod conv;
mod mlp;
mod rnn;
mod transformer;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor, activation};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tamegrad::{ActivationKind, LayerInfo};
use tamegrad_burn::Probes;

use crate::recipe;

pub use conv::Conv;
pub use mlp::Mlp;
pub use rnn::Rnn;
pub use transformer::Transformer;

/// A model of a recipe: batches of inputs `[batch, ...sample shape]` in, `[batch, outputs]` out.
pub trait Network: Module + 'static {
    /// The outputs of a batch given flat, `[batch, product of the sample shape]`. Passes each
    /// layer's output through the probes, in the order of [`Network::layers`].
    fn forward(&self, input: Tensor<2>, probes: &Probes) -> Tensor<2>;

    /// The layers in order of execution.
    fn layers(&self) -> Vec<LayerInfo>;
}

/// What a model must be made for.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Shape of one input sample.
    pub input: Vec<usize>,
    /// Number of outputs.
    pub outputs: usize,
}

/// Casts all float tensors of a model, running statistics included.
pub(crate) fn cast<N: Network>(model: N, dtype: FloatDType) -> N {
    struct Caster(FloatDType);
    impl ModuleMapper for Caster {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let dtype = self.0;
            param.map(|tensor| {
                let trains = tensor.is_require_grad();
                let tensor = Tensor::from_inner(tensor.inner().cast(dtype));
                if trains { tensor.require_grad() } else { tensor }
            })
        }
    }
    model.map(&mut Caster(dtype))
}

/// The seed of the initial weights: its own stream, apart from that of the data.
pub(crate) fn weights_rng(seed: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(1);
    rng
}

/// Applies an activation.
pub(crate) fn activate<const D: usize>(kind: recipe::Activation, x: Tensor<D>) -> Tensor<D> {
    match kind {
        recipe::Activation::Relu => activation::relu(x),
        recipe::Activation::Tanh => activation::tanh(x),
        recipe::Activation::Sigmoid => activation::sigmoid(x),
        recipe::Activation::Gelu => activation::gelu(x),
        recipe::Activation::Selu => selu(x),
        recipe::Activation::Linear => x,
        recipe::Activation::Exp => x.exp(),
    }
}

/// SELU (Klambauer et al. 2017, equation 2). burn's own computes exp(x) for positive x as well and
/// masks it: above x = 88 that is Inf, and its gradient Inf times 0, which is NaN.
fn selu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    const LAMBDA: f64 = 1.050_700_987_355_480_5;
    const ALPHA: f64 = 1.673_263_242_354_377_3;
    let negative = (x.clone().clamp_max(0.0).exp() - 1.0) * ALPHA;
    (activation::relu(x) + negative) * LAMBDA
}

/// The name and growth of an activation, for the core.
pub(crate) fn activation_kind(kind: recipe::Activation) -> (String, ActivationKind) {
    let (name, growth) = match kind {
        recipe::Activation::Relu => ("relu", ActivationKind::Linear),
        recipe::Activation::Tanh => ("tanh", ActivationKind::Bounded),
        recipe::Activation::Sigmoid => ("sigmoid", ActivationKind::Bounded),
        recipe::Activation::Gelu => ("gelu", ActivationKind::Linear),
        recipe::Activation::Selu => ("selu", ActivationKind::Linear),
        recipe::Activation::Linear => ("linear", ActivationKind::Linear),
        recipe::Activation::Exp => ("exp", ActivationKind::Superlinear),
    };
    (name.to_owned(), growth)
}

/// A linear layer with drawn weights `[inputs, outputs]` and a bias of zeros.
pub(crate) fn linear(
    inputs: usize,
    outputs: usize,
    init: &recipe::Init,
    activation: recipe::Activation,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> burn::nn::Linear {
    burn::nn::Linear {
        weight: crate::init::weight(
            [inputs, outputs],
            inputs,
            outputs,
            init,
            activation,
            rng,
            device,
        ),
        bias: Some(crate::init::bias(outputs, device)),
    }
}

/// The initialiser of an output layer: Lecun's, whatever the hidden layers have, so that the
/// first outputs are about as large as what comes in.
pub(crate) fn output_init() -> recipe::Init {
    let distribution = recipe::Distribution::Normal;
    recipe::Init::Lecun { gain: 1.0, distribution }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selu_and_its_gradient_are_finite_for_large_inputs() {
        let device = tamegrad_burn::default_device();
        let x = Tensor::<1>::from_data([-1.0f32, 0.5, 200.0], &device).require_grad();
        let y = selu(x.clone());
        let gradients = y.clone().sum().backward();
        let values = |t: Tensor<1>| t.into_data().iter::<f64>().collect::<Vec<_>>();
        let close = |got: Vec<f64>, want: [f64; 3]| {
            got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-4 * w.abs())
        };
        let gradient = values(x.grad(&gradients).expect("a gradient"));
        let values = values(y.inner());
        // By the equation: -1.1113307 = lambda alpha (1/e - 1), slope 0.6467686 = lambda alpha / e.
        assert!(close(values.clone(), [-1.111_330_7, 0.525_350_5, 210.140_2]), "{values:?}");
        assert!(close(gradient.clone(), [0.646_768_6, 1.050_701, 1.050_701]), "{gradient:?}");
    }
}
