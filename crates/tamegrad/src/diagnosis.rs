//! The diagnosis of a run that was watched, recorded or logged, or that has not started yet.

use crate::causes::{self, Cause};
use crate::chain::Chain;
use crate::evidence::{Names, Place, named_enum};
use crate::finding::{Finding, Reading, SignName};
use crate::first::{self, FirstNonFinite};
use crate::inspection::Operation;
use crate::observe::Step;
use crate::origin::{self, Origin};
use crate::record::Row;
use crate::remedies::{self, Proposal};
use crate::rules::{RULES, VerdictRule};
use crate::run::Run;
use crate::running::median;

named_enum! {
    /// The verdict on a run.
    Verdict {
        /// No alarm.
        Healthy => "healthy",
        /// An alarm, and the loss came back to its level before the alarm.
        Recovered => "recovered",
        /// An alarm, and the loss has not come back for 20 calm steps.
        Exploding => "exploding",
        /// The run ended with NaN or Inf.
        Exploded => "exploded",
        /// After an alarm the network no longer learns: its inner gradients are 0 and its loss flat.
        Dead => "dead",
        /// No alarm, but the loss is not below that of the first steps.
        NotLearning => "not-learning",
        /// Too few steps to say.
        TooEarly => "too-early",
    }
}

impl Verdict {
    /// Whether the run ended well: healthy or recovered.
    pub fn is_good(self) -> bool {
        matches!(self, Verdict::Healthy | Verdict::Recovered)
    }

    /// Whether an explosion was found, even if the run recovered.
    pub fn is_explosion(self) -> bool {
        !matches!(self, Verdict::Healthy | Verdict::NotLearning | Verdict::TooEarly)
    }
}

/// What one sign said over the whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct SignSummary {
    /// Which sign.
    pub sign: SignName,
    /// The findings that are shown: the first, alarms before strains; for a log, one of each rule that
    /// fired.
    pub findings: Vec<Finding>,
    /// Number of steps at which it fired; of rules for a log.
    pub count: u64,
    /// How many more steps or measurements it needed to say anything, if the run ended before it
    /// could and it found nothing.
    pub too_early: Option<u32>,
}

impl SignSummary {
    /// The first finding that is shown.
    pub fn first(&self) -> Option<&Finding> {
        self.findings.first()
    }
}

/// How much of a run was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// This many steps.
    Steps(u64),
    /// This many records of a log.
    Records(u64),
}

/// The diagnosis of a run. A log fills in less of it than a run that was watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// The verdict.
    pub verdict: Verdict,
    /// How much of the run was seen.
    pub seen: Seen,
    /// When it began: the step of the first alarm.
    pub onset: Option<Step>,
    /// The step from which on the run was back at its level; known only for logs.
    pub recovered: Option<Step>,
    /// Where it began.
    pub origin: Option<Origin>,
    /// The first value that was not finite.
    pub first_nonfinite: Option<FirstNonFinite>,
    /// The operation that made it.
    pub operation: Option<Operation>,
    /// Why, the best supported cause first. Empty when unknown.
    pub causes: Vec<Cause>,
    /// The signs.
    pub signs: Vec<SignSummary>,
    /// The sign whose alarm decided.
    pub decided_by: Option<SignName>,
    /// The chain of gains that shows the most.
    pub chain: Option<Chain>,
    /// What to do, best first.
    pub remedies: Vec<Proposal>,
    /// Number of steps at which the guard acted.
    pub actions: u64,
    /// The latest measurement of the held-out metric.
    pub metric: Option<f64>,
    /// The names of all places above.
    pub names: Names,
}

impl Diagnosis {
    /// The diagnosis before anything was seen.
    pub(crate) fn empty(verdict: Verdict, seen: Seen, names: Names) -> Self {
        Self {
            verdict,
            seen,
            onset: None,
            recovered: None,
            origin: None,
            first_nonfinite: None,
            operation: None,
            causes: Vec::new(),
            signs: summaries([]),
            decided_by: None,
            chain: None,
            remedies: Vec::new(),
            actions: 0,
            metric: None,
            names,
        }
    }

    /// The alarm that decided.
    pub fn alarm(&self) -> Option<&Finding> {
        let decided = self.signs.iter().find(|sign| Some(sign.sign) == self.decided_by)?;
        decided.first()
    }

    /// Name of the layer where it began, or else of the tensor.
    pub fn origin_name(&self) -> Option<&str> {
        let origin = self.origin.as_ref()?;
        let layer = origin.layer().map(Place::Layer);
        self.names.name(layer.unwrap_or(origin.place))
    }

    /// Kebab-case name of the best supported cause.
    pub fn cause(&self) -> Option<&'static str> {
        self.causes.first().map(|cause| cause.name.as_str())
    }
}

