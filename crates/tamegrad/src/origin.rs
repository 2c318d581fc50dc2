//! Where it began: the layer whose gain left its own history, or the first non-finite value.

use crate::chain::{Chain, Link, StandsOut, stands_out};
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::finding::Finding;
use crate::inspection::OperationKind;
use crate::observe::{LayerId, LayerTrace, Step, TensorId};
use crate::record::{NonFiniteAt, Record};
use crate::rules::{OriginRule, RULES};
use crate::run::Run;

/// Where an explosion began.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The place: a layer, a parameter, the data, or the loss, outside the model (its outputs are
    /// finite and of their usual size; the loss, or the gradient that it sends back, is not finite).
    pub place: Place,
    /// Of data that is not finite: the first layer that it came to.
    pub reached: Option<LayerId>,
    /// The numbers that show it.
    pub evidence: Vec<Measure>,
}

impl Origin {
    /// An origin at a place.
    pub fn new(place: Place, evidence: Vec<Measure>) -> Self {
        Self { place, reached: None, evidence }
    }

    /// The layer; of data that is not finite the first that it came to.
    pub fn layer(&self) -> Option<LayerId> {
        self.place.layer().or(self.reached)
    }

    /// The tensor, where only a tensor is known.
    pub fn tensor(&self) -> Option<TensorId> {
        self.place.tensor()
    }
}

/// The numbers.
const RULE: OriginRule = RULES.origin;

/// Finds the origin, in this order:
///
/// - of the first value that is not finite: the loss, if all outputs of that very pass are finite and
///   of their usual size; else the layer that produced it, the first in order of execution (the rest
///   only pass it on), or the data that came to it so; the parameter that an update from gradients of
///   no great size broke. Without probes of that pass, or of a later one whose parameters are whole,
///   at most the tensor of the alarm is named;
/// - for an alarm in the warm-up, a layer whose gain stood out from its siblings' at the
///   first step, unless another has risen by far more;
/// - the layer whose gain rose most, out of its own history (by fewer sigmas where it is many times its
///   mean, for a history of few passes has a wide spread) and above the usual gain; of a block and a layer
///   within it the layer.
///
/// It is never ranked by the norm of weight gradients: in a deep ReLU network at twice the He gain
/// every weight gradient is about 1e15, and the first to the last have a ratio of 0.12.
///
/// A recurrent cell is one layer, however many time steps it was unrolled to: when no single gain
/// stands out but the product over the time steps is large, the cell is the origin, at the time
/// step with the largest gain.
pub fn find(run: &Run) -> Option<Origin> {
    run.first_alarm()?;
    let broken = broken_before(run)
        .or_else(|| the_loss(run))
        .or_else(|| broken_function(run))
        .or_else(|| producer(run))
        .or_else(|| broken_data(run))
        .or_else(|| broken_by_update(run));
    if broken.is_some() || is_unseen(run) {
        // What the update then breaks is no place.
        return broken.or_else(|| tensor_of(run.first_alarm()?));
    }
    bad_from_the_start(run)
        .or_else(|| strongest_gain(run))
        .or_else(|| recurrent_cell(run))
        .or_else(|| alarmed_tensor(run).filter(|_| run.telling_chain().is_none()))
}

/// The first value that is not finite, if it came no later than the first alarm.
fn first_nonfinite(run: &Run) -> Option<(Step, NonFiniteAt)> {
    let alarm = run.first_alarm()?.step;
    run.record.first_nonfinite.filter(|(step, _)| *step <= alarm)
}

/// The layer in which a function was called at a point where it is infinite or undefined, or the loss where
/// no probes tell of the model. What overflows has been made large elsewhere.
fn broken_function(run: &Run) -> Option<Origin> {
    let (step, at) = first_nonfinite(run)?;
    let operation = run.broken_by()?.operation.as_ref()?;
    use OperationKind::{Attention, Exp, LogSoftmax, Mean, Softmax};
    let is_at_fault = operation.kind.is_singular() && operation.kind != Exp
        || matches!(operation.kind, Attention | LogSoftmax | Mean | Softmax);
    if !is_at_fault || operation.overflows_narrow_type() {
        return None;
    }
    let place = match &operation.module {
        Some(module) => Place::Layer(run.record.layout.layer_named(module)?),
        // The loss tells itself, unless no gradient came back from it.
        None if pass_at(&run.record, step).is_some() && at != NonFiniteAt::Gradient(None) => {
            return None;
        }
        None if operation.is_backward => Place::LossGradient,
        None => Place::Loss,
    };
    Some(Origin::new(place, vec![first_seen(place, step)]))
}

