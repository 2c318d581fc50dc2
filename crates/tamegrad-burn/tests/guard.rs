//! The guard on a small network: skip, veto, rewind, clip, and watching without a trace.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear};
use burn::optim::{AdamConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::{Tensor, TensorData, activation};
use burn::{module::Param, module::ParamId};
use tamegrad::{GradientAction, GuardConfig, LayerInfo, Mode, Step};
use tamegrad_burn::{
    Clip, Guard, Lagged, Probes, StateError, StepOutcome, default_device, weights_hash,
};
use tamegrad_runs::RunFolder;

/// Two linear layers with batch norm between: running statistics are part of the state.
#[derive(Module, Debug)]
struct Net {
    first: Linear,
    norm: BatchNorm,
    last: Linear,
}

impl Net {
    fn new() -> Self {
        let device = default_device();
        let linear = |inputs: usize, outputs: usize| Linear {
            weight: parameter([inputs, outputs]),
            bias: Some(parameter([outputs])),
        };
        Self {
            first: linear(3, 8),
            norm: BatchNormConfig::new(8).init(&device),
            last: linear(8, 1),
        }
    }

    fn forward(&self, x: Tensor<2>, probes: &Probes) -> Tensor<2> {
        let h = probes.tap("first", activation::relu(self.first.forward(probes.input(x))));
        let h = probes.tap("norm", self.norm.forward(h));
        probes.tap("last", self.last.forward(h))
    }
}

fn parameter<const D: usize>(shape: [usize; D]) -> Param<Tensor<D>> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| 0.6 * noise(i as u64 + 17)).collect();
    let tensor = Tensor::<D>::from_data(TensorData::new(values, shape), &default_device());
    Param::initialized(ParamId::new(), tensor.require_grad())
}

/// A repeatable value in -1..1.
fn noise(i: u64) -> f32 {
    let x = (i as f64 * 12.9898).sin() * 43758.5453;
    (2.0 * (x - x.floor()) - 1.0) as f32
}

/// The batch of a number: 16 rows whose target is the sum of the inputs.
struct Batch {
    x: Tensor<2>,
    y: Tensor<2>,
}

impl Batch {
    fn new(number: u64, target_scale: f32) -> Self {
        let x: Vec<f32> = (0..48).map(|i| noise(number * 48 + i)).collect();
        Self::of(x, target_scale)
    }

    fn of(x: Vec<f32>, target_scale: f32) -> Self {
        let y: Vec<f32> = x.chunks(3).map(|row| target_scale * row.iter().sum::<f32>()).collect();
        let tensor = |v: Vec<f32>, cols| {
            Tensor::<2>::from_data(TensorData::new(v, [16, cols]), &default_device())
        };
        Self { x: tensor(x, 3), y: tensor(y, 1) }
    }
}

/// A model in training under its guard.
struct Training {
    guard: Guard<Net>,
    model: Net,
    optimizer: ModuleOptimizer,
}

fn training(mode: Mode, optimizer: ModuleOptimizer) -> Training {
    let model = Net::new();
    let config = GuardConfig { mode, ..GuardConfig::default() };
    Training { guard: Guard::new(&model, config), model, optimizer }
}

fn sgd() -> ModuleOptimizer {
    SgdConfig::new().build().into()
}

fn adam() -> ModuleOptimizer {
    Lagged::new(AdamConfig::new().build(), 0.999).into()
}

fn step(training: &mut Training, batch: &Batch) -> StepOutcome {
    let Training { guard, model, optimizer } = training;
    let pass = |net: &Net, probes: &Probes| {
        (net.forward(batch.x.clone(), probes) - batch.y.clone()).square().mean()
    };
    let loss = pass(model, guard.probes());
    let value = loss.clone().into_scalar::<f32>();
    let gradients = guard.backward(loss, model);
    *model = guard.step_with_pass(optimizer, 0.02, model.clone(), gradients, value, pass);
    guard.outcome().cloned().expect("a step was taken")
}

fn hash(training: &Training) -> String {
    weights_hash(&training.model)
}

#[test]
fn a_guard_can_be_sent_to_the_thread_that_trains() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let mut training = sent(training(Mode::Observe, sgd()));
    assert_eq!(step(&mut training, &Batch::new(0, 1.0)).decision.rewind, None);
}

