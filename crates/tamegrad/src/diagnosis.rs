//! The diagnosis: what a record says of the whole run.

use crate::causes::{self, Cause};
use crate::chain::Chain;
use crate::finding::{Finding, Severity};
use crate::finding::{Reading, SignName};
use crate::observe::Step;
use crate::origin::{self, Origin};
use crate::record::{Record, Row, VERY_HIGH_NORM};
use crate::remedies::{self, Proposal};
use crate::running::median;

/// The verdict on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No alarm.
    Healthy,
    /// An alarm, and the loss came back to its level before it.
    Recovered,
    /// An alarm, and the loss has not come back for 20 calm steps.
    Exploding,
    /// The run ended with NaN or Inf.
    Exploded,
    /// After an alarm the network no longer learns: its inner gradients are 0 and its loss flat.
    Dead,
    /// Too few steps to say.
    TooEarly,
}

impl Verdict {
    /// Kebab-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Recovered => "recovered",
            Verdict::Exploding => "exploding",
            Verdict::Exploded => "exploded",
            Verdict::Dead => "dead",
            Verdict::TooEarly => "too-early",
        }
    }

    /// Whether the run ended well: healthy or recovered.
    pub fn is_good(self) -> bool {
        matches!(self, Verdict::Healthy | Verdict::Recovered)
    }

    /// Whether an explosion was found, whatever came of it.
    pub fn is_explosion(self) -> bool {
        !matches!(self, Verdict::Healthy | Verdict::TooEarly)
    }
}

/// What one sign said over the whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct SignSummary {
    /// Which sign.
    pub sign: SignName,
    /// Its first finding, alarms before strains.
    pub first: Option<Finding>,
    /// Number of findings.
    pub count: usize,
    /// How many more steps or measurements it needed to say anything, if the run ended before it
    /// could and it found nothing.
    pub too_early: Option<u32>,
}

/// What a record says of the whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// The verdict.
    pub verdict: Verdict,
    /// When it began: the step of the first alarm.
    pub onset: Option<Step>,
    /// Where it began.
    pub origin: Option<Origin>,
    /// Why, the best supported cause first. Empty when unknown.
    pub causes: Vec<Cause>,
    /// The six signs.
    pub signs: Vec<SignSummary>,
    /// The chain of gains that shows the most.
    pub chain: Option<Chain>,
    /// What to do, best first.
    pub remedies: Vec<Proposal>,
}

/// Rows below which a run without an alarm is too short to be called healthy.
pub const ROWS_MIN: usize = 20;
/// Rows at the end that show what came of it.
const END_ROWS: usize = 20;

/// Diagnoses a run. Where the record lacks something (no single tensors, no gains), the
/// diagnosis says less; it never guesses.
pub fn diagnose(record: &Record) -> Diagnosis {
    let verdict = verdict(record);
    let origin = origin::find(record);
    let causes = causes::weigh(record, origin.as_ref());
    let remedies = if verdict.is_explosion() {
        remedies::propose(record, origin.as_ref(), &causes)
    } else {
        Vec::new()
    };
    Diagnosis {
        verdict,
        onset: record.first_alarm().map(|alarm| alarm.step),
        signs: SignName::ALL.into_iter().map(|sign| summary(record, sign)).collect(),
        chain: record.telling_chain(),
        origin,
        causes,
        remedies,
    }
}

fn summary(record: &Record, sign: SignName) -> SignSummary {
    let of_sign = || record.findings.iter().filter(move |finding| finding.sign == sign);
    let alarm = of_sign().find(|finding| finding.severity == Severity::Alarm);
    let reading = record.readings.iter().find(|(name, _)| *name == sign);
    let too_early = reading.and_then(|(_, reading)| match reading {
        Reading::TooEarly { needs } => Some(*needs),
        Reading::Quiet | Reading::Fired(_) => None,
    });
    let count = of_sign().count();
    SignSummary {
        sign,
        first: alarm.or_else(|| of_sign().next()).cloned(),
        count,
        too_early: too_early.filter(|_| count == 0),
    }
}

fn verdict(record: &Record) -> Verdict {
    let Some(alarm) = record.first_alarm() else {
        let rows = record.rows.len() as u64 + record.rows_dropped;
        return if rows < ROWS_MIN as u64 { Verdict::TooEarly } else { Verdict::Healthy };
    };
    if ends_nonfinite(record) {
        Verdict::Exploded
    } else if causes::is_dead(record) {
        Verdict::Dead
    } else if came_back(record, alarm.step) {
        Verdict::Recovered
    } else {
        Verdict::Exploding
    }
}

/// The last loss is not finite, the last rows' gradients are not, or the last update broke a
/// parameter.
fn ends_nonfinite(record: &Record) -> bool {
    let last = record.recent(3);
    let last_update = last.last().and_then(|row| row.update_ratio).unwrap_or(0.0);
    !last.is_empty() && (last.iter().all(Row::is_broken) || last_update.is_infinite())
        || last.last().is_some_and(|row| row.loss.is_some_and(|loss| !loss.is_finite()))
}

