//! The transformer: self-attention over the steps of a sequence, read out as their mean.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, activation};
use rand_chacha::ChaCha8Rng;
use tamegrad::{LayerInfo, NormalisationKind};
use tamegrad_burn::Probes;

use super::block::Norm;
use super::{Network, Shape, activate, activation_kind, linear, output_init};
use crate::init;
use crate::recipe::memory::sequence;
use crate::recipe::{self, Activation, Place};

/// A transformer encoder (Vaswani et al. 2017). Tensors: `embed.weight` `[features, width]`,
/// `positions` `[steps, width]`, `blocks.0.attention.qkv.weight` `[width, 3 width]`,
/// `blocks.0.attention.out.weight`, `blocks.0.perceptron.up.weight`, `...down.weight`, the norms,
/// and `output.weight`.
#[derive(Module, Debug)]
pub struct Transformer {
    embed: Linear,
    positions: Param<Tensor<2>>,
    blocks: Vec<Block>,
    last_norm: Option<Norm>,
    output: Linear,
    #[module(skip)]
    sequence: [usize; 2],
    #[module(skip)]
    place: Place,
    #[module(skip)]
    activation: Activation,
}

#[derive(Module, Debug)]
struct Block {
    attention: Attention,
    perceptron: Perceptron,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,
    out: Linear,
    norm: Option<Norm>,
    #[module(skip)]
    heads: usize,
}

#[derive(Module, Debug)]
struct Perceptron {
    up: Linear,
    down: Linear,
    norm: Option<Norm>,
}

impl Transformer {
    /// Draws the weights of a recipe's transformer. A sample that is no sequence is taken as one
    /// of its rows.
    pub fn new(
        recipe: &recipe::Transformer,
        shape: &Shape,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let sequence = sequence(&shape.input);
        let (width, init) = (recipe.width, &recipe.init);
        let norm = || Norm::new(recipe.normalisation, width, device);
        let mut map =
            |inputs, outputs, activation| linear(inputs, outputs, init, activation, rng, device);
        let embed = map(sequence[1], width, Activation::Linear);
        let blocks = (0..recipe.depth).map(|_| Block {
            attention: Attention {
                qkv: map(width, 3 * width, Activation::Linear),
                out: map(width, width, Activation::Linear),
                norm: norm(),
                heads: recipe.heads,
            },
            perceptron: Perceptron {
                up: map(width, 4 * width, recipe.activation),
                down: map(4 * width, width, Activation::Linear),
                norm: norm(),
            },
        });
        let blocks = blocks.collect();
        let small = recipe::Init::Normal { gain: 0.02 };
        let shape_of = [sequence[0], width];
        let positions =
            init::weight(shape_of, width, width, &small, Activation::Linear, rng, device);
        let output = linear(width, shape.outputs, &output_init(), Activation::Linear, rng, device);
        // Normalised inputs leave the sum of all blocks as it is: it is normalised once, at the end.
        let last_norm = if recipe.normalisation.place == Place::Before { norm() } else { None };
        Self {
            embed,
            positions,
            blocks,
            last_norm,
            output,
            sequence,
            place: recipe.normalisation.place,
            activation: recipe.activation,
        }
    }

    /// `h + part(norm(h))` with the norm before, `norm(h + part(h))` with it after.
    fn add(
        &self,
        h: Tensor<3>,
        norm: Option<&Norm>,
        part: impl Fn(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let normalise = |x: Tensor<3>| norm.map_or(x.clone(), |norm| norm.forward(x));
        match self.place {
            Place::Before => h.clone() + part(normalise(h)),
            Place::After => normalise(h.clone() + part(h)),
        }
    }
}

impl Attention {
    /// softmax(q k^T / sqrt(width of a head)) v, heads side by side (Vaswani et al. 2017,
    /// equation 1).
    fn forward(&self, h: Tensor<3>) -> Tensor<3> {
        let [batch, steps, width] = h.dims();
        let each = width / self.heads;
        let qkv = self.qkv.forward(h);
        let part = |index: usize| {
            let one = qkv.clone().narrow(2, index * width, width);
            one.reshape([batch, steps, self.heads, each]).swap_dims(1, 2)
        };
        let scores = part(0).matmul(part(1).swap_dims(2, 3)) / (each as f64).sqrt();
        let mixed = activation::softmax(scores, 3).matmul(part(2));
        self.out.forward(mixed.swap_dims(1, 2).reshape([batch, steps, width]))
    }
}

impl Network for Transformer {
    fn forward(&self, input: Tensor<2>, probes: &Probes) -> Tensor<2> {
        let [batch, _] = input.dims();
        let [steps, features] = self.sequence;
        let input = probes.input(input.reshape([batch, steps, features]));
        let positions = self.positions.val().unsqueeze::<3>();
        let mut h = probes.tap("embed", self.embed.forward(input) + positions);
        for (index, Block { attention, perceptron }) in self.blocks.iter().enumerate() {
            h = self.add(h, attention.norm.as_ref(), |x| attention.forward(x));
            h = probes.tap(format_args!("blocks.{index}.attention"), h);
            h = self.add(h, perceptron.norm.as_ref(), |x| {
                perceptron.down.forward(activate(self.activation, perceptron.up.forward(x)))
            });
            h = probes.tap(format_args!("blocks.{index}.perceptron"), h);
        }
        if let Some(norm) = &self.last_norm {
            h = norm.forward(h);
        }
        probes.tap("output", self.output.forward(h.mean_dim(1).squeeze_dim::<2>(1)))
    }

