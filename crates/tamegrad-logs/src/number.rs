//! Numbers in the spellings that logs have, NaN and infinity included.

/// The number that a text is, without the white space around it; `None` if it is none.
///
/// Besides what Rust reads (`2.5`, `-1e-3`, `+inf`, `-nan`, `Infinity`, in any case) these are the
/// spellings of older C libraries on Windows: `1.#INF`, `-1.#IND`, `1.#QNAN`, `nan(ind)`.
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim();
    // Rejecting by the first letter is what keeps long texts cheap.
    match text.as_bytes().first()? {
        b'0'..=b'9' | b'+' | b'-' | b'.' | b'n' | b'N' | b'i' | b'I' => {}
        _ => return None,
    }
    let spelled = || number_at_start(text.as_bytes()).filter(|(_, length)| *length == text.len());
    text.parse().ok().or_else(|| spelled().map(|(value, _)| value))
}

/// The number that the bytes of a text are; see [`parse_number`].
pub(crate) fn parse_number_bytes(bytes: &[u8]) -> Option<f64> {
    std::str::from_utf8(bytes).ok().and_then(parse_number)
}

/// The number which is not finite that a text stands for where JSON has no other way to say it.
pub(crate) fn nonfinite(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The number at the start of `text` and its length in bytes; NaN and infinity in any spelling.
pub(crate) fn number_at_start(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let body = text.get(sign..)?;
    let (value, length) = match body.first()? {
        b'0'..=b'9' | b'.' => windows(body).or_else(|| decimal(body))?,
        b'n' | b'N' | b'i' | b'I' => word(body)?,
        _ => return None,
    };
    Some((if text.starts_with(b"-") { -value } else { value }, sign + length))
}

/// Digits, a fraction and an exponent.
fn decimal(text: &[u8]) -> Option<(f64, usize)> {
    let digits = |from: usize| {
        text.get(from..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut length = whole;
    if text.get(length) == Some(&b'.') {
        let fraction = digits(length + 1);
        if whole + fraction == 0 {
            return None;
        }
        // A dot that ends a sentence is not part of the number.
        if fraction > 0 {
            length += 1 + fraction;
        } else if text.get(length + 1).is_none_or(|next| b",;|)]}eE".contains(next)) {
            length += 1;
        }
    }
    if matches!(text.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let number = text.get(..length).filter(|number| !number.is_empty())?;
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, length))
}

/// What older C libraries on Windows print; they pad or cut `1.#INF` to the digits that are asked
/// for: `1.#INF00`, `1.#IO`, `1.#J`.
fn windows(text: &[u8]) -> Option<(f64, usize)> {
    let rest = text.strip_prefix(b"1.#")?;
    let letters = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let kind = rest.get(..letters)?.to_ascii_lowercase();
    let nans = [&b"ind"[..], b"qnan", b"snan", b"qo", b"r"];
    let value = if kind.starts_with(b"inf") || kind == b"io" || kind == b"j" {
        f64::INFINITY
    } else if nans.iter().any(|nan| kind.starts_with(nan)) {
        f64::NAN
    } else {
        return None;
    };
    Some((value, 3 + letters))
}

fn word(text: &[u8]) -> Option<(f64, usize)> {
    const WORDS: [(&[u8], f64); 3] =
        [(b"infinity", f64::INFINITY), (b"inf", f64::INFINITY), (b"nan", f64::NAN)];
    let (word, value) =
        WORDS.into_iter().find(|(word, _)| starts_with_ignoring_case(text, word))?;
    let rest = text.get(word.len()..).unwrap_or_default();
    // tqdm prints `nan.0` and C printf `nan(ind)`.
    let tails: [&[u8]; 4] = [b".0", b"(ind)", b"(snan)", b"(qnan)"];
    let tail =
        tails.into_iter().find(|tail| starts_with_ignoring_case(rest, tail)).unwrap_or_default();
    let length = word.len() + tail.len();
    let is_end = text.get(length).is_none_or(|next| !next.is_ascii_alphanumeric() && *next != b'_');
    is_end.then_some((value, length))
}

fn starts_with_ignoring_case(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_usual_spellings() {
        let cases = [
            ("2.5", 2.5),
            (" -1e-3\r", -1e-3),
            ("2.19E+00", 2.19),
            (".5", 0.5),
            ("7", 7.0),
            ("1e400", f64::INFINITY),
            ("inf", f64::INFINITY),
            ("+Inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1.#INF", f64::INFINITY),
            ("-1.#INF00", f64::NEG_INFINITY),
        ];
        for (text, want) in cases {
            assert_eq!(parse_number(text), Some(want), "{text:?}");
        }
        for text in ["nan", "NaN", "-nan", "+NAN", "1.#QNAN", "-1.#IND", "1.#IND00", "-nan(ind)"] {
            assert!(parse_number(text).is_some_and(f64::is_nan), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_number() {
        for text in
            ["", " ", "NA", "N/A", "none", "null", "info", "1.#", "0:00:24", "1,5", "-", "."]
        {
            assert_eq!(parse_number(text), None, "{text:?}");
        }
        assert_eq!(parse_number_bytes(b"\xff1"), None);
    }

    #[test]
    fn numbers_in_the_spellings_of_printers() {
        for (text, value, length) in [
            ("3.25, ", 3.25, 4),
            ("2.19E+00 |", 2.19, 8),
            ("-1e-4", -1e-4, 5),
            (".5", 0.5, 2),
            ("7. Next", 7.0, 1),
            ("7.", 7.0, 2),
            ("12ms", 12.0, 2),
            ("1e", 1.0, 1),
            ("inf", f64::INFINITY, 3),
            ("-Infinity.", f64::NEG_INFINITY, 9),
            ("1.#INF00", f64::INFINITY, 8),
            ("nan", f64::NAN, 3),
            ("-nan(ind)", f64::NAN, 9),
            ("nan.0]", f64::NAN, 5),
            ("-1.#IND", f64::NAN, 7),
        ] {
            let (got, at) = number_at_start(text.as_bytes()).unwrap_or((0.125, 0));
            assert!(got == value || got.is_nan() && value.is_nan(), "{text}: got {got}");
            assert_eq!(at, length, "{text}");
        }
        for text in ["", "-", ".", "nano", "info", "x", "e5", "-e"] {
            assert_eq!(number_at_start(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_reads_back_what_was_printed(text in ".{0,20}", value: f64) {
            let _ = parse_number(&text);
            let back = parse_number(&value.to_string()).unwrap_or(0.0);
            prop_assert!(back == value || (back.is_nan() && value.is_nan()));
        }
    }
}
