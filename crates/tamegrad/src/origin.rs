//! Where it began: the layer whose gain left its own history, or the first non-finite value.

use crate::chain::{Chain, Link, USUAL_GAIN, stands_out};
use crate::finding::{Evidence, Finding, Severity};
use crate::observe::{LayerId, LayerTrace, Step, TensorId};
use crate::record::Record;
use crate::signs::WARM_UP_STEPS;

/// Where an explosion began.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The layer.
    pub layer: Option<LayerId>,
    /// The tensor, when only a tensor is known.
    pub tensor: Option<TensorId>,
    /// The numbers that show it.
    pub evidence: Vec<Evidence>,
}

/// Sigmas by which a gain leaves its own history.
const LEAVES_SIGMAS: f64 = 6.0;
/// Sigmas that suffice for a gain of [`FAR_RATIO`] times its mean.
const FAR_SIGMAS: f64 = 3.0;
/// A gain of so many times its mean has left its history, whatever the spread of a few passes.
const FAR_RATIO: f64 = 10.0;
/// How much further another layer must have risen (as a power) than one that was bad from the start.
const RISEN_FURTHER: f64 = 1.5;
/// A product of backward gains over time steps above this is an explosion.
pub const RECURRENT_PRODUCT_MAX: f64 = 30.0;
/// Calm measurements that make a history.
const HISTORY_MIN: u32 = 3;
/// A layer whose departure is within this part of the largest shares its rank.
const SHARES: f64 = 0.8;

/// Finds the origin, in this order: the producer of the first non-finite value in order of
/// execution (the rest only pass it on); else, for an alarm in the first 100 steps, a layer whose
/// gain stood out from its siblings' at the first step, unless another has risen by far more; else
/// the layer whose gain rose most, above 6 sigma of its own history (or to 10 times its mean and
/// above 3 sigma, for a history of few passes has a wide spread) and outside [0.5, 2]; else nothing. It is never ranked by the norm of weight
/// gradients: in a deep ReLU network at twice the He gain every weight gradient is about 1e15,
/// and the first to the last have a ratio of 0.12.
///
/// A recurrent cell is one layer, however many time steps it was unrolled to: when no single gain
/// stands out but the product over the time steps is large, the cell is the origin, at the time
/// step with the largest gain.
pub fn find(record: &Record) -> Option<Origin> {
    record.first_alarm()?;
    producer(record)
        .or_else(|| bad_from_the_start(record))
        .or_else(|| strongest_gain(record))
        .or_else(|| recurrent_cell(record))
        .or_else(|| first_tensor(record))
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
    /// Whether `usual` comes from the layer's own history.
    pub has_history: bool,
    /// Natural logarithm of gain over usual.
    pub log_rise: f64,
    /// Whether it is the forward gain.
    pub is_forward: bool,
}

/// The layers whose gain has risen out of its history (or, without one, out of [0.5, 2]),
/// largest rise first; of those that share a rank, the one nearest to the loss.
fn departures(record: &Record) -> Vec<Departure> {
    let Some(chain) = record.telling_chain() else { return Vec::new() };
    let mut risen: Vec<Departure> =
        chain.links.iter().filter_map(|link| departure(record, link)).collect();
    risen.sort_by(|a, b| b.log_rise.total_cmp(&a.log_rise));
    let largest = risen.first().map_or(0.0, |d| d.log_rise);
    let shared = risen.iter().take_while(|d| d.log_rise >= SHARES * largest).count();
    risen[..shared].sort_by_key(|d| std::cmp::Reverse(d.layer));
    risen
}

fn departure(record: &Record, link: &Link) -> Option<Departure> {
    let track = record.gains.get(link.layer.0)?;
    let sides = [(link.forward, &track.forward, true), (link.backward, &track.backward, false)];
    let risen = sides.into_iter().filter_map(|(gain, history, is_forward)| {
        let gain = gain.filter(|gain| *gain > 0.0)?;
        let has_history = history.count() >= HISTORY_MIN;
        let usual = if has_history { history.mean().exp() } else { 1.0 };
        let log_rise = (gain / usual).ln().min(f64::MAX.ln());
        let leaves = gain > *USUAL_GAIN.end()
            && log_rise > USUAL_GAIN.end().ln()
            && (!has_history
                || history.z(gain.ln()) > LEAVES_SIGMAS
                || (history.z(gain.ln()) > FAR_SIGMAS && log_rise > FAR_RATIO.ln()));
        leaves.then_some(Departure {
            layer: link.layer,
            gain,
            usual,
            has_history,
            log_rise,
            is_forward,
        })
    });
    risen.max_by(|a, b| a.log_rise.total_cmp(&b.log_rise))
}