/// The parameter that was not finite before the pass that first was not.
pub(crate) fn broken_parameter(run: &Run) -> Option<(TensorId, u64)> {
    run.broken_by()?.parameter
}

fn broken_before(run: &Run) -> Option<Origin> {
    let (tensor, count) = broken_parameter(run)?;
    let parameter = Place::Tensor(tensor);
    let count = Measure::new(Quantity::NonFiniteElements, count as f64).at(parameter);
    let layer = run.record.layout.layer_of(tensor);
    Some(Origin::new(layer.map_or(parameter, Place::Layer), vec![count]))
}

/// The data, where no layer is known that they came to.
fn broken_data(run: &Run) -> Option<Origin> {
    first_nonfinite(run)?;
    let (step, place) = run.record.broken_data()?;
    Some(Origin::new(Place::Data, vec![first_seen(place, step)]))
}

/// The step at which a place was first seen with NaN or Inf.
pub(crate) fn first_seen(place: Place, step: Step) -> Measure {
    Measure::new(Quantity::FirstNonFinite, step.0 as f64).at(place)
}

/// The loss function, when the pass of the first loss or gradient that is not finite shows nothing
/// unusual in the model.
fn the_loss(run: &Run) -> Option<Origin> {
    let record = &run.record;
    let (step, at) = first_nonfinite(run)?;
    let pass = pass_at(record, step)?;
    let is_silent = matches!(at, NonFiniteAt::Loss | NonFiniteAt::Gradient(_));
    let calm = [&record.calm_trace, &record.first_trace].into_iter().flatten();
    let calm = calm.filter(|(at, _)| *at < step).map(|(_, trace)| trace).next();
    let input = pass.input.map_or(1.0, |input| input.output.max_abs);
    let sizes = pass.layers.iter().enumerate().map(|(index, sample)| {
        let before = calm.and_then(|trace| trace.layers.get(index));
        (sample.output.max_abs, before.map_or(input, |before| before.output.max_abs).max(1.0))
    });
    let (largest, usual) = sizes.max_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)))?;
    if !is_silent
        || pass.first_nonfinite_output().is_some()
        || largest > RULE.unusual_output * usual
    {
        return None;
    }
    let loss = record.rows.iter().find(|row| row.step == step).and_then(|row| row.loss);
    let loss = loss.filter(|loss| !loss.is_finite());
    let delta = pass.layers.iter().rev().find_map(|sample| sample.delta);
    let (place, shown) = match loss {
        Some(loss) => (Place::Loss, Measure::new(Quantity::Loss, loss)),
        None => {
            let broken = delta.filter(|delta| !delta.is_finite())?.nonfinite() as f64;
            let place = Place::LossGradient;
            (place, Measure::new(Quantity::NonFiniteElements, broken).at(place))
        }
    };
    let sizes = Measure::new(Quantity::LargestOutput, largest).against(Reference::Usual, usual);
    let when = Measure::new(Quantity::PassStep, step.0 as f64);
    Some(Origin::new(place, vec![shown, sizes, when]))
}

/// The parameter that an update broke whose gradients were finite and of no great size: what they
/// came from is not at fault.
fn broken_by_update(run: &Run) -> Option<Origin> {
    let (step, NonFiniteAt::Parameter(tensor)) = first_nonfinite(run)? else { return None };
    let norm = run.record.rows.iter().find(|row| row.step == step)?.gradient_norm?;
    let (place, very_high) = (Place::Tensor(tensor), RULES.high_gradient.live.very_high);
    let evidence = vec![
        first_seen(place, step),
        Measure::new(Quantity::GradientNorm, norm)
            .at(Place::Gradients)
            .at_step(step)
            .against(Reference::Limit, very_high),
    ];
    (norm <= very_high).then(|| Origin::new(place, evidence))
}