#[test]
fn watching_changes_no_bit() {
    for optimizer in [sgd, adam] {
        let hashes = [Mode::Off, Mode::Observe, Mode::Protect].map(|mode| {
            let mut training = training(mode, optimizer());
            // Beyond the steps whose updates are all looked at.
            (0..150).for_each(|n| drop(step(&mut training, &Batch::new(n, 1.0))));
            hash(&training)
        });
        assert_eq!(hashes[0], hashes[1]);
        assert_eq!(hashes[0], hashes[2]);
    }
}

#[test]
fn a_model_that_was_loaded_is_seen_and_another_one_is_told() {
    let mut training = training(Mode::Observe, sgd());
    step(&mut training, &Batch::new(0, 1.0));
    // Other ids for the same names, as a record from another process has them.
    training.model = Net::new();
    let norm = step(&mut training, &Batch::new(1, 1.0)).gradient_norm;
    assert!(norm.is_some_and(|norm| norm > 0.0), "{norm:?}");
    assert_eq!(training.guard.notices(), [] as [&str; 0]);
    let model = &mut training.model;
    model.first = Linear { bias: None, ..Net::new().first };
    (model.norm, model.last) = (Net::new().norm, Net::new().last);
    step(&mut training, &Batch::new(2, 1.0));
    let notices = training.guard.notices().join(" ");
    assert!(notices.contains("other parameters than at the first step"), "{notices}");
}

#[test]
fn a_frozen_layer_is_not_watched_and_one_that_thaws_is_told() {
    let mut training = training(Mode::Observe, sgd());
    let frozen = training.model.first.clone();
    training.model.first = training.model.first.clone().no_grad();
    step(&mut training, &Batch::new(0, 1.0));
    let names = |training: &Training| -> Vec<String> {
        let tensors = &training.guard.record().layout().tensors;
        tensors.iter().map(|tensor| tensor.name.clone()).collect()
    };
    assert_eq!(names(&training), ["norm.gamma", "norm.beta", "last.weight", "last.bias"]);
    assert_eq!(training.guard.notices(), [] as [&str; 0]);
    training.model.first = frozen;
    step(&mut training, &Batch::new(1, 1.0));
    let notices = training.guard.notices().join(" ");
    assert!(notices.contains("frozen then, and they are not watched"), "{notices}");
}

#[test]
fn a_pass_that_draws_random_numbers_is_not_repeated() {
    #[derive(Module, Debug)]
    struct Dropping {
        net: Net,
        dropout: Option<Dropout>,
    }
    let x = Batch::new(0, 1.0).x * f32::NAN;
    for (prob, is_repeated) in [(None, true), (Some(0.5), false)] {
        let dropout = prob.map(|prob| DropoutConfig::new(prob).init());
        let model = Dropping { net: Net::new(), dropout };
        let passes = std::cell::Cell::new(0);
        let pass = |model: &Dropping, probes: &Probes| {
            passes.set(passes.get() + 1);
            model.net.forward(x.clone(), probes).square().mean()
        };
        let mut guard = Guard::observe(&model);
        // Without probes an alarm asks for a pass that has them.
        let loss = pass(&model, &Probes::unarmed());
        let gradients = guard.backward(loss, &model);
        guard.step_with_pass(&mut sgd(), 0.1, model, gradients, f64::NAN, pass);
        assert_eq!(passes.get() > 1, is_repeated, "{prob:?}");
    }
}

#[test]
fn a_skipped_batch_leaves_no_trace_in_weights_moments_or_running_statistics() {
    for bad in [f32::NAN, f32::INFINITY] {
        let run = |with_bad: bool| {
            let mut training = training(Mode::Protect, adam());
            for n in 0..40 {
                if with_bad && n == 20 {
                    let mut x = vec![0.5; 48];
                    x[7] = bad;
                    let before = hash(&training);
                    let outcome = step(&mut training, &Batch::of(x, 1.0));
                    assert!(!outcome.updated);
                    assert_eq!(outcome.decision.gradients, GradientAction::Skip);
                    assert_eq!(hash(&training), before);
                }
                step(&mut training, &Batch::new(n, 1.0));
            }
            hash(&training)
        };
        assert_eq!(run(true), run(false), "{bad}");
    }
}

#[test]
fn a_batch_skipped_at_the_first_step_leaves_no_trace_either() {
    let mut training = training(Mode::Protect, adam());
    let before = hash(&training);
    let outcome = step(&mut training, &Batch::of(vec![f32::NAN; 48], 1.0));
    assert_eq!((outcome.updated, hash(&training)), (false, before));
}

