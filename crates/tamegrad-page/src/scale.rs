//! Scales of values: logarithmic, linear, and logarithmic on both sides of zero.

use tamegrad_report::number;
use tamegrad_report::number::count;

/// A mark on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// From 0 at its start to 1 at its end.
    pub(crate) at: f64,
    pub(crate) label: String,
}

/// How values are placed between the lower edge, 0, and the upper one, 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// In proportion.
    Linear { low: f64, high: f64 },
    /// By their decades; what is not above 0 has no place.
    Log { low: f64, high: f64 },
    /// By the sign and log10(1 + |x| / unit), for values on both sides of zero.
    Signed { unit: f64, low: f64, high: f64 },
}

/// Part of a scale that is left free at either edge.
const MARGIN: f64 = 0.04;
/// Decades that a logarithmic scale spans at least.
const DECADES_MIN: f64 = 0.1;

impl Scale {
    /// By decades, on both sides of zero where values lie there; `None` where none is finite.
    pub(crate) fn log(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let finite = || values.clone().filter(|value| value.is_finite());
        if finite().any(|value| value < 0.0) {
            return Self::signed(finite());
        }
        // Without a value above 0 there is still a place for the zeros, below the lower edge.
        finite().next()?;
        let logs = finite().filter(|value| *value > 0.0).map(f64::log10);
        let (low, high) = range(logs).unwrap_or((0.0, 0.0));
        let missing = (DECADES_MIN - (high - low)).max(0.0) / 2.0;
        let (low, high) = widened(low - missing, high + missing);
        Some(Self::Log { low, high })
    }

    /// In proportion, from zero; `None` where no value is finite.
    pub(crate) fn linear(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values.filter(|value| value.is_finite()))?;
        let (low, high) = (low.min(0.0), high.max(0.0));
        let high = if low == high { 1.0 } else { high };
        Some(Self::Linear { low, high: high + MARGIN * (high - low) })
    }

    fn signed(finite: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let mut sizes: Vec<f64> = finite.clone().map(f64::abs).filter(|size| *size > 0.0).collect();
        sizes.sort_by(f64::total_cmp);
        // Around zero the scale is linear as far as an ordinary value reaches.
        let unit = sizes.get(sizes.len() / 4).copied().unwrap_or(1.0);
        let (low, high) = range(finite.map(|value| sign_log(value, unit)))?;
        let missing = (DECADES_MIN - (high - low)).max(0.0) / 2.0;
        let (low, high) = widened(low - missing, high + missing);
        Some(Self::Signed { unit, low, high })
    }

    /// From 0 at the lower edge to 1 at the upper one; `None` for what has no place.
    pub(crate) fn at(&self, value: f64) -> Option<f64> {
        let (value, low, high) = match *self {
            Self::Linear { low, high } => (value, low, high),
            Self::Log { low, high } if value > 0.0 => (value.log10(), low, high),
            Self::Log { .. } => return None,
            Self::Signed { unit, low, high } => (sign_log(value, unit), low, high),
        };
        Some((value - low) / (high - low)).filter(|at| at.is_finite())
    }

    /// About `count` marks at round values.
    pub(crate) fn ticks(&self, count: usize) -> Vec<Tick> {
        let values = match *self {
            Self::Linear { low, high } => nice_ticks(low, high, count, 0.0),
            Self::Log { low, high } => log_ticks(low, high, count),
            Self::Signed { unit, low, high } => signed_ticks(unit, low, high, count),
        };
        let tick = |(value, label)| Some(Tick { at: self.at(value)?, label });
        let ticks = values.into_iter().filter_map(tick);
        ticks.filter(|tick| (-1e-9..=1.0 + 1e-9).contains(&tick.at)).collect()
    }

    /// In a word, for descriptions.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Log { .. } => "logarithmic",
            Self::Signed { .. } => "logarithmic on both sides of zero",
        }
    }
}

fn sign_log(value: f64, unit: f64) -> f64 {
    value.signum() * (value.abs() / unit).ln_1p() / std::f64::consts::LN_10
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((value.min(low), value.max(high)))
    })
}

fn widened(low: f64, high: f64) -> (f64, f64) {
    let margin = MARGIN * (high - low);
    (low - margin, high + margin)
}

/// Powers of ten; their halves and fifths where they are few; round values where there is not even a
/// decade.
fn log_ticks(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let whole = (high.floor() - low.ceil() + 1.0).max(0.0);
    if high - low < 0.7 {
        let (low, high) = (10f64.powf(low), 10f64.powf(high));
        return nice_ticks(low, high, count, 0.0);
    }
    let step = (whole / count as f64).ceil().max(1.0);
    let within = |value: &f64| (low..=high).contains(&value.log10());
    let decades = |from: f64| (0..).map(move |i| from + step * f64::from(i));
    let first = (low / step).ceil() * step;
    if whole > 2.0 {
        return decades(first).take_while(|decade| *decade <= high).map(power).collect();
    }
    let parts: &[f64] = if high - low < 1.3 { &[1.0, 2.0, 3.0, 5.0] } else { &[1.0, 3.0] };
    let decades = decades(low.floor()).take_while(|decade| *decade <= high);
    let values = decades.flat_map(|decade| parts.iter().map(move |part| part * 10f64.powf(decade)));
    values.filter(within).map(|value| (value, number(value))).collect()
}

