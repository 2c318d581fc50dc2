//! Probes at the outputs of layers: what passes forward, and the gradient that comes back.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Display};

use burn::tensor::{Gradients, Tensor, TensorData};
use tamegrad::observe::LayerTrace;
use tamegrad::{LayerInfo, LayerSample};
use tamegrad_stats::{ListStats, TensorStats};

use crate::list::TensorList;

/// Adds the gradient of a tap's leaf to the list, if one came back, and gives its position.
type Leaf = Box<dyn FnOnce(&mut Gradients, &mut TensorList) -> Option<usize> + Send>;

/// The probes of a forward and backward pass. Unarmed, they do nothing.
///
/// An armed probe adds a leaf of zeros to a layer's output; the gradient of that leaf is the
/// gradient of the loss with respect to the output. The zeros are negative: x + (-0) is x to the
/// bit for every x, whereas -0 + 0 would be 0.
#[derive(Default)]
pub struct Probes {
    armed: Cell<bool>,
    /// Outputs, and after the backward pass gradients.
    list: RefCell<TensorList>,
    input: RefCell<Option<Tap>>,
    layers: RefCell<Vec<(String, Tap)>>,
    /// Layers that were reached more than once in the pass.
    repeated: RefCell<Vec<String>>,
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
        let probes = Self::default();
        probes.arm(true);
        probes
    }

    /// Whether they are to see the next pass. What an earlier pass left is dropped.
    pub(crate) fn arm(&self, armed: bool) {
        self.armed.set(armed);
        self.list.take();
        self.input.take();
        self.layers.take();
        self.repeated.take();
    }

    /// A probe at the network's input (float tensors only: an index has no gradient).
    pub fn input<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        if !self.sees(&input) {
            return input;
        }
        let (output, tap) = self.probe(input);
        *self.input.borrow_mut() = Some(tap);
        output
    }

    /// A probe at the output of a layer: the name of its module, or of several in one. Forward values
    /// pass unchanged to the bit. Where a layer is reached several times in a pass, the first counts;
    /// a time step of a recurrent cell has a name of its own, `cell@3`.
    pub fn tap<const D: usize>(&self, name: impl Display, output: Tensor<D>) -> Tensor<D> {
        if !self.sees(&output) {
            return output;
        }
        let name = name.to_string();
        if self.layers.borrow().iter().any(|(other, _)| *other == name) {
            self.repeated.borrow_mut().push(name);
            return output;
        }
        let (output, tap) = self.probe(output);
        self.layers.borrow_mut().push((name, tap));
        output
    }

    /// Not a pass of validation, from which no gradient comes back.
    fn sees<const D: usize>(&self, value: &Tensor<D>) -> bool {
        self.armed.get() && value.device().is_autodiff()
    }

    /// The layers of the pass, in order of execution; `None` if no probe was reached.
    pub(crate) fn layers(&self) -> Option<Vec<LayerInfo>> {
        let layers = self.layers.borrow();
        let named = layers.iter().map(|(name, _)| LayerInfo::named(name));
        (!layers.is_empty()).then(|| named.collect())
    }

    /// What is wrong with the taps of the pass, for a model with these layers.
    pub(crate) fn problems(&self, layers: Option<&[LayerInfo]>) -> Vec<String> {
        let (taps, mut repeated) = (self.layers.borrow(), self.repeated.borrow().clone());
        repeated.dedup();
        let twice = repeated.into_iter().map(|name| {
            format!(
                "layer `{}` is tapped more than once in a pass, so only its first output is \
                 measured; hint: give each use a name of its own, such as `{}@1`",
                name.escape_debug(),
                name.escape_debug()
            )
        });
        let is_tapped = |layer: &&LayerInfo| taps.iter().any(|(name, _)| *name == layer.name);
        let is_known = |name: &str| layers.is_none_or(|all| all.iter().any(|of| of.name == name));
        let missing = layers.unwrap_or_default().iter().filter(|layer| !is_tapped(layer));
        let missing = missing.map(|layer| {
            format!(
                "layer `{}` was not reached by a pass, so its gains are not known",
                layer.name.escape_debug()
            )
        });
        let unknown = taps.iter().filter(|(name, _)| !is_known(name)).map(|(name, _)| {
            format!(
                "layer `{}` is tapped, but is not among the layers of the first pass, so it is not \
                 measured",
                name.escape_debug()
            )
        });
        if taps.is_empty() { Vec::new() } else { twice.chain(missing).chain(unknown).collect() }
    }

    /// What the probes saw, after the backward pass: of the layers named, or of all in the order in
    /// which they were reached. `None` if they were unarmed, or no layer was reached.
    pub fn collect(
        &self,
        gradients: &mut Gradients,
        layers: Option<&[LayerInfo]>,
    ) -> Option<LayerTrace> {
        let mut list = self.list.take();
        let mut positions = |tap: Tap| (tap.output, (tap.leaf)(gradients, &mut list));
        let input = self.input.take().map(&mut positions);
        let taps: Vec<_> =
            self.layers.take().into_iter().map(|(name, tap)| (name, positions(tap))).collect();
        if taps.is_empty() {
            return None;
        }
        let stats: Vec<TensorStats> = list.scan(&mut ListStats::default()).collect();
        let sample = |(output, delta): (usize, Option<usize>)| {
            LayerSample::new(stats[output], delta.map(|delta| stats[delta]))
        };
        let of = |layer: &LayerInfo| {
            let tap = taps.iter().find(|(name, _)| *name == layer.name);
            tap.map_or_else(LayerSample::default, |(_, positions)| sample(*positions))
        };
        Some(LayerTrace {
            input: input.map(sample),
            layers: match layers {
                Some(layers) => layers.iter().map(of).collect(),
                None => taps.iter().map(|(_, positions)| sample(*positions)).collect(),
            },
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

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").field("armed", &self.armed.get()).finish_non_exhaustive()
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
        let out = probes.tap("x", Tensor::<1>::from_data(values, &device));
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
        let h = probes.tap("h", x * 100.0);
        let y = probes.tap("y", h * 400.0);
        let mut gradients = y.sum().backward();
        let trace = probes.collect(&mut gradients, None).expect("armed");
        let delta = |sample: &LayerSample| sample.delta.map(|stats| stats.l2);
        assert_eq!(trace.input.as_ref().and_then(delta), Some(40_000.0));
        assert_eq!(trace.layers.iter().map(delta).collect::<Vec<_>>(), [Some(400.0), Some(1.0)]);
        assert_eq!(trace.layers[1].output.max_abs, 20_000.0);
    }

    #[test]
    fn taps_that_do_not_fit_the_layers_are_told() {
        let device = default_device();
        let x = || Tensor::<1>::from_data([2.0f32], &device);
        let pass = |names: &[&str]| {
            let probes = Probes::armed();
            names.iter().for_each(|name| drop(probes.tap(name, x())));
            probes
        };
        let layers = ["a", "b"].map(LayerInfo::named);
        let told = |names: &[&str]| {
            let problems = pass(names).problems(Some(&layers)).into_iter();
            problems.map(|text| text.split(',').next().unwrap_or_default().to_owned())
        };
        assert_eq!(told(&["a", "b"]).count() + told(&[]).count(), 0);
        assert_eq!(
            told(&["a", "a", "a", "c"]).collect::<Vec<_>>(),
            [
                "layer `a` is tapped more than once in a pass",
                "layer `b` was not reached by a pass",
                "layer `c` is tapped",
            ]
        );
        assert_eq!(pass(&["a", "c"]).problems(None), Vec::<String>::new());
    }

    #[test]
    fn a_pass_of_validation_between_steps_is_not_looked_at() {
        let device = default_device();
        let probes = Probes::armed();
        let plain = Tensor::<1>::from_data([2.0f32], &device.clone().inner());
        drop(probes.tap("y", probes.input(plain)));
        assert_eq!(probes.layers(), None);
        let x = Tensor::<1>::from_data([2.0f32], &device).require_grad();
        let mut gradients = probes.tap("y", x * 3.0).sum().backward();
        let trace = probes.collect(&mut gradients, None).expect("one layer");
        assert_eq!((trace.layers.len(), trace.layers[0].output.max_abs), (1, 6.0));
    }

    #[test]
    fn unarmed_probes_leave_no_trace() {
        let device = default_device();
        let probes = Probes::unarmed();
        let x = Tensor::<1>::from_data([2.0f32], &device).require_grad();
        let mut gradients = probes.tap("y", x * 3.0).sum().backward();
        assert_eq!(probes.collect(&mut gradients, None), None);
    }
}
