//! The recurrent network: one cell (plain, LSTM or GRU), read out at the last time step.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, activation};
use rand_chacha::ChaCha8Rng;
use tamegrad::LayerInfo;
use tamegrad_burn::Probes;

use super::{Network, Shape, activate, activation_kind, linear, output_init};
use crate::init::{parameter, spectral_radius};
use crate::recipe::memory::sequence;
use crate::recipe::{self, Cell as Kind};

/// A recurrent network; output = W_out h_T + c. Tensors: `cell.input.weight`
/// `[features, gates * hidden]`, `cell.recurrent.weight` `[hidden, gates * hidden]`,
/// `output.weight`, with 1 (plain), 4 (LSTM) or 3 (GRU) gates side by side.
#[derive(Module, Debug)]
pub struct Rnn {
    cell: Cell,
    output: Linear,
    #[module(skip)]
    sequence: [usize; 2],
}

#[derive(Module, Debug)]
struct Cell {
    input: Linear,
    recurrent: Linear,
    #[module(skip)]
    kind: Kind,
    #[module(skip)]
    activation: recipe::Activation,
}

/// What a cell hands on to its next time step.
struct State {
    /// h, `[batch, hidden]`.
    h: Tensor<2>,
    /// The LSTM's memory c.
    c: Option<Tensor<2>>,
}

impl Cell {
    /// The state after a time step. `x` is the input's part of all gates, `[batch, gates * hidden]`.
    fn step(&self, x: Tensor<2>, before: Option<State>) -> State {
        let driven = before.as_ref().map(|state| self.recurrent.forward(state.h.clone()));
        match self.kind {
            Kind::Plain => State { h: activate(self.activation, plus(x, driven)), c: None },
            Kind::Lstm => lstm(plus(x, driven), before.and_then(|state| state.c)),
            Kind::Gru => gru(x, driven, before.map(|state| state.h)),
        }
    }
}

/// c' = f c + i g, h' = o tanh(c') (Gers et al. 2000); the forget gate starts open, with a bias
/// of 1 (Jozefowicz et al. 2015).
fn lstm(z: Tensor<2>, c: Option<Tensor<2>>) -> State {
    let [i, f, g, o]: [Tensor<2>; 4] = gates(z);
    let new = activation::sigmoid(i) * activation::tanh(g);
    let c = match c {
        Some(c) => c * activation::sigmoid(f + 1.0) + new,
        None => new,
    };
    State { h: activation::sigmoid(o) * activation::tanh(c.clone()), c: Some(c) }
}

/// h' = z h + (1 - z) n with n = tanh(x_n + r u_n) (Cho et al. 2014, with the reset gate after
/// the product, as in cuDNN).
fn gru(x: Tensor<2>, driven: Option<Tensor<2>>, h: Option<Tensor<2>>) -> State {
    let [x_r, x_z, x_n]: [Tensor<2>; 3] = gates(x);
    let Some((driven, h)) = driven.zip(h) else {
        let keeps_not = activation::sigmoid(-x_z);
        return State { h: keeps_not * activation::tanh(x_n), c: None };
    };
    let [u_r, u_z, u_n]: [Tensor<2>; 3] = gates(driven);
    let z = activation::sigmoid(x_z + u_z);
    let n = activation::tanh(x_n + activation::sigmoid(x_r + u_r) * u_n);
    State { h: n.clone() + z * (h - n), c: None }
}

/// The parts of the gates side by side.
fn gates<const N: usize>(z: Tensor<2>) -> [Tensor<2>; N] {
    let hidden = z.dims()[1] / N;
    std::array::from_fn(|gate| z.clone().narrow(1, gate * hidden, hidden))
}

fn plus(x: Tensor<2>, driven: Option<Tensor<2>>) -> Tensor<2> {
    match driven {
        Some(driven) => x + driven,
        None => x,
    }
}

impl Rnn {
    /// Draws the weights of a recipe's network. A sample that is no sequence is taken as one of
    /// its rows.
    pub fn new(recipe: &recipe::Rnn, shape: &Shape, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let sequence = sequence(&shape.input);
        let (hidden, activation) = (recipe.hidden, recipe.activation);
        let gates = match recipe.cell {
            Kind::Plain => 1,
            Kind::Lstm => 4,
            Kind::Gru => 3,
        };
        let input = linear(sequence[1], gates * hidden, &recipe.init, activation, rng, device);
        let mut recurrent = linear(hidden, gates * hidden, &recipe.init, activation, rng, device);
        recurrent.bias = None;
        if let Some(radius) = recipe.spectral_radius.filter(|_| gates == 1) {
            let values: Vec<f64> = recurrent.weight.val().into_data().iter::<f64>().collect();
            let factor = radius / spectral_radius(&values, hidden).max(f64::MIN_POSITIVE);
            let scaled = values.into_iter().map(|v| v * factor).collect();
            recurrent.weight = parameter(scaled, [hidden, hidden], device);
        }
        let last = recipe::Activation::Linear;
        let output = linear(hidden, shape.outputs, &output_init(), last, rng, device);
        let cell = Cell { input, recurrent, kind: recipe.cell, activation };
        Self { cell, output, sequence }
    }
}

