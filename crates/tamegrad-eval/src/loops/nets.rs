//! The networks of the loops.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::gru::{Gru, GruConfig};
use burn::nn::loss::{CrossEntropyLossConfig, HuberLossConfig, MseLoss, Reduction};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig,
    Linear, LinearConfig,
};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, RmsPropConfig, SgdConfig};
use burn::tensor::activation::{gelu, relu, tanh};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use tamegrad::remedies::NormPlace;

/// Names of the networks: those that the rules were made on, and those that were written when the rules
/// stood.
pub(super) const NAMES: [&str; 5] = ["mlp", "conv", "residual", "gru", "classifier"];

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
    fn loss(outputs: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
        MseLoss::new().forward(outputs, y, Reduction::Mean)
    }
    /// Part of the targets' variance that the outputs explain.
    fn explained(outputs: Tensor<2>, y: Tensor<2>) -> f64 {
        let left = (outputs - y.clone()).square().mean().into_scalar::<f32>();
        let variance = (y.clone() - y.mean().unsqueeze()).square().mean().into_scalar::<f32>();
        1.0 - f64::from(left / variance)
    }
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

/// A residual network with layer norm, a robust loss and AdamW.
#[derive(Module, Debug)]
pub(super) struct Residual {
    embed: Linear,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

/// What it is made of.
#[derive(Module, Debug)]
pub(super) struct Block {
    norm: LayerNorm,
    up: Linear,
    batch_norm: Option<BatchNorm>,
    down: Linear,
}

impl Net for Residual {
    const INPUTS: usize = 12;
    const RATE: f64 = 1e-3;

    fn new(shape: &Shape, device: &Device) -> Self {
        let block = |_| Block {
            norm: LayerNormConfig::new(32).init(device),
            up: shape.linear(32, 128, device),
            batch_norm: shape.norm(128, device),
            down: shape.linear(128, 32, device),
        };
        Self {
            embed: shape.linear(Self::INPUTS, 32, device),
            blocks: (0..shape.depth.unwrap_or(4)).map(block).collect(),
            norm: LayerNormConfig::new(32).init(device),
            head: shape.linear(32, 1, device),
        }
    }

    fn optimizer() -> ModuleOptimizer {
        AdamWConfig::new().init()
    }

    fn forward(&self, shape: &Shape, x: Tensor<2>) -> Tensor<2> {
        let h = self.blocks.iter().fold(self.embed.forward(x), |h, block| {
            let inner = block.up.forward(block.norm.forward(h.clone()));
            h + block.down.forward(shape.hidden(inner, block.batch_norm.as_ref()))
        });
        self.head.forward(self.norm.forward(h))
    }

    fn loss(outputs: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
        HuberLossConfig::new(1.0).init().forward(outputs, y, Reduction::Mean)
    }
}

/// A recurrent network with RMSprop.
#[derive(Module, Debug)]
pub(super) struct Recurrent {
    gru: Gru,
    hidden: Linear,
    norm: Option<BatchNorm>,
    last: Linear,
}

impl Net for Recurrent {
    const INPUTS: usize = 16;
    const RATE: f64 = 1e-3;

    fn new(shape: &Shape, device: &Device) -> Self {
        Self {
            gru: GruConfig::new(2, 32, true).init(device),
            hidden: shape.linear(32, 32, device),
            norm: shape.norm(32, device),
            last: shape.linear(32, 1, device),
        }
    }

    fn optimizer() -> ModuleOptimizer {
        RmsPropConfig::new().init()
    }

    fn forward(&self, shape: &Shape, x: Tensor<2>) -> Tensor<2> {
        let batch = x.dims()[0];
        let states = self.gru.forward(x.reshape([batch, 8, 2]), None);
        let h = self.hidden.forward(states.narrow(1, 7, 1).reshape([batch, 32]));
        self.last.forward(shape.hidden(h, self.norm.as_ref()))
    }
}

/// A deeper convolutional classifier with batch norm, dropout and Adam.
#[derive(Module, Debug)]
pub(super) struct Classifier {
    convs: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    dropout: Dropout,
    hidden: Linear,
    hidden_norm: Option<BatchNorm>,
    last: Linear,
}

impl Net for Classifier {
    const INPUTS: usize = 64;
    const RATE: f64 = 2e-3;

    fn new(shape: &Shape, device: &Device) -> Self {
        let channels = [1, 8, 8, 8];
        let conv =
            |i: usize| Conv2dConfig::new([channels[i], channels[i + 1]], [3, 3]).init(device);
        Self {
            convs: (0..3).map(conv).collect(),
            norms: (0..3).map(|_| BatchNormConfig::new(8).init(device)).collect(),
            dropout: DropoutConfig::new(0.1).init(),
            hidden: shape.linear(8 * 2 * 2, 32, device),
            hidden_norm: shape.norm(32, device),
            last: shape.linear(32, 2, device),
        }
    }

    fn optimizer() -> ModuleOptimizer {
        AdamConfig::new().init()
    }

    fn forward(&self, shape: &Shape, x: Tensor<2>) -> Tensor<2> {
        let batch = x.dims()[0];
        let layers = self.convs.iter().zip(&self.norms);
        let h = layers.fold(x.reshape([batch, 1, 8, 8]), |h, (conv, norm)| {
            shape.activate(norm.forward(conv.forward(h)))
        });
        let h = self.hidden.forward(self.dropout.forward(h.flatten(1, 3)));
        self.last.forward(shape.hidden(h, self.hidden_norm.as_ref()))
    }

    fn loss(outputs: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
        let labels = y.greater_elem(0.0).int().flatten(0, 1);
        CrossEntropyLossConfig::new().init(&outputs.device()).forward(outputs, labels)
    }

    /// By how much more labels are right than by chance.
    fn explained(outputs: Tensor<2>, y: Tensor<2>) -> f64 {
        let labels = y.greater_elem(0.0).int();
        let right = outputs.argmax(1).equal(labels).float().mean().into_scalar::<f32>();
        2.0 * f64::from(right) - 1.0
    }
}
