//! Numbers as a person reads them: three significant digits, a comma between thousands.

/// A number as a person reads it: `0.0023`, `1.9`, `38`, `4,096`, `3.2e7`, `NaN`, `inf`. Three
/// significant digits, except that the whole part of a number below a million is never rounded
/// away. Below a thousandth and from a million on with an exponent.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    let text = if value.is_infinite() { "inf".into() } else { magnitude(value.abs()) };
    if value < 0.0 { format!("-{text}") } else { text }
}

/// A number that may not be known: `-` then.
pub(crate) fn known(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

/// The product of factors, also where it leaves the range of f64 although no factor does:
/// `4.1e412`.
pub fn product(factors: &[f64]) -> String {
    let decades: f64 = factors.iter().map(|factor| factor.abs().log10()).sum();
    if !decades.is_finite() || decades.abs() < 300.0 {
        return number(tamegrad::chain::product(factors.iter().copied()));
    }
    let exponent = decades.floor();
    format!("{}e{exponent}", number(10f64.powf(decades - exponent)))
}

/// A number of a sum that is worked out before the reader, where the digits must add up: six
/// significant digits in place of three, such as `-399.5`.
pub(crate) fn worked(value: f64) -> String {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    if !(1e-3..1e6).contains(&rounded.abs()) {
        return number(value);
    }
    let sign = if rounded < 0.0 { "-" } else { "" };
    let text = rounded.abs().to_string();
    let (_, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{dot}{fraction}", count(rounded.abs() as u64))
}

/// A count in full, with a comma between thousands: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and what is counted, which takes an `s` unless it is one: `1 step`, `20 steps`.
pub fn counted(value: u64, one: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(value))
}

fn magnitude(value: f64) -> String {
    let whole = value.round();
    if value == 0.0 {
        return "0".into();
    }
    if (1e3..1e6).contains(&whole) {
        return count(whole as u64);
    }
    let scientific = format!("{value:.2e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ -3..=2) => trim(&format!("{value:.*}", (2 - exponent) as usize)).to_owned(),
        _ => format!("{}e{exponent}", trim(mantissa)),
    }
}

/// Takes the zeros at the end of a fraction away.
fn trim(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_a_person_reads_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.0023, "0.0023"),
            (0.001, "0.001"),
            (0.0009999, "0.001"),
            (0.00012, "1.2e-4"),
            (7e-6, "7e-6"),
            (1.0 / 3.0, "0.333"),
            (1.9, "1.9"),
            (1.999, "2"),
            (9.996, "10"),
            (38.0, "38"),
            (41.34, "41.3"),
            (120.0, "120"),
            (999.6, "1,000"),
            (1234.5, "1,235"),
            (4096.0, "4,096"),
            (65504.0, "65,504"),
            (999_600.0, "999,600"),
            (999_999.7, "1e6"),
            (1e6, "1e6"),
            (3.2e7, "3.2e7"),
            (3.4028e38, "3.4e38"),
            (1.239e100, "1.24e100"),
            (-0.5, "-0.5"),
            (-4096.0, "-4,096"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn products_beyond_the_range_of_f64_keep_their_exponent() {
        for (factors, text) in [
            (vec![], "1"),
            (vec![100.0, 400.0], "40,000"),
            (vec![0.5, 2.0], "1"),
            (vec![1e200, 1e200, 2.0], "2e400"),
            (vec![1e-200, 4e-200], "4e-400"),
            (vec![2.0, f64::INFINITY], "inf"),
            (vec![2.0, f64::NAN], "NaN"),
            (vec![2.0, 0.0], "0"),
        ] {
            assert_eq!(product(&factors), text, "{factors:?}");
        }
    }

    #[test]
    fn worked_numbers_add_up() {
        for (value, text) in [
            (0.5 - 400.0, "-399.5"),
            (0.5 - 5e-4, "0.4995"),
            (12_345.5, "12,345.5"),
            (40_000.0, "40,000"),
            (0.1 + 0.2, "0.3"),
            (0.0, "0"),
            (4e7, "4e7"),
            (2e-5, "2e-5"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(worked(value), text, "{value}");
        }
    }

    #[test]
    fn counts_are_whole() {
        for (value, text) in
            [(0, "0 steps"), (1, "1 step"), (999, "999 steps"), (1_234_567, "1,234,567 steps")]
        {
            assert_eq!(counted(value, "step"), text);
        }
    }
}
