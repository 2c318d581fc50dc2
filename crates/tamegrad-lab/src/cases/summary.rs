//! The outcomes counted: in all, by group, and by rival; as a table of runs.

use serde::Serialize;

use super::outcome::{Ending, Outcome};
use super::{Group, RIVALS};

/// What all outcomes come to. The denominators stand beside what they divide.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Failing runs that start finite.
    pub failing: u64,
    /// Of these, with an alarm not before the fault and before any parameter was non-finite.
    pub alarm_before_nonfinite: u64,
    /// Failing runs whose parameters stay finite in protect mode.
    pub vetoed: u64,
    /// Runs whose first pass is not finite.
    pub overflow: u64,
    /// Of these, with a warning of preflight.
    pub overflow_by_preflight: u64,
    /// Runs that learned and were never harmed, and had no fault planted.
    pub healthy: u64,
    /// Of these, with an alarm.
    pub healthy_alarms: u64,
    /// Of these, with a step that protect mode changed.
    pub healthy_actions: u64,
    /// Failing runs with a fault planted in one layer.
    pub planted: u64,
    /// Of these, with that layer named first.
    pub origin_first: u64,
    /// Of these, with a layer named first that is at most one away.
    pub origin_within_one: u64,
    /// Of these, with the planted cause ranked first.
    pub cause_first: u64,
    /// Failing runs with a planted cause, in one layer or not.
    pub faults: u64,
    /// Of these, with the planted cause ranked first.
    pub fault_cause_first: u64,
    /// Failing runs of faults that grow, with an alarm after the fault began.
    pub growing: u64,
    /// Steps from their alarms to the harm, median.
    pub lead_median_steps: Option<f64>,
    /// Failing runs on which the best rival fired after the fault began and before any parameter
    /// was non-finite.
    pub raced: u64,
    /// Of these, with our alarm no later than its.
    pub not_later: u64,
    /// As `raced`, of faults that grow.
    pub raced_growing: u64,
    /// As `not_later`, of faults that grow.
    pub not_later_growing: u64,
    /// The best rival: the most failing runs of those that alarm on at most 1% of healthy ones.
    pub best_rival: Option<String>,
    /// Runs that were neither: rough, idle, or a planted fault that did no harm.
    pub neither: u64,
    /// The rivals on the same runs.
    pub rivals: Vec<Rival>,
    /// What went wrong, by name.
    pub misses: Vec<Miss>,
}

/// A rival's counts, over the same denominators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rival {
    /// Its name.
    pub name: String,
    /// Failing runs on which it fired not before the fault and before any parameter was
    /// non-finite.
    pub failing_alarms: u64,
    /// Healthy runs on which it fired.
    pub healthy_alarms: u64,
    /// As [`Summary::lead_median_steps`], over the runs on which it fired so.
    pub lead_median_steps: Option<f64>,
}

/// A run that went wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Miss {
    /// The case.
    pub name: String,
    /// What is missing or wrong.
    pub miss: String,
}

/// Part of the healthy runs on which a rival may fire and still be the best: the budget of false
/// alarms that the guard is held to as well.
const BEST_RIVAL_HEALTHY_MAX: f64 = 0.01;

