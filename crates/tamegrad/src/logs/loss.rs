//! What the loss of a log says: NaN and Inf, jumps and rises, and whether it came back.

use super::{Alarm, RECORDS_MIN, Sample, last, step};
use crate::diagnosis::Verdict;
use crate::evidence::{Measure, Place, Quantity, Reference};
use crate::finding::SignName;
use crate::rules::{LogLossRule, RULES};
use crate::running::{SIGMAS_OF_MAD, centre_and_spread, median};

/// The numbers.
const RULE: LogLossRule = RULES.log_loss;

/// NaN or Inf in the loss: for good, or in passing.
pub(super) fn nonfinite(loss: &[Sample]) -> Option<Alarm> {
    if are_gaps(loss) {
        return None;
    }
    let first = loss.iter().position(|sample| !sample.value.is_finite())?;
    let after = &loss[first..];
    let broken = after.iter().filter(|sample| !sample.value.is_finite()).count();
    let ends_broken = after.last().is_some_and(|sample| !sample.value.is_finite());
    let for_good = ends_broken || 2 * broken > after.len();
    let any_nan = after.iter().any(|sample| sample.value.is_nan());
    let begin = rise_before(loss, first).min(open_episode(loss, first).unwrap_or(first));
    let verdict = if !for_good {
        Verdict::Recovered
    } else if !any_nan && first - begin >= RULE.finite_first {
        Verdict::Exploding
    } else {
        Verdict::Exploded
    };
    let back = after.iter().find(|sample| sample.value.is_finite()).map(|sample| sample.step);
    let mut evidence = vec![
        Measure::new(Quantity::Loss, loss[first].value).at_step(step(loss[first].step)),
        Measure::new(Quantity::NonFiniteRecords, broken as f64)
            .at(Place::Loss)
            .against(Reference::Total, after.len() as f64),
    ];
    if begin < first {
        let before = median(values(&loss[..begin])).unwrap_or(f64::NAN);
        let rise = Measure::new(Quantity::Loss, loss[begin].value).at_step(step(loss[begin].step));
        evidence.push(rise.against(Reference::Usual, before));
    }
    let back = back.filter(|_| verdict == Verdict::Recovered);
    let alarm = Alarm::new(SignName::LossNonFinite, loss[begin].step, verdict, evidence);
    Some(Alarm { back, ..alarm })
}

/// Whether what is NaN are records without a value: single ones from the first on, between which the
/// loss goes on as before. A network that has a NaN once does not come back by itself again and again.
fn are_gaps(loss: &[Sample]) -> bool {
    let is_gap = |sample: &Sample| sample.value.is_nan();
    let groups: Vec<&[Sample]> = loss.chunk_by(|a, b| is_gap(a) == is_gap(b)).collect();
    let gaps: Vec<&&[Sample]> = groups.iter().filter(|group| is_gap(&group[0])).collect();
    let begins = loss.iter().take(RULE.near).any(is_gap);
    let longest = gaps.iter().map(|gap| gap.len()).max().unwrap_or(0);
    let values = groups.iter().filter(|group| !is_gap(&group[0])).map(|group| group.len());
    let finite: usize = values.sum();
    begins
        && gaps.len() >= 3
        && longest <= RULE.gap_max
        && finite + 1 >= gaps.len()
        && groups.len() >= 2 * longest
}

/// The first record from which on the loss stays, up to the record `end`, above the level
/// before it; `end` if there is none. A rise may be slow: it goes back as long as there is one within
/// [`LogLossRule::before_nan`] records.
fn rise_before(loss: &[Sample], end: usize) -> usize {
    let mut lowest = loss.get(end).map_or(f64::INFINITY, |sample| sample.value);
    if !lowest.is_finite() {
        lowest = f64::INFINITY;
    }
    let mut begin = end;
    for at in (1..end).rev() {
        if begin - at > RULE.before_nan {
            break;
        }
        lowest = lowest.min(loss[at].value);
        let before = &loss[at.saturating_sub(20)..at];
        let is_positive = before.iter().all(|sample| sample.value > 0.0);
        let level = median(values(before)).unwrap_or(f64::INFINITY);
        if is_positive && lowest > RULE.begin_ratio * level {
            begin = at;
        }
    }
    begin
}