/// The probes of a step's own pass.
fn pass_at(record: &Record, step: Step) -> Option<&LayerTrace> {
    let passes = [&record.alarm_trace, &record.calm_trace, &record.first_trace];
    passes.into_iter().flatten().find(|(at, _)| *at == step).map(|(_, trace)| trace)
}

/// Whether no probes tell of the first loss or gradient that is not finite.
fn is_unseen(run: &Run) -> bool {
    first_nonfinite(run).is_some_and(|(step, at)| {
        matches!(at, NonFiniteAt::Loss | NonFiniteAt::Gradient(_))
            && pass_at(&run.record, step).is_none()
            && run.alarm_pass().is_none()
    })
}

/// The product of the backward gains over so many time steps.
pub(crate) fn time_step_product(product: f64, count: usize) -> Measure {
    Measure::new(Quantity::TimeStepProduct, product)
        .over(count as u64)
        .against(Reference::Limit, RULES.recurrence)
}

/// How far a layer's gain has risen.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Departure {
    /// The layer.
    pub layer: LayerId,
    /// Gain now.
    pub gain: f64,
    /// Gain while calm, or 1 where there is no history.
    pub usual: f64,
    /// Natural logarithm of gain over usual.
    pub log_rise: f64,
    /// Whether it is the forward gain.
    pub is_forward: bool,
}

impl Departure {
    fn measure(&self) -> Measure {
        gain(self.is_forward, self.layer, self.gain).against(Reference::Usual, self.usual)
    }
}

/// The layers whose gain has risen out of its history (or, without one, out of [0.5, 2]),
/// largest rise first; of those that share a rank, the one nearest to the loss.
fn departures(run: &Run) -> Vec<Departure> {
    let record = &run.record;
    let Some(chain) = run.telling_chain() else { return Vec::new() };
    let risen: Vec<Departure> =
        chain.links.iter().filter_map(|link| departure(record, link)).collect();
    let is_block = |d: &Departure| {
        let link = chain.links.get(d.layer.0);
        link.is_some_and(|link| risen.iter().any(|inner| link.encloses(inner.layer)))
    };
    let mut risen: Vec<Departure> = risen.iter().filter(|d| !is_block(d)).copied().collect();
    risen.sort_by(|a, b| b.log_rise.total_cmp(&a.log_rise));
    let largest = risen.first().map_or(0.0, |d| d.log_rise);
    let shared = risen.iter().take_while(|d| d.log_rise >= RULE.shares * largest).count();
    risen[..shared].sort_by_key(|d| std::cmp::Reverse(d.layer));
    risen
}

fn departure(record: &Record, link: &Link) -> Option<Departure> {
    // A normalisation's gain rises when what comes to it has shrunk.
    let track = record.gains.get(link.layer.0).filter(|_| !link.only_normalises)?;
    let sides = [(link.forward, &track.forward, true), (link.backward, &track.backward, false)];
    let risen = sides.into_iter().filter_map(|(gain, history, is_forward)| {
        let gain = gain.filter(|gain| *gain > 0.0)?;
        let has_history = history.count() >= RULE.history_min;
        let usual = if has_history { history.mean().exp() } else { 1.0 };
        let log_rise = (gain / usual).ln().min(f64::MAX.ln());
        let leaves = gain > RULE.gain_high
            && log_rise > RULE.gain_high.ln()
            && (!has_history
                || history.z(gain.ln()) > RULE.leaves_sigmas
                || (history.z(gain.ln()) > RULE.far_sigmas && log_rise > RULE.far_ratio.ln()));
        leaves.then_some(Departure { layer: link.layer, gain, usual, log_rise, is_forward })
    });
    risen.max_by(|a, b| a.log_rise.total_cmp(&b.log_rise))
}

