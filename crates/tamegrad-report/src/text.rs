//! Lines of text: their visible width, breaking them between words, and what may be shown of a name.

use std::borrow::Cow;

use crate::style::{Style, Tone};

/// Text from outside, such as a name, as a part of a line: characters that would command the
/// terminal or reorder what is beside them are spelled out, a line break too, as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    spelled_out(
        text,
        |character| !is_command(character),
        |character| character.escape_unicode().to_string(),
    )
}

/// Text from outside as XML and HTML take it, in elements and attributes: what [`printable`] spells out is
/// spelled out, and markup is escaped.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML 1.0 (section 2.2) has no such characters.
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A text with its first letter in upper case.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Lines as a screen may get them: as [`printable`], but for line breaks, tabs and, in a style with
/// colours, the colour sequences that this crate writes.
pub fn printable_lines<'a>(text: &'a str, style: &Style) -> Cow<'a, str> {
    if !text.contains(is_command_in_lines) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_command_in_lines) {
        let (before, from) = rest.split_at(at);
        shown.push_str(before);
        let sequence = style.sequence_at_start(from);
        let len = sequence.map_or_else(|| from.chars().next().map_or(0, char::len_utf8), str::len);
        let (command, after) = from.split_at(len);
        match sequence {
            Some(sequence) => shown.push_str(sequence),
            None => shown.push_str(&printable(command)),
        }
        rest = after;
    }
    Cow::Owned(shown + rest)
}

/// JSON in which [`printable`] finds nothing to spell out: in JSON such a character, other than the
/// line breaks between objects, stands in a string and may be written as `\u007f`.
pub(crate) fn printable_json(json: String) -> String {
    let spell = |character: char| format!("\\u{:04x}", u32::from(character));
    let spelled = match spelled_out(&json, |character| !is_command_in_lines(character), spell) {
        Cow::Borrowed(_) => None,
        Cow::Owned(spelled) => Some(spelled),
    };
    spelled.unwrap_or(json)
}

fn spelled_out(
    text: &str,
    is_plain: impl Fn(char) -> bool,
    spell: impl Fn(char) -> String,
) -> Cow<'_, str> {
    if text.chars().all(&is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) {
            shown.push(character);
        } else {
            shown.push_str(&spell(character));
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal acts on a character rather than showing it: control characters, the two line
/// ends of Unicode, and those that change the direction of the text around them.
fn is_command(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_command_in_lines(character: char) -> bool {
    is_command(character) && !matches!(character, '\n' | '\t')
}

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
    fn names_cannot_command_a_terminal() {
        for (name, shown) in [
            ("fc1.weight", "fc1.weight"),
            ("größe 層 é", "größe 層 é"),
            ("a\x1b]0;x\x07b", r"a\u{1b}]0;x\u{7}b"),
            ("a\nHEALTHY\r\t", r"a\u{a}HEALTHY\u{d}\u{9}"),
            ("del\x7f csi\u{9b}2J", r"del\u{7f} csi\u{9b}2J"),
            ("a\u{202e}vsc\u{2066}b\u{2028}", r"a\u{202e}vsc\u{2066}b\u{2028}"),
        ] {
            assert_eq!(printable(name), shown);
            let lines = format!("{name}\n");
            let kept = shown.replace(r"\u{a}", "\n").replace(r"\u{9}", "\t") + "\n";
            assert_eq!(printable_lines(&lines, &Style::plain(80)), kept);
        }
    }

    #[test]
    fn of_sequences_only_own_colours_pass_and_only_where_there_are_colours() {
        let coloured = Style { colour: true, width: 80 };
        for tone in [Tone::Heading, Tone::Alarm, Tone::Strain, Tone::Good, Tone::Quiet] {
            let text = coloured.paint(tone, "bad\x1b[2J");
            let shown = printable_lines(&text, &coloured).into_owned();
            assert_eq!(shown, text.replace("\x1b[2J", r"\u{1b}[2J"));
            assert_eq!(printable_lines(&text, &Style::plain(80)).find('\x1b'), None);
        }
        assert_eq!(printable_lines("\x1b[8mhidden", &coloured), r"\u{1b}[8mhidden");
    }

    #[test]
    fn json_stays_the_same_value() {
        let name = "a\x1b\x7f\u{9b}\u{202e}\n\"\\b";
        let json = serde_json::json!({ "name": name, "list": [1] });
        let text = printable_json(serde_json::to_string_pretty(&json).unwrap());
        assert_eq!(printable_lines(&text, &Style::plain(80)), text);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), json);
    }

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

    #[test]
    fn text_from_outside_is_text() {
        for (given, wanted) in [
            ("fc1.weight", "fc1.weight"),
            ("<img src=x onerror='f()'>", "&lt;img src=x onerror=&#39;f()&#39;&gt;"),
            ("a&\"b\"", "a&amp;&quot;b&quot;"),
            ("a\u{0}\u{1b}[2J\u{202e}\n", "a\\u{0}\\u{1b}[2J\\u{202e}\\u{a}"),
            ("\u{fffe}層", "\u{fffd}層"),
        ] {
            assert_eq!(escaped(given), wanted);
        }
    }
}