/// Where an episode begins that is not over at the record `end`.
fn open_episode(loss: &[Sample], end: usize) -> Option<usize> {
    let found = episodes(loss, &[]);
    found.iter().find(|e| e.begin < end && e.back.is_none_or(|back| back >= end)).map(|e| e.begin)
}

/// A jump or a rise of a finite loss.
pub(super) fn explosion(loss: &[Sample], restarts: &[i64]) -> Option<Alarm> {
    left_for_good(loss).or_else(|| departed(loss, restarts))
}

/// A loss that jumps in its first records, before there is a level, and then stays flat where it began
/// or above: the network answers the same to everything.
fn left_for_good(loss: &[Sample]) -> Option<Alarm> {
    let finite: Vec<&Sample> = loss.iter().filter(|sample| sample.value.is_finite()).collect();
    let first = finite.first().filter(|first| first.value > 0.0)?;
    let at = (1..finite.len().min(RULE.near))
        .find(|at| finite[*at].value > RULE.first_ratio * first.value)?;
    let calm = finite.get(..at)?.iter().map(|sample| sample.value);
    let highest = calm.fold(0.0, f64::max);
    let after: Vec<f64> = finite.get(at + 1..)?.iter().map(|sample| sample.value).collect();
    let end = last(&after, after.len() / 2);
    let (level, spread) = centre_and_spread(end);
    let is_flat = after.len() >= RULE.near && spread <= RULE.flat * level;
    let peak = finite[at].value;
    // A run that learns all the same ends well below where it began.
    let is_lost = level > RULE.lost_of_first * first.value && peak > RULE.first_ratio * level;
    let evidence = vec![
        Measure::new(Quantity::PeakLoss, peak).against(Reference::First, first.value),
        Measure::new(Quantity::Loss, level).against(Reference::Before, highest),
    ];
    let onset = finite[at].step;
    let verdict =
        if spread <= RULE.dead_spread * level { Verdict::Dead } else { Verdict::Exploding };
    let alarm = Alarm::new(SignName::LossFluctuates, onset, verdict, evidence);
    (is_flat && is_lost).then_some(alarm)
}

/// Whether there are few records, and the last of them are far above the first: not enough to tell an
/// explosion from noise, and too much to call it healthy.
pub(super) fn is_up_early(loss: &[Sample]) -> bool {
    let all: Vec<f64> = values(loss).filter(|value| value.is_finite()).collect();
    let first = all.iter().take(2).copied().fold(0.0, f64::max);
    let lowest_of_last = last(&all, 3).iter().copied().fold(f64::MAX, f64::min);
    (RECORDS_MIN..RULE.near).contains(&all.len())
        && first > 0.0
        && lowest_of_last > RULE.early_ratio * first
}

/// A loss that leaves its level.
fn departed(loss: &[Sample], restarts: &[i64]) -> Option<Alarm> {
    let found = episodes(loss, restarts);
    let worst = found.iter().map(|episode| episode.severity).fold(0.0, f64::max);
    // What is small beside the worst is not where it began.
    let first = found.iter().find(|episode| episode.severity >= RULE.beside_worst * worst)?;
    let verdict = came_of(loss, &found);
    let back = found.iter().rev().find_map(|episode| episode.back);
    let evidence = vec![
        Measure::new(Quantity::PeakLoss, first.peak).against(Reference::Usual, first.level),
        Measure::new(Quantity::LossSigmas, first.sigmas).against(Reference::Limit, first.limit),
        Measure::new(Quantity::LossEpisodes, found.len() as f64),
    ];
    let back = back.and_then(|at| loss.get(at)).map(|sample| sample.step);
    let is_open = first.back.is_none();
    let begin = if is_open { rise_before(loss, first.begin) } else { first.begin };
    let onset = loss[begin].step;
    Some(Alarm { back, ..Alarm::new(SignName::LossFluctuates, onset, verdict, evidence) })
}

/// Whether the loss came back after the last episode, stays flat, or is still away.
fn came_of(loss: &[Sample], episodes: &[Episode]) -> Verdict {
    let Some(end) = episodes.last() else { return Verdict::Recovered };
    let tail = &loss[loss.len().saturating_sub((loss.len() / 20).max(3))..];
    let (now, spread) = centre_and_spread(&values(tail).collect::<Vec<f64>>());
    let since = loss.len() - end.begin;
    let verdict = if since >= 20 && spread <= RULE.dead_spread * now.abs() {
        Verdict::Dead
    } else {
        Verdict::Exploding
    };
    if episodes.iter().any(|episode| is_constant_after(loss, episode)) {
        return verdict;
    }
    if end.back.is_some() {
        return Verdict::Recovered;
    }
    let is_near = end.level > 0.0
        && now <= RULE.recovered_ratio * end.level
        && now < RULE.recovered_of_peak * end.peak;
    if is_near { Verdict::Recovered } else { verdict }
}