#[test]
fn a_run_is_recorded_to_a_folder_which_a_dropped_guard_ends() {
    let folder = std::env::temp_dir().join(format!("tamegrad-guard-{}", std::process::id()));
    let mut training = training(Mode::Observe, sgd());
    training.guard = training.guard.record_to(&folder);
    let losses: Vec<f64> = (0..30).map(|n| step(&mut training, &Batch::new(n, 1.0)).loss).collect();
    drop(training);
    let run = RunFolder::open(&folder).expect("a run folder");
    let (recorded, state) = (run.contents(), run.state().expect("readable").expect("a state"));
    std::fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(recorded.steps.iter().filter_map(|row| row.loss).collect::<Vec<_>>(), losses);
    assert_eq!((state.step, state.end.as_deref()), (29, Some("completed")));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_the_training_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("notes.txt"), "mine").expect("written");
    let mut training = training(Mode::Observe, sgd());
    training.guard = training.guard.record_to(folder.path());
    step(&mut training, &Batch::new(0, 1.0));
    let told = training.guard.diagnosis().to_string();
    assert!(told.contains("the run is not recorded") && told.contains("notes.txt"), "{told}");
    let error = training.guard.finish().expect_err("nothing was written").to_string();
    assert!(error.contains("holds `notes.txt`"), "{error}");
    assert_eq!(folder.path().read_dir().expect("a folder").count(), 1);
}

#[test]
fn without_protection_the_same_batch_breaks_the_weights() {
    let mut training = training(Mode::Observe, adam());
    step(&mut training, &Batch::new(0, 1.0));
    step(&mut training, &Batch::of(vec![f32::NAN; 48], 1.0));
    assert!(step(&mut training, &Batch::new(2, 1.0)).loss.is_nan());
}

#[test]
fn a_rewind_restores_the_state_of_its_snapshot_to_the_bit() {
    let mut training = training(Mode::Protect, sgd());
    let mut hashes = Vec::new();
    for n in 0..400 {
        hashes.push(hash(&training));
        // From step 250 the targets are other ones: the loss goes up and stays up.
        let batch = Batch::new(n, if n < 250 { 1.0 } else { -3.0 });
        if let Some(Step(to)) = step(&mut training, &batch).decision.rewind {
            assert!(n >= 250 && to + 100 <= n, "rewound at {n} to {to}");
            assert_eq!(hash(&training), hashes[to as usize]);
            return;
        }
    }
    panic!("never rewound: {:?}", training.guard.run().actions());
}

#[test]
fn clipping_scales_the_update_and_an_infinite_gradient_is_no_update() {
    let update_norm = |clip: Option<Clip>, target: f32| {
        let mut training = training(Mode::Observe, sgd());
        training.guard = training.guard.with_clip(clip);
        let outcome = step(&mut training, &Batch::new(0, target));
        let change = training.guard.record().tensors().iter().filter_map(|t| t.latest_update);
        let norm = change.map(|u| u.change_norm * u.change_norm).sum::<f64>().sqrt();
        (norm, outcome.gradient_norm.unwrap_or(0.0))
    };
    let rate = 0.02;
    let (free, norm) = update_norm(None, 1000.0);
    assert!((free / (rate * norm) - 1.0).abs() < 1e-3, "{free} {norm}");
    let (clipped, _) = update_norm(Some(Clip::GlobalNorm(0.5)), 1000.0);
    assert!((clipped / (rate * 0.5) - 1.0).abs() < 1e-3, "{clipped}");
    let (inactive, _) = update_norm(Some(Clip::GlobalNorm(1e9)), 1000.0);
    assert_eq!(inactive, free);
    let (by_value, _) = update_norm(Some(Clip::Value(0.01)), 1000.0);
    assert!(by_value <= rate * 0.01 * 100f64.sqrt() && by_value > 0.0, "{by_value}");
    let (infinite, _) = update_norm(Some(Clip::GlobalNorm(0.5)), f32::INFINITY);
    assert_eq!(infinite, 0.0);
}