/// The layer that brought about the first non-finite output. That is not always the layer whose
/// output it is: one that lets 1 become 1e30 leaves the overflow to the next. To overflow, the
/// producer must have had a gain of at least the type's maximum over its largest input; a layer
/// before it whose own gain has risen by more than that is the origin.
fn producer(run: &Run) -> Option<Origin> {
    let record = &run.record;
    let (first, at) = first_nonfinite(run)?;
    let pass = non_finite_pass(run, first)?;
    let (step, trace) = pass;
    let LayerId(broken) = trace.first_nonfinite_output()?;
    let own = trace.layers[broken].input;
    let before = broken.checked_sub(1).map_or(trace.input.as_ref(), |i| trace.layers.get(i));
    let input = own.or(before.map(|sample| sample.output));
    let largest = input.map_or(1.0, |input| input.max_abs.max(f64::MIN_POSITIVE));
    let max = record.facts.dtype_max.unwrap_or(f64::from(f32::MAX));
    let needed = (max / largest).ln();
    let seen = first_seen(Place::Output(LayerId(broken)), *step);
    // In a later pass something else was not finite before.
    let mut evidence =
        vec![if *step == first { seen } else { seen.against(Reference::First, first.0 as f64) }];
    if let Some(own) = own.filter(|own| !own.is_finite()) {
        let count = Measure::new(Quantity::NonFiniteElements, own.nonfinite() as f64);
        evidence.push(count.at(Place::LayerInput(LayerId(broken))));
    }
    let chain = record.chain(pass);
    let before = chain.links[..broken].iter().filter_map(|link| departure(record, link));
    let strongest = before
        .filter(|d| d.is_forward && d.log_rise > needed)
        .max_by(|a, b| a.log_rise.total_cmp(&b.log_rise));
    if let Some(d) = strongest {
        evidence.insert(0, d.measure().at_step(*step));
    }
    let layer = strongest.map_or(LayerId(broken), |d| d.layer);
    Some(match at {
        NonFiniteAt::Input(_) | NonFiniteAt::Targets => {
            Origin { reached: Some(layer), ..Origin::new(Place::Data, evidence) }
        }
        _ => Origin::new(Place::Layer(layer), evidence),
    })
}

/// The probed pass of the first value that is not finite, else a later one at the alarm.
fn non_finite_pass(run: &Run, first: Step) -> Option<&(Step, LayerTrace)> {
    let is_first = |traced: &&(Step, LayerTrace)| traced.0 == first;
    run.record.first_trace.as_ref().filter(is_first).or_else(|| run.alarm_pass())
}

/// The layer whose gain stood out at the first step, when the alarm came in the warm-up. What a bad
/// layer does to the others is a rise of theirs, and none of its own.
fn bad_from_the_start(run: &Run) -> Option<Origin> {
    let record = &run.record;
    let is_early = run.first_alarm()?.step.0 < u64::from(RULES.warm_up.live);
    let chain = record.first_chain().filter(|chain| is_early && chain.step.0 == 0)?;
    let is_recurrent = |link: &&Link| record.layout.is_recurrent(link.layer);
    let links: Vec<&Link> = chain.links.iter().filter(|link| !is_recurrent(link)).collect();
    let bad = stands_out(&links)?;
    let risen = departures(run).first().map_or(0.0, |most| most.log_rise);
    (risen <= RULE.risen_further * (bad.gain / bad.usual).ln())
        .then(|| Origin::new(Place::Layer(bad.layer), vec![stands_out_measure(&bad)]))
}

/// The gain of a layer that stood out from the others at step 0.
pub(crate) fn stands_out_measure(found: &StandsOut) -> Measure {
    gain(found.is_forward, found.layer, found.gain)
        .at_step(Step(0))
        .against(Reference::Layers, found.usual)
}

fn gain(is_forward: bool, layer: LayerId, value: f64) -> Measure {
    let quantity = if is_forward { Quantity::ForwardGain } else { Quantity::BackwardGain };
    Measure::new(quantity, value).at(Place::Layer(layer))
}

fn strongest_gain(run: &Run) -> Option<Origin> {
    let most = departures(run).into_iter().next()?;
    Some(Origin::new(Place::Layer(most.layer), vec![most.measure()]))
}

