//! The networks of the loops.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::{gelu, relu, tanh};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use tamegrad::remedies::NormPlace;

/// Names of the networks.
pub(super) const NAMES: [&str; 2] = ["mlp", "conv"];

/// What a network is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    pub(super) activation: Option<String>,
    pub(super) norm: Option<NormPlace>,
    pub(super) initializer: Option<Initializer>,
    pub(super) depth: Option<usize>,
}

impl Shape {
    fn activate<const D: usize>(&self, h: Tensor<D>) -> Tensor<D> {
        match self.activation.as_deref() {
            Some("exp") => h.exp(),
            Some("tanh") => tanh(h),
            Some("gelu") => gelu(h),
            _ => relu(h),
        }
    }

    fn linear(&self, inputs: usize, outputs: usize, device: &Device) -> Linear {
        let config = LinearConfig::new(inputs, outputs);
        match &self.initializer {
            Some(initializer) => config.with_initializer(initializer.clone()),
            None => config,
        }
        .init(device)
    }

    fn norm(&self, units: usize, device: &Device) -> Option<BatchNorm> {
        self.norm.map(|_| BatchNormConfig::new(units).init(device))
    }

    /// A hidden layer's output, from its linear part.
    fn hidden<const D: usize>(&self, h: Tensor<D>, norm: Option<&BatchNorm>) -> Tensor<D> {
        match (norm, self.norm) {
            (Some(norm), Some(NormPlace::Before)) => self.activate(norm.forward(h)),
            (Some(norm), _) => norm.forward(self.activate(h)),
            (None, _) => self.activate(h),
        }
    }
}

/// One of the networks.
pub(super) trait Net: Module {
    /// Elements of a sample.
    const INPUTS: usize;
    /// The learning rate that it trains at.
    const RATE: f64;
    fn new(shape: &Shape, device: &Device) -> Self;
    fn optimizer() -> ModuleOptimizer;
    fn forward(&self, shape: &Shape, x: Tensor<2>) -> Tensor<2>;
}

/// A perceptron with Adam.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    layers: Vec<Linear>,
    norms: Vec<Option<BatchNorm>>,
    last: Linear,
}

impl Net for Mlp {
    const INPUTS: usize = 8;
    const RATE: f64 = 2e-3;

    fn new(shape: &Shape, device: &Device) -> Self {
        let depth = shape.depth.unwrap_or(3);
        let inputs = |i: usize| if i == 0 { Self::INPUTS } else { 64 };
        Self {
            layers: (0..depth).map(|i| shape.linear(inputs(i), 64, device)).collect(),
            norms: (0..depth).map(|_| shape.norm(64, device)).collect(),
            last: shape.linear(64, 1, device),
        }
    }

    fn optimizer() -> ModuleOptimizer {
        AdamConfig::new().init()
    }

    fn forward(&self, shape: &Shape, x: Tensor<2>) -> Tensor<2> {
        let layers = self.layers.iter().zip(&self.norms);
        let h = layers.fold(x, |h, (layer, norm)| shape.hidden(layer.forward(h), norm.as_ref()));
        self.last.forward(h)
    }
}

/// A convolutional network with momentum.
#[derive(Module, Debug)]
pub(super) struct Conv {
    first: Conv2d,
    first_norm: Option<BatchNorm>,
    second: Conv2d,
    second_norm: Option<BatchNorm>,
    hidden: Linear,
    last: Linear,
}

impl Net for Conv {
    const INPUTS: usize = 64;
    const RATE: f64 = 0.02;

    fn new(shape: &Shape, device: &Device) -> Self {
        Self {
            first: Conv2dConfig::new([1, 8], [3, 3]).init(device),
            first_norm: shape.norm(8, device),
            second: Conv2dConfig::new([8, 16], [2, 2]).init(device),
            second_norm: shape.norm(16, device),
            hidden: shape.linear(16 * 2 * 2, 32, device),
            last: shape.linear(32, 1, device),
        }
    }

    fn optimizer() -> ModuleOptimizer {
        SgdConfig::new().with_momentum(Some(MomentumConfig::new().with_momentum(0.9))).init()
    }

    fn forward(&self, shape: &Shape, x: Tensor<2>) -> Tensor<2> {
        let batch = x.dims()[0];
        let h = self.first.forward(x.reshape([batch, 1, 8, 8]));
        let h = shape.hidden(h, self.first_norm.as_ref());
        let h = self.second.forward(max_pool2d(h, MaxPoolOptions::new([2, 2])));
        let h = shape.hidden(h, self.second_norm.as_ref());
        self.last.forward(shape.activate(self.hidden.forward(h.flatten(1, 3))))
    }
}
