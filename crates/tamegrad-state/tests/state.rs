//! States that are saved and loaded: every bit comes back, and damage is told and never panics.

use serde_reflection::{Samples, Tracer, TracerConfig};
use tamegrad::inspection::{OperationKind, Varied};
use tamegrad::observe::LayerTrace;
use tamegrad::record::NonFiniteAt;
use tamegrad::{
    ActivationKind, Decision, GradientAction, Guard, GuardConfig, LayerId, LayerInfo, LayerSample,
    Layout, Mode, NamedInput, NormalisationKind, Observation, RunFacts, Severity, Step, TensorInfo,
    Update,
};
use tamegrad::{Finished, Reading, SignName};
use tamegrad::{Place, Quantity, Reference};
use tamegrad_state::{FORMAT, load, save, seal};
use tamegrad_stats::{TensorStats, scan};
use xxhash_rust::xxh3::xxh3_64;

const STEPS: u64 = 220;

fn guard(mode: Mode) -> Guard {
    let tensor = |index: usize| TensorInfo {
        name: format!("layers.{index}.weight"),
        layer: Some(LayerId(index)),
        is_matrix: true,
        fan_in: None,
    };
    let layer = |index: usize| LayerInfo {
        activation: Some(("relu".to_owned(), ActivationKind::Linear)),
        normalisation: Some(NormalisationKind::Batch),
        residual: Some(false),
        ..LayerInfo::named(format!("layers.{index}"))
    };
    let layout =
        Layout { tensors: (0..3).map(tensor).collect(), layers: (0..3).map(layer).collect() };
    let facts = RunFacts { batch_size: Some(32), ..RunFacts::default() };
    Guard::new(layout, facts, GuardConfig { mode, ..GuardConfig::default() })
}

/// A repeatable value in -1..1.
fn noise(i: u64) -> f64 {
    let x = (i as f64 * 12.9898).sin() * 43758.5453;
    2.0 * (x - x.floor()) - 1.0
}

/// One step of a run whose gradients spike at step 150, are NaN at step 170, and whose update is far
/// too large at step 190.
fn step(guard: &mut Guard, step: u64) -> Decision {
    let asks = guard.before_pass(Step(step));
    if asks.snapshot {
        guard.snapshot_kept(Step(step));
    }
    let size = match step {
        150 => 1e4,
        170 => f64::NAN,
        _ => noise(step).exp(),
    };
    let gradients = [1.0, 0.5, 0.25].map(|part| Some(scan(&[part * size, 0.1 * part])));
    let sample = |seed: u64| LayerSample {
        output: scan(&[noise(seed), 1.0]),
        delta: Some(scan(&[noise(seed + 1), 0.5])),
        input: Some(scan(&[noise(seed + 2), 2.0])),
        input_delta: Some(scan(&[noise(seed + 3), 0.25])),
    };
    let trace = LayerTrace {
        input: Some(sample(step)),
        layers: (0..3).map(|layer| sample(step + 10 * layer)).collect(),
    };
    let open = guard.begin(&Observation {
        step: Step(step),
        loss: Some(if step == 170 { f64::NAN } else { 1.0 + 0.1 * noise(step + 7) }),
        metric: step.is_multiple_of(20).then(|| 0.5 + 0.01 * noise(step)),
        learning_rate: Some(0.1 * guard.learning_rate_factor()),
        gradients: &gradients,
        trace: asks.trace.then_some(&trace),
        inputs: &[
            NamedInput { name: "x", stats: scan(&[noise(step), 2.0]) },
            NamedInput { name: "extra", stats: scan(&[noise(step + 1)]) },
        ],
        targets: Some(scan(&[1.0])),
        ..Observation::default()
    });
    let change_norm = if step == 190 { 30.0 } else { 0.01 };
    let update =
        |change_norm| [Some(Update { change_norm, weight_norm: 1.0, len: 9, nonfinite: 0 }); 3];
    let decision = open.decision().clone();
    if let Finished::Shrink(shrinking) = guard.finish(open, &update(change_norm)) {
        let factor = shrinking.factor();
        guard.finish_shrunk(shrinking, &update(factor * change_norm));
    }
    decision
}

