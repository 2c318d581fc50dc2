//! From a log to a diagnosis: the roles, the rules of the core, and what the log could not show.

use std::collections::BTreeMap;

use tamegrad::logs::{History, Judged, Metric, Sample, judge, step};
use tamegrad::{Diagnosis, Step, Verdict};
use tamegrad_runs::Ending;

use crate::log::{Log, Recorded, Series};
use crate::readers::Format;
use crate::roles::{self, Map, Roles};

/// The diagnosis of a log, and the series that it rests on.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    /// Which series plays which role.
    pub roles: Roles<'a>,
    /// Whether the gradient norm was summed over those of the individual tensors.
    pub norm_is_added_up: bool,
    /// Verdict, onset, signs, origin, causes, remedies.
    pub diagnosis: Diagnosis,
    /// The wall time of the onset, in seconds since 1970.
    pub onset_wall: Option<f64>,
    /// What the log cannot show, and the option of its writer that would log it.
    pub missing: Vec<Missing>,
    /// The series that decided the verdict; `None` if there is nothing to decide, and if it is the sum
    /// over the tensors.
    pub decided_by: Option<&'a Series>,
    /// The loss to show: the one that decided, or that of the whole.
    pub loss: Vec<Sample>,
    /// The gradient norm to show, in the same way.
    pub grad_norm: Vec<Sample>,
    /// The update ratios that were judged, by the matrix that they are of, for plots.
    pub update_ratios: Vec<(String, Vec<Sample>)>,
}

/// Something that a log cannot show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A training loss.
    Loss,
    /// What its format hides, in words.
    Hidden(&'static str),
    /// The gradient norm; the option of its writer that logs it.
    GradientNorm(&'static str),
    /// The gradient norms of single tensors; the option that logs them.
    TensorNorms(&'static str),
}

impl<'a> Reading<'a> {
    /// Whether nothing was found that a verdict could be on.
    pub fn is_empty(&self) -> bool {
        self.loss.is_empty() && self.grad_norm.is_empty() && self.roles.loss_scale.is_none()
    }

    /// The loss whose numbers are [`Reading::loss`].
    pub fn loss_series(&self) -> Option<&'a Series> {
        shown(&self.roles.losses, self.decided_by)
    }

    /// The gradient norm whose numbers are [`Reading::grad_norm`].
    pub fn norm_series(&self) -> Option<&'a Series> {
        shown(&self.roles.grad_norms, self.decided_by)
    }
}

/// Of the series of a role the one that decided, or the first.
fn shown<'a>(of: &[&'a Series], decided_by: Option<&Series>) -> Option<&'a Series> {
    let decided = decided_by.and_then(|by| of.iter().find(|series| series.name == by.name));
    decided.or(of.first()).copied()
}

/// Diagnoses a log of a format.
///
/// # Errors
/// If `map` names a series that the log does not have.
pub fn read_verdict<'a>(log: &'a Log, format: &Format, map: &Map) -> Result<Reading<'a>, String> {
    let roles = Roles::find(log, map)?;
    let samples = |series: Option<&Series>| {
        series.map_or(Vec::new(), |series| roles::samples(&series.points))
    };
    let all = |of: &[&Series]| -> Vec<Vec<Sample>> {
        of.iter().map(|series| roles::samples(&series.points)).collect()
    };
    let (losses, norms) = (all(&roles.losses), all(&roles.grad_norms));
    let (rate, scale) = (samples(roles.learning_rate), samples(roles.loss_scale));
    let tensors: Vec<(&str, Vec<Sample>)> =
        roles.tensors.iter().map(|(name, series)| (*name, samples(Some(series)))).collect();
    let (metric, parameter_norm) = (samples(roles.metric), samples(roles::parameter_norm(log)));
    let ratios = roles::ratios(log);
    let norm_is_added_up = norms.is_empty() && !tensors.is_empty();
    let norms = if norm_is_added_up { vec![added_up(&tensors)] } else { norms };
    let first = |of: &'_ [Vec<Sample>]| of.first().cloned().unwrap_or_default();
    let rest = |of: &'_ [Vec<Sample>]| of.get(1..).unwrap_or_default().to_vec();
    let (loss, norm) = (first(&losses), first(&norms));
    let (others, other_norms) = (rest(&losses), rest(&norms));
    let others: Vec<&[Sample]> = others.iter().map(Vec::as_slice).collect();
    let (other_losses, parts) =
        if roles.first_is_whole { (Vec::new(), others) } else { (others, Vec::new()) };
    let (found, decided) = judge(&History {
        loss: &loss,
        gradient_norm: &norm,
        other_losses,
        parts,
        other_norms: other_norms.iter().map(Vec::as_slice).collect(),
        restarts: restarts(log),
        learning_rate: &rate,
        loss_scale: &scale,
        tensors: tensors.iter().map(|(name, samples)| (*name, &samples[..])).collect(),
        metric: Metric { samples: &metric, is_lower_better: roles.is_lower_better() },
        update_ratios: ratios.iter().map(|(name, ratios)| (name.as_str(), &ratios[..])).collect(),
        parameter_norm: &parameter_norm,
    });
    let diagnosis = with_recorded(found, log.recorded.as_ref());
    let decided_by = decided.and_then(|decided| match decided {
        Judged::Part(at) => roles.losses.get(at + 1).copied(),
        Judged::Loss(at) => roles.losses.get(at).copied(),
        Judged::GradientNorm(at) => roles.grad_norms.get(at).copied(),
        Judged::LossScale => roles.loss_scale,
    });
    let onset_wall = diagnosis.onset.and_then(|onset| wall_of(&roles, onset));
    let missing = missing(&roles, format, &diagnosis);
    let mut reading = Reading {
        roles,
        norm_is_added_up,
        diagnosis,
        onset_wall,
        missing,
        decided_by,
        loss,
        grad_norm: norm,
        update_ratios: ratios,
    };
    reading.loss = samples(reading.loss_series());
    if !norm_is_added_up {
        reading.grad_norm = samples(reading.norm_series());
    }
    Ok(reading)
}