/// Whether a loss that jumped far is flat ever since, near where the run began and above where it had
/// come to: a constant answer has such a loss.
fn is_constant_after(loss: &[Sample], episode: &Episode) -> bool {
    let first = median(values(&loss[..loss.len().min(3)])).unwrap_or(f64::NAN);
    let after: Vec<f64> = values(&loss[episode.begin..]).filter(|loss| loss.is_finite()).collect();
    let rest = last(&after, 2 * after.len() / 3);
    let (now, spread) = centre_and_spread(rest);
    let (begin, end) = (
        median(rest[..rest.len() / 2].iter().copied()),
        median(last(rest, rest.len() / 2).iter().copied()),
    );
    let falls = begin.zip(end).is_none_or(|(begin, end)| end < (1.0 - RULE.flat) * begin);
    episode.level > 0.0
        && rest.len() >= RULE.near
        && episode.peak > RULE.first_ratio * episode.level
        && spread <= RULE.flat * now
        && !falls
        && now > (1.0 + RULE.flat) * episode.level
        && now > (1.0 - 4.0 * RULE.flat) * first
        && now < (1.0 + 4.0 * RULE.flat) * first
}

/// A stretch in which the loss is far above its level.
#[derive(Debug)]
struct Episode {
    begin: usize,
    /// The first record that is back.
    back: Option<usize>,
    level: f64,
    peak: f64,
    sigmas: f64,
    limit: f64,
    /// How bad: the logarithm of the peak over the level.
    severity: f64,
}

/// The episodes of a loss. At the restarts, the run began anew though its steps count on.
fn episodes(loss: &[Sample], restarts: &[i64]) -> Vec<Episode> {
    let mut calm: Vec<f64> = Vec::new();
    let mut found = Vec::new();
    let mut at = 0;
    let mut newest = i64::MIN;
    while let Some(sample) = loss.get(at) {
        // A run that starts again from its first steps has no history.
        let begins_again = restarts.iter().any(|step| newest < *step && *step <= sample.step);
        if sample.step < newest && sample.step <= loss[0].step || begins_again && newest > i64::MIN
        {
            calm.clear();
        }
        newest = sample.step;
        if !sample.value.is_finite() {
            at += 1;
            continue;
        }
        match Departure::of(loss, at, &calm, restarts) {
            Some(departure) => {
                let episode = departure.follow(loss, at);
                let back = episode.back;
                let is_short = back.is_some_and(|back| back - episode.begin < RULE.heavy_records);
                let is_heavy =
                    departure.is_heavy || back.is_some_and(|back| is_heavy_after(loss, back));
                let counts = episode.sigmas >= episode.limit && !(is_heavy && is_short);
                found.extend(Some(episode).filter(|_| counts));
                match back {
                    Some(back) => at = back.max(at + 1),
                    None => break,
                }
            }
            None => {
                calm.push(sample.value);
                at += 1;
            }
        }
    }
    found
}

/// A loss that has left the level before it.
struct Departure {
    level: f64,
    spread: f64,
    /// A loss at or below this is back.
    home: f64,
    /// Sigmas that the peak must reach.
    limit: f64,
    /// Whether losses spread so far that a few records tell nothing.
    is_heavy: bool,
}

/// Whether losses from a record on spread over decades, where that many are known.
fn is_heavy_after(loss: &[Sample], back: usize) -> bool {
    let after: Vec<f64> =
        values(&loss[back..]).filter(|value| value.is_finite()).take(RULE.far).collect();
    after.len() >= RULES.warm_up.logs as usize && log_spread(&after) > RULE.heavy
}