#[test]
fn probes_see_the_layers_and_every_tensor_has_its_name() {
    let mut training = training(Mode::Observe, sgd());
    step(&mut training, &Batch::new(0, 1.0));
    let record = training.guard.record();
    let names: Vec<_> = record.layout().tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(
        names,
        ["first.weight", "first.bias", "norm.gamma", "norm.beta", "last.weight", "last.bias"]
    );
    let layers: Vec<_> = record.layout().tensors.iter().map(|t| t.layer.map(|l| l.0)).collect();
    assert_eq!(layers, [Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)]);
    let chain = record.first_chain().expect("probes at step 0");
    assert_eq!(chain.links.len(), 3);
    assert!(chain.links.iter().all(|link| link.forward.is_some() && link.backward.is_some()));
}

#[test]
fn the_second_moment_lags_when_the_gradient_jumps() {
    let mut training = training(Mode::Observe, adam());
    (0..120).for_each(|n| drop(step(&mut training, &Batch::new(n, 1.0))));
    assert_eq!(training.guard.record().alarm_lag(), None, "measured at an alarm only");
    (120..124).for_each(|n| drop(step(&mut training, &Batch::new(n, 1e4))));
    let (_, lag) = training.guard.record().alarm_lag().expect("measured at the alarm");
    assert!(lag > 2.3, "{lag}");
}

#[test]
fn a_resumed_guard_goes_on_as_if_nothing_had_been() {
    // The inputs of one batch are far too large, and the targets of another are not finite.
    let batch = |number| match number {
        150 => Batch::of((0..48).map(|i| 1e3 * noise(i)).collect(), 1.0),
        160 => Batch::new(number, f32::NAN),
        _ => Batch::new(number, 1.0),
    };
    for mode in [Mode::Observe, Mode::Protect] {
        let mut whole = training(mode, sgd());
        (0..120).for_each(|n| drop(step(&mut whole, &batch(n))));
        // SGD has no state: the model alone is the checkpoint.
        let model = whole.model.valid().train();
        let mut resumed = Training { model, ..training(mode, sgd()) };
        let state = whole.guard.state().expect("memory");
        resumed.guard.resume(&resumed.model, &state).expect("the same model");
        for n in 120..200 {
            let outcomes = [&mut whole, &mut resumed].map(|training| step(training, &batch(n)));
            // The loss of a broken model is NaN, which equals nothing.
            let [whole, resumed] = outcomes.map(|outcome| format!("{outcome:?}"));
            assert_eq!(whole, resumed, "{mode:?}, step {n}");
        }
        let states = [&whole, &resumed].map(|training| training.guard.state().expect("memory"));
        assert!(states[0] == states[1], "{mode:?}: the states differ");
        let told = |training: &Training| format!("{:?}", training.guard.diagnosis());
        assert_eq!(told(&whole), told(&resumed));
        let onset = whole.guard.run().first_alarm().map(|finding| finding.step);
        assert_eq!(onset, Some(Step(150)), "{mode:?}");
    }
}

#[test]
fn the_guard_of_another_model_is_not_restored() {
    let mut saved = training(Mode::Protect, sgd());
    (0..30).for_each(|n| drop(step(&mut saved, &Batch::new(n, 1.0))));
    let state = saved.guard.state().expect("memory");
    let layers = ["first", "norm", "head"].map(LayerInfo::named).to_vec();
    let model = Net::new();
    // Parameters that no pass has used and no record has filled are not listed.
    drop(model.forward(Batch::new(0, 1.0).x, &Probes::unarmed()));
    let mut other = Guard::observe(&model).with_layers(layers);
    let error = other.resume(&model, &state).expect_err("a layer has another name");
    assert!(error.to_string().contains("layer 2: got `last`, want `head`"), "{error}");
    let error = saved.guard.resume(&saved.model, &state[..100]).expect_err("cut");
    assert!(matches!(error, StateError::Length { got: 100, .. }), "{error}");
    assert_eq!(saved.guard.state().expect("memory").len(), state.len());
}

#[test]
fn after_a_restore_there_is_nothing_to_rewind_to_until_the_next_snapshot() {
    let targets = |n| if n < 250 { 1.0 } else { -3.0 };
    let mut first = training(Mode::Protect, sgd());
    (0..240).for_each(|n| drop(step(&mut first, &Batch::new(n, targets(n)))));
    let state = first.guard.state().expect("memory");
    first.guard.resume(&first.model, &state).expect("the same model");
    for n in 240..400 {
        if let Some(Step(to)) = step(&mut first, &Batch::new(n, targets(n))).decision.rewind {
            assert_eq!(to, 250, "the first snapshot since");
            return;
        }
    }
    panic!("never rewound: {:?}", first.guard.run().actions());
}