/// Whether the loss of the last rows is back at its level before the alarm and no alarm is among
/// them.
fn came_back(record: &Record, alarm: Step) -> bool {
    let before: Vec<f64> = record.rows_before(Some(alarm)).filter_map(|row| row.loss).collect();
    let before = &before[before.len().saturating_sub(END_ROWS)..];
    let level = median(before.iter().copied()).or_else(|| record.first_losses.iter().next());
    let end = median(record.recent(END_ROWS).iter().filter_map(|row| row.loss));
    let quiet = record.last_alarm.is_none_or(|at| record.clock - at >= END_ROWS as u64);
    let Some((level, end)) = level.zip(end) else { return quiet };
    // Without a calm level before the alarm, a loss that is lower than at first has not come back to
    // anything while the gradient is still very high.
    let norm = median(record.recent(END_ROWS).iter().filter_map(|row| row.gradient_norm));
    let stays_high = before.is_empty() && norm.is_some_and(|norm| norm > VERY_HIGH_NORM);
    if stays_high || record.never_came_down(end) {
        return false;
    }
    let spread = median(before.iter().map(|loss| (loss - level).abs())).unwrap_or(0.0) * 1.4826;
    let margin = (4.0 * spread).max(0.1 * record.loss_range());
    quiet && end <= level + margin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::{Guard, GuardConfig, Mode};
    use crate::observe::{Layout, Observation, RunFacts};
    use crate::signs::check::noise;

    fn verdict_of(steps: u64, at: impl Fn(u64) -> (f64, f64)) -> (Verdict, Option<u64>) {
        let config = GuardConfig { mode: Mode::Observe, ..GuardConfig::default() };
        let mut guard = Guard::new(Layout::default(), RunFacts::default(), config);
        for step in 0..steps {
            let (loss, norm) = at(step);
            guard.observe(&Observation {
                step: Step(step),
                loss: Some(loss),
                gradient_norm: Some(norm),
                ..Observation::default()
            });
            guard.observe_update(&[]);
        }
        let diagnosis = guard.diagnosis();
        (diagnosis.verdict, diagnosis.onset.map(|step| step.0))
    }

    fn falling(step: u64) -> (f64, f64) {
        let noise = noise(step as usize);
        (2.3 * (-(step as f64) / 80.0).exp() + 0.2 + 0.03 * noise, (0.2 * noise).exp())
    }

    #[test]
    fn the_ends_of_a_run() {
        let (loss, norm) = falling(399);
        type End = Box<dyn Fn(u64) -> (f64, f64)>;
        let cases: [(&str, u64, End, Verdict, Option<u64>); 14] = [
            (
                "absurd from the start",
                400,
                Box::new(|s| (1e15 * (1.0 + 0.1 * noise(s as usize)), 1e13)),
                Verdict::Exploding,
                Some(0),
            ),
            (
                "absurd from the start, and the loss falls to what is absurd still",
                400,
                Box::new(|s| (1.8e20 * (-(s as f64) / 180.0).exp(), 6e21)),
                Verdict::Exploding,
                Some(0),
            ),
            (
                "absurd at the start, and all comes down",
                400,
                Box::new(|s| {
                    let size = 1e12 * (-(s as f64) / 10.0).exp() + 1.0;
                    (size + 0.01 * noise(s as usize), size)
                }),
                Verdict::Recovered,
                Some(0),
            ),
            (
                "very high from the start, and the loss stays",
                400,
                Box::new(|s| (1e10 * (1.0 + 0.1 * noise(s as usize)), 1e8)),
                Verdict::Exploding,
                Some(99),
            ),
            (
                "very high from the start, and the loss falls",
                400,
                Box::new(|s| (1e10 * (-(s as f64) / 80.0).exp(), 1e8)),
                Verdict::Healthy,
                None,
            ),
            ("healthy", 400, Box::new(falling), Verdict::Healthy, None),
            ("too short", 10, Box::new(falling), Verdict::TooEarly, None),
            (
                "a spike with a jump of the loss that comes back",
                400,
                Box::new(|s| if s == 200 { (5.0, 500.0) } else { falling(s) }),
                Verdict::Recovered,
                Some(200),
            ),
            (
                "the same where every gradient is large",
                400,
                Box::new(|s| {
                    let (loss, norm) = if s == 200 { (5.0, 500.0) } else { falling(s) };
                    (loss, 1e7 * norm)
                }),
                Verdict::Recovered,
                Some(200),
            ),
            (
                "the loss stays high",
                400,
                Box::new(
                    move |s| if s >= 200 { (50.0 + s as f64, 1000.0 * norm) } else { falling(s) },
                ),
                Verdict::Exploding,
                Some(200),
            ),
            (
                "the loss stays high without another alarm",
                400,
                Box::new(move |s| match s {
                    200 => (5.0, 500.0),
                    201.. => (5.0 + 0.03 * noise(s as usize), norm),
                    _ => falling(s),
                }),
                Verdict::Exploding,
                Some(200),
            ),
            (
                "the loss is back, but the alarm was only now",
                400,
                Box::new(|s| if s == 390 { (5.0, 500.0) } else { falling(s) }),
                Verdict::Exploding,
                Some(390),
            ),
            (
                "NaN at the end",
                400,
                Box::new(|s| if s >= 250 { (f64::NAN, f64::NAN) } else { falling(s) }),
                Verdict::Exploded,
                Some(250),
            ),
            (
                "flat without a gradient",
                400,
                Box::new(move |s| match s {
                    200 => (90.0, 9e5),
                    201.. => (loss + 9.0, 0.0),
                    _ => falling(s),
                }),
                Verdict::Dead,
                Some(200),
            ),
        ];
        for (name, steps, at, verdict, onset) in cases {
            assert_eq!(verdict_of(steps, at), (verdict, onset), "{name}");
        }
    }
}