/// The steps of the log at which the trainer's own count went back: W&B counts on over several runs.
fn restarts(log: &Log) -> Vec<i64> {
    let is_step = |series: &&Series| series.name.ends_with("global_step");
    let points = log.series.iter().find(is_step).map_or(&[][..], |series| &series.points);
    let back = points.windows(2).filter(|pair| pair[1].value < pair[0].value);
    back.map(|pair| pair[1].step).take(RESTARTS_MAX).collect()
}

/// Restarts that are looked at; more are no restarts.
const RESTARTS_MAX: usize = 100;

/// The diagnosis of a guard that saw the run itself takes precedence over what its log shows, and no
/// diagnosis is milder than the alarms of the run.
fn with_recorded(found: Diagnosis, recorded: Option<&Recorded>) -> Diagnosis {
    let Some(recorded) = recorded else { return found };
    let mut diagnosis = match &recorded.diagnosis {
        // An early one says nothing of what came later.
        Some(known) if known.verdict != Verdict::TooEarly => {
            let mut known = known.clone();
            if known.verdict == Verdict::Recovered {
                known.recovered = found.recovered;
            }
            known
        }
        known if recorded.ending == Ending::Completed => known.clone().unwrap_or(found),
        _ => found,
    };
    if let Some(step) = recorded.alarm_since
        && !diagnosis.verdict.is_explosion()
    {
        diagnosis.verdict = Verdict::Exploding;
        diagnosis.onset = Some(Step(step));
    }
    diagnosis
}

/// The norm over all tensors, at the steps at which most of them were logged.
fn added_up(tensors: &[(&str, Vec<Sample>)]) -> Vec<Sample> {
    let mut squares: BTreeMap<i64, (f64, usize)> = BTreeMap::new();
    for sample in tensors.iter().flat_map(|(_, samples)| samples) {
        let (sum, count) = squares.entry(sample.step).or_default();
        *sum += sample.value * sample.value;
        *count += 1;
    }
    let most = squares.values().map(|(_, count)| *count).max().unwrap_or(0);
    let full = squares.into_iter().filter(|(_, (_, count))| 10 * count >= 9 * most);
    full.map(|(step, (sum, _))| Sample { step, value: sum.sqrt() }).collect()
}

fn wall_of(roles: &Roles<'_>, onset: Step) -> Option<f64> {
    let series = roles.losses.iter().chain(&roles.grad_norms).copied().chain(roles.loss_scale);
    let at = |series: &Series| series.points.iter().find(|p| step(p.step) == onset).map(|p| p.wall);
    series.into_iter().find_map(at).filter(|wall| wall.is_finite())
}

