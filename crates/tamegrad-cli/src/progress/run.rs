//! The progress bar of a run, with its live loss and gradient norm.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tamegrad_lab::Progress;
use tamegrad_report::printable;

use super::new_bar;
use crate::screen;

/// A bar on the standard error stream, for one run after another.
pub(crate) struct Bar {
    bar: ProgressBar,
    stage: String,
}

const TEMPLATE: &str = "{prefix:22} {bar:8} {pos:>4}/{len} {rate:>11} {wide_msg}";

impl Bar {
    /// A bar; hidden when asked, or when the stream is no terminal.
    pub(crate) fn new(hidden: bool) -> Self {
        let bar = new_bar(hidden);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            let rate = |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{:.0} step/s", state.per_sec());
            };
            bar.set_style(style.with_key("rate", rate).progress_chars("━╸ "));
        }
        // Large data or a large model take a while before the first step.
        bar.set_message("preparing the data and the model");
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, stage: String::new() }
    }

    /// Shows where a run stands; a new stage starts the bar again.
    pub(crate) fn show(&mut self, stage: &str, progress: Progress) {
        if self.stage != stage {
            self.stage = stage.to_owned();
            self.bar.reset();
            self.bar.set_prefix(printable(stage).into_owned());
        }
        self.bar.set_length(progress.steps);
        self.bar.set_position(progress.step);
        if self.bar.is_hidden() {
            return;
        }
        let norm = progress.gradient_norm.map_or(String::new(), |n| format!("  |g| {n:.2e}"));
        let metric = progress.metric.map_or(String::new(), |m| format!("  metric {m:.3}"));
        self.bar.set_message(format!("loss {:.2e}{norm}{metric}", progress.loss));
    }

    /// Tells something above the bar.
    pub(crate) fn tell(&self, text: Option<String>) {
        if let Some(text) = text {
            self.bar.suspend(|| screen::say(&format!("warning: {text}")));
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
