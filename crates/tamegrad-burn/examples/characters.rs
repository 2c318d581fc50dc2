//! A small transformer that learns to spell. Run it with `bare`, `observe` or `protect`.

mod shared;

use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor};
use tamegrad_burn::{Guard, Mode, default_device, weights_hash};

const TEXT: &[u8] =
    b"in backpropagation the gradient of the loss is a product along the chain rule \
    and where its factors are above one it grows with every layer until training is unstable. ";
const LENGTH: usize = 16;
const BATCH: usize = 8;

#[derive(Module, Debug)]
struct Net {
    characters: Embedding,
    positions: Embedding,
    encoder: TransformerEncoder,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            characters: EmbeddingConfig::new(128, 32).init(device),
            positions: EmbeddingConfig::new(LENGTH, 32).init(device),
            encoder: TransformerEncoderConfig::new(32, 64, 4, 2).init(device),
            head: LinearConfig::new(32, 128).init(device),
        }
    }

    fn forward(&self, x: Tensor<2, Int>) -> Tensor<3> {
        let device = x.device();
        let positions = Tensor::<1, Int>::arange(0..LENGTH as i64, &device).unsqueeze();
        let h = self.characters.forward(x) + self.positions.forward(positions);
        let mask = generate_autoregressive_mask(BATCH, LENGTH, &device);
        self.head.forward(self.encoder.forward(TransformerEncoderInput::new(h).mask_attn(mask)))
    }
}

/// Trains with or without a guard, and gives the hash of the final weights and the report.
fn train(mode: Option<Mode>) -> (String, String) {
    let device = default_device();
    device.seed(5);
    let mut model = Net::new(&device);
    let mut optimizer = AdamWConfig::new().init();
    let mut guard = mode.map(|mode| Guard::new(&model, mode));
    for step in 0..60 {
        let letter = |shift: usize| {
            let letters = (0..BATCH * LENGTH).map(|i| {
                let at = 17 * step + 29 * (i / LENGTH) + i % LENGTH + shift;
                i64::from(TEXT[at % TEXT.len()])
            });
            Tensor::<1, Int>::from_data(&letters.collect::<Vec<_>>()[..], &device)
        };
        let outputs = model.forward(letter(0).reshape([BATCH, LENGTH]));
        let outputs = outputs.reshape([BATCH * LENGTH, 128]);
        let loss = CrossEntropyLossConfig::new().init(&device).forward(outputs, letter(1));
        let value = loss.clone().into_scalar::<f32>();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = match &mut guard {
            Some(guard) => guard.step(&mut optimizer, 3e-3, model, gradients, value),
            None => optimizer.step(3e-3, model, gradients),
        };
    }
    (weights_hash(&model), guard.map_or_else(String::new, |guard| guard.diagnosis().to_string()))
}

fn main() {
    shared::run(train);
}