fn run(mode: Mode, until: u64) -> Guard {
    let mut guard = guard(mode);
    (0..until).for_each(|number| drop(step(&mut guard, number)));
    guard
}

/// The bytes of a guard as if they had been saved.
fn sealed(body: &[u8]) -> Vec<u8> {
    seal(body).expect("there is memory")
}

fn saved(guard: &Guard) -> Vec<u8> {
    save(guard).expect("there is memory")
}

/// Of the whole state, to the bit.
fn hash(guard: &Guard) -> u64 {
    xxh3_64(&saved(guard))
}

fn resumed(mode: Mode, bytes: &[u8]) -> Guard {
    let mut guard = guard(mode);
    guard.resume(load(bytes).expect("what was saved")).expect("the same model");
    guard
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_to_the_bit() {
    for mode in [Mode::Observe, Mode::Protect] {
        for at in [0, 1, 120, 151, 171, 191] {
            let mut whole = run(mode, at);
            let mut second = resumed(mode, &saved(&whole));
            assert_eq!(hash(&second), hash(&whole), "{mode:?} saved before step {at}");
            for number in at..STEPS {
                let decisions = [step(&mut whole, number), step(&mut second, number)];
                assert_eq!(decisions[0], decisions[1], "{mode:?}, step {number} after {at}");
            }
            assert_eq!(hash(&second), hash(&whole), "{mode:?} saved before step {at}");
            assert_eq!(format!("{:?}", second.diagnosis()), format!("{:?}", whole.diagnosis()));
        }
    }
}

#[test]
fn the_run_of_these_tests_has_findings_actions_and_values_that_are_not_finite() {
    let guard = run(Mode::Protect, STEPS);
    let signs: Vec<SignName> = guard.run().findings().iter().map(|finding| finding.sign).collect();
    assert!(signs.contains(&SignName::GradientSpikes), "{signs:?}");
    assert!(signs.contains(&SignName::LossNonFinite), "{signs:?}");
    let steps: Vec<u64> = guard.run().actions().iter().map(|(step, _)| step.0).collect();
    assert_eq!(steps, [150, 170, 190, 191], "scaled, skipped, shrunk, and the rate lowered");
    assert!(guard.record().rows().iter().any(|row| row.loss.is_some_and(f64::is_nan)));
}

#[test]
fn floats_come_back_with_every_bit() {
    for bits in [0, 1, 1 << 63, 0x7ff0_0000_0000_0000, 0xfff0_0000_0000_0000, 0x7ff8_dead_beef_0001]
    {
        let mut guard = guard(Mode::Observe);
        let loss = Some(f64::from_bits(bits));
        guard.observe(&Observation { loss, ..Observation::default() }, &[]);
        let guard = load(&saved(&guard)).expect("what was saved");
        let back = guard.record().now().and_then(|row| row.loss).map(f64::to_bits);
        assert_eq!(back, Some(bits), "{bits:016x}");
    }
}

#[test]
fn a_state_that_is_cut_anywhere_is_refused() {
    let bytes = saved(&run(Mode::Protect, STEPS));
    let accepted: Vec<usize> =
        (0..bytes.len()).filter(|len| load(&bytes[..*len]).is_ok()).collect();
    assert_eq!(accepted, Vec::<usize>::new());
    let longer = [&bytes[..], &[0]].concat();
    let message = load(&longer).expect_err("a byte too many").to_string();
    assert!(message.contains(&format!("got {} bytes", bytes.len() + 1)), "{message}");
    assert!(message.contains(&format!("want {} as its header says", bytes.len())), "{message}");
}

#[test]
fn a_state_with_a_changed_byte_is_refused() {
    let bytes = saved(&run(Mode::Protect, STEPS));
    let accepted: Vec<usize> = (0..bytes.len())
        .filter(|place| {
            let mut changed = bytes.clone();
            changed[*place] ^= 1 << (place % 8);
            load(&changed).is_ok()
        })
        .collect();
    assert_eq!(accepted, Vec::<usize>::new());
}

#[test]
fn bytes_that_are_whole_but_no_guard_are_refused_or_read_and_never_panic() {
    let body = postcard::to_allocvec(&run(Mode::Protect, STEPS)).expect("memory");
    for len in 0..body.len() {
        let message = load(&sealed(&body[..len])).expect_err("cut").to_string();
        assert!(message.contains("complete but not a valid guard"), "{len}: {message}");
    }
    let mut read = 0;
    for place in 0..body.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = body.clone();
            changed[place] ^= change;
            read += u64::from(load(&sealed(&changed)).is_ok());
        }
    }
    assert!(read > 0, "a changed float is a float");
}