/// Counts.
pub fn summarise(outcomes: &[Outcome]) -> Summary {
    let count = |of: &dyn Fn(&&Outcome) -> bool| outcomes.iter().filter(of).count() as u64;
    let rivals: Vec<Rival> = (0..RIVALS.len()).map(|index| rival(outcomes, index)).collect();
    let healthy = count(&|o| is_healthy(o));
    let is_quiet = |rival: &(usize, &Rival)| {
        rival.1.healthy_alarms as f64 <= BEST_RIVAL_HEALTHY_MAX * healthy as f64
    };
    let best = rivals.iter().enumerate().filter(is_quiet).max_by_key(|(_, r)| r.failing_alarms);
    let best = best.map(|(index, _)| index);
    let raced = |o: &Outcome| {
        let at = best.and_then(|index| o.rivals.get(index).copied().flatten());
        at.filter(|at| starts_finite(o) && in_time(o, Some(*at), false))
    };
    let not_later = |o: &Outcome| {
        raced(o).is_some_and(|at| alarmed(o) && o.alarm.is_some_and(|alarm| alarm <= at))
    };
    Summary {
        failing: count(&|o| starts_finite(o)),
        alarm_before_nonfinite: count(&|o| starts_finite(o) && alarmed(o)),
        vetoed: count(&|o| starts_finite(o) && o.protected_finite),
        overflow: count(&|o| o.ending == Ending::Overflow),
        overflow_by_preflight: count(&|o| o.ending == Ending::Overflow && o.preflight),
        healthy,
        healthy_alarms: count(&|o| is_healthy(o) && o.alarm.is_some()),
        healthy_actions: count(&|o| is_healthy(o) && o.actions > 0),
        planted: count(&|o| is_layered(o)),
        origin_first: count(&|o| is_layered(o) && names_layer(o)),
        origin_within_one: count(&|o| is_layered(o) && (names_layer(o) || near_layer(o))),
        cause_first: count(&|o| is_layered(o) && names_cause(o)),
        faults: count(&|o| is_planted(o)),
        fault_cause_first: count(&|o| is_planted(o) && names_cause(o)),
        growing: count(&|o| lead(o, o.alarm).is_some()),
        lead_median_steps: median_lead(outcomes, |o| o.alarm),
        raced: count(&|o| raced(o).is_some()),
        not_later: count(&|o| not_later(o)),
        raced_growing: count(&|o| o.grows && raced(o).is_some()),
        not_later_growing: count(&|o| o.grows && not_later(o)),
        best_rival: best.map(|index| RIVALS[index].to_owned()),
        neither: count(&|o| !o.ending.is_failure() && !is_healthy(o)),
        misses: outcomes.iter().flat_map(misses).collect(),
        rivals,
    }
}

fn rival(outcomes: &[Outcome], index: usize) -> Rival {
    let at = |o: &Outcome| o.rivals.get(index).copied().flatten();
    let failing = outcomes.iter().filter(|o| starts_finite(o) && in_time(o, at(o), false));
    let healthy = outcomes.iter().filter(|o| is_healthy(o) && at(o).is_some());
    Rival {
        name: RIVALS[index].to_owned(),
        failing_alarms: failing.count() as u64,
        healthy_alarms: healthy.count() as u64,
        lead_median_steps: median_lead(outcomes, at),
    }
}

/// Whether the run failed, and not in its very first pass.
fn starts_finite(o: &Outcome) -> bool {
    o.ending.is_failure() && o.ending != Ending::Overflow
}

fn is_healthy(o: &Outcome) -> bool {
    o.ending == Ending::Learned && o.planted_causes.is_empty()
}

fn is_planted(o: &Outcome) -> bool {
    o.ending.is_failure() && !o.planted_causes.is_empty()
}

fn is_layered(o: &Outcome) -> bool {
    o.ending.is_failure() && o.planted_layer.is_some()
}

fn names_layer(o: &Outcome) -> bool {
    // The time steps of a recurrent cell, `cell@7`, are one layer.
    let base = o.origin.as_deref().and_then(|origin| origin.split('@').next());
    base.is_some() && base == o.planted_layer.as_deref()
}

fn near_layer(o: &Outcome) -> bool {
    o.origin_distance.is_some_and(|distance| distance <= 1)
}

fn names_cause(o: &Outcome) -> bool {
    o.cause.as_ref().is_some_and(|cause| o.planted_causes.contains(cause))
}

fn alarmed(o: &Outcome) -> bool {
    in_time(o, o.alarm, o.alarm_is_late)
}

/// Whether an alarm at this step is not before the fault, and before a parameter is non-finite.
/// The signs that read gradients come before the update of the same step.
fn in_time(o: &Outcome, at: Option<u64>, is_late: bool) -> bool {
    at.is_some_and(|at| {
        at >= o.fault_at && !is_late && o.parameter_nonfinite.is_none_or(|broken| at <= broken)
    })
}