    fn layers(&self) -> Vec<LayerInfo> {
        let normalisation = |norm: &Option<Norm>| match norm {
            None => NormalisationKind::None,
            Some(Norm::Batch(_)) => NormalisationKind::Batch,
            Some(Norm::Layer(_)) => NormalisationKind::Layer,
        };
        let blocks = self.blocks.iter().enumerate().flat_map(|(index, block)| {
            let half = |name: &str, norm, activation| LayerInfo {
                activation: Some(activation_kind(activation)),
                normalisation: Some(normalisation(norm)),
                residual: Some(true),
                ..LayerInfo::named(format!("blocks.{index}.{name}"))
            };
            [
                half("attention", &block.attention.norm, Activation::Linear),
                half("perceptron", &block.perceptron.norm, self.activation),
            ]
        });
        let first = LayerInfo::named("embed");
        [first].into_iter().chain(blocks).chain([LayerInfo::named("output")]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const STEPS: usize = 3;
    const WIDTH: usize = 4;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    #[test]
    fn attention_follows_its_equation() {
        let recipe = recipe::Transformer {
            depth: 1,
            width: WIDTH,
            heads: 2,
            activation: Activation::Gelu,
            init: recipe::Init::Normal { gain: 1.0 },
            normalisation: recipe::Normalisation::default(),
        };
        let shape = Shape { input: vec![STEPS, WIDTH], outputs: 1 };
        let device = tamegrad_burn::default_device();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let model = Transformer::new(&recipe, &shape, &mut rng, &device);
        let attention = &model.blocks[0].attention;
        let h: Vec<f32> = (0..STEPS * WIDTH).map(|i| (i as f32 * 1.3).cos()).collect();
        let input = Tensor::<1>::from_data(&h[..], &device).reshape([1, STEPS, WIDTH]);
        let got = values(attention.forward(input));

        let (qkv, out) = (values(attention.qkv.weight.val()), values(attention.out.weight.val()));
        let row = |step: usize, column: usize| -> f64 {
            let terms =
                (0..WIDTH).map(|k| f64::from(h[step * WIDTH + k]) * qkv[k * 3 * WIDTH + column]);
            terms.sum()
        };
        let each = WIDTH / 2;
        let mut mixed = [0.0; STEPS * WIDTH];
        for (head, query) in (0..2).flat_map(|head| (0..STEPS).map(move |query| (head, query))) {
            let weights: Vec<f64> = (0..STEPS)
                .map(|key| {
                    let of = |part: usize, step: usize, k: usize| {
                        row(step, part * WIDTH + head * each + k)
                    };
                    let score: f64 = (0..each).map(|k| of(0, query, k) * of(1, key, k)).sum();
                    (score / (each as f64).sqrt()).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            for (k, key) in (0..each).flat_map(|k| (0..STEPS).map(move |key| (k, key))) {
                let value = row(key, 2 * WIDTH + head * each + k);
                mixed[query * WIDTH + head * each + k] += weights[key] / sum * value;
            }
        }
        for (step, column) in (0..STEPS).flat_map(|s| (0..WIDTH).map(move |c| (s, c))) {
            let want: f64 =
                (0..WIDTH).map(|k| mixed[step * WIDTH + k] * out[k * WIDTH + column]).sum();
            let got = got[step * WIDTH + column];
            assert!((got - want).abs() < 1e-4 * want.abs().max(1.0), "{got} {want}");
        }
    }

    #[test]
    fn every_layer_passes_a_probe() {
        let zoo = crate::cases::list(crate::cases::Extent::Quick);
        let of = |name: &str| zoo.iter().find(|case| case.name.contains(name)).expect("a case");
        for name in ["healthy/transformer/", "healthy/lstm/", "healthy/gru/", "healthy/conv/"] {
            let recipe = recipe::parse(&of(name).recipe, None).expect("a recipe");
            let cancel = std::sync::atomic::AtomicBool::new(false);
            let options = crate::TrainOptions {
                steps_max: Some(1),
                ..crate::TrainOptions::new(tamegrad::Mode::Observe, &cancel)
            };
            let run = crate::train(&recipe, &options, &mut |_, _| {}).expect("it runs");
            let (_, trace) = run.run.record().first_trace().expect("probes");
            assert_eq!(trace.layers.len(), run.run.record().layout().layers.len(), "{name}");
            assert!(trace.layers.iter().all(|layer| layer.delta.is_some()), "{name}");
        }
    }
}