/// The layer that brought about the first non-finite output. That is not always the layer whose
/// output it is: one that lets 1 become 1e30 leaves the overflow to the next. To overflow, the
/// producer must have had a gain of at least the type's maximum over its largest input; a layer
/// before it whose own gain has risen by more than that is the origin.
fn producer(record: &Record) -> Option<Origin> {
    let (step, trace) = non_finite_pass(record)?;
    let broken = trace.layers.iter().position(|layer| layer.output.nonfinite() > 0)?;
    let input = broken.checked_sub(1).map_or(trace.input.as_ref(), |i| trace.layers.get(i));
    let largest = input.map_or(1.0, |sample| sample.output.max_abs.max(f64::MIN_POSITIVE));
    let max = record.facts.dtype_max.unwrap_or(f64::from(f32::MAX));
    let needed = (max / largest).ln();
    let name = |layer| record.layout.layer_name(layer);
    let what = format!("step at which the output of {} is first not finite", name(LayerId(broken)));
    let mut evidence = vec![Evidence::of(what, step.0 as f64)];
    let chain = Chain::measure(*step, trace);
    let before = chain.links[..broken].iter().filter_map(|link| departure(record, link));
    let strongest = before
        .filter(|d| d.is_forward && d.log_rise > needed)
        .max_by(|a, b| a.log_rise.total_cmp(&b.log_rise));
    if let Some(d) = strongest {
        let what = format!("forward gain of {} in that pass", name(d.layer));
        evidence.insert(0, Evidence::against(what, d.gain, "usual", d.usual));
    }
    let layer = strongest.map_or(LayerId(broken), |d| d.layer);
    Some(Origin { layer: Some(layer), tensor: None, evidence })
}

/// The probed pass of the first alarm, if the first non-finite value came no later than it.
fn non_finite_pass(record: &Record) -> Option<&(Step, LayerTrace)> {
    let (step, _) = record.first_nonfinite?;
    let alarm = record.first_alarm()?.step;
    let is_step = |traced: &&(Step, LayerTrace)| traced.0 == step;
    (step <= alarm)
        .then(|| record.first_trace.as_ref().filter(is_step).or(record.alarm_trace.as_ref()))
        .flatten()
}

/// The layer whose gain stood out at the first step, when the alarm came in the warm-up. What a bad
/// layer does to the others is a rise of theirs, and none of its own.
fn bad_from_the_start(record: &Record) -> Option<Origin> {
    let is_early = record.first_alarm()?.step.0 < u64::from(WARM_UP_STEPS);
    let chain = record.first_chain().filter(|chain| is_early && chain.step.0 == 0)?;
    let is_recurrent =
        |link: &&Link| record.layout.layers.get(link.layer.0).is_some_and(|layer| layer.recurrent);
    let links: Vec<&Link> = chain.links.iter().filter(|link| !is_recurrent(link)).collect();
    let bad = stands_out(&links)?;
    let risen = departures(record).first().map_or(0.0, |most| most.log_rise);
    let side = if bad.is_forward { "forward" } else { "backward" };
    let what = format!("{side} gain of {} at step 0", record.layout.layer_name(bad.layer));
    (risen <= RISEN_FURTHER * (bad.gain / bad.usual).ln()).then(|| Origin {
        layer: Some(bad.layer),
        tensor: None,
        evidence: vec![Evidence::against(what, bad.gain, "median of the layers", bad.usual)],
    })
}

fn strongest_gain(record: &Record) -> Option<Origin> {
    let most = departures(record).into_iter().next()?;
    let side = if most.is_forward { "forward" } else { "backward" };
    let name = record.layout.layer_name(most.layer);
    let reference = if most.has_history { "its calm mean" } else { "usual" };
    let evidence =
        Evidence::against(format!("{side} gain of {name}"), most.gain, reference, most.usual);
    Some(Origin { layer: Some(most.layer), tensor: None, evidence: vec![evidence] })
}

/// The recurrent cell, when its gains multiply to more than [`RECURRENT_PRODUCT_MAX`].
fn recurrent_cell(record: &Record) -> Option<Origin> {
    let chain = record.telling_chain()?;
    let (product, count) = recurrent_product(record, &chain)?;
    let is_recurrent =
        |link: &&Link| record.layout.layers.get(link.layer.0).is_some_and(|layer| layer.recurrent);
    let steps = chain.links.iter().filter(is_recurrent).skip(1);
    let largest = steps
        .filter(|link| link.backward.is_some())
        .max_by(|a, b| a.backward.unwrap_or(0.0).total_cmp(&b.backward.unwrap_or(0.0)))?;
    let what = format!("product of backward gains over {count} time steps");
    (product > RECURRENT_PRODUCT_MAX).then(|| Origin {
        layer: Some(largest.layer),
        tensor: None,
        evidence: vec![Evidence::against(what, product, "allowed", RECURRENT_PRODUCT_MAX)],
    })
}