/// Steps from an alarm to the harm of a fault that grows.
fn lead(o: &Outcome, at: Option<u64>) -> Option<f64> {
    let at = at.filter(|at| o.grows && starts_finite(o) && *at >= o.fault_at)?;
    o.harmed_at.map(|harm| harm as f64 - at as f64)
}

fn median_lead(outcomes: &[Outcome], at: impl Fn(&Outcome) -> Option<u64>) -> Option<f64> {
    tamegrad::running::median(outcomes.iter().filter_map(|o| lead(o, at(o))))
}

fn misses(o: &Outcome) -> Vec<Miss> {
    let mut misses = Vec::new();
    let mut miss = |text: String| misses.push(Miss { name: o.name.clone(), miss: text });
    let at = |step: Option<u64>| step.map_or("never".into(), |step| format!("at step {step}"));
    if starts_finite(o) && !alarmed(o) {
        miss(format!(
            "failed ({}), fault at step {}, parameter non-finite {}, alarm {}",
            word(o.ending),
            o.fault_at,
            at(o.parameter_nonfinite),
            at(o.alarm)
        ));
    }
    if o.ending == Ending::Overflow && !o.preflight {
        miss("overflows in the first pass, no warning of preflight".into());
    }
    if o.ending.is_failure() && !o.protected_finite {
        miss("a parameter is non-finite in protect mode".into());
    }
    if is_healthy(o) && o.alarm.is_some() {
        miss(format!(
            "healthy, alarm {}: {}",
            at(o.alarm),
            o.cause.as_deref().unwrap_or("no cause")
        ));
    }
    if is_healthy(o) && o.actions > 0 {
        miss(format!("healthy, protect mode acted in {} steps", o.actions));
    }
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
    if is_layered(o) && !names_layer(o) {
        miss(format!("origin {}, planted in {}", or_none(&o.origin), or_none(&o.planted_layer)));
    }
    if is_planted(o) && !names_cause(o) {
        miss(format!("cause {}, planted {}", or_none(&o.cause), o.planted_causes.join(" or ")));
    }
    misses
}

/// The name of an ending in tables.
pub fn word(ending: Ending) -> &'static str {
    match ending {
        Ending::Overflow => "overflow",
        Ending::NonFinite => "non-finite",
        Ending::Harmed => "harmed",
        Ending::Rough => "rough",
        Ending::Learned => "learned",
        Ending::Idle => "idle",
    }
}

/// The kind of a case, its name without the seed; all of the grid is one kind.
pub fn kind(o: &Outcome) -> &str {
    match o.group {
        Group::Grid => "grid",
        _ => o.name.rsplit_once('/').map_or(o.name.as_str(), |(kind, _)| kind),
    }
}

/// Counts of one kind of case.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct KindRow {
    /// The kind.
    pub kind: String,
    /// Runs.
    pub runs: u64,
    /// Runs that failed, those that overflowed in the first pass included.
    pub failed: u64,
    /// Of these, with an alarm in time (or a warning of preflight for an overflow).
    pub alarmed: u64,
    /// Of these, whose parameters stay finite in protect mode.
    pub kept_finite: u64,
    /// Runs that did not fail, with an alarm.
    pub alarms_without_failure: u64,
    /// Failing runs with the planted layer first, of how many.
    pub origin: (u64, u64),
    /// Failing runs with a planted cause first, of how many.
    pub cause: (u64, u64),
}

