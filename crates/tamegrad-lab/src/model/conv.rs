//! The convolutional network: convolutions with pooling, dense layers, and a linear output.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, PaddingConfig2d};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use tamegrad::LayerInfo;
use tamegrad_burn::Probes;

use super::block::{Dense, Ending, Norm, infos};
use super::{Network, Shape, linear, output_init};
use crate::recipe::{self, memory};

/// A convolutional network. Each convolution keeps height and width; where both are at least 4, a
/// maximum over 2 x 2 halves them afterwards. Tensors: `convs.0.conv.weight`
/// `[channels out, channels in, kernel, kernel]`, `dense.0.linear.weight`, `output.weight`.
#[derive(Module, Debug)]
pub struct Conv {
    convs: Vec<Convolution>,
    dense: Vec<Dense>,
    output: Linear,
    #[module(skip)]
    image: [usize; 3],
}

#[derive(Module, Debug)]
struct Convolution {
    conv: Conv2d,
    norm: Option<Norm>,
    #[module(skip)]
    ending: Ending,
    #[module(skip)]
    pools: bool,
}

impl Conv {
    /// Draws the weights of a recipe's network. A sample that is no image is taken as one channel
    /// of one row.
    pub fn new(
        recipe: &recipe::Conv,
        shape: &Shape,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let image = memory::image(&shape.input);
        let ending = Ending {
            activation: recipe.activation,
            normalisation: recipe.normalisation,
            residual: recipe.residual,
        };
        let [mut channels, mut height, mut width] = image;
        let mut convs = Vec::new();
        for &out in &recipe.channels {
            let pools = memory::pools(height, width);
            convs.push(Convolution {
                conv: convolution(channels, out, recipe, rng, device),
                norm: Norm::new(recipe.normalisation, out, device),
                ending,
                pools,
            });
            channels = out;
            if pools {
                (height, width) = (height / 2, width / 2);
            }
        }
        let mut inputs = channels * height * width;
        let mut dense = Vec::new();
        for &units in &recipe.dense {
            let linear = linear(inputs, units, &recipe.init, recipe.activation, rng, device);
            dense.push(Dense {
                linear,
                norm: Norm::new(recipe.normalisation, units, device),
                ending,
            });
            inputs = units;
        }
        let last = recipe::Activation::Linear;
        let output = linear(inputs, shape.outputs, &output_init(), last, rng, device);
        Self { convs, dense, output, image }
    }
}

fn convolution(
    channels: usize,
    out: usize,
    recipe: &recipe::Conv,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Conv2d {
    let kernel = [recipe.kernel, recipe.kernel];
    let mut conv =
        Conv2dConfig::new([channels, out], kernel).with_padding(PaddingConfig2d::Same).init(device);
    let area = recipe.kernel * recipe.kernel;
    let shape = [out, channels, recipe.kernel, recipe.kernel];
    let (fan_in, fan_out) = (channels * area, out * area);
    conv.weight =
        crate::init::weight(shape, fan_in, fan_out, &recipe.init, recipe.activation, rng, device);
    conv.bias = Some(crate::init::bias(out, device));
    conv
}

impl Network for Conv {
    fn forward(&self, input: Tensor<2>, probes: &Probes) -> Tensor<2> {
        let [batch, _] = input.dims();
        let [channels, height, width] = self.image;
        let mut h = probes.input(input.reshape([batch, channels, height, width]));
        for (index, layer) in self.convs.iter().enumerate() {
            let mapped = layer.conv.forward(h.clone());
            let out = layer.ending.apply(layer.norm.as_ref(), h, mapped);
            let out = if layer.pools { max_pool2d(out, halving()) } else { out };
            h = probes.tap(format_args!("convs.{index}"), out);
        }
        let mut h: Tensor<2> = h.flatten(1, 3);
        for (index, layer) in self.dense.iter().enumerate() {
            h = probes.tap(format_args!("dense.{index}"), layer.forward(h));
        }
        probes.tap("output", self.output.forward(h))
    }

    fn layers(&self) -> Vec<LayerInfo> {
        let convs = infos("convs", self.convs.iter().map(|layer| &layer.ending));
        let dense = infos("dense", self.dense.iter().map(|layer| &layer.ending));
        convs.chain(dense).chain([LayerInfo::named("output")]).collect()
    }
}

fn halving() -> MaxPoolOptions<2> {
    MaxPoolOptions::new([2, 2])
}
