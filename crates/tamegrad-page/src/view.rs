//! What a figure or a page is made from: a run, read or watched, with its diagnosis.

use tamegrad::logs::Sample;
pub use tamegrad_report::ActionKind;
use tamegrad_report::log::LogRun;

use crate::steps::StepAxis;

/// A run as it is pictured.
#[derive(Debug, Clone, Copy)]
pub struct RunView<'a> {
    /// The run with its diagnosis, its loss and its gradient norm.
    pub log: LogRun<'a>,
    /// The learning rate; empty where it is not known.
    pub learning_rate: &'a [Sample],
    /// Update ratios |dW|/|W| by what they are of: a weight matrix, or all parameters.
    pub update_ratios: &'a [(String, Vec<Sample>)],
    /// Gradient norm of each tensor, by name.
    pub tensors: &'a [(String, Vec<Sample>)],
    /// What the guard did, in the order of the run.
    pub actions: &'a [Action],
    /// What was thinned out or lost before it could be pictured, a sentence each.
    pub lost: &'a [String],
}

/// Something the guard did at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The step.
    pub step: u64,
    /// What it was.
    pub kind: ActionKind,
    /// The same in words, with its numbers.
    pub text: String,
}

impl<'a> RunView<'a> {
    /// A run of which nothing but its log is known.
    pub fn of(log: LogRun<'a>) -> Self {
        Self { log, learning_rate: &[], update_ratios: &[], tensors: &[], actions: &[], lost: &[] }
    }

    /// The loss.
    pub(crate) fn loss(&self) -> &'a [Sample] {
        self.log.loss.map_or(&[], |(_, samples)| samples)
    }

    /// The norm of the whole gradient.
    pub(crate) fn gradient_norm(&self) -> &'a [Sample] {
        self.log.grad_norm.map_or(&[], |(_, samples)| samples)
    }

    /// The steps of all series.
    pub(crate) fn axis(&self) -> StepAxis {
        let several = self.update_ratios.iter().chain(self.tensors);
        let series = [self.loss(), self.gradient_norm(), self.learning_rate].into_iter();
        StepAxis::of(series.chain(several.map(|(_, samples)| &samples[..])))
    }

    pub(crate) fn onset(&self) -> Option<i64> {
        self.log.diagnosis.onset.map(|step| 0_i64.saturating_add_unsigned(step.0))
    }

    pub(crate) fn recovered(&self) -> Option<i64> {
        self.log.diagnosis.recovered.map(|step| 0_i64.saturating_add_unsigned(step.0))
    }
}