/// The signs, each with those of the findings that are its own, in their order.
pub(crate) fn summaries(findings: impl IntoIterator<Item = Finding>) -> Vec<SignSummary> {
    let summary = |sign| SignSummary { sign, findings: Vec::new(), count: 0, too_early: None };
    let mut signs: Vec<SignSummary> = SignName::ALL.into_iter().map(summary).collect();
    for finding in findings {
        if let Some(summary) = signs.iter_mut().find(|summary| summary.sign == finding.sign) {
            summary.count += 1;
            summary.findings.push(finding);
        }
    }
    signs
}

/// Rows below which a run without an alarm is too short to be called healthy.
pub const ROWS_MIN: usize = RULE.steps_min;
/// The numbers.
const RULE: VerdictRule = RULES.verdict;

/// Diagnoses a run. Where its record lacks something (individual tensors, gains), the diagnosis says
/// less; it never guesses.
pub fn diagnose(run: &Run) -> Diagnosis {
    let record = &run.record;
    let verdict = verdict(run);
    let origin = origin::find(run);
    let (mut causes, mut remedies) = (Vec::new(), Vec::new());
    if verdict.is_explosion() || verdict == Verdict::NotLearning {
        causes = causes::weigh(run, origin.as_ref());
        remedies = remedies::propose(run, origin.as_ref(), &causes);
    }
    // Without an explosion there is no effect to hold down.
    remedies.retain(|proposal| verdict.is_explosion() || proposal.treats_cause);
    let alarm = run.first_alarm();
    Diagnosis {
        verdict,
        seen: Seen::Steps(record.steps_seen()),
        onset: alarm.map(|alarm| alarm.step),
        recovered: None,
        signs: SignName::ALL.into_iter().map(|sign| summary(run, sign)).collect(),
        decided_by: alarm.map(|alarm| alarm.sign),
        chain: run.telling_chain(),
        origin,
        first_nonfinite: first::find(run),
        operation: run.broken_by().and_then(|seen| seen.operation.clone()),
        causes,
        remedies,
        actions: run.action_count(),
        metric: record.rows.iter().rev().find_map(|row| row.metric),
        names: record.names(),
    }
}

fn summary(run: &Run, sign: SignName) -> SignSummary {
    let of_sign = || run.findings().iter().filter(move |finding| finding.sign == sign);
    let alarm = of_sign().find(|finding| finding.is_alarm());
    let too_early = run.reading(sign).and_then(|reading| match reading {
        Reading::TooEarly { needs } => Some(*needs),
        Reading::Quiet | Reading::Fired(_) => None,
    });
    let mut steps: Vec<Step> = of_sign().map(|finding| finding.step).collect();
    // One step may show it before its update and after.
    steps.dedup();
    let count = steps.len() as u64;
    SignSummary {
        sign,
        findings: alarm.or_else(|| of_sign().next()).cloned().into_iter().collect(),
        count,
        too_early: too_early.filter(|_| count == 0),
    }
}

fn verdict(run: &Run) -> Verdict {
    let Some(alarm) = run.first_alarm() else {
        return match run.record.steps_seen() {
            steps if steps < ROWS_MIN as u64 => Verdict::TooEarly,
            steps if steps >= RULE.learning_steps && !has_learned(run) => Verdict::NotLearning,
            _ => Verdict::Healthy,
        };
    };
    if ends_nonfinite(run) {
        Verdict::Exploded
    } else if causes::is_dead(run) {
        Verdict::Dead
    } else if came_back(run, alarm.step) {
        Verdict::Recovered
    } else {
        Verdict::Exploding
    }
}

/// Whether the last losses are below the first by more than they spread, or the metric has risen, which says
/// more: the loss of a policy need not fall. Without losses nobody knows, nor with losses of both signs.
fn has_learned(run: &Run) -> bool {
    let losses = || run.record.recent(RULE.end).iter().filter_map(|row| row.loss);
    let has_both_signs = losses().any(|loss| loss < 0.0) && losses().any(|loss| loss > 0.0);
    has_both_signs
        || metric_has_risen(run)
        || run.record.first_losses.median().is_none_or(|first| falls_below(first, run))
}

/// Whether the last third of the measurements of the metric is above the first by more than that spreads.
fn metric_has_risen(run: &Run) -> bool {
    let metrics: Vec<f64> = run.record.rows.iter().filter_map(|row| row.metric).collect();
    let third = metrics.len() / 3;
    let (first, last) = (&metrics[..third], &metrics[metrics.len() - third..]);
    let medians = median(first.iter().copied()).zip(median(last.iter().copied()));
    medians.is_some_and(|(before, after)| after > before + spread(first.iter().copied(), before))
}