impl Departure {
    fn of(loss: &[Sample], at: usize, calm: &[f64], restarts: &[i64]) -> Option<Self> {
        let near = last(calm, RULE.near);
        if near.len() < 3 {
            return None;
        }
        let value = loss[at].value;
        let (level, spread) = centre_and_spread(near);
        let highest = near.iter().copied().fold(f64::MIN, f64::max);
        let lowest = near.iter().copied().fold(f64::MAX, f64::min);
        if lowest <= 0.0 {
            let far = last(calm, RULE.far);
            let (low, high) =
                far.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
            let range = (high - low).max(f64::MIN_POSITIVE);
            let jumps = value - high > RULE.jump_ranges * range;
            let limit = RULE.jump_ranges;
            return jumps.then_some(Self {
                level,
                spread: range,
                home: high,
                limit,
                is_heavy: false,
            });
        }
        let home = highest.max(RULE.home * level);
        let steps: Vec<f64> = near.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        let step = SIGMAS_OF_MAD * median(steps).unwrap_or(0.0);
        let spread = spread.max(step).max(RULE.spread_min * level);
        let log_spread = log_spread(last(calm, RULE.far));
        // A few records do not show how far losses spread.
        let known = if calm.len() < RULES.warm_up.logs as usize { 0.0 } else { log_spread };
        let is_heavy = known > RULE.heavy;
        let jumps = value > RULE.jump_ratio * level
            && value > RULE.jump_over_highest * highest
            && value - level > RULE.jump_sigmas * spread
            && (value / level).ln() > RULE.log_sigmas * known;
        if jumps {
            return Some(Self { level, spread, home, limit: RULE.jump_sigmas, is_heavy });
        }
        if lasts(loss, at, near, level, log_spread) && is_one_run(loss, at, restarts) {
            // It is far above all records before, whatever their spread.
            return Some(Self { level, spread, home, limit: 0.0, is_heavy });
        }
        let spread = centre_and_spread(last(calm, RULE.far)).1.max(RULE.spread_min * level);
        let is_up = |value: f64, sigmas: f64| {
            value > RULE.rise_ratio * level && value > highest && value - level > sigmas * spread
        };
        let next = loss[at..].iter().filter(|s| s.value.is_finite()).take(RULE.rise_records);
        let up = next.filter(|s| is_up(s.value, RULE.rise_sigmas - RULE.rise_slack)).count();
        let rises = near.len() == RULE.near
            && is_up(value, RULE.rise_sigmas)
            && up >= RULE.rise_records - 1;
        rises.then_some(Self { level, spread, home, limit: RULE.rise_peak_sigmas, is_heavy })
    }

    /// Follows the loss until three records in a row are back by their median, or to the end.
    fn follow(&self, loss: &[Sample], begin: usize) -> Episode {
        let mut peak = loss[begin].value;
        let mut back = None;
        for at in begin..loss.len() {
            if loss[at].value.is_finite() {
                peak = peak.max(loss[at].value);
            }
            let next = &loss[at..(at + 3).min(loss.len())];
            if median(values(next)).is_some_and(|now| now <= self.home) {
                back = Some(at);
                break;
            }
        }
        let sigmas = (peak - self.level) / self.spread;
        let severity = if self.level > 0.0 { (peak / self.level).ln() } else { sigmas.ln() };
        Episode { begin, back, level: self.level, peak, sigmas, limit: self.limit, severity }
    }
}

/// Whether the loss is from this record on, to the end, above all that is near before it, after a rise
/// that was no slow one.
fn lasts(loss: &[Sample], at: usize, near: &[f64], level: f64, log_spread: f64) -> bool {
    let rest: Vec<f64> = values(&loss[at..]).filter(|value| value.is_finite()).collect();
    let highest = near.iter().copied().fold(f64::MIN, f64::max);
    let limit = highest.max(RULE.lasting_ratio * level);
    if near.len() < RULE.lasting_records || rest.len() < RULE.lasting_records || rest[0] < limit {
        return false;
    }
    let above = rest.iter().filter(|value| **value > limit).count();
    let soon = median(rest[..RULE.lasting_records].iter().copied()).unwrap_or(level);
    above as f64 >= RULE.lasting_part * rest.len() as f64
        && soon > limit
        && (soon / level).ln()
            > RULE.lasting_log * RULE.log_sigmas * log_spread.max(RULE.log_spread_min)
}

/// Whether steps go up from shortly before a record to the end: no other run, and no part of this one
/// that was repeated.
fn is_one_run(loss: &[Sample], at: usize, restarts: &[i64]) -> bool {
    let near = &loss[at.saturating_sub(RULE.near)..];
    near.windows(2).all(|pair| pair[0].step <= pair[1].step)
        && !restarts.iter().any(|step| near[0].step < *step)
}

