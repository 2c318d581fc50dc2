//! What the screen is like: a terminal or not, colours or not, how wide.

use std::io::{IsTerminal, Write};

use tamegrad_report::Style;

/// How to write on the standard output.
pub(crate) fn style() -> Style {
    let is_terminal = std::io::stdout().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let width = columns.filter(|_| is_terminal).map_or(100, |columns| columns.clamp(60, 120));
    Style { colour: is_terminal && !plain, width }
}

/// Prints text as it is. A reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
