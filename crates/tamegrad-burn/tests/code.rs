//! The code that reports show for burn: each line compiles.

use std::error::Error;
use std::f64::consts::SQRT_2;
use std::path::Path;

use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::module::Module;
use burn::nn::{BatchNorm, Initializer, Linear, LinearConfig};
use burn::optim::AdamWConfig;
use burn::tensor::activation::{self, relu};
use burn::tensor::{Device, Tensor};
use tamegrad::Step;
use tamegrad::inspection::OperationKind;
use tamegrad::remedies::{Change, NormPlace, Scheme};
use tamegrad_burn::{Clip, Guard};
use tamegrad_report::code::{Framework, code};

/// What a program has of its own.
struct Given<'a> {
    model: Linear,
    layer: Linear,
    norm: BatchNorm,
    config: LinearConfig,
    device: Device,
    h: Tensor<2>,
    loss: Tensor<1>,
    learning_rate: f64,
    checkpoint: &'a Path,
}

/// The lines as reports show them, but for the data loader of burn's feature `dataset`. It is only
/// compiled.
#[rustfmt::skip]
fn lines(given: Given<'_>) -> Result<(), Box<dyn Error>> {
    let Given { model, layer, norm, config, device, h, loss, learning_rate, checkpoint } = given;
    let (x, y, mean, deviation) = (h.clone(), h.clone(), 0.5, 2.0);

    let guard = Guard::protect(&model);
    let guard = guard.with_clip(Clip::GlobalNorm(12.0));
    let guard = guard.with_clip(Clip::TensorNorm(2.0));
    let guard = guard.with_clip(Clip::Value(0.3));
    let warm_up = LinearLrSchedulerConfig::new(learning_rate / 100.0, learning_rate, 100).init()?;
    let learning_rate = 0.5 * learning_rate;
    drop((guard, warm_up, learning_rate));
    let learning_rate = 0.03;
    let model = model.try_load_file(checkpoint)?; // one from before step 90
    let y = (y - mean) / deviation; // of all targets; undo both on the outputs
    let x = (x - mean) / deviation; // of all inputs
    let optimizer = AdamWConfig::new().with_weight_decay(0.1).init();
    let loss = loss + layer.weight.val().square().sum() * 0.001;
    let loss = loss + layer.weight.val().abs().sum() * 0.0001;
    drop((learning_rate, model, x, y, optimizer, loss));
    let h = relu(norm.forward(layer.forward(h))); // norm: BatchNormConfig::new(units)
    let h = norm.forward(relu(layer.forward(h))); // norm: BatchNormConfig::new(units)
    let h = activation::relu(layer.forward(h));
    drop((h, layer));
    let layer = config.with_initializer(Initializer::KaimingNormal { gain: SQRT_2, fan_out_only: false }).init(&device);
    drop(layer);
    Ok(())
}

/// The same, each with what it needs.
#[rustfmt::skip]
#[allow(clippy::let_and_return, reason = "a line is shown as a statement")]
mod single {
    use super::*;
    use burn::optim::{AdamConfig, ModuleOptimizer};
    use burn::tensor::{Bool, FloatDType, Int};

    pub(super) fn finite(x: Tensor<2>, finite_rows: Tensor<1, Int>) -> Tensor<2> {
        let x = x.select(0, finite_rows); // leave out rows that are not finite
        x
    }

    pub(super) fn without(x: Tensor<2>, rows: Tensor<1, Int>) -> Tensor<2> {
        let x = x.select(0, rows); // all rows but [3]
        x
    }

    pub(super) fn labels(labels: Tensor<1, Int>) -> Tensor<1, Int> {
        let labels = labels - 1; // from 0 to classes - 1
        labels
    }

    pub(super) fn average(losses: Tensor<1>, mask: Tensor<1, Bool>) -> Tensor<1> {
        let loss = losses.sum() / mask.float().sum().clamp_min(1.0);
        loss
    }

