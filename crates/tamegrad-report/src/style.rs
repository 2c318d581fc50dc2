//! How text may look: whether it has colours, and how wide a line is.

/// How text may look. The caller decides, for example by the terminal and `NO_COLOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether ANSI colour sequences are written.
    pub colour: bool,
    /// Characters in a line. Under [`Style::WIDTH_MIN`] it counts as that; words that are longer
    /// than a line are not cut.
    pub width: usize,
}

/// What a piece of text is, as a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A heading.
    Heading,
    /// Something bad.
    Alarm,
    /// Something worth a look.
    Strain,
    /// Something good.
    Good,
    /// Something beside the point.
    Quiet,
}

/// Ends a colour.
const RESET: &str = "\x1b[0m";

impl Tone {
    const ALL: [Self; 5] = [Self::Heading, Self::Alarm, Self::Strain, Self::Good, Self::Quiet];

    /// The colour sequence that begins it.
    fn sequence(self) -> &'static str {
        match self {
            Self::Heading => "\x1b[1m",
            Self::Alarm => "\x1b[1;31m",
            Self::Strain => "\x1b[33m",
            Self::Good => "\x1b[32m",
            Self::Quiet => "\x1b[2m",
        }
    }
}

impl Style {
    /// The narrowest line that tables and chains still fit in.
    pub const WIDTH_MIN: usize = 40;

    /// Without colours, at this width.
    pub fn plain(width: usize) -> Self {
        Self { colour: false, width }
    }

    /// The width that text is laid out in.
    pub(crate) fn line(&self) -> usize {
        self.width.max(Self::WIDTH_MIN)
    }

    /// The text in the colour of its tone, which ends with the text.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        format!("{}{text}{RESET}", tone.sequence())
    }

    /// The colour sequence that a text begins with, if this style writes it.
    pub(crate) fn sequence_at_start(&self, text: &str) -> Option<&'static str> {
        let own = Tone::ALL.map(Tone::sequence).into_iter().chain([RESET]);
        own.filter(|_| self.colour).find(|sequence| text.starts_with(sequence))
    }
}

impl Default for Style {
    fn default() -> Self {
        Self::plain(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_written_only_when_asked_for_and_ends_with_the_text() {
        let coloured = Style { colour: true, width: 80 };
        for (style, text, painted) in [
            (Style::plain(80), "bad", "bad"),
            (coloured, "bad", "\x1b[1;31mbad\x1b[0m"),
            (coloured, "", ""),
        ] {
            assert_eq!(style.paint(Tone::Alarm, text), painted);
        }
    }

    #[test]
    fn a_line_has_a_least_width() {
        assert_eq!([0, 39, 40, 120].map(|width| Style::plain(width).line()), [40, 40, 40, 120]);
    }
}
