//! A guard that goes on from a state in which bytes were changed before it was sealed.

use std::sync::LazyLock;

use tamegrad::observe::LayerTrace;
use tamegrad::{
    Finished, Guard, GuardConfig, LayerId, LayerInfo, LayerSample, Layout, Mode, Observation,
    RunFacts, Step, TensorInfo, Update,
};
use tamegrad_report::{Style, json, terminal};
use tamegrad_state::{load, seal};
use tamegrad_stats::scan;

const STEPS: u64 = 130;
const TENSORS: usize = 2;

/// The bytes of a guard whose run has findings and actions, without head and checksum.
static GUARD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut guard = Guard::new(layout(), RunFacts::default(), config());
    (0..STEPS).for_each(|number| step(&mut guard, number));
    assert!(!guard.run().findings().is_empty() && !guard.run().actions().is_empty());
    postcard::to_allocvec(&guard).expect("there is memory")
});

/// Goes on from a state with changes in it, if it is accepted, and tells what was seen. A change is
/// three bytes: where (two, from the start; it wraps around), and what is changed there.
pub fn guard_state(changes: &[u8]) {
    let mut body = GUARD.clone();
    for change in changes.as_chunks::<3>().0 {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % body.len();
        body[place] ^= change[2];
    }
    let saved = match load(&seal(&body).expect("there is memory")) {
        Ok(saved) => saved,
        Err(error) => return assert_ne!(error.to_string(), ""),
    };
    // As torch's integration does it: which layer a tensor belongs to is what the state says.
    let mut guard = Guard::new(saved.record().layout().clone(), RunFacts::default(), config());
    if let Err(error) = guard.resume(saved) {
        return assert_ne!(error.to_string(), "");
    }
    (STEPS..STEPS + 3).for_each(|number| step(&mut guard, number));
    let diagnosis = guard.diagnosis();
    let style = Style { colour: false, width: 100 };
    assert_ne!(terminal::diagnosis(&diagnosis, guard.run(), &style), "");
    let report = json::DiagnosisReport::from(&diagnosis);
    assert_ne!(json::to_string(&report).expect("a diagnosis is JSON"), "");
}

fn config() -> GuardConfig {
    GuardConfig { mode: Mode::Protect, ..GuardConfig::default() }
}

fn layout() -> Layout {
    let tensor = |index: usize| TensorInfo {
        name: format!("{index}.weight"),
        layer: Some(LayerId(index)),
        is_matrix: true,
        fan_in: None,
    };
    let layer = |index: usize| LayerInfo::named(format!("{index}"));
    Layout {
        tensors: (0..TENSORS).map(tensor).collect(),
        layers: (0..TENSORS).map(layer).collect(),
    }
}

/// A step of a calm run but for a gradient that is NaN and one that is far too large.
fn step(guard: &mut Guard, number: u64) {
    let size = match number {
        115 => f64::NAN,
        125 => 1e5,
        _ => 1.0 + 0.1 * (number % 7) as f64,
    };
    let asks = guard.before_pass(Step(number));
    if asks.snapshot {
        guard.snapshot_kept(Step(number));
    }
    let gradients = [1.0, 0.5].map(|part| Some(scan(&[part * size])));
    let sample = || LayerSample::new(scan(&[1.0, size]), Some(scan(&[0.5])));
    let trace =
        LayerTrace { input: Some(sample()), layers: (0..TENSORS).map(|_| sample()).collect() };
    let open = guard.begin(&Observation {
        step: Step(number),
        loss: Some(size.min(3.0)),
        learning_rate: Some(0.1 * guard.learning_rate_factor()),
        gradients: &gradients,
        trace: asks.trace.then_some(&trace),
        ..Observation::default()
    });
    let update = Some(Update { change_norm: 0.01, weight_norm: 1.0, len: 9, nonfinite: 0 });
    if let Finished::Shrink(step) = guard.finish(open, &[update; TENSORS]) {
        guard.finish_shrunk(step, &[update; TENSORS]);
    }
}
