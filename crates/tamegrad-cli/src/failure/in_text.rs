//! An error of a recipe, shown with the place in its text.

use std::io::IsTerminal;

use miette::{Diagnostic, LabeledSpan, MietteHandlerOpts, NamedSource, SourceSpan};
use tamegrad_lab::recipe::RecipeError;

/// Shows it on the standard error stream.
pub(super) fn show(error: &RecipeError) {
    if !std::io::stderr().is_terminal() {
        // What reads a file or a pipe looks for `file:line:column: message` in one line.
        let handler = || MietteHandlerOpts::new().wrap_lines(false).build();
        let _ = miette::set_hook(Box::new(move |_| Box::new(handler())));
    }
    eprintln!("{:?}", miette::Report::new(InText::new(error)));
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
            message: format!("{name}:{}:{}: {}", error.line, error.column, error.message),
            help: (!error.help.is_empty()).then(|| error.help.to_string()),
            span: (error.span.start, len).into(),
            source: NamedSource::new(name, error.text.to_string()),
        }
    }
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
