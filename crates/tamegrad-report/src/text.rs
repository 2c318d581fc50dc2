//! Lines of text: their visible width, and breaking them between words.

use crate::style::{Style, Tone};

/// Number of characters that are seen: all but those of colour sequences.
pub(crate) fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut in_sequence = false;
    for character in text.chars() {
        match (in_sequence, character) {
            (false, '\x1b') => in_sequence = true,
            (true, 'm') => in_sequence = false,
            (false, _) => width += 1,
            (true, _) => {}
        }
    }
    width
}

/// The text with spaces behind it, up to a visible width.
pub(crate) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(visible_width(text))))
}

/// Lines of the words of a text, none wider than `width` unless a single word is. `first` stands
/// before the first line, spaces of the same width before the others. A text without words gives
/// no line.
pub(crate) fn wrap(text: &str, first: &str, width: usize) -> Vec<String> {
    wrap_tokens(text.split_whitespace().map(str::to_owned), first, width)
}

/// As [`wrap`], for tokens that may hold spaces and are never broken.
pub(crate) fn wrap_tokens(
    tokens: impl IntoIterator<Item = String>,
    first: &str,
    width: usize,
) -> Vec<String> {
    let indent = visible_width(first);
    let mut lines: Vec<String> = Vec::new();
    let mut used = indent;
    for token in tokens {
        let size = visible_width(&token);
        match lines.last_mut() {
            Some(line) if used + 1 + size <= width => {
                line.push(' ');
                line.push_str(&token);
                used += 1 + size;
            }
            last => {
                let start = if last.is_none() { first.to_owned() } else { " ".repeat(indent) };
                lines.push(start + &token);
                used = indent + size;
            }
        }
    }
    lines
}

/// The lines as a text in which each line ends, without spaces at its end.
pub(crate) fn join(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A heading with an empty line before it, and paragraphs below it.
pub(crate) fn section(heading: &str, paragraphs: &[&str], style: &Style) -> Vec<String> {
    let mut lines = vec![String::new(), style.paint(Tone::Heading, heading)];
    lines.extend(paragraphs.iter().flat_map(|text| wrap(text, "  ", style.line())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_sequences_have_no_width() {
        for (text, width) in
            [("", 0), ("abc", 3), ("\x1b[1;31mabc\x1b[0m d", 5), ("× 41.3", 6), ("▁▂█", 3)]
        {
            assert_eq!(visible_width(text), width, "{text:?}");
        }
    }

    #[test]
    fn lines_break_between_words_and_hang_below_the_first() {
        for (text, width, lines) in [
            ("", 10, vec![]),
            ("one two three", 20, vec!["- one two three"]),
            ("one two three", 9, vec!["- one two", "  three"]),
            ("one\n   two", 9, vec!["- one two"]),
            ("overlongword x", 6, vec!["- overlongword", "  x"]),
        ] {
            assert_eq!(wrap(text, "- ", width), lines, "{text:?} in {width}");
        }
    }

    #[test]
    fn tokens_stay_whole_and_colours_do_not_count() {
        let tokens = ["\x1b[1maa\x1b[0m", "b b", "c"].map(str::to_owned);
        assert_eq!(wrap_tokens(tokens, "", 6), ["\x1b[1maa\x1b[0m b b", "c"]);
    }
}
