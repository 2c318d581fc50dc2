//! burn's `Learner` on handwritten digits, with what the guard measures among its metrics. Run it with
//! `bare`, `observe` or `protect`.

mod shared;

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::AdamWConfig;
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Learner, LearnerModel, SupervisedTraining, TrainOutput,
    TrainStep,
};
use tamegrad_burn::{Guard, Mode, default_device, weights_hash};
use tamegrad_lab::data::{Table, Targets};
use tamegrad_lab::recipe::Source;

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    norm: BatchNorm,
    dropout: Dropout,
    hidden: Linear,
    last: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([1, 16], [3, 3]).init(device),
            norm: BatchNormConfig::new(16).init(device),
            dropout: DropoutConfig::new(0.3).init(),
            hidden: LinearConfig::new(16 * 3 * 3, 64).init(device),
            last: LinearConfig::new(64, 10).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let h = relu(self.norm.forward(self.conv.forward(images)));
        let h = max_pool2d(h, MaxPoolOptions::new([2, 2])).flatten(1, 3);
        let h = relu(self.hidden.forward(self.dropout.forward(h)));
        self.last.forward(self.dropout.forward(h))
    }
}

impl TrainStep for Net {
    type Input = Digits;
    type Output = ClassificationOutput;

    fn step(&self, digits: Digits) -> TrainOutput<ClassificationOutput> {
        let item = InferenceStep::step(self, digits);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Net {
    type Input = Digits;
    type Output = ClassificationOutput;

    fn step(&self, Digits { images, labels }: Digits) -> ClassificationOutput {
        let outputs = self.forward(tamegrad_burn::input(images));
        let loss = CrossEntropyLossConfig::new().init(&outputs.device());
        let loss = loss.forward(outputs.clone(), labels.clone());
        ClassificationOutput::new(loss, outputs, labels)
    }
}

/// A batch.
#[derive(Clone, Debug)]
struct Digits {
    images: Tensor<4>,
    labels: Tensor<1, Int>,
}

/// Pixels and label of an image.
type Digit = (Vec<f32>, i64);

struct ToDigits;

impl Batcher<Digit, Digits> for ToDigits {
    fn batch(&self, digits: Vec<Digit>, device: &Device) -> Digits {
        let count = digits.len();
        let (pixels, labels): (Vec<_>, Vec<_>) = digits.into_iter().unzip();
        let pixels = TensorData::new(pixels.concat(), [count, 1, 8, 8]);
        Digits {
            images: Tensor::from_data(pixels, device),
            labels: Tensor::from_data(&labels[..], device),
        }
    }
}

fn loader(table: &Table) -> Arc<dyn DataLoader<Digits>> {
    let Targets::Classes { labels, .. } = &table.targets else { panic!("digits have classes") };
    let pixels = table.inputs.chunks(table.input_width()).map(<[f32]>::to_vec);
    let digits = pixels.zip(labels.iter().map(|label| i64::from(*label))).collect();
    let builder = DataLoaderBuilder::new(ToDigits).batch_size(32).shuffle(1).num_workers(1);
    builder.build(InMemDataset::new(digits))
}

/// burn's training, whatever the model.
fn training<M>(artifacts: &Path) -> SupervisedTraining<M>
where
    M: LearnerModel
        + TrainStep<Input = Digits, Output = ClassificationOutput>
        + InferenceStep<Input = Digits, Output = ClassificationOutput>,
{
    let data = tamegrad_lab::data::load(&Source::Digits {}, 0).expect("built into the program");
    SupervisedTraining::new(artifacts, loader(&data.train), loader(&data.test))
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .num_epochs(2)
        .with_application_logger(None)
}

/// Trains with or without a guard, and gives the hash of the final weights and the report.
fn train(mode: Option<Mode>) -> (String, String) {
    let device = default_device();
    device.seed(7);
    let artifacts = std::env::temp_dir().join(format!("tamegrad-learner-{}", std::process::id()));
    let model = Net::new(&device);
    let optimizer = AdamWConfig::new().init();
    let trained = match mode {
        Some(mode) => {
            let training = training(&artifacts);
            let model = Guard::new(&model, mode).wrap(model).stop_with(training.interrupter());
            let training = training
                .metric_train_numeric(model.gradient_norm())
                .metric_train_numeric(model.update_ratio());
            let result = training.launch(Learner::new(model, optimizer, 1e-3));
            (weights_hash(&result.model), result.model.diagnosis().to_string())
        }
        None => {
            let result = training(&artifacts).launch(Learner::new(model, optimizer, 1e-3));
            (weights_hash(&result.model), String::new())
        }
    };
    std::fs::remove_dir_all(&artifacts).expect("removed");
    trained
}

fn main() {
    shared::run(train);
}
