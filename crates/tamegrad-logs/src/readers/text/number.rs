//! Numbers as training programs print them.

/// The number at the start of `text` and its length in bytes; NaN and infinity in any spelling.
pub(super) fn parse(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let body = text.get(sign..)?;
    let (value, length) = match body.first()? {
        b'0'..=b'9' | b'.' => microsoft(body).or_else(|| decimal(body))?,
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

/// `1.#INF`, `1.#QNAN`, `1.#IND`: what Microsoft's C library prints.
fn microsoft(text: &[u8]) -> Option<(f64, usize)> {
    let rest = text.strip_prefix(b"1.#")?;
    let letters = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let value = if starts_with_ignoring_case(rest, b"inf") { f64::INFINITY } else { f64::NAN };
    (letters >= 3).then_some((value, 3 + letters))
}

fn word(text: &[u8]) -> Option<(f64, usize)> {
    const WORDS: [(&[u8], f64); 3] =
        [(b"infinity", f64::INFINITY), (b"inf", f64::INFINITY), (b"nan", f64::NAN)];
    let (word, value) =
        WORDS.into_iter().find(|(word, _)| starts_with_ignoring_case(text, word))?;
    let rest = text.get(word.len()..).unwrap_or_default();
    // tqdm prints `nan.0` and C printf `nan(ind)`.
    let tails: [&[u8]; 3] = [b".0", b"(ind)", b"(snan)"];
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
            let (got, at) = parse(text.as_bytes()).unwrap_or((0.125, 0));
            assert!(got == value || got.is_nan() && value.is_nan(), "{text}: got {got}");
            assert_eq!(at, length, "{text}");
        }
        for text in ["", "-", ".", "nano", "info", "x", "e5", "-e"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