/// The recurrent cell, when its gains multiply to more than `RULES.recurrence`.
fn recurrent_cell(run: &Run) -> Option<Origin> {
    let record = &run.record;
    let chain = run.telling_chain()?;
    let (product, count) = recurrent_product(record, &chain)?;
    let largest = time_steps(record, &chain)
        .filter(|link| link.backward.is_some())
        .max_by(|a, b| a.backward.unwrap_or(0.0).total_cmp(&b.backward.unwrap_or(0.0)))?;
    (product > RULES.recurrence)
        .then(|| Origin::new(Place::Layer(largest.layer), vec![time_step_product(product, count)]))
}

/// The first tensor to alarm, or to strain shortly before that.
fn alarmed_tensor(run: &Run) -> Option<Origin> {
    let alarm = run.first_alarm()?.step.0;
    let near = |finding: &&Finding| {
        finding.place.tensor().is_some() && finding.step.0.saturating_add(RULE.near_alarm) >= alarm
    };
    let near_alarm = || run.findings().iter().filter(near);
    let is_alarm = |finding: &&Finding| finding.is_alarm();
    tensor_of(near_alarm().find(is_alarm).or_else(|| near_alarm().next())?)
}

fn tensor_of(finding: &Finding) -> Option<Origin> {
    let place = Place::Tensor(finding.place.tensor()?);
    Some(Origin::new(place, finding.evidence.first().copied().into_iter().collect()))
}

/// The time steps of a recurrent cell whose backward gain leads to another one: all but the first, whose
/// gain leads to the input.
fn time_steps<'a>(record: &'a Record, chain: &'a Chain) -> impl Iterator<Item = &'a Link> {
    chain.links.iter().filter(|link| record.layout.is_recurrent(link.layer)).skip(1)
}