/// Robust spread of the logarithms of losses about where they are heading: from one to the next.
fn log_spread(losses: &[f64]) -> f64 {
    let logs: Vec<f64> = losses.iter().filter(|loss| **loss > 0.0).map(|loss| loss.ln()).collect();
    let changes: Vec<f64> = logs.windows(2).map(|pair| pair[1] - pair[0]).collect();
    centre_and_spread(&changes).1 / std::f64::consts::SQRT_2
}

fn values(samples: &[Sample]) -> impl Iterator<Item = f64> + '_ {
    samples.iter().map(|sample| sample.value)
}

#[cfg(test)]
mod tests {
    use super::super::History;
    use super::super::check::{calm, verdict};
    use super::*;

    #[test]
    fn what_a_loss_says() {
        let base = calm(2.0, 0.1, 40);
        let then = |more: &[f64]| [&base[..], more].concat();
        let nan = f64::NAN;
        let inf = f64::INFINITY;
        let flat = vec![1380.0; 40];
        // (what, losses, verdict, onset)
        let cases: [(&str, Vec<f64>, Verdict, Option<i64>); 14] = [
            ("nan for good", then(&[nan, nan]), Verdict::Exploded, Some(40)),
            ("nan in the last record", then(&[nan]), Verdict::Exploded, Some(40)),
            ("nan from the start", vec![nan; 9], Verdict::Exploded, Some(0)),
            ("one inf", then(&[inf, 2.0, 1.9, 2.1]), Verdict::Recovered, Some(40)),
            ("up, then nan", then(&[5.0, 5.1, 4.9, nan, nan]), Verdict::Exploded, Some(40)),
            (
                "far up for long, then inf",
                [then(&[1e20]), vec![4e24; 12], vec![inf; 9]].concat(),
                Verdict::Exploding,
                Some(40),
            ),
            ("jump that stays", then(&[90.0, 4e3, 9e3, 2e4]), Verdict::Exploding, Some(40)),
            ("flat after the jump", then(&flat), Verdict::Dead, Some(40)),
            (
                "jump that comes back",
                then(&[900.0, 40.0, 2.1, 2.0, 1.9]),
                Verdict::Recovered,
                Some(40),
            ),
            (
                "rise that comes back",
                then(&[4.5, 5.0, 6.0, 8.0, 6.0, 5.0, 3.0, 2.1, 2.0, 2.0]),
                Verdict::Recovered,
                Some(40),
            ),
            ("one noisy record", then(&[4.5, 2.0, 1.9, 2.1]), Verdict::Healthy, None),
            ("policy gradient across zero", calm(0.0, 0.5, 60), Verdict::Healthy, None),
            ("falling", (0..80).map(|i| 50.0 * 0.93_f64.powi(i)).collect(), Verdict::Healthy, None),
            (
                "huge at the start, then a jump",
                [vec![8e7, 1e8, 3e3, 40.0], calm(10.0, 1.0, 20), vec![7e5, 2e6, 9.0, 10.0]]
                    .concat(),
                Verdict::Recovered,
                Some(24),
            ),
        ];
        for (what, losses, want, onset) in cases {
            assert_eq!(verdict(&losses, &[]), (want, onset), "{what}");
        }
    }

    /// Losses that fall from one value to another, with a small wobble.
    fn falling(from: f64, to: f64, count: usize) -> Vec<f64> {
        let part = |i: usize| i as f64 / (count - 1) as f64;
        let wobble = calm(1.0, 0.01, count);
        (0..count).map(|i| wobble[i] * (from + (to - from) * part(i))).collect()
    }