/// Whether the last losses are below a level by more than they spread.
fn falls_below(level: f64, run: &Run) -> bool {
    let last = || run.record.recent(RULE.end).iter().filter_map(|row| row.loss);
    median(last()).is_none_or(|end| end < level - spread(last(), end))
}

/// The standard deviation of losses around their median, as outliers do not move it.
fn spread(losses: impl Iterator<Item = f64>, median_loss: f64) -> f64 {
    median(losses.map(|loss| (loss - median_loss).abs())).unwrap_or(0.0) * 1.4826
}

/// The last loss is not finite, the last rows' gradients are not, or the last update broke a
/// parameter.
fn ends_nonfinite(run: &Run) -> bool {
    let last = run.record.recent(RULE.broken);
    let last_update = last.last().and_then(|row| row.update_ratio).unwrap_or(0.0);
    // A norm that is NaN, and not only elements: the backward pass came to no end.
    let is_broken =
        |row: &Row| [row.loss, row.gradient_norm].iter().flatten().any(|x| !x.is_finite());
    !last.is_empty() && (last.iter().all(Row::is_broken) || last_update.is_infinite())
        || last.last().is_some_and(is_broken)
}

/// Whether the loss of the last rows is back at its level before the alarm and no alarm is among
/// them.
fn came_back(run: &Run, alarm: Step) -> bool {
    let record = &run.record;
    let before: Vec<f64> = record.rows_before(Some(alarm)).filter_map(|row| row.loss).collect();
    let before = &before[before.len().saturating_sub(RULE.end)..];
    let level = median(before.iter().copied()).or_else(|| record.first_losses.iter().next());
    let end = median(record.recent(RULE.end).iter().filter_map(|row| row.loss));
    let quiet = run.is_quiet(RULE.end as u64);
    let Some((level, end)) = level.zip(end) else { return quiet };
    // Without a calm level before the alarm, a loss that is lower than at first has not come back to
    // anything while the gradient is still very high.
    let norm = median(record.recent(RULE.end).iter().filter_map(|row| row.gradient_norm));
    let very_high = RULES.high_gradient.live.very_high;
    let stays_high = before.is_empty() && norm.is_some_and(|norm| norm > very_high);
    if stays_high || record.never_came_down(end) {
        return false;
    }
    // Nor has one that stays where a constant answer would be.
    let since = record.now().map_or(0, |row| row.step.0.saturating_sub(alarm.0));
    let is_long_ago = since >= RULE.learning_steps;
    if is_long_ago
        && record.facts.constant_loss.is_some_and(|constant| end > RULE.of_constant * constant)
    {
        return false;
    }
    // Nor has one to come back to what it was before it had learned anything.
    let first = record.first_losses.iter().next().unwrap_or(level);
    let is_early = before.len() < RULE.level_steps && record.steps_seen() >= RULE.learning_steps;
    if is_early && !falls_below(first, run) {
        return false;
    }
    let rule = RULES.departure;
    let spread = spread(before.iter().copied(), level);
    let margin = (rule.spreads * spread).max(rule.of_descent * record.loss_range());
    quiet && end <= level + margin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{Guard, GuardConfig};
    use crate::observe::{Layout, Observation, RunFacts};
    use crate::signs::check::{noise, seen};

    fn verdict_of(steps: u64, at: impl Fn(u64) -> (f64, f64)) -> (Verdict, Option<u64>) {
        let mut guard = Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
        for step in 0..steps {
            let (loss, norm) = at(step);
            let seen = Observation { gradient_norm: Some(norm), ..seen(step, loss, &[]) };
            guard.observe(&seen, &[]);
        }
        let diagnosis = guard.diagnosis();
        (diagnosis.verdict, diagnosis.onset.map(|step| step.0))
    }

    fn falling(step: u64) -> (f64, f64) {
        let noise = noise(step as usize);
        (2.3 * (-(step as f64) / 80.0).exp() + 0.2 + 0.03 * noise, (0.2 * noise).exp())
    }

    #[test]
    fn a_metric_that_rises_and_losses_of_both_signs_are_no_standstill() {
        let verdict = |loss: fn(u64) -> f64, metric: fn(u64) -> f64| {
            let mut guard =
                Guard::new(Layout::default(), RunFacts::default(), GuardConfig::default());
            for step in 0..300 {
                let metric = (step % 20 == 0).then(|| metric(step));
                let seen =
                    Observation { gradient_norm: Some(1.0), metric, ..seen(step, loss(step), &[]) };
                guard.observe(&seen, &[]);
            }
            guard.diagnosis().verdict
        };
        let flat = |step| 2.0 + 0.1 * noise(step as usize);
        let (rising, level) = (|step| 20.0 + step as f64, |step| 20.0 + noise(step as usize));
        assert_eq!(verdict(flat, level), Verdict::NotLearning);
        assert_eq!(verdict(flat, rising), Verdict::Healthy);
        assert_eq!(verdict(|step| 0.1 * noise(step as usize), level), Verdict::Healthy);
    }

    #[test]
    fn a_loss_that_stays_where_a_constant_answer_would_be_has_not_come_back() {
        for (constant_loss, expected) in
            [(None, Verdict::Recovered), (Some(2.3), Verdict::Exploding)]
        {
            let facts = RunFacts { constant_loss, ..RunFacts::default() };
            let mut guard = Guard::new(Layout::default(), facts, GuardConfig::default());
            for step in 0..400 {
                let (loss, norm) = match step {
                    0..150 => (2.4 - 0.0005 * step as f64, 1.0),
                    150..155 => (1e6, 1e12),
                    _ => (2.3, 0.5),
                };
                let noise = noise(step as usize);
                let seen = Observation {
                    gradient_norm: Some(norm),
                    ..seen(step, loss + 0.01 * noise, &[])
                };
                guard.observe(&seen, &[]);
            }
            assert_eq!(guard.diagnosis().verdict, expected, "{constant_loss:?}");
        }
    }

    #[test]
    fn the_ends_of_a_run() {
        type End = fn(u64) -> (f64, f64);
        let cases: [(&str, End, Verdict, Option<u64>); 15] = [
            (
                "absurd from the start",
                |s| (1e15 * (1.0 + 0.1 * noise(s as usize)), 1e13),
                Verdict::Exploding,
                Some(0),
            ),
            (
                "absurd from the start, and the loss falls to what is absurd still",
                |s| (1.8e20 * (-(s as f64) / 180.0).exp(), 6e21),
                Verdict::Exploding,
                Some(0),
            ),
            (
                "absurd at the start, and all comes down",
                |s| {
                    let size = 1e12 * (-(s as f64) / 10.0).exp() + 1.0;
                    (size + 0.01 * noise(s as usize), size)
                },
                Verdict::Recovered,
                Some(0),
            ),
            (
                "very high from the start, and the loss stays",
                |s| (1e10 * (1.0 + 0.1 * noise(s as usize)), 1e8),
                Verdict::Exploding,
                Some(99),
            ),
            (
                "very high from the start, and the loss falls",
                |s| (1e10 * (-(s as f64) / 80.0).exp(), 1e8),
                Verdict::Healthy,
                None,
            ),
            ("healthy", falling, Verdict::Healthy, None),
            (
                "an explosion at once, and the loss is back where it began",
                |s| match s {
                    0 => (2.3, 1.0),
                    1 => (1e15, 1e13),
                    _ => (2.3 + 0.03 * noise(s as usize), 0.01),
                },
                Verdict::Exploding,
                Some(1),
            ),
            (
                "nothing learned",
                |s| (2.3 + 0.03 * noise(s as usize), 1.0),
                Verdict::NotLearning,
                None,
            ),
            (
                "a spike with a jump of the loss that comes back",
                |s| if s == 200 { (5.0, 500.0) } else { falling(s) },
                Verdict::Recovered,
                Some(200),
            ),
            (
                "the same where every gradient is large",
                |s| {
                    let (loss, norm) = if s == 200 { (5.0, 500.0) } else { falling(s) };
                    (loss, 1e7 * norm)
                },
                Verdict::Recovered,
                Some(200),
            ),
            (
                "the loss stays high",
                |s| if s >= 200 { (50.0 + s as f64, 1e3 * falling(399).1) } else { falling(s) },
                Verdict::Exploding,
                Some(200),
            ),
            (
                "the loss stays high without another alarm",
                |s| match s {
                    200 => (5.0, 500.0),
                    201.. => (5.0 + 0.03 * noise(s as usize), falling(399).1),
                    _ => falling(s),
                },
                Verdict::Exploding,
                Some(200),
            ),
            (
                "the loss is back, but the alarm was only now",
                |s| if s == 390 { (5.0, 500.0) } else { falling(s) },
                Verdict::Exploding,
                Some(390),
            ),
            (
                "NaN at the end",
                |s| if s >= 250 { (f64::NAN, f64::NAN) } else { falling(s) },
                Verdict::Exploded,
                Some(250),
            ),
            (
                "flat without a gradient",
                |s| match s {
                    200 => (90.0, 9e5),
                    201.. => (falling(399).0 + 9.0, 0.0),
                    _ => falling(s),
                },
                Verdict::Dead,
                Some(200),
            ),
        ];
        for (name, at, verdict, onset) in cases {
            assert_eq!(verdict_of(400, at), (verdict, onset), "{name}");
        }
        assert_eq!(verdict_of(10, falling), (Verdict::TooEarly, None), "too short");
    }
}