#[test]
fn a_state_whose_actions_lie_ahead_of_its_clock_is_refused() {
    let mut body = postcard::to_allocvec(&run(Mode::Protect, STEPS)).expect("memory");
    assert_eq!(body.split_off(body.len() - 2), [0xdc, 0x01], "it ends with the clock, 220");
    body.push(100);
    let message = load(&sealed(&body)).expect_err("actions at steps 150 to 191").to_string();
    assert!(message.contains("clocks do not fit together"), "{message}");
}

#[test]
fn a_length_that_nobody_could_have_written_takes_no_memory() {
    // The guard begins with the number of its tensors.
    let message = load(&sealed(&[0xff; 9])).expect_err("2^63 tensors").to_string();
    assert!(message.contains("complete but not a valid guard"), "{message}");
    let huge = [&[0xff; 8][..], &[0x7f]].concat();
    let message = load(&sealed(&huge)).expect_err("2^63 tensors").to_string();
    assert!(message.contains("complete but not a valid guard"), "{message}");
}

#[test]
fn an_error_says_what_came_what_was_wanted_and_what_to_do() {
    let bytes = saved(&run(Mode::Observe, 30));
    let mut other_format = bytes.clone();
    other_format[15] = FORMAT as u8 + 1;
    let next = format!("in format {}, written by tamegrad 0.", FORMAT + 1);
    let mut damaged = bytes.clone();
    damaged[200] ^= 4;
    for (bytes, parts) in [
        (&b"PK\x03\x04 a zip file of another program"[..], ["begin with \"PK", "pass the bytes"]),
        (&bytes[..10], ["got 10 bytes", "load another one"]),
        (&bytes[..20], ["got 20 bytes", "load another one"]),
        (&bytes[..300], ["got 300 bytes", "load another one"]),
        (&other_format, [&*next, "resume with tamegrad 0."]),
        (&damaged, ["damaged: got checksum", "load another checkpoint"]),
    ] {
        let message = load(bytes).expect_err("no state").to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} in {message}");
        }
        assert!(message.contains("want"), "{message}");
    }
}

/// The format's number, and all types of the state with their fields and variants, in order. When the
/// types change, older bytes cannot be read any more: raise [`FORMAT`], then accept the snapshot
/// (`INSTA_UPDATE=always cargo test -p tamegrad-state`).
#[test]
fn the_format_number_goes_up_when_the_state_changes() {
    let mut tracer = Tracer::new(TracerConfig::default());
    let samples = Samples::new();
    let mut trace = || {
        tracer.trace_type::<ActivationKind>(&samples)?;
        tracer.trace_type::<NormalisationKind>(&samples)?;
        tracer.trace_type::<NonFiniteAt>(&samples)?;
        tracer.trace_type::<OperationKind>(&samples)?;
        tracer.trace_type::<Varied>(&samples)?;
        tracer.trace_type::<Quantity>(&samples)?;
        tracer.trace_type::<Reference>(&samples)?;
        tracer.trace_type::<Place>(&samples)?;
        tracer.trace_type::<Severity>(&samples)?;
        tracer.trace_type::<SignName>(&samples)?;
        tracer.trace_type::<Reading>(&samples)?;
        tracer.trace_type::<GradientAction>(&samples)?;
        tracer.trace_type::<TensorStats>(&samples)?;
        tracer.trace_type::<Guard>(&samples)
    };
    trace().expect("types that can be read");
    let types = tracer.registry().expect("every variant was seen");
    let lines = types.iter().map(|(name, fields)| format!("{name}: {fields:?}\n"));
    let lines =
        lines.collect::<String>().replace("Named { name: ", "{ ").replace(", value: ", ": ");
    insta::assert_snapshot!("types", format!("format {FORMAT}\n{lines}"));
}