    #[test]
    fn a_rise_that_lasts_is_found_whatever_came_before() {
        let flat = calm(2.3, 0.01, 40);
        // (what, before, after, verdict, onset)
        type Case = (&'static str, Vec<f64>, Vec<f64>, Verdict, Option<i64>);
        let cases: [Case; 9] = [
            (
                "after a long descent",
                falling(2.4, 0.7, 90),
                calm(8.0, 0.3, 30),
                Verdict::Exploding,
                Some(90),
            ),
            (
                "while it falls",
                falling(1.7, 0.8, 28),
                calm(4.2, 0.2, 11),
                Verdict::Exploding,
                Some(28),
            ),
            (
                "after a few records",
                falling(1.4, 1.2, 7),
                calm(11.0, 0.4, 10),
                Verdict::Exploding,
                Some(7),
            ),
            (
                "after two records",
                vec![1.5, 1.3],
                vec![3.4, 6.0, 5.0, 4.8, 4.7],
                Verdict::TooEarly,
                None,
            ),
            (
                "a slow rise",
                vec![],
                (0..80).map(|i| 1.03_f64.powi(i)).collect(),
                Verdict::Healthy,
                None,
            ),
            (
                "flat at a constant answer",
                falling(2.4, 1.3, 40),
                [&[3e4, 90.0][..], &flat].concat(),
                Verdict::Exploding,
                Some(40),
            ),
            (
                "back to its level",
                falling(2.4, 1.3, 40),
                [&[3e4, 90.0][..], &calm(1.3, 0.01, 40)].concat(),
                Verdict::Recovered,
                Some(40),
            ),
            (
                "in the first records",
                vec![2.9, 2.7],
                [&[8e5][..], &flat].concat(),
                Verdict::Exploding,
                Some(2),
            ),
            ("high at first", vec![8e5, 30.0, 3.0], calm(2.0, 0.05, 30), Verdict::Healthy, None),
        ];
        for (what, before, after, want, onset) in cases {
            assert_eq!(verdict(&[before, after].concat(), &[]), (want, onset), "{what}");
        }
    }

    #[test]
    fn the_onset_of_a_slow_explosion_is_where_it_began() {
        let rise: Vec<f64> = (1..30).map(|i| 2.0 * 1.9_f64.powi(i)).collect();
        let loss = [calm(2.0, 0.1, 60), rise].concat();
        assert_eq!(verdict(&loss, &[]), (Verdict::Exploding, Some(60)));
    }

    #[test]
    fn losses_that_spread_over_decades_are_no_explosions() {
        let wild = [-1.2, 0.3, 0.8, -0.5, 1.6, -0.9, 0.1, 2.0, -1.7, 0.5, -0.2, 1.1, -0.4];
        let loss: Vec<f64> = (0..90).map(|i| 40.0 * f64::exp(1.3 * wild[(i * 5) % 13])).collect();
        let one = [&loss[..], &[90_000.0], &loss[..20]].concat();
        assert_eq!(verdict(&loss, &[]), (Verdict::Healthy, None));
        assert_eq!(verdict(&one, &[]), (Verdict::Healthy, None));
        let stays = [loss, vec![4e6; 12]].concat();
        assert_eq!(verdict(&stays, &[]), (Verdict::Exploding, Some(90)));
    }

    #[test]
    fn records_without_a_value_are_no_nan_of_the_network() {
        let nan = f64::NAN;
        let gaps: Vec<f64> = (0..60).map(|i| if i % 5 == 2 { nan } else { 2.0 }).collect();
        assert_eq!(verdict(&gaps, &[]), (Verdict::Healthy, None));
        // From the middle on, and to the end, it is.
        let late = [calm(2.0, 0.1, 30), gaps.clone()].concat();
        assert_eq!(verdict(&late, &[]), (Verdict::Recovered, Some(32)));
        let broken = [gaps, vec![nan; 9]].concat();
        assert_eq!(verdict(&broken, &[]).0, Verdict::Exploded);
    }

    #[test]
    fn the_onset_is_that_of_an_episode_as_bad_as_the_worst() {
        let bump = [0.03, 0.04, 0.07, 0.1, 0.15, 0.12, 0.09, 0.05, 0.02];
        let loss = [
            &calm(0.02, 1e-4, 60)[..],
            &bump,
            &calm(0.02, 1e-4, 60),
            &[0.5, 17.0, 2.0, 0.9, 0.5, 0.3],
            &calm(0.03, 1e-3, 20),
        ]
        .concat();
        assert_eq!(verdict(&loss, &[]), (Verdict::Recovered, Some(129)));
    }

    #[test]
    fn several_runs_in_one_log_have_each_their_own_history() {
        let run = [vec![430.0, 90.0, 20.0], calm(2.0, 0.1, 30)].concat();
        let one = super::super::check::samples(&run);
        let loss = [one.clone(), one.clone(), one].concat();
        let history = History { loss: &loss, ..History::default() };
        assert_eq!(super::super::diagnose(&history).verdict, Verdict::Healthy);
    }
}
