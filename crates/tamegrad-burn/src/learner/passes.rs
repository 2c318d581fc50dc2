//! Which copy of a model the guard follows, and what passes have shown since its latest step.

use std::sync::Arc;

use tamegrad::TensorStats;

/// The forks that led from the model that was wrapped to a copy of it; the last is the copy's own.
///
/// burn's `Learner` forks the model onto the device that it trains on. With several devices, each has a
/// fork: one for every pass, or with distributed data parallel training one that makes its own steps.
#[derive(Debug, Clone)]
pub(super) struct Lineage(Arc<[u64]>);

impl Lineage {
    /// The model that was wrapped.
    pub(super) fn root() -> Self {
        Self(Arc::new([0]))
    }

    /// A fork of this copy, with a number that no other has.
    pub(super) fn fork(&self, number: u64) -> Self {
        Self(self.0.iter().copied().chain([number]).collect())
    }

    /// This copy without those before it, once the guard follows it.
    pub(super) fn alone(&self) -> Self {
        Self(Arc::new([self.own()]))
    }

    fn own(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    fn descends_from(&self, copy: u64) -> bool {
        self.0.contains(&copy)
    }
}

/// What a pass has shown.
pub(super) struct Pass {
    /// The copy that made it.
    pub(super) by: Lineage,
    /// `None` if it could not be read.
    pub(super) loss: Option<f64>,
    pub(super) inputs: Vec<(String, TensorStats)>,
}

/// The passes since the latest step.
#[derive(Default)]
pub(super) struct Passes {
    /// The copy that made the latest step of the guard.
    followed: Option<u64>,
    seen: Vec<Pass>,
}

/// What the passes of one step have shown.
pub(super) struct Seen {
    /// The mean of their losses, of those that are known.
    pub(super) loss: Option<f64>,
    pub(super) inputs: Vec<(String, TensorStats)>,
    /// Whether this copy makes its first step.
    pub(super) is_first: bool,
}

impl Passes {
    /// Forgets passes that no step came after.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    /// Keeps a pass of the followed copy, or of a fork of it.
    pub(super) fn push(&mut self, pass: Pass) {
        if self.followed.is_none_or(|copy| pass.by.descends_from(copy)) {
            self.seen.push(pass);
        }
    }

    /// The passes of the step that a copy is about to make. `None` if the guard follows another: it
    /// follows the first copy that makes a step, and then forks of that copy.
    pub(super) fn take(&mut self, by: &Lineage) -> Option<Seen> {
        if self.followed.is_some_and(|copy| !by.descends_from(copy)) {
            return None;
        }
        let is_first = self.followed.replace(by.own()) != Some(by.own());
        let mut passes = std::mem::take(&mut self.seen);
        passes.retain(|pass| pass.by.descends_from(by.own()));
        let losses: Vec<f64> = passes.iter().filter_map(|pass| pass.loss).collect();
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let loss = (!losses.is_empty()).then_some(mean);
        let inputs = passes.into_iter().flat_map(|pass| pass.inputs).collect();
        Some(Seen { loss, inputs, is_first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(by: &Lineage, loss: impl Into<Option<f64>>) -> Pass {
        Pass { by: by.clone(), loss: loss.into(), inputs: Vec::new() }
    }

    /// The loss of the next step of a copy, and whether it is its first.
    fn taken(passes: &mut Passes, by: &Lineage) -> Option<(Option<f64>, bool)> {
        passes.take(by).map(|seen| (seen.loss, seen.is_first))
    }

    #[test]
    fn a_step_has_the_mean_loss_of_its_passes_and_of_those_of_its_forks() {
        let mut passes = Passes::default();
        let trained = Lineage::root().fork(1);
        passes.push(pass(&trained.fork(2), 3.0));
        passes.push(pass(&trained.fork(3), 5.0));
        passes.push(pass(&trained, None));
        assert_eq!(taken(&mut passes, &trained), Some((Some(4.0), true)));
        assert_eq!(taken(&mut passes, &trained), Some((None, false)));
        passes.push(pass(&trained, None));
        assert_eq!(taken(&mut passes, &trained), Some((None, false)), "not NaN");
        passes.push(pass(&trained, f64::NAN));
        let (loss, _) = taken(&mut passes, &trained).expect("followed");
        assert!(loss.is_some_and(f64::is_nan));
    }

    #[test]
    fn the_first_to_step_is_followed_and_its_forks_take_over() {
        let mut passes = Passes::default();
        let replicas = [1, 2].map(|number| Lineage::root().fork(number));
        passes.push(pass(&replicas[0], 1.0));
        passes.push(pass(&replicas[1], 2.0));
        assert_eq!(taken(&mut passes, &replicas[1]), Some((Some(2.0), true)));
        passes.push(pass(&replicas[0], 3.0));
        assert_eq!(taken(&mut passes, &replicas[0]), None);
        assert!(passes.seen.is_empty(), "what is not followed is not kept");

        // The user forks the trained model, and so does the next launch.
        let again = replicas[1].alone().fork(3).fork(4);
        assert_eq!(taken(&mut passes, &again), Some((None, true)));
        assert_eq!(taken(&mut passes, &replicas[1]), None);
    }
}
