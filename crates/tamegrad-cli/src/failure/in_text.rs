//! An error of a recipe, shown with the place in its text.

use std::io::IsTerminal;

use miette::{Diagnostic, LabeledSpan, MietteHandlerOpts, NamedSource, SourceSpan};
use tamegrad_lab::recipe::RecipeError;
use tamegrad_report::{Style, printable_lines};

use crate::screen;

/// Columns that are used of a terminal, however narrow or wide it is.
const COLUMNS: (usize, usize) = (40, 120);

/// Shows it on the standard error stream.
pub(super) fn show(error: &RecipeError) {
    let is_terminal = std::io::stderr().is_terminal();
    let columns = terminal_size::terminal_size_of(std::io::stderr());
    let columns = columns.map_or(80, |(width, _)| usize::from(width.0));
    let handler = move || {
        let handler = MietteHandlerOpts::new().width(columns.clamp(COLUMNS.0, COLUMNS.1));
        // What reads a file or a pipe looks for `file:line:column: message` in one line.
        handler.wrap_lines(is_terminal).build()
    };
    let _ = miette::set_hook(Box::new(move |_| Box::new(handler())));
    screen::say_as_is(&format!("{:?}\n", miette::Report::new(InText::new(error))));
}

/// A recipe error that points into its text.
#[derive(Debug)]
struct InText {
    message: String,
    help: Option<String>,
    span: SourceSpan,
    source: NamedSource<String>,
}

impl InText {
    fn new(error: &RecipeError) -> Self {
        let name = error.path.as_ref().map_or("recipe".into(), |path| path.display().to_string());
        let len = error.span.end.saturating_sub(error.span.start);
        Self {
            message: plain(&format!("{name}:{}:{}: {}", error.line, error.column, error.message)),
            help: (!error.help.is_empty()).then(|| plain(&error.help)),
            span: (error.span.start, len).into(),
            source: NamedSource::new(plain(&name), plain(&error.text)),
        }
    }
}

/// Text that cannot command the terminal. Each of its characters begins at the same byte as before,
/// so that places in it stay what they are.
fn plain(text: &str) -> String {
    let lines = |text: &str| printable_lines(text, &Style::default()).len() == text.len();
    let plain = |character: char| match character.len_utf8() {
        _ if lines(character.encode_utf8(&mut [0; 4])) => character,
        1 => '?',
        2 => '¿',
        _ => '\u{fffd}',
    };
    text.chars().map(plain).collect()
}

impl std::fmt::Display for InText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for InText {}

impl Diagnostic for InText {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".into()), self.span))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_where_they_are() {
        let text = "a = \"\x1b]0;x\x07\"\r\n\tb\u{9b} = \u{202e}1 # ü\n";
        let shown = plain(text);
        assert_eq!(shown, "a = \"?]0;x?\"?\n\tb¿ = \u{fffd}1 # ü\n");
        assert_eq!(shown.len(), text.len());
    }
}
