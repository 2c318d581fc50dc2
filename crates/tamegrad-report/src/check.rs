//! Made-up runs for the tests: one that explodes in `layers.3`, a healthy one, and a fix.

use tamegrad::SignName;
use tamegrad::diagnosis::SignSummary;
use tamegrad::observe::LayerTrace;
use tamegrad::{
    ActivationKind, Finding, GradientAction, Guard, GuardConfig, LayerId, LayerInfo, LayerSample,
    Layout, Measure, Mode, NamedInput, NormalisationKind, Observation, Quantity, RunFacts,
    Severity, Step, TensorInfo, TensorStats, Update, Verdict,
};

use crate::json::{ChosenReport, DiagnosisReport, FixReport, FixedReport, TrialReport};

/// Layers `layers.0`, `layers.1`, ... with one weight each; `layers.3` applies exp.
pub(crate) fn layers(count: usize) -> Layout {
    let activation = |i| match i {
        3 => ("exp".to_owned(), ActivationKind::Superlinear),
        _ => ("relu".to_owned(), ActivationKind::Linear),
    };
    Layout {
        tensors: (0..count)
            .map(|i| TensorInfo {
                name: format!("layers.{i}.linear.weight"),
                layer: Some(LayerId(i)),
                is_matrix: true,
                fan_in: None,
            })
            .collect(),
        layers: (0..count)
            .map(|i| LayerInfo {
                activation: Some(activation(i)),
                normalisation: Some(NormalisationKind::None),
                ..LayerInfo::named(format!("layers.{i}"))
            })
            .collect(),
    }
}

/// Six layers, calm for 150 steps; then the gain of `layers.3` is 38, and from step 152 on the
/// loss is NaN. It ends at step 159.
pub(crate) fn exploded() -> Guard {
    run(Mode::Observe, 160, |step, calm| match step {
        150 => Point { loss: 9.0, norm: 900.0, update: 0.8, blown: true },
        151 => Point { loss: 4.2e3, norm: 7e5, update: 12.0, blown: true },
        152.. => Point { loss: f64::NAN, norm: f64::NAN, update: f64::INFINITY, blown: true },
        _ => calm,
    })
}

/// Six layers, calm for 160 steps.
pub(crate) fn healthy() -> Guard {
    run(Mode::Observe, 160, |_, calm| calm)
}

/// As [`exploded`] until step 150, after which it is calm again.
pub(crate) fn recovered() -> Guard {
    run(Mode::Observe, 200, |step, calm| match step {
        150 => Point { loss: 9.0, norm: 900.0, update: 0.8, blown: true },
        _ => calm,
    })
}

/// The same in protect mode, with gradients that are NaN in three more steps.
pub(crate) fn protected() -> Guard {
    run(Mode::Protect, 200, |step, calm| match step {
        150 => Point { loss: 9.0, norm: 900.0, update: 0.8, blown: true },
        160..=162 => Point { norm: f64::NAN, ..calm },
        _ => calm,
    })
}

/// A network of so many layers that was calm for 30 steps, with these forward gains.
pub(crate) fn calm_gains(count: usize, gain: Option<f64>) -> Guard {
    let mut guard = Guard::new(layers(count), RunFacts::default(), GuardConfig::default());
    let trace = trace(&vec![gain.unwrap_or(1.0); count], &vec![1.0; count]);
    for step in 0..30 {
        let (step, trace) = (Step(step), gain.map(|_| &trace));
        guard.observe(&Observation { step, trace, ..Observation::default() }, &[]);
    }
    guard
}

/// A sign with the severity of its first finding (at step 1,200), its count of findings, and what
/// it still needs when it was too early.
pub(crate) fn sign(
    sign: SignName,
    (severity, count, too_early): (Option<Severity>, u64, Option<u32>),
) -> SignSummary {
    let evidence = vec![Measure::new(Quantity::Loss, 9.0)];
    let first = severity.map(|severity| Finding::new(sign, Step(1200), severity, evidence));
    SignSummary { sign, findings: first.into_iter().collect(), count, too_early }
}

/// What a fix of [`exploded`] reports.
pub(crate) fn fix_report(guard: &Guard) -> FixReport {
    use Verdict::{Exploded, Healthy};
    let trial = |(remedy, change, verdict, metric, seconds): (&str, &str, _, _, _)| TrialReport {
        remedy: remedy.into(),
        change: change.into(),
        verdict,
        metric: Some(metric),
        seconds,
    };
    let norm = "batch norm before the activation";
    FixReport {
        given: DiagnosisReport { metric: Some(0.1), ..DiagnosisReport::from(&guard.diagnosis()) },
        trials: [
            ("clip-global-norm", "clip by global norm at 2.4", Exploded, f64::NAN, 3.25),
            ("batch-norm-before", norm, Healthy, 0.91, 6.5),
            ("bounded-activation", "relu in layers.3", Healthy, 0.9496, 4.0),
        ]
        .map(trial)
        .into(),
        chosen: Some(ChosenReport {
            remedy: "bounded-activation".into(),
            change: "relu in layers.3".into(),
        }),
        fixed: Some(FixedReport {
            verdict: Healthy,
            metric: Some(0.955),
            weights_hash: "00c0ffee".into(),
        }),
    }
}