impl Network for Rnn {
    fn forward(&self, input: Tensor<2>, probes: &Probes) -> Tensor<2> {
        let [batch, _] = input.dims();
        let [steps, features] = self.sequence;
        let input = probes.input(input.reshape([batch, steps, features]));
        let driven = self.cell.input.forward(input);
        let mut state: Option<State> = None;
        for step in 0..steps {
            let x = driven.clone().narrow(1, step, 1).squeeze_dim::<2>(1);
            let State { h, c } = self.cell.step(x, state.take());
            state = Some(State { h: probes.tap(format_args!("cell@{step}"), h), c });
        }
        let last = state.map(|state| state.h);
        let last = last.unwrap_or_else(|| Tensor::zeros([batch, 1], &driven.device()));
        probes.tap("output", self.output.forward(last))
    }

    fn layers(&self) -> Vec<LayerInfo> {
        let bounded = recipe::Activation::Tanh;
        let kind = if self.cell.kind == Kind::Plain { self.cell.activation } else { bounded };
        let step = |index| LayerInfo {
            activation: Some(activation_kind(kind)),
            recurrent: true,
            ..LayerInfo::named(format!("cell@{index}"))
        };
        (0..self.sequence[0]).map(step).chain([LayerInfo::named("output")]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Distribution, Init};
    use rand::SeedableRng;

    const HIDDEN: usize = 3;
    const FEATURES: usize = 2;
    const STEPS: usize = 4;

    fn network(kind: Kind) -> Rnn {
        let recipe = recipe::Rnn {
            hidden: HIDDEN,
            cell: kind,
            activation: recipe::Activation::Tanh,
            init: Init::Xavier { gain: 1.5, distribution: Distribution::Normal },
            spectral_radius: None,
        };
        let shape = Shape { input: vec![STEPS, FEATURES], outputs: 1 };
        let device = tamegrad_burn::default_device();
        Rnn::new(&recipe, &shape, &mut ChaCha8Rng::seed_from_u64(3), &device)
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    /// x W for a row-major W `[x.len(), columns]`.
    fn times(x: &[f64], w: &[f64], columns: usize) -> Vec<f64> {
        let at =
            |column: usize| x.iter().enumerate().map(move |(row, x)| x * w[row * columns + column]);
        (0..columns).map(|column| at(column).sum()).collect()
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// The last state by the equations, in f64.
    fn reference(rnn: &Rnn, inputs: &[f64]) -> Vec<f64> {
        let gates = rnn.cell.input.weight.val().dims()[1] / HIDDEN;
        let (w, u) = (values(rnn.cell.input.weight.val()), values(rnn.cell.recurrent.weight.val()));
        let (mut h, mut c) = (vec![0.0; HIDDEN], vec![0.0; HIDDEN]);
        for x in inputs.chunks(FEATURES) {
            let (x, r) = (times(x, &w, gates * HIDDEN), times(&h, &u, gates * HIDDEN));
            let gate = |g: usize, k: usize| (x[g * HIDDEN + k], r[g * HIDDEN + k]);
            let sum = |g: usize, k: usize| gate(g, k).0 + gate(g, k).1;
            let next: Vec<(f64, f64)> = (0..HIDDEN)
                .map(|k| match rnn.cell.kind {
                    Kind::Plain => (sum(0, k).tanh(), 0.0),
                    Kind::Lstm => {
                        let new = sigmoid(sum(0, k)) * sum(2, k).tanh();
                        let c = c[k] * sigmoid(sum(1, k) + 1.0) + new;
                        (sigmoid(sum(3, k)) * c.tanh(), c)
                    }
                    Kind::Gru => {
                        let z = sigmoid(sum(1, k));
                        let n = (gate(2, k).0 + sigmoid(sum(0, k)) * gate(2, k).1).tanh();
                        (z * h[k] + (1.0 - z) * n, 0.0)
                    }
                })
                .collect();
            (h, c) = next.into_iter().unzip();
        }
        h
    }

    #[test]
    fn each_cell_follows_its_equations() {
        for kind in [Kind::Plain, Kind::Lstm, Kind::Gru] {
            let rnn = network(kind);
            let inputs: Vec<f32> = (0..STEPS * FEATURES).map(|i| (i as f32 * 0.7).sin()).collect();
            let exact: Vec<f64> = inputs.iter().map(|x| f64::from(*x)).collect();
            let device = tamegrad_burn::default_device();
            let input = Tensor::<1>::from_data(&inputs[..], &device).reshape([1, STEPS * FEATURES]);
            let output = values(rnn.forward(input, &Probes::unarmed()));
            let last = times(&reference(&rnn, &exact), &values(rnn.output.weight.val()), 1);
            assert!((output[0] - last[0]).abs() < 1e-5, "{kind:?}: {output:?} {last:?}");
        }
    }
}
