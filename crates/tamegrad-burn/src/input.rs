//! The inputs of a batch, seen on their way into the model.

use std::cell::RefCell;

use burn::tensor::Tensor;
use tamegrad_stats::{ListStats, TensorStats};

use crate::list::TensorList;

thread_local! {
    /// Inputs since the latest step of a guard of this thread.
    static INPUTS: RefCell<Vec<(String, TensorStats)>> = const { RefCell::new(Vec::new()) };
}

/// Most inputs that are kept: a loop that never steps a guard must not use more and more memory.
const INPUTS_MAX: usize = 64;

/// Shows the input of the model to the guard whose step comes next on this thread, and returns it as
/// it is. With it, a batch that is not finite or far from the usual is recognised as the cause. The inputs of
/// a validation pass (`model.valid()`) are not looked at.
pub fn input<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    named_input("input", input)
}

/// [`input`] of a model that has several, each under a name that stays the same.
pub fn named_input<const D: usize>(name: &str, input: Tensor<D>) -> Tensor<D> {
    if !input.device().is_autodiff() {
        return input;
    }
    let mut list = TensorList::default();
    list.push_measured(input.clone());
    let stats = list.scan(&mut ListStats::default()).next();
    if let Some(stats) = stats {
        see_input(name, stats);
    }
    input
}

/// [`named_input`] where the statistics are known.
pub fn see_input(name: &str, stats: TensorStats) {
    INPUTS.with_borrow_mut(|inputs| {
        if let Some((_, seen)) = inputs.iter_mut().find(|(seen, _)| seen == name) {
            // The parts of an accumulated batch.
            *seen = tamegrad_stats::merge([&*seen, &stats]);
        } else if inputs.len() < INPUTS_MAX {
            inputs.push((name.to_owned(), stats));
        }
    });
}

/// The inputs since the last call on this thread.
pub(crate) fn take_inputs() -> Vec<(String, TensorStats)> {
    INPUTS.take()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::default_device;

    #[test]
    fn the_inputs_of_a_validation_pass_are_not_looked_at() {
        take_inputs();
        let x = Tensor::<1>::full([3], f32::NAN, &default_device());
        input(x.clone().inner());
        assert_eq!(take_inputs().len(), 0);
        input(x);
        assert_eq!(take_inputs().len(), 1);
    }
}
