//! What a guard measures, as metrics of burn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

/// Digits after the point.
const PRECISION: usize = 3;
/// Steps that are remembered. burn updates metrics on a thread of their own, which is at most a few items
/// behind.
const STEPS_MAX: usize = 16;

/// The numbers of the latest steps, which the guard leaves for the metrics.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured(Arc<Mutex<Steps>>);

#[derive(Debug, Default)]
struct Steps {
    /// Passes so far. Each gives an item to the metrics.
    passes: u64,
    latest: VecDeque<Measures>,
}

/// What is known of a step.
#[derive(Debug, Clone, Copy, Default)]
struct Measures {
    /// Passes before its update.
    passes: u64,
    gradient_norm: Option<f64>,
    update_ratio: Option<f64>,
}

impl Measured {
    pub(super) fn note_pass(&self) {
        self.steps().passes += 1;
    }

    pub(super) fn note_step(&self, gradient_norm: Option<f64>, update_ratio: Option<f64>) {
        let mut steps = self.steps();
        if steps.latest.len() == STEPS_MAX {
            steps.latest.pop_front();
        }
        let passes = steps.passes;
        steps.latest.push_back(Measures { passes, gradient_norm, update_ratio });
    }

    /// The latest step at the end of the item of a pass, counted from 1.
    fn at(&self, item: u64) -> Measures {
        let steps = self.steps();
        let latest = steps.latest.iter().rev().find(|step| step.passes <= item);
        latest.copied().unwrap_or_default()
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number of each step, and its mean over an epoch.
#[derive(Clone)]
struct PerStep {
    name: MetricName,
    measured: Measured,
    /// Items seen.
    items: u64,
    state: NumericMetricState,
    /// Whether the latest item has a value.
    is_known: bool,
    /// Values of the epoch.
    count: u64,
}

impl PerStep {
    fn new(name: &str, measured: Measured) -> Self {
        let items = measured.steps().passes;
        let state = NumericMetricState::new();
        Self { name: Arc::new(name.to_owned()), measured, items, state, is_known: false, count: 0 }
    }

    fn update(&mut self, of: impl Fn(Measures) -> Option<f64>) -> SerializedEntry {
        self.items += 1;
        let value = of(self.measured.at(self.items));
        self.is_known = value.is_some();
        let Some(value) = value else { return SerializedEntry::not_available(None) };
        self.count += 1;
        self.state.update(value, 1);
        self.state.compute_update(self.format())
    }

    fn compute(&self) -> SerializedEntry {
        match self.count {
            0 => SerializedEntry::not_available(None),
            _ => self.state.compute_final(self.format()),
        }
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(Arc::clone(&self.name)).precision(PRECISION)
    }

    fn clear(&mut self) {
        self.state.reset();
        (self.is_known, self.count) = (false, 0);
    }
}

/// Makes a metric of a number of each step.
macro_rules! metric_of_steps {
    ($(#[$docs:meta])* $metric:ident, $name:literal, $measure:ident, $description:literal) => {
        $(#[$docs])*
        #[derive(Clone)]
        pub struct $metric(PerStep);

        impl $metric {
            pub(super) fn new(measured: Measured) -> Self {
                Self(PerStep::new($name, measured))
            }
        }

        impl std::fmt::Debug for $metric {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($metric)).finish_non_exhaustive()
            }
        }

        impl Metric for $metric {
            type Input = ();

            fn name(&self) -> MetricName {
                Arc::clone(&self.0.name)
            }

            fn description(&self) -> Option<String> {
                Some($description.to_owned())
            }

            fn attributes(&self) -> MetricAttributes {
                NumericAttributes { unit: None, higher_is_better: false }.into()
            }

            fn update(
                &mut self,
                _: &(),
                _: &MetricMetadata,
            ) -> Result<SerializedEntry, TensorReadError> {
                Ok(self.0.update(|step| step.$measure))
            }

            fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
                Ok(self.0.compute())
            }

            fn clear(&mut self) {
                self.0.clear();
            }
        }

        impl Numeric for $metric {
            fn value(&self) -> Option<NumericEntry> {
                self.0.is_known.then(|| self.0.state.current_value())
            }

            fn running_value(&self) -> Option<NumericEntry> {
                (self.0.count > 0).then(|| self.0.state.running_value())
            }

            fn final_value(&self) -> NumericEntry {
                self.0.state.final_value()
            }
        }
    };
}

metric_of_steps! {
    /// The L2 norm of the whole gradient in each step, without elements that are not finite, and its mean
    /// over an epoch. Made by [`Guarded::gradient_norm`](super::Guarded::gradient_norm).
    GradientNorm, "Gradient Norm", gradient_norm, "L2 norm of the whole gradient"
}

metric_of_steps! {
    /// How large an update is beside the weights that it changes, |ΔW| / |W|: the largest of all weight
    /// matrices in each step, and its mean over an epoch. A step that is skipped has none. Made by
    /// [`Guarded::update_ratio`](super::Guarded::update_ratio).
    UpdateRatio, "Update Ratio", update_ratio, "largest |ΔW| / |W| of a weight matrix"
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::data::dataloader::Progress;

    #[test]
    fn a_step_is_told_from_the_item_that_it_came_with_and_none_is_not_zero() {
        let measured = Measured::default();
        let mut metric = GradientNorm::new(measured.clone());
        let progress = Progress::new(0, 0, None);
        let metadata = MetricMetadata { progress, iteration: None, lr: None };
        let mut update = || {
            let entry = metric.update(&(), &metadata).expect("no tensor is read");
            let [value, running] = [metric.value(), metric.running_value()];
            (entry.serialized, [value, running].map(|entry| entry.map(|entry| entry.current())))
        };
        // Two passes are accumulated to a step; the metrics run behind.
        for norm in [Some(2.0), Some(6.0), None] {
            measured.note_pass();
            measured.note_pass();
            measured.note_step(norm, None);
        }
        assert_eq!(update(), ("N/A".to_owned(), [None, None]));
        assert_eq!(update(), ("2,1".to_owned(), [Some(2.0), Some(2.0)]));
        assert_eq!(update(), ("2,1".to_owned(), [Some(2.0), Some(2.0)]));
        assert_eq!(update(), ("6,1".to_owned(), [Some(6.0), Some(10.0 / 3.0)]));
        assert_eq!(update(), ("6,1".to_owned(), [Some(6.0), Some(4.0)]));
        assert_eq!(update(), ("N/A".to_owned(), [None, Some(4.0)]));
        assert_eq!(metric.compute().expect("no tensor is read").serialized, "4,final");
        metric.clear();
        assert_eq!(metric.compute().expect("no tensor is read").serialized, "N/A");
    }
}