/// Without gains (a log): the first tensor to alarm, or to strain within 3 steps before that.
fn first_tensor(record: &Record) -> Option<Origin> {
    if record.telling_chain().is_some() {
        return None;
    }
    let alarm = record.first_alarm()?.step.0;
    let near =
        |finding: &&Finding| finding.tensor.is_some() && finding.step.0.saturating_add(3) >= alarm;
    let near_alarm = || record.findings.iter().filter(near);
    let is_alarm = |finding: &&Finding| finding.severity == Severity::Alarm;
    let finding = near_alarm().find(is_alarm).or_else(|| near_alarm().next())?;
    Some(Origin {
        layer: finding.layer,
        tensor: finding.tensor,
        evidence: finding.evidence.first().cloned().into_iter().collect(),
    })
}

/// The product of the backward gains from time step to time step, with their number; `None` when
/// there are none. The first step's gain leads to the input, not to another time step.
pub fn recurrent_product(record: &Record, chain: &Chain) -> Option<(f64, usize)> {
    let is_recurrent =
        |link: &&Link| record.layout.layers.get(link.layer.0).is_some_and(|layer| layer.recurrent);
    let gains: Vec<f64> =
        chain.links.iter().filter(is_recurrent).skip(1).filter_map(|link| link.backward).collect();
    (!gains.is_empty()).then(|| (crate::chain::product(gains.iter().copied()), gains.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{LayerSample, Observation, RunFacts};
    use crate::signs::SignName;
    use crate::signs::check::{layout, stats};

    /// A trace whose forward gains are as given, with an input of RMS 1.
    fn trace(gains: &[f64]) -> LayerTrace {
        let mut rms = 1.0;
        let sample = |rms| LayerSample { output: stats(rms), delta: Some(stats(1.0)) };
        let layers = gains.iter().map(|gain| {
            rms *= gain;
            sample(rms)
        });
        LayerTrace { layers: layers.collect(), input: Some(sample(1.0)) }
    }

    fn record_of(calm: &[f64], calm_passes: u64, at_alarm: &[f64]) -> Record {
        record_of_passes(calm_passes, |_| calm.to_vec(), at_alarm)
    }

    fn record_of_passes(
        calm_passes: u64,
        calm: impl Fn(u64) -> Vec<f64>,
        at_alarm: &[f64],
    ) -> Record {
        let mut record = Record::new(layout(at_alarm.len()), RunFacts::default());
        for step in 0..calm_passes {
            let trace = trace(&calm(step));
            record.take(&Observation {
                step: Step(step),
                trace: Some(&trace),
                ..Observation::default()
            });
            record.settle();
        }
        record.note([Finding {
            sign: SignName::GradientSpikes,
            step: Step(calm_passes),
            severity: Severity::Alarm,
            tensor: None,
            layer: None,
            evidence: vec![],
        }]);
        let trace = trace(at_alarm);
        record.take(&Observation {
            step: Step(calm_passes),
            trace: Some(&trace),
            ..Observation::default()
        });
        record
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
            let found = find(&record_of(&calm, passes, &now)).and_then(|origin| origin.layer);
            assert_eq!(found, layer.map(LayerId), "{name}");
        }
    }

    #[test]
    fn far_above_a_gain_that_varies_is_out_of_its_history() {
        // ln of the gain: 0.6 up and down. 6 sigma are a factor of 37, 3 sigma one of 6.
        let varies = |pass: u64| vec![1.0, if pass.is_multiple_of(2) { 0.55 } else { 1.82 }, 1.0];
        for (gain, layer) in [(3.0, None), (8.5, None), (12.0, Some(LayerId(1)))] {
            let record = record_of_passes(20, varies, &[1.0, gain, 1.0]);
            assert_eq!(find(&record).and_then(|origin| origin.layer), layer, "{gain}");
        }
    }

    #[test]
    fn the_producer_of_the_first_inf_goes_before_any_gain() {
        let record = record_of(&[1.0, 1.0, 1.0], 5, &[1.0, 1.9, f64::INFINITY]);
        assert_eq!(find(&record).and_then(|origin| origin.layer), Some(LayerId(2)));
    }

    #[test]
    fn a_layer_that_leaves_the_overflow_to_the_next_is_the_origin() {
        let record = record_of(&[1.0, 1.0, 1.0], 5, &[1.0, 1e30, f64::INFINITY]);
        assert_eq!(find(&record).and_then(|origin| origin.layer), Some(LayerId(1)));
    }

    #[test]
    fn a_recurrent_cell_is_one_layer() {
        for (gain, layer) in [(1.3, Some(LayerId(19))), (1.05, None)] {
            let mut record = record_of(&[1.0; 20], 0, &[1.0; 20]);
            record.layout.layers.iter_mut().for_each(|layer| layer.recurrent = true);
            let mut backward = [gain; 20];
            backward[19] *= 1.01;
            let trace = crate::causes::check::trace(&[1.0; 20], &backward);
            record.alarm_trace = Some((Step(0), trace));
            assert_eq!(find(&record).and_then(|origin| origin.layer), layer, "{gain}");
        }
    }

    #[test]
    fn a_calm_run_has_no_origin() {
        let record = Record::new(layout(2), RunFacts::default());
        assert_eq!(find(&record), None);
    }
}
