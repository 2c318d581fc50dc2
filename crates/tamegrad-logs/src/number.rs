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
    text.parse().ok().or_else(|| parse_windows(text))
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

fn parse_windows(text: &str) -> Option<f64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let rest = rest.to_ascii_lowercase();
    // printf pads or cuts `1.#INF` to the digits asked for: `1.#INF00`, `1.#IO`.
    if let Some(kind) = rest.strip_prefix("1.#") {
        let is_infinity = kind.starts_with("inf") || kind == "io" || kind == "j";
        let is_nan = ["ind", "qnan", "snan", "qo", "r"].iter().any(|name| kind.starts_with(name));
        return match (is_infinity, is_nan) {
            (true, _) => Some(sign * f64::INFINITY),
            (false, true) => Some(f64::NAN),
            _ => None,
        };
    }
    matches!(rest.as_str(), "nan(ind)" | "nan(snan)" | "nan(qnan)").then_some(f64::NAN)
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

    proptest! {
        #[test]
        fn never_panics_and_reads_back_what_was_printed(text in ".{0,20}", value: f64) {
            let _ = parse_number(&text);
            let back = parse_number(&value.to_string()).unwrap_or(0.0);
            prop_assert!(back == value || (back.is_nan() && value.is_nan()));
        }
    }
}