/// The keys of an object, in the order of the alphabet.
pub(crate) fn keys(object: &serde_json::Value) -> String {
    let mut keys: Vec<_> = object.as_object().expect("an object").keys().cloned().collect();
    keys.sort_unstable();
    keys.join(" ")
}

/// One step of a run.
#[derive(Clone, Copy)]
struct Point {
    loss: f64,
    norm: f64,
    update: f64,
    blown: bool,
}

fn run(mode: Mode, steps: u64, at: impl Fn(u64, Point) -> Point) -> Guard {
    const LAYERS: usize = 6;
    let facts = RunFacts { planned_steps: Some(400), batch_size: Some(32), ..RunFacts::default() };
    let config = GuardConfig { mode, ..GuardConfig::default() };
    let mut guard = Guard::new(layers(LAYERS), facts, config);
    for step in 0..steps {
        let point = at(step, calm(step));
        let gradients = [Some(stats(point.norm)); LAYERS];
        let (forward, backward) = if point.blown { (38.0, 41.0) } else { (1.9, 1.7) };
        let trace =
            trace(&[1.02, 0.98, 1.1, forward, 0.97, 0.4], &[0.95, 1.04, 1.0, backward, 1.01, 1.2]);
        let armed = guard.before_pass(Step(step)).trace || point.blown;
        let open = guard.begin(&Observation {
            step: Step(step),
            loss: Some(point.loss),
            learning_rate: Some(0.05),
            gradients: &gradients,
            trace: armed.then_some(&trace),
            inputs: &[NamedInput { name: "x", stats: stats(1.0) }],
            ..Observation::default()
        });
        let is_skipped = open.decision().gradients == GradientAction::Skip;
        let updates = [update(point.update); LAYERS];
        guard.finish_taken(open, if is_skipped { &[] } else { &updates });
    }
    guard
}

/// A loss that falls, a norm about 1 and an update ratio of 0.002, with some noise.
fn calm(step: u64) -> Point {
    let jitter = (step as f64 * 12.9898).sin() * 43_758.545_3;
    let noise = 2.0 * (jitter - jitter.floor()) - 1.0;
    Point {
        loss: 2.3 * (-(step as f64) / 80.0).exp() + 0.2 + 0.03 * noise,
        norm: (0.2 * noise).exp(),
        update: 0.002 * (0.2 * noise).exp(),
        blown: false,
    }
}

/// A first step of layers `layers.0`, `layers.1`, ... with these gains and an update of a
/// hundredth of each weight.
pub(crate) fn preflight(
    forward: &[f64],
    backward: &[f64],
    critical_multiple: f64,
) -> tamegrad::Preflight {
    let trace = trace(forward, backward);
    let deltas = trace.layers.iter().filter_map(|layer| layer.delta);
    let gradients: Vec<_> = deltas.map(Some).collect();
    let is_finite = gradients.iter().flatten().all(TensorStats::is_finite);
    let update = update(if is_finite { 0.01 } else { f64::NAN });
    tamegrad::preflight(
        &layers(forward.len()),
        &tamegrad::FirstStep {
            loss: Some(if is_finite { 2.5 } else { f64::NAN }),
            trace: Some(&trace),
            gradients: &gradients,
            updates: &vec![update; forward.len()],
            critical_multiple: Some(critical_multiple),
            dtype_max: Some(f64::from(f32::MAX)),
        },
    )
}

/// The probes of a pass with these gains: an input of RMS 1, a gradient of 1 at the last output.
fn trace(forward: &[f64], backward: &[f64]) -> LayerTrace {
    let mut deltas = vec![1.0];
    deltas.extend(backward.iter().rev().scan(1.0, |delta, gain| {
        *delta *= gain;
        Some(*delta)
    }));
    deltas.reverse();
    let outputs = forward.iter().scan(1.0, |rms, gain| {
        *rms *= gain;
        Some(*rms)
    });
    let sample = |output, delta| LayerSample::new(stats(output), Some(stats(delta)));
    LayerTrace {
        input: Some(sample(1.0, deltas[0])),
        layers: outputs.zip(&deltas[1..]).map(|(output, delta)| sample(output, *delta)).collect(),
    }
}

/// Statistics of one element.
fn stats(value: f64) -> TensorStats {
    tamegrad_stats::scan(&[value])
}

/// A change of a tensor by this part of it, which breaks it if it is not finite.
fn update(ratio: f64) -> Option<Update> {
    let nonfinite = u64::from(!ratio.is_finite());
    Some(Update { change_norm: ratio, weight_norm: 1.0, len: 1, nonfinite })
}
