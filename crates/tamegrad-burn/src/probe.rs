//! Probes at the outputs of layers: what passes forward, and the gradient that comes back.

use std::cell::RefCell;

use burn::tensor::{Gradients, Tensor, TensorData};
use tamegrad::LayerSample;
use tamegrad_stats::{ListStats, TensorStats};

use crate::list::TensorList;

/// Adds the gradient of a tap's leaf to the list, if one came back, and gives its position.
type Leaf = Box<dyn FnOnce(&mut Gradients, &mut TensorList) -> Option<usize>>;

/// The probes of one forward and backward pass. Unarmed, they do nothing.
///
/// An armed probe adds a leaf of zeros to a layer's output; the gradient of that leaf is the
/// gradient of the loss with respect to the output. The zeros are negative: x + (-0) is x to the
/// bit for every x, whereas -0 + 0 would be 0.
#[derive(Default)]
pub struct Probes {
    armed: bool,
    /// Outputs, and after the backward pass gradients.
    list: RefCell<TensorList>,
    input: RefCell<Option<Tap>>,
    layers: RefCell<Vec<Tap>>,
}

struct Tap {
    /// Position in the list.
    output: usize,
    leaf: Leaf,
}

impl Probes {
    /// Probes that see nothing and cost nothing.
    pub fn unarmed() -> Self {
        Self::default()
    }

    /// Probes that see one pass.
    pub fn armed() -> Self {
        Self { armed: true, ..Self::default() }
    }

    /// A probe at the network's input (float tensors only: an index has no gradient).
    pub fn input<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        if !self.armed {
            return input;
        }
        let (output, tap) = self.probe(input);
        *self.input.borrow_mut() = Some(tap);
        output
    }

    /// A probe at the output of the next layer, in order of execution. Forward values pass
    /// unchanged to the bit.
    pub fn tap<const D: usize>(&self, output: Tensor<D>) -> Tensor<D> {
        if !self.armed {
            return output;
        }
        let (output, tap) = self.probe(output);
        self.layers.borrow_mut().push(tap);
        output
    }

    /// What the probes saw, after the backward pass. `None` if they were unarmed.
    pub fn collect(self, gradients: &mut Gradients) -> Option<tamegrad::observe::LayerTrace> {
        if !self.armed {
            return None;
        }
        let mut list = self.list.into_inner();
        let mut positions = |tap: Tap| (tap.output, (tap.leaf)(gradients, &mut list));
        let input = self.input.into_inner().map(&mut positions);
        let layers: Vec<_> = self.layers.into_inner().into_iter().map(positions).collect();
        let stats: Vec<TensorStats> = list.scan(&mut ListStats::default()).collect();
        let sample = |(output, delta): (usize, Option<usize>)| {
            LayerSample::new(stats[output], delta.map(|delta| stats[delta]))
        };
        Some(tamegrad::observe::LayerTrace {
            input: input.map(sample),
            layers: layers.into_iter().map(sample).collect(),
        })
    }

    fn probe<const D: usize>(&self, value: Tensor<D>) -> (Tensor<D>, Tap) {
        let output = self.list.borrow_mut().push_measured(value.clone());
        let leaf = negative_zeros(&value).require_grad();
        let probed = value + leaf.clone();
        let gradient = move |gradients: &mut Gradients, list: &mut TensorList| {
            leaf.grad_remove(gradients).map(|gradient| list.push(gradient))
        };
        (probed, Tap { output, leaf: Box::new(gradient) })
    }
}

fn negative_zeros<const D: usize>(like: &Tensor<D>) -> Tensor<D> {
    let zero = TensorData::new(vec![-0.0f32], [1; D]);
    let zero: Tensor<D> = Tensor::from_data(zero, (&like.device(), like.dtype()));
    zero.expand(like.dims())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::default_device;

    #[test]
    fn forward_values_are_the_same_to_the_bit() {
        let values = [0.0f32, -0.0, 1.5, -3e-42, f32::MAX, f32::INFINITY, f32::MIN_POSITIVE];
        let device = default_device();
        let probes = Probes::armed();
        let out = probes.tap(Tensor::<1>::from_data(values, &device));
        let out = out.inner().into_data();
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(out.as_slice::<f32>().unwrap()), bits(&values));
    }

    #[test]
    fn the_gradient_at_each_tap_is_that_of_the_chain_rule() {
        // y = 400 * (100 * x): dL/dx = 40,000, dL/d(100 x) = 400, dL/dy = 1.
        let device = default_device();
        let probes = Probes::armed();
        let x = probes.input(Tensor::<1>::from_data([0.5f32], &device));
        let h = probes.tap(x * 100.0);
        let y = probes.tap(h * 400.0);
        let mut gradients = y.sum().backward();
        let trace = probes.collect(&mut gradients).expect("armed");
        let delta = |sample: &LayerSample| sample.delta.map(|stats| stats.l2);
        assert_eq!(trace.input.as_ref().and_then(delta), Some(40_000.0));
        assert_eq!(trace.layers.iter().map(delta).collect::<Vec<_>>(), [Some(400.0), Some(1.0)]);
        assert_eq!(trace.layers[1].output.max_abs, 20_000.0);
    }

    #[test]
    fn unarmed_probes_leave_no_trace() {
        let device = default_device();
        let probes = Probes::unarmed();
        let x = Tensor::<1>::from_data([2.0f32], &device).require_grad();
        let mut gradients = probes.tap(x * 3.0).sum().backward();
        assert_eq!(probes.collect(&mut gradients), None);
    }
}