/// What is not in the log, what would add most first.
fn missing(roles: &Roles<'_>, format: &Format, found: &Diagnosis) -> Vec<Missing> {
    let mut missing = Vec::new();
    if roles.losses.is_empty() {
        missing.push(Missing::Loss);
    }
    missing.extend(format.hides.map(Missing::Hidden));
    if roles.grad_norms.is_empty() && roles.tensors.is_empty() {
        missing.push(Missing::GradientNorm(format.norm_option));
    } else if roles.tensors.is_empty() && found.onset.is_some() && found.origin.is_none() {
        missing.push(Missing::TensorNorms(format.tensors_option));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::log_of;
    use tamegrad::Verdict;

    #[test]
    fn a_log_with_single_tensors() {
        let calm: Vec<f64> = (0..40).map(|i| 1.0 + 0.1 * f64::from(i % 3)).collect();
        let log = log_of(&[
            ("loss", &[&calm[..], &[90.0, 4e3, 9e3, 2e4]].concat()),
            ("gradients/a", &[&calm[..], &[1.0, 1.1, 1.2, 30.0]].concat()),
            ("gradients/b", &[&calm[..], &[80.0, 1e3, 1e5, 1e6]].concat()),
        ]);
        let reading = read_verdict(&log, &Format::named("wandb"), &[]).unwrap();
        assert!(reading.norm_is_added_up);
        assert_eq!(reading.grad_norm[0].value, 2f64.sqrt());
        assert_eq!(reading.diagnosis.verdict, Verdict::Exploding);
        assert_eq!(reading.diagnosis.onset, Some(Step(40)));
        assert_eq!(reading.onset_wall, Some(1.7e9 + 40.0));
        assert_eq!(reading.diagnosis.origin_name(), Some("b"));
        assert_eq!(reading.missing, []);
    }

    #[test]
    fn signs_that_are_no_explosion_are_told_beside_the_verdict() {
        let calm: Vec<f64> = (0..400).map(|i| 1.0 + 0.1 * f64::from(i % 3)).collect();
        let mut ratios = vec![0.002; 400];
        ratios[300] = 0.4;
        let series =
            [("loss", &calm[..]), ("update_ratio", &ratios), ("val_accuracy", &[0.1; 400])];
        let log = log_of(&series);
        let found = read_verdict(&log, &Format::named("csv"), &[]).unwrap().diagnosis;
        assert_eq!(found.verdict, Verdict::Healthy);
        let up = found.signs.iter().filter_map(|sign| Some((sign.sign.as_str(), sign.first()?)));
        let strains: Vec<(&str, u64)> = up.map(|(name, first)| (name, first.step.0)).collect();
        assert_eq!(strains, [("metric-stalls", 0), ("updates-too-large", 300)]);
    }

    #[test]
    fn no_verdict_is_milder_than_the_alarms_of_the_run() {
        let calm = vec![1.0; 40];
        let mut log = log_of(&[("loss", &calm[..])]);
        let mut exploded = log_of(&[("loss", &[&calm[..], &[f64::NAN; 4]].concat()[..])]);
        let format = Format::named("tamegrad run");
        let verdict = |log: &Log| read_verdict(log, &format, &[]).unwrap().diagnosis;
        let healthy = verdict(&log);
        assert_eq!(healthy.verdict, Verdict::Healthy);
        let recorded = |diagnosis: &Diagnosis, alarm_since| {
            let diagnosis = Some(diagnosis.clone());
            Some(Recorded {
                diagnosis,
                alarm_since,
                ending: Ending::Unended,
                last: None,
                events: Vec::new(),
            })
        };
        log.recorded = recorded(&healthy, None);
        assert_eq!(verdict(&log).verdict, Verdict::Healthy);
        // An alarm came after the last diagnosis.
        log.recorded = recorded(&healthy, Some(41));
        let found = verdict(&log);
        assert_eq!((found.verdict, found.onset), (Verdict::Exploding, Some(Step(41))));
        // What the guard said counts, also where the log would say less.
        log.recorded = recorded(&verdict(&exploded), None);
        assert_eq!(verdict(&log).verdict, Verdict::Exploded);
        // An early diagnosis says nothing of what came later, unless the run has ended.
        let early = Diagnosis { verdict: Verdict::TooEarly, ..healthy };
        exploded.recorded = recorded(&early, None);
        assert_eq!(verdict(&exploded).verdict, Verdict::Exploded);
        let Some(ended) = &mut exploded.recorded else { unreachable!() };
        ended.ending = Ending::Completed;
        assert_eq!(verdict(&exploded).verdict, Verdict::TooEarly);
    }

    #[test]
    fn what_is_missing_is_said_with_the_option_that_shows_it() {
        let log = log_of(&[("loss", &[2.0, 1.9, 1.8, f64::NAN])]);
        let format = Format { hides: Some("NaN is hidden"), ..Format::named("made") };
        let reading = read_verdict(&log, &format, &[]).unwrap();
        let option = format.norm_option;
        let wanted = [Missing::Hidden("NaN is hidden"), Missing::GradientNorm(option)];
        assert_eq!(reading.missing, wanted);
        assert_eq!(reading.diagnosis.verdict, Verdict::Exploded);
    }
}
