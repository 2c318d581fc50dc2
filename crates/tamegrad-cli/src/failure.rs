//! What could not be done, and how it is shown.

use std::io::IsTerminal;
use std::path::PathBuf;

use miette::{Diagnostic, LabeledSpan, MietteHandlerOpts, NamedSource, SourceSpan};
use tamegrad_lab::recipe::RecipeError;
use tamegrad_lab::{FixError, SetupError};
use tamegrad_runs::ReadError;
use tamegrad_runs::run_folder::RunError;

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The recipe is not valid.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The recipe cannot be run.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The search for a fix cannot go on.
    #[error(transparent)]
    Fix(#[from] FixError),
    /// A file cannot be written.
    #[error("cannot write {path}: {error}; hint: choose another folder with --out")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A picture cannot be written.
    #[error("cannot write {path}: {error}; hint: choose another file with --svg")]
    WritePicture {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The report cannot be written as JSON.
    #[error("the report cannot be written as JSON: {0}")]
    Json(serde_json::Error),
    /// A log, a corpus or a checkpoint cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A run folder cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// There is nothing of that name to explain.
    #[error("got `{name}`, want the name of a sign, cause or remedy; hint: {hint}")]
    Unknown {
        /// What was given.
        name: String,
        /// What to do.
        hint: String,
    },
    /// A sign, cause or remedy has no factors.
    #[error("got --factors with `{name}`, want it with `{story}`, the only page with a chain")]
    FactorsOf {
        /// What was to be explained.
        name: String,
        /// The page that takes factors.
        story: &'static str,
    },
    /// Factors that have no product to speak of.
    #[error("got the factor {0}, want finite numbers above 0, as in --factors 100,400")]
    Factor(f64),
}

/// Shows a failure on the standard error stream: a recipe's with the place in its text.
pub(crate) fn show(failure: &Failure) {
    if !std::io::stderr().is_terminal() {
        // What reads a file or a pipe looks for `file:line:column: message` in one line.
        let handler = || MietteHandlerOpts::new().wrap_lines(false).build();
        let _ = miette::set_hook(Box::new(move |_| Box::new(handler())));
    }
    let recipe = match failure {
        Failure::Recipe(error) | Failure::Fix(FixError::Recipe(error)) => Some(error),
        _ => None,
    };
    match recipe.filter(|error| !error.text.is_empty()) {
        Some(error) => eprintln!("{:?}", miette::Report::new(InText::new(error))),
        None => eprintln!("error: {failure}"),
    }
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
