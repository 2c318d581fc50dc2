//! What the screen is like, and the only way to write on it.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tamegrad_report::{Style, printable, printable_lines};

/// Whether something that belonged on the standard output is not there.
static IS_OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// How to write on the standard output.
pub(crate) fn style() -> Style {
    let is_terminal = std::io::stdout().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let width = columns.filter(|_| is_terminal).map_or(100, |columns| columns.clamp(60, 120));
    Style { colour: is_terminal && !plain, width }
}

/// Prints lines on the standard output. What could command the terminal is spelled out, but for our
/// own colours: names in it come from files. See [`is_output_lost`] for what happens if it fails.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let text = printable_lines(text, &style());
    check(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Notes an error of the standard output, and says the first. A reader that went away (`| head`) has
/// what it wanted.
pub(crate) fn check(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
        && !IS_OUTPUT_LOST.swap(true, Ordering::Relaxed)
    {
        say(&format!("error: cannot write to the standard output: {error}"));
    }
}

/// Whether something could not be written on the standard output: then the command failed.
pub(crate) fn is_output_lost() -> bool {
    IS_OUTPUT_LOST.load(Ordering::Relaxed)
}

/// Says something in one line on the standard error stream.
pub(crate) fn say(message: &str) {
    say_as_is(&format!("{}\n", printable(message)));
}

/// Writes printable text on the standard error stream. Where nobody reads it there is nothing more to
/// be said.
pub(crate) fn say_as_is(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
