//! The training steps that `cargo xtask bench observe` times: bare, observed and protected, in turns.
//!
//! It is told on standard input what to do, a line `MODEL STEPS` each, takes so many steps of each
//! kind, one of each in turn, and answers with five medians of the milliseconds of process time of
//! a step: bare, observed without probes, observed with the probes at their default interval,
//! protected without probes, and bare once more. A sixth number is that of a step that is observed and
//! recorded to a run folder, in blocks of two seconds, so that the thread that writes is counted. A line that makes no sense is answered by `error: ` and why.

use std::io::{self, BufRead, Write};
use std::num::NonZeroU64;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Distribution, Int, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tamegrad::{GuardConfig, Mode};
use tamegrad_burn::{Guard, Lagged, Probes, default_device};
use tamegrad_lab::model::{Mlp, Network, Shape, Transformer};
use tamegrad_lab::recipe::{self, Model};

/// So small that no run leaves its calm start: after an alarm there are no more probes.
const LEARNING_RATE: f64 = 1e-6;

fn main() -> io::Result<()> {
    // `cargo test --benches` starts this as well, and asks for nothing.
    let mut current: Option<(String, Box<dyn Steps>)> = None;
    for line in io::stdin().lock().lines() {
        let answer = answer(&line?, &mut current).unwrap_or_else(|why| format!("error: {why}"));
        writeln!(io::stdout(), "{answer}")?;
        io::stdout().flush()?;
    }
    Ok(())
}

fn answer(line: &str, current: &mut Option<(String, Box<dyn Steps>)>) -> Result<String, String> {
    let (model, steps) =
        line.split_once(' ').ok_or_else(|| format!("got `{line}`, want `MODEL STEPS`"))?;
    let steps: NonZeroU64 =
        steps.parse().map_err(|_| format!("got `{steps}` steps, want 1 or more"))?;
    // the old model goes before the new one comes
    let kept = current.take().filter(|(name, _)| name == model);
    let (_, runs) = match kept {
        Some(kept) => current.insert(kept),
        None => current.insert((model.to_owned(), make(model)?)),
    };
    let times = runs.milliseconds(steps.get())?;
    Ok(times.map(|ms| ms.to_string()).join(" "))
}

fn make(name: &str) -> Result<Box<dyn Steps>, String> {
    let (model, optimizer) =
        name.split_once('/').ok_or_else(|| format!("got `{name}`, want `MODEL/OPTIMIZER`"))?;
    let optimizer: fn() -> ModuleOptimizer = match optimizer {
        "sgd" => || {
            let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
            let config = SgdConfig::new().with_momentum(Some(momentum));
            config.build().into()
        },
        "adam" => || Lagged::new(AdamConfig::new().build(), 0.999).into(),
        _ => return Err(format!("no optimizer `{optimizer}`")),
    };
    let parsed = |part: &str| {
        let text = format!(
            "name = \"bench\"\n[data.digits]\n[model.{part}\n[optimizer.sgd]\n\
             learning_rate = 0.1\n[training]\nbatch = 64\nepochs = 1\n"
        );
        recipe::parse(&text, None).map(|recipe| recipe.model).map_err(|error| error.to_string())
    };
    let device = default_device();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let outputs = 10;
    match model {
        "mlp-30x256" | "mlp-3x32" => {
            let size = if model == "mlp-3x32" {
                "depth = 3\nwidth = 32"
            } else {
                "depth = 30\nwidth = 256"
            };
            match parsed(&format!("mlp]\n{size}"))? {
                Model::Mlp(mlp) => {
                    let shape = Shape { input: vec![64], outputs };
                    let make = || Mlp::new(&mlp, &shape, &mut rng, &device);
                    Ok(Box::new(Runs::new(make, optimizer, [64, 64], outputs)))
                }
                other => Err(format!("got {other:?}")),
            }
        }
        "transformer-6x256" => match parsed("transformer]\ndepth = 6\nwidth = 256\nheads = 8")? {
            Model::Transformer(transformer) => {
                let shape = Shape { input: vec![128, 16], outputs };
                let make = || Transformer::new(&transformer, &shape, &mut rng, &device);
                Ok(Box::new(Runs::new(make, optimizer, [8, 128 * 16], outputs)))
            }
            other => Err(format!("got {other:?}")),
        },
        _ => Err(format!("no model `{model}`")),
    }
}

/// Number of the runs that take turns; one more is recorded.
const RUNS: usize = 5;
/// Process time of a block of steps.
const BLOCK_SECONDS: f64 = 2.0;

/// Runs of one model that take their steps in turn.
trait Steps {
    /// The times of a step: bare, observed, observed with probes, protected, bare, recorded.
    fn milliseconds(&mut self, steps: u64) -> Result<[f64; RUNS + 1], String>;
}

struct Runs<N: Network> {
    runs: [Option<Guarded<N>>; RUNS + 1],
    /// Where the last run is recorded.
    _folder: tempfile::TempDir,
    inputs: Tensor<2>,
    labels: Tensor<1, Int>,
    step: u64,
}

/// Without probes.
fn guarded(mode: Mode) -> Option<GuardConfig> {
    Some(GuardConfig { mode, trace_every: u64::MAX, ..GuardConfig::default() })
}