/// The product of the backward gains from time step to time step, with their number; `None` when
/// there are none.
pub(crate) fn recurrent_product(record: &Record, chain: &Chain) -> Option<(f64, usize)> {
    let gains: Vec<f64> = time_steps(record, chain).filter_map(|link| link.backward).collect();
    (!gains.is_empty()).then(|| (crate::chain::product(gains.iter().copied()), gains.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Guard;
    use crate::finding::{Severity, SignName};
    use crate::observe::{LayerSample, Observation, RunFacts};
    use crate::signs::check::{layout, seen, stats, update};

    /// A trace whose forward gains are as given and whose backward gains are 1.
    fn trace(gains: &[f64]) -> LayerTrace {
        crate::causes::check::trace(gains, &vec![1.0; gains.len()])
    }

    fn run_of(calm: &[f64], calm_passes: u64, at_alarm: &[f64]) -> Run {
        run_of_passes(calm_passes, |_| calm.to_vec(), at_alarm)
    }

    fn run_of_passes(calm_passes: u64, calm: impl Fn(u64) -> Vec<f64>, at_alarm: &[f64]) -> Run {
        let mut run = Run::new(layout(at_alarm.len()), RunFacts::default());
        for step in 0..calm_passes {
            let trace = trace(&calm(step));
            let step = Step(step);
            run.take(&Observation { step, trace: Some(&trace), ..Observation::default() });
            run.settle();
        }
        let (sign, step) = (SignName::GradientSpikes, Step(calm_passes));
        run.note([Finding::new(sign, step, Severity::Alarm, vec![])]);
        let trace = trace(at_alarm);
        run.take(&Observation { step, trace: Some(&trace), ..Observation::default() });
        run
    }

    #[test]
    fn names_the_layer_whose_gain_left_its_history() {
        for (name, calm, passes, now, layer) in [
            ("one layer rises", vec![1.0, 1.6, 1.1, 1.0], 5, vec![1.0, 40.0, 1.1, 1.0], Some(1)),
            (
                "a layer that always had 3 is not it",
                vec![3.0, 1.0, 1.0],
                5,
                vec![3.0, 1.0, 9.0],
                Some(2),
            ),
            ("no history: out of [0.5, 2]", vec![1.0, 10.0, 1.0], 0, vec![1.0, 10.0, 1.0], Some(1)),
            ("equal rises: nearest to the loss", vec![1.0; 3], 5, vec![8.0, 8.0, 8.0], Some(2)),
            ("nothing rises", vec![1.0; 3], 5, vec![1.1, 1.0, 0.9], None),
            (
                "one stood out at step 0, and drives the others",
                vec![1.0, 1.0, 9.0, 1.0, 1.0, 1.0],
                5,
                vec![1.0, 1.0, 9.0, 2.5, 2.5, 4.0],
                Some(2),
            ),
            (
                "one stood out at step 0, but another has risen by far more",
                vec![1.0, 1.0, 9.0, 1.0, 1.0, 1.0],
                5,
                vec![1.0, 1.0, 9.0, 1.0, 900.0, 1.0],
                Some(4),
            ),
        ] {
            let found = find(&run_of(&calm, passes, &now)).and_then(|origin| origin.layer());
            assert_eq!(found, layer.map(LayerId), "{name}");
        }
    }

    #[test]
    fn far_above_a_gain_that_varies_is_out_of_its_history() {
        // ln of the gain: 0.6 up and down. 6 sigma are a factor of 37, 3 sigma one of 6.
        let varies = |pass: u64| vec![1.0, if pass.is_multiple_of(2) { 0.55 } else { 1.82 }, 1.0];
        for (gain, layer) in [(3.0, None), (8.5, None), (12.0, Some(LayerId(1)))] {
            let run = run_of_passes(20, varies, &[1.0, gain, 1.0]);
            assert_eq!(find(&run).and_then(|origin| origin.layer()), layer, "{gain}");
        }
    }

    #[test]
    fn the_producer_of_the_first_inf_goes_before_any_gain() {
        let run = run_of(&[1.0, 1.0, 1.0], 5, &[1.0, 1.9, f64::INFINITY]);
        assert_eq!(find(&run).and_then(|origin| origin.layer()), Some(LayerId(2)));
    }

    #[test]
    fn a_layer_that_leaves_the_overflow_to_the_next_is_the_origin() {
        let run = run_of(&[1.0, 1.0, 1.0], 5, &[1.0, 1e30, f64::INFINITY]);
        assert_eq!(find(&run).and_then(|origin| origin.layer()), Some(LayerId(1)));
    }

    /// A record of a run that is calm until `step`, at which the loss is NaN, or in whose gradients
    /// something is.
    struct Broken {
        /// Outputs of the calm passes and of that at the step.
        calm: [f64; 3],
        now: [f64; 3],
        /// Gradient at the last output of that pass.
        delta: f64,
        loss: f64,
        /// Step of the pass in which `now` was seen; `None`: no pass was.
        seen_at: Option<u64>,
        /// Norms of the gradients at the step.
        norms: [f64; 3],
    }

    const AT: u64 = 60;

    const FINE: Broken = Broken {
        calm: [1.0; 3],
        now: [1.2; 3],
        delta: 1.0,
        loss: 0.5,
        seen_at: Some(AT),
        norms: [1.0; 3],
    };

    impl Broken {
        fn run(&self) -> Run {
            let pass = |outputs: [f64; 3], delta| {
                let mut trace = LayerTrace {
                    input: Some(LayerSample::new(stats(1.0), None)),
                    layers: outputs
                        .map(|output| LayerSample::new(stats(output), Some(stats(1.0))))
                        .to_vec(),
                };
                trace.layers[2].delta = Some(stats(delta));
                trace
            };
            let (calm, now) = (pass(self.calm, 1.0), pass(self.now, self.delta));
            let mut guard =
                Guard::new(layout(3), RunFacts::default(), crate::GuardConfig::default());
            for step in 0..=AT {
                let (norms, loss) =
                    if step == AT { (self.norms, self.loss) } else { ([1.0; 3], 0.5) };
                let gradients = norms.map(|norm| Some(stats(norm)));
                let armed = guard.before_pass(Step(step)).trace;
                let seen = seen(step, loss, &gradients);
                let open = guard.begin(&Observation { trace: armed.then_some(&calm), ..seen });
                if let Some(seen_at) = self.seen_at.filter(|_| guard.asks().repeated_trace) {
                    guard.observe_trace_of(Step(seen_at), &now);
                }
                let ratio = if norms[0].is_nan() { f64::NAN } else { 1e-3 };
                guard.finish_taken(open, &[update(ratio); 3]);
            }
            guard.run().clone()
        }
    }

    #[test]
    fn the_loss_function_is_the_place_when_all_outputs_are_finite_and_usual() {
        const NAN: f64 = f64::NAN;
        const INFINITY: f64 = f64::INFINITY;
        let layer = |index| Some(Place::Layer(LayerId(index)));
        let loss = Broken { loss: NAN, norms: [NAN; 3], delta: NAN, ..FINE };
        for (name, broken, found) in [
            ("the loss", Broken { ..loss }, Some(Place::Loss)),
            ("its gradient", Broken { loss: 0.5, ..loss }, Some(Place::LossGradient)),
            (
                "outputs that were usual",
                Broken { calm: [50.0; 3], now: [90.0; 3], ..loss },
                Some(Place::Loss),
            ),
            ("outputs far above the usual", Broken { now: [1.0, 1e30, 1.0], ..loss }, layer(1)),
            ("an output that is broken", Broken { now: [1.0, INFINITY, NAN], ..loss }, layer(1)),
            ("no pass", Broken { seen_at: None, ..loss }, None),
            (
                "no pass, some gradients",
                Broken { seen_at: None, loss: 0.5, norms: [NAN, 1.0, 1.0], ..FINE },
                Some(Place::Tensor(TensorId(0))),
            ),
            (
                "a gradient in the model",
                Broken { loss: 0.5, delta: 1.0, norms: [NAN, 1.0, 1.0], ..loss },
                None,
            ),
        ] {
            let origin = find(&broken.run()).map(|origin| origin.place);
            assert_eq!(origin, found, "{name}");
        }
    }

    #[test]
    fn a_pass_after_the_broken_step_tells_of_no_layer_unless_parameters_are_whole() {
        const NAN: f64 = f64::NAN;
        let later = Broken { loss: NAN, now: [NAN; 3], seen_at: Some(AT + 1), ..FINE };
        let place = |broken: &Broken| find(&broken.run()).and_then(|origin| origin.layer());
        assert_eq!(place(&Broken { norms: [NAN; 3], ..later }), None, "an update from NaN");
        assert_eq!(place(&later), Some(LayerId(0)), "an update from finite gradients");
        let evidence = find(&later.run()).expect("a place").evidence;
        let seen = first_seen(Place::Output(LayerId(0)), Step(61));
        let told = seen.against(Reference::First, 60.0);
        assert_eq!(evidence.last(), Some(&told), "{evidence:?}");
    }

    #[test]
    fn the_pass_of_the_step_refines_the_place_and_keeps_the_step() {
        let broken = Broken { loss: f64::NAN, now: [1.0, f64::NAN, f64::NAN], ..FINE };
        let first = Some((Step(AT), NonFiniteAt::Output(LayerId(1))));
        assert_eq!(broken.run().record.first_nonfinite, first);
        let later = Broken { seen_at: Some(AT + 1), ..broken };
        assert_eq!(later.run().record.first_nonfinite, Some((Step(AT), NonFiniteAt::Loss)));
    }

    #[test]
    fn where_the_loss_broke_no_cause_in_the_model_is_given_and_no_layer_is_changed() {
        // The gains of the first pass alone would be called bad initial weights.
        let broken = Broken {
            calm: [1.0, 1e4, 1e8],
            now: [1.0, 1e4, 1e8],
            loss: f64::NAN,
            norms: [f64::NAN; 3],
            ..FINE
        };
        let found = crate::diagnose(&broken.run());
        assert_eq!(found.origin.map(|origin| origin.place), Some(Place::Loss));
        assert_eq!(found.causes, []);
        let remedies: Vec<_> = found.remedies.iter().map(|proposal| proposal.remedy).collect();
        use crate::remedies::RemedyName::{Rewind, SkipStep};
        assert!(remedies.iter().all(|name| [SkipStep, Rewind].contains(name)), "{remedies:?}");
        let unseen = crate::diagnose(&Broken { now: [1.0, 1e4, 1e30], ..broken }.run());
        assert_eq!(unseen.causes[0].name, crate::causes::CauseName::Initialisation);
    }

    #[test]
    fn an_update_that_broke_a_parameter_is_told_by_the_parameter_and_its_step() {
        for (norm, tensor) in [(1.0, Some(TensorId(1))), (1e9, None)] {
            let mut run = Run::new(layout(3), RunFacts::default());
            let gradients = [Some(stats(norm)); 3];
            let calm = trace(&[1.0; 3]);
            let broken = trace(&[f64::NAN; 3]);
            let pass =
                |step, trace| Observation { trace: Some(trace), ..seen(step, 0.5, &gradients) };
            run.take(&pass(0, &calm));
            run.record.take_update(&[1e-3, f64::NAN, 1e-3].map(update));
            let found = Finding::new(SignName::LossNonFinite, Step(0), Severity::Alarm, vec![]);
            run.note([found.at(Place::Tensor(TensorId(1)))]);
            run.take(&pass(1, &broken));
            let origin = find(&run);
            assert_eq!(origin.as_ref().and_then(Origin::tensor), tensor, "{norm}");
            assert_eq!(origin.as_ref().and_then(Origin::layer), None, "{norm}");
            let told = origin.map(|origin| origin.evidence[0]);
            assert_eq!(told, tensor.map(|tensor| first_seen(Place::Tensor(tensor), Step(0))));
        }
    }

    #[test]
    fn data_that_is_not_finite_is_the_place() {
        for (input, target, place, layer) in
            [(f64::NAN, 1.0, Place::Data, Some(LayerId(0))), (1.0, f64::NAN, Place::Data, None)]
        {
            let output = if input.is_nan() { [f64::NAN; 3] } else { [1.0; 3] };
            let pass = trace(&output);
            let mut guard =
                Guard::new(layout(3), RunFacts::default(), crate::GuardConfig::default());
            let seen = Observation {
                loss: Some(f64::NAN),
                inputs: &[crate::NamedInput { name: "x", stats: stats(input) }],
                targets: Some(stats(target)),
                trace: Some(&pass),
                ..Observation::default()
            };
            guard.observe(&seen, &[]);
            let origin = find(guard.run()).expect("a place");
            assert_eq!((origin.place, origin.layer()), (place, layer));
        }
    }

    #[test]
    fn a_layer_goes_before_the_block_that_it_lies_in() {
        let mut run = run_of(&[1.0; 3], 5, &[1.0; 3]);
        let record = &mut run.record;
        record.layout.layers[2].name = "h".to_owned();
        record.layout.layers[1].name = "h.fc".to_owned();
        let mut pass = trace(&[1.0, 40.0, 1.0]);
        pass.layers[2].input = Some(stats(1.0));
        for (only_normalises, layer) in [(false, 1), (true, 2)] {
            run.record.layout.layers[1].only_normalises = only_normalises;
            run.record.alarm_trace = Some((Step(5), pass.clone()));
            let found = find(&run).and_then(|origin| origin.layer());
            assert_eq!(found, Some(LayerId(layer)), "{only_normalises}");
        }
    }

    #[test]
    fn a_recurrent_cell_is_one_layer() {
        for (gain, layer) in [(1.3, Some(LayerId(19))), (1.05, None)] {
            let mut run = run_of(&[1.0; 20], 0, &[1.0; 20]);
            let record = &mut run.record;
            record.layout.layers.iter_mut().for_each(|layer| layer.recurrent = true);
            let mut backward = [gain; 20];
            backward[19] *= 1.01;
            let trace = crate::causes::check::trace(&[1.0; 20], &backward);
            record.alarm_trace = Some((Step(0), trace));
            assert_eq!(find(&run).and_then(|origin| origin.layer()), layer, "{gain}");
        }
    }

    #[test]
    fn a_calm_run_has_no_origin() {
        let run = Run::new(layout(2), RunFacts::default());
        assert_eq!(find(&run), None);
    }
}