    pub(super) fn log(x: Tensor<2>) -> Tensor<2> {
        let y = x.clamp_min(1e-12).log();
        y
    }

    pub(super) fn exp(x: Tensor<2>) -> Tensor<2> {
        let y = x.clamp_max(80.0).exp();
        y
    }

    pub(super) fn division(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let y = y / (x + 1e-8);
        y
    }

    pub(super) fn sqrt(x: Tensor<2>) -> Tensor<2> {
        let y = x.clamp_min(1e-12).sqrt();
        y
    }

    pub(super) fn unmask(scores: Tensor<2>, mask: Tensor<2, Bool>) -> Tensor<2> {
        let scores = scores.mask_fill(mask, -1e4); // not f32::NEG_INFINITY
        scores
    }

    pub(super) fn eps() -> ModuleOptimizer {
        let optimizer = AdamConfig::new().with_epsilon(0.0001).init();
        optimizer
    }

    pub(super) fn mean(losses: Tensor<1>) -> Tensor<1> {
        let loss = losses.mean();
        loss
    }

    pub(super) fn full_batches(batches: Vec<Tensor<2>>, batch_size: usize) {
        for x in batches {
            if x.dims()[0] < batch_size { continue } // the last batch of an epoch
        }
    }

    pub(super) fn wider(h: Tensor<2>) -> Tensor<2> {
        let h = h.cast(FloatDType::F32);
        h
    }
}

#[test]
fn every_line_that_a_report_shows_is_one_that_compiles() {
    assert!(size_of_val(&lines) == 0);
    let _ = (single::finite, single::without, single::labels, single::average, single::log);
    let _ = (single::exp, single::division, single::sqrt, single::unmask, single::eps);
    let _ = (single::mean, single::full_batches, single::wider);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/code.rs");
    let source = std::fs::read_to_string(file).expect("this file");
    for change in [
        Change::Guard,
        Change::FilterRows { input: None, rows: Vec::new() },
        Change::FilterRows { input: None, rows: vec![3] },
        Change::FixLabels { classes: None },
        Change::GuardAverage { line: None },
        Change::GuardOperation { operation: OperationKind::Log, line: None },
        Change::GuardOperation { operation: OperationKind::Exp, line: None },
        Change::GuardOperation { operation: OperationKind::Division, line: None },
        Change::GuardOperation { operation: OperationKind::Sqrt, line: None },
        Change::UnmaskRow { line: None },
        Change::OptimizerEps { eps: 1e-4 },
        Change::MeanLoss,
        Change::DropLastBatch,
        Change::WiderType { line: None },
        Change::ClipGlobalNorm { max_norm: 12.0 },
        Change::ClipTensorNorm { max_norm: 2.0 },
        Change::ClipValue { limit: 0.3 },
        Change::WarmUp { steps: 100 },
        Change::LearningRate { factor: 0.5, from: None },
        Change::LearningRate { factor: 0.1, from: Some(0.3) },
        Change::Rewind { before: Step(90) },
        Change::ScaleTarget,
        Change::ScaleInput,
        Change::WeightDecay { rate: 0.1 },
        Change::L2Penalty { strength: 0.001 },
        Change::L1Penalty { strength: 0.0001 },
        Change::BatchNorm { place: NormPlace::Before },
        Change::BatchNorm { place: NormPlace::After },
        Change::Activation { name: "relu".to_owned(), layer: None },
        Change::Reinitialise { scheme: Scheme::He, layer: None },
    ] {
        let code = code(&change, Framework::Burn).expect("a line");
        let is_there = source.lines().any(|line| line.trim() == code);
        assert!(is_there, "`lines` has no `{code}`");
    }
    // Not compiled are the loader, of burn's feature `dataset`, and another backend, which is no line.
    for change in [Change::Depth { layers: 3 }, Change::ClearGradients] {
        assert_eq!(code(&change, Framework::Burn), None, "{change:?}");
    }
}
