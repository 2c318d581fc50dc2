//! Progress bars: of files, and of their bytes.

#[cfg(feature = "train")]
pub(crate) mod run;

use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tamegrad_report::printable;

fn new_bar(hidden: bool) -> ProgressBar {
    let bar = ProgressBar::new(1);
    bar.set_draw_target(if hidden {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(10)
    });
    bar
}

const BYTES_TEMPLATE: &str = "{prefix:22} {bar:24} {bytes:>11}/{total_bytes} {bytes_per_sec:>14}";

/// A bar on the standard error stream for the bytes of one path after another.
pub(crate) struct BytesBar {
    bar: ProgressBar,
}

impl BytesBar {
    /// A bar; hidden when asked, or when the stream is no terminal.
    pub(crate) fn new(hidden: bool) -> Self {
        let bar = new_bar(hidden);
        if let Ok(style) = ProgressStyle::with_template(BYTES_TEMPLATE) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        Self { bar }
    }

    /// Starts again with another name before the bar.
    pub(crate) fn start(&self, name: &str) {
        self.bar.reset();
        self.bar.set_prefix(printable(name).into_owned());
    }

    /// Shows how much is done.
    pub(crate) fn show(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar over a known number of files, on the standard error stream.
pub(crate) struct FilesBar {
    bar: ProgressBar,
}

impl FilesBar {
    /// A bar; hidden when asked, for few files, or when the stream is no terminal.
    pub(crate) fn new(count: usize, hidden: bool) -> Self {
        let bar = new_bar(hidden || count < 5);
        bar.set_length(count as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {wide_msg}") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        Self { bar }
    }

    /// Shows the file that is read now.
    pub(crate) fn show(&self, path: &Path) {
        self.bar.set_message(printable(&path.display().to_string()).into_owned());
    }

    /// Counts a file, and takes the bar off the screen while something is told of it.
    pub(crate) fn tell(&self, tell: impl FnOnce()) {
        self.bar.inc(1);
        self.bar.suspend(tell);
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