fn signed_ticks(unit: f64, low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let decade = unit.log10().ceil();
    let reach = low.abs().max(high.abs()).ceil().max(1.0);
    let step = (2.0 * reach / count as f64).ceil().max(1.0);
    let sizes = (0..).map(|i| decade + step * f64::from(i)).take_while(|d| *d <= decade + reach);
    let sizes: Vec<(f64, String)> = sizes.map(power).collect();
    let below = sizes.iter().map(|(value, label)| (-value, format!("−{label}")));
    below.rev().chain([(0.0, "0".to_owned())]).chain(sizes.iter().cloned()).collect()
}

/// A power of ten with its label: `0.01`, `1,000`, `10⁶`.
fn power(decade: f64) -> (f64, String) {
    let value = 10f64.powf(decade);
    if (-3.0..=4.0).contains(&decade) {
        return (value, number(value));
    }
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let mut label = "10".to_owned();
    for digit in decade.to_string().chars() {
        label.push(digit.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize]));
    }
    (value, label)
}

/// Round values from `low` to `high`, about `count` of them and no closer than `least`, with labels of as
/// many digits as tell them apart.
pub(crate) fn nice_ticks(low: f64, high: f64, count: usize, least: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / count.max(1) as f64;
    let size = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0].map(|part| part * size);
    let step = nice.into_iter().find(|step| *step >= 0.999 * rough).unwrap_or(rough).max(least);
    if !(step.is_finite() && step > 0.0) {
        return Vec::new();
    }
    let places = (-step.log10()).ceil().clamp(0.0, 12.0) as usize;
    let label = |value: f64| {
        if value == 0.0 {
            "0".to_owned()
        } else if step < 1e-6 || value.abs() >= 1e12 {
            number(value)
        } else if places == 0 {
            let sign = if value < 0.0 { "−" } else { "" };
            format!("{sign}{}", count_of(value.abs()))
        } else {
            format!("{value:.places$}").replace('-', "−")
        }
    };
    let first = (low / step - 1e-9).ceil();
    let values = (0..).map(|i| (first + f64::from(i)) * step);
    values.take_while(|value| *value <= high + 1e-9 * step).map(|v| (v, label(v))).collect()
}

fn count_of(value: f64) -> String {
    count(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Option<Scale>, count: usize) -> Vec<String> {
        scale.expect("a scale").ticks(count).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round_and_told_apart() {
        let log = |values: &[f64]| Scale::log(values.iter().copied());
        let linear = |values: &[f64]| Scale::linear(values.iter().copied());
        for (scale, wanted) in [
            (log(&[1e-3, 1e3]), "0.001 0.01 0.1 1 10 100 1,000"),
            (log(&[1e-10, 1e25]), "10⁻⁶ 1 10⁶ 10¹² 10¹⁸ 10²⁴"),
            (log(&[0.3, 20.0]), "0.3 1 3 10"),
            (log(&[2.25, 2.31]), "2.1 2.2 2.3 2.4 2.5"),
            (log(&[1.4, 4.0]), "1.5 2.0 2.5 3.0 3.5 4.0"),
            (log(&[-50.0, 4.0, 1e6, 4.0]), "−10 0 10 1,000 10⁵"),
            (linear(&[0.0, 3e-4]), "0 0.00005 0.00010 0.00015 0.00020 0.00025 0.00030"),
            (linear(&[-2.0, 30.0]), "0 5 10 15 20 25 30"),
        ] {
            assert_eq!(labels(scale, 7).join(" "), wanted);
        }
    }

    #[test]
    fn a_place_is_a_share_of_the_scale() {
        let log = Scale::Log { low: 0.0, high: 4.0 };
        assert_eq!([1.0, 100.0, 1e4].map(|v| log.at(v)), [Some(0.0), Some(0.5), Some(1.0)]);
        assert_eq!([0.0, -1.0, f64::NAN, f64::INFINITY].map(|v| log.at(v)), [None; 4]);
        let signed = Scale::Signed { unit: 1.0, low: -2.0, high: 2.0 };
        assert_eq!(signed.at(0.0), Some(0.5));
        assert!((signed.at(99.0).expect("a place") - 1.0).abs() < 1e-9);
        assert!(signed.at(-99.0).expect("a place").abs() < 1e-9);
        assert_eq!(Scale::log([f64::NAN, f64::INFINITY].into_iter()), None);
        assert_eq!(Scale::linear([0.0].into_iter()), Some(Scale::Linear { low: 0.0, high: 1.04 }));
    }
}