impl<N: Network> Runs<N> {
    fn new(
        mut make: impl FnMut() -> N,
        optimizer: fn() -> ModuleOptimizer,
        inputs: [usize; 2],
        classes: usize,
    ) -> Self {
        let device = default_device();
        let labels: Vec<i64> = (0..inputs[0]).map(|row| (row % classes) as i64).collect();
        let model = make();
        let run = |config: Option<GuardConfig>| {
            let guard = config.map(|of| Guard::new(&model, of).with_layers(model.layers()));
            Some(Guarded { guard, model: model.clone(), optimizer: optimizer() })
        };
        let with_probes = Some(GuardConfig::default());
        let (observed, protected) = (guarded(Mode::Observe), guarded(Mode::Protect));
        let mut runs = [None, observed.clone(), with_probes, protected, None, observed].map(run);
        let folder = tempfile::tempdir().expect("a temporary folder");
        if let Some(recorded) = &mut runs[RUNS] {
            recorded.guard = recorded.guard.take().map(|guard| guard.record_to(folder.path()));
        }
        Self {
            runs,
            _folder: folder,
            inputs: Tensor::random(inputs, Distribution::Normal(0.0, 1.0), &device),
            labels: Tensor::from_data(&labels[..], &device),
            step: 0,
        }
    }

    fn timed_step(&mut self, which: usize) -> f64 {
        let (inputs, labels) = (&self.inputs, &self.labels);
        let pass = |model: &N, probes: &Probes| {
            let outputs = model.forward(inputs.clone(), probes);
            let cross_entropy = CrossEntropyLossConfig::new().init(&outputs.device());
            cross_entropy.forward(outputs, labels.clone())
        };
        let Some(Guarded { mut guard, model, mut optimizer }) = self.runs[which].take() else {
            return f64::NAN;
        };
        let start = process_seconds();
        let unarmed = Probes::unarmed();
        let loss = pass(&model, guard.as_ref().map_or(&unarmed, Guard::probes));
        let value = loss.clone().inner().into_scalar::<f32>();
        let model = match &mut guard {
            Some(guard) => {
                let gradients = guard.backward(loss, &model);
                guard.step_with_pass(&mut optimizer, LEARNING_RATE, model, gradients, value, pass)
            }
            None => {
                let gradients = GradientsParams::from_grads(loss.backward(), &model);
                optimizer.step(LEARNING_RATE, model, gradients)
            }
        };
        let ms = 1e3 * (process_seconds() - start);
        self.runs[which] = Some(Guarded { guard, model, optimizer });
        ms
    }
}

/// A model in training, under its guard if it has one.
struct Guarded<N: Network> {
    guard: Option<Guard<N>>,
    model: N,
    optimizer: ModuleOptimizer,
}

impl<N: Network> Runs<N> {
    /// The mean milliseconds of a step in a block, with what other threads do meanwhile.
    fn block(&mut self, which: usize) -> f64 {
        let (start, mut steps) = (process_seconds(), 0_u32);
        while process_seconds() - start < BLOCK_SECONDS {
            self.timed_step(which);
            steps += 1;
        }
        1e3 * (process_seconds() - start) / f64::from(steps)
    }
}

impl<N: Network> Steps for Runs<N> {
    fn milliseconds(&mut self, steps: u64) -> Result<[f64; RUNS + 1], String> {
        let every = GuardConfig::default().trace_every;
        let (mut plain, mut probed): ([Vec<f64>; RUNS], Vec<f64>) = Default::default();
        for _ in 0..steps {
            // Who comes first in a step changes, so that nobody always finds the same caches.
            for turn in 0..RUNS as u64 {
                let which = ((self.step + turn) % RUNS as u64) as usize;
                let ms = self.timed_step(which);
                // All guarded runs have probes at step 0.
                match which {
                    1 | 3 if self.step == 0 => {}
                    2 if self.step.is_multiple_of(every) => probed.push(ms),
                    _ => plain[which].push(ms),
                }
            }
            self.step += 1;
        }
        let (alone, recorded) = (self.block(1), self.block(RUNS));
        let guards = self.runs.iter().flatten().filter_map(|run| run.guard.as_ref());
        if guards.into_iter().any(|guard| guard.run().first_alarm().is_some()) {
            return Err("an alarm has ended the calm".to_owned());
        }
        let middles = plain.map(median);
        let [Some(bare), Some(observed), Some(between), Some(protected), Some(control)] = middles
        else {
            return Err(format!("got {steps} steps, want more"));
        };
        let probed = median(probed).ok_or_else(|| format!("got {steps} steps, want {every}"))?;
        let part = 1.0 / every as f64;
        let gains = (1.0 - part) * between + part * probed;
        Ok([bare, observed, gains, protected, control, observed * recorded / alone])
    }
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    let count = times.len();
    let lower = count.checked_sub(1)? / 2;
    Some((times[lower] + times[count / 2]) / 2.0)
}

/// Processor time of this process: what other programs do meanwhile is no part of it.
#[cfg(unix)]
fn process_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// Time of day, where there is no clock of the process.
#[cfg(not(unix))]
fn process_seconds() -> f64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