/// The counts by kind, in the order in which the kinds come.
pub fn by_kind(outcomes: &[Outcome]) -> Vec<KindRow> {
    let mut rows: Vec<KindRow> = Vec::new();
    for o in outcomes {
        let kind = kind(o);
        let index = rows.iter().position(|row| row.kind == kind).unwrap_or_else(|| {
            rows.push(KindRow { kind: kind.to_owned(), ..KindRow::default() });
            rows.len() - 1
        });
        let row = &mut rows[index];
        let failed = o.ending.is_failure();
        let noticed = if o.ending == Ending::Overflow { o.preflight } else { alarmed(o) };
        row.runs += 1;
        row.failed += u64::from(failed);
        row.alarmed += u64::from(failed && noticed);
        row.kept_finite += u64::from(failed && o.protected_finite);
        row.alarms_without_failure += u64::from(!failed && o.alarm.is_some());
        row.origin.0 += u64::from(is_layered(o) && names_layer(o));
        row.origin.1 += u64::from(is_layered(o));
        row.cause.0 += u64::from(is_planted(o) && names_cause(o));
        row.cause.1 += u64::from(is_planted(o));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failing run with a fault in `layers.3` at step 100, an alarm and a broken parameter.
    fn failing(alarm: Option<u64>, broken: Option<u64>) -> Outcome {
        Outcome {
            name: "planted/x/00".into(),
            group: Group::Planted,
            ending: Ending::NonFinite,
            steps: 200,
            metric: None,
            fault_at: 100,
            grows: true,
            parameter_nonfinite: broken,
            harmed_at: Some(150),
            alarm,
            alarm_is_late: false,
            preflight: false,
            verdict: "exploded".into(),
            planted_layer: Some("layers.3".into()),
            origin: Some("layers.4".into()),
            origin_distance: Some(1),
            planted_causes: vec!["activation".into()],
            cause: Some("activation".into()),
            remedy: None,
            actions: 3,
            protected_finite: true,
            protected_metric: Some(0.5),
            rivals: vec![Some(120); RIVALS.len()],
        }
    }

    fn healthy(alarm: Option<u64>, actions: u64) -> Outcome {
        Outcome {
            name: "healthy/y/00".into(),
            group: Group::Healthy,
            ending: Ending::Learned,
            alarm,
            actions,
            planted_layer: None,
            planted_causes: vec![],
            fault_at: 0,
            grows: false,
            harmed_at: None,
            rivals: vec![None; RIVALS.len()],
            ..failing(None, None)
        }
    }

    #[test]
    fn an_alarm_counts_between_the_fault_and_the_broken_parameter() {
        for (alarm, broken, counts) in [
            (Some(99), None, 0),
            (Some(100), Some(100), 1),
            (Some(130), Some(140), 1),
            (Some(141), Some(140), 0),
            (None, None, 0),
        ] {
            let summary = summarise(&[failing(alarm, broken)]);
            assert_eq!((summary.failing, summary.alarm_before_nonfinite), (1, counts), "{alarm:?}");
        }
        let late = Outcome { alarm_is_late: true, ..failing(Some(130), Some(130)) };
        assert_eq!(summarise(&[late]).alarm_before_nonfinite, 0);
    }

    #[test]
    fn everything_is_counted_over_its_own_runs() {
        let overflow =
            Outcome { ending: Ending::Overflow, preflight: true, ..failing(Some(100), Some(100)) };
        let rough = Outcome { ending: Ending::Rough, ..healthy(Some(3), 1) };
        let runs =
            [failing(Some(110), None), overflow, rough, healthy(None, 0), healthy(Some(5), 2)];
        let s = summarise(&runs);
        assert_eq!((s.failing, s.overflow, s.overflow_by_preflight), (1, 1, 1));
        assert_eq!((s.healthy, s.healthy_alarms, s.healthy_actions, s.neither), (2, 1, 1, 1));
        assert_eq!((s.planted, s.origin_first, s.origin_within_one), (2, 0, 2));
        assert_eq!((s.cause_first, s.faults, s.fault_cause_first), (2, 2, 2));
        assert_eq!((s.growing, s.lead_median_steps), (1, Some(40.0)));
        assert_eq!((s.raced, s.not_later), (1, 1));
        assert_eq!((s.raced_growing, s.not_later_growing), (1, 1));
        assert_eq!(s.rivals[0].failing_alarms, 1);
        assert_eq!(s.rivals[0].lead_median_steps, Some(30.0));
        let missed: Vec<&str> = s.misses.iter().map(|miss| miss.miss.as_str()).collect();
        assert_eq!(missed.len(), 4, "{missed:?}");
    }
}
